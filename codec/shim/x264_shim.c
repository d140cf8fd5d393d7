/* A narrow view of libx264 for Rust.
 *
 * Owns: the library's parameter and picture structures, whose layout changes with every version and is
 * known for certain only to a C compiler. Never: decides anything; all settings come from the caller.
 * Invariant: a callback runs only inside wavry_x264_encode. */

#include <stdint.h>
#include <stdlib.h>
#include <x264.h>

struct wavry_x264_config {
    int32_t width, height, fps;
    int32_t threads;              /* more than one: sliced threads */
    int32_t slice_count;          /* for one thread */
    int32_t slice_macroblocks;    /* for more than one: most macroblocks in a slice */
    int32_t dpb_frames;           /* reference frames kept */
    int32_t intra_refresh_frames; /* period of intra refresh, 0: none */
    int32_t deblocking;
    /* Takes a NAL unit that is not escaped yet; hands `handle` and `nal` to wavry_x264_write. */
    void (*on_unit)(void *context, void *handle, void *nal, int32_t type, int32_t first_macroblock,
                    int32_t last_macroblock, int32_t payload_bytes);
};

struct wavry_x264 {
    x264_t *encoder;
    x264_picture_t picture;
    void (*on_unit)(void *, void *, void *, int32_t, int32_t, int32_t, int32_t);
};

struct wavry_x264_frame {
    const uint8_t *planes[3];
    int32_t strides[3];
    int64_t number;
    int32_t keyframe; /* 1: IDR, 0: predicted, -1: as the library likes (intra refresh) */
    int32_t qp;
    void *context;
};

/* What a picture's opaque pointer leads to while it is encoded. */
struct call {
    const struct wavry_x264 *self;
    void *context;
};

static void on_nal(x264_t *handle, x264_nal_t *nal, void *opaque)
{
    const struct call *call = opaque;
    call->self->on_unit(call->context, handle, nal, nal->i_type, nal->i_first_mb, nal->i_last_mb, nal->i_payload);
}

void wavry_x264_close(struct wavry_x264 *self)
{
    if (!self)
        return;
    if (self->encoder)
        x264_encoder_close(self->encoder);
    free(self);
}

struct wavry_x264 *wavry_x264_open(const struct wavry_x264_config *config)
{
    x264_param_t param;
    struct wavry_x264 *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    if (x264_param_default_preset(&param, "ultrafast", "zerolatency") < 0)
        goto fail;
    param.i_log_level = X264_LOG_NONE;
    param.i_width = config->width;
    param.i_height = config->height;
    param.i_csp = X264_CSP_I420;
    param.i_fps_num = (uint32_t)config->fps;
    param.i_fps_den = 1;
    param.i_timebase_num = 1;
    param.i_timebase_den = (uint32_t)config->fps;
    param.b_vfr_input = 0;
    param.b_annexb = 1;
    param.b_repeat_headers = 1;
    param.b_aud = 0;

    param.i_threads = config->threads;
    param.b_sliced_threads = config->threads > 1;
    param.i_slice_count = config->threads > 1 ? 0 : config->slice_count;
    param.i_slice_max_mbs = config->threads > 1 ? config->slice_macroblocks : 0;

    param.i_bframe = 0;
    param.i_frame_reference = 1;
    param.i_dpb_size = config->dpb_frames;
    param.i_scenecut_threshold = 0;
    param.i_keyint_max = X264_KEYINT_MAX_INFINITE;
    if (config->intra_refresh_frames > 0) {
        param.b_intra_refresh = 1;
        param.i_keyint_max = config->intra_refresh_frames;
    }
    param.b_deblocking_filter = config->deblocking;

    /* A fixed quantiser, set anew for every picture. No lookahead, no buffer model. In this mode the library
     * limits the quantiser to what lies between its constants for I, P and B pictures, which are put as far
     * apart as it takes them: I = 31 - 6 log2(10) = 11, B = 31 + 6 log2(10) = 51. */
    param.rc.i_rc_method = X264_RC_CQP;
    param.rc.i_qp_constant = 31;
    param.rc.f_ip_factor = 10.0f;
    param.rc.f_pb_factor = 10.0f;
    param.rc.i_lookahead = 0;
    param.rc.b_mb_tree = 0;
    param.rc.i_aq_mode = X264_AQ_NONE;

    param.vui.b_fullrange = 0;
    param.vui.i_colorprim = 1; /* BT.709, H.264 tables E-3 to E-5 */
    param.vui.i_transfer = 1;
    param.vui.i_colmatrix = 1;

    param.nalu_process = on_nal;
    if (x264_param_apply_profile(&param, "baseline") < 0)
        goto fail;
    self->on_unit = config->on_unit;
    self->encoder = x264_encoder_open(&param);
    if (!self->encoder)
        goto fail;
    x264_picture_init(&self->picture);
    return self;
fail:
    wavry_x264_close(self);
    return NULL;
}

/* Encodes one picture; units go to the callback, possibly from several threads at once. Returns the bytes
 * of all units, or a negative number. */
int32_t wavry_x264_encode(struct wavry_x264 *self, const struct wavry_x264_frame *frame)
{
    struct call call = { self, frame->context };
    x264_picture_t *picture = &self->picture, out;
    x264_nal_t *nals;
    int count;

    x264_picture_init(picture);
    picture->img.i_csp = X264_CSP_I420;
    picture->img.i_plane = 3;
    for (int i = 0; i < 3; i++) {
        picture->img.plane[i] = (uint8_t *)frame->planes[i]; /* the library only reads them */
        picture->img.i_stride[i] = frame->strides[i];
    }
    picture->i_pts = frame->number;
    picture->i_type = frame->keyframe < 0 ? X264_TYPE_AUTO : frame->keyframe ? X264_TYPE_IDR : X264_TYPE_P;
    picture->i_qpplus1 = frame->qp + 1;
    picture->opaque = &call;
    return x264_encoder_encode(self->encoder, &nals, &count, picture, &out);
}

/* Forgets frame `number` and all later ones. */
int32_t wavry_x264_invalidate(struct wavry_x264 *self, int64_t number)
{
    return x264_encoder_invalidate_reference(self->encoder, number);
}

/* Escapes a unit into `to`, which must hold payload_bytes * 3 / 2 + 69, and returns its length. */
int32_t wavry_x264_write(void *handle, void *nal, uint8_t *to)
{
    x264_nal_encode(handle, to, nal);
    return ((x264_nal_t *)nal)->i_payload;
}
