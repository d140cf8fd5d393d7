/* A narrow view of libavcodec's H.264 decoder for Rust.
 *
 * Owns: the library's structures, whose layout changes between versions. Never: decides anything.
 * Invariant: a picture handed out stays valid until the next push. */

#include <libavcodec/avcodec.h>
#include <libavutil/opt.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct wavry_avcodec {
    AVCodecContext *context;
    AVPacket *packet;
    AVFrame *frame;
    AVBufferRef *buffer; /* input with the padding that the library reads beyond the end */
    size_t capacity;
};

struct wavry_avcodec_picture {
    const uint8_t *planes[3];
    int32_t strides[3];
    int32_t width, height;
    int32_t damaged; /* the library found an error or concealed something */
};

void wavry_avcodec_close(struct wavry_avcodec *self)
{
    if (!self)
        return;
    avcodec_free_context(&self->context);
    av_packet_free(&self->packet);
    av_frame_free(&self->frame);
    av_buffer_unref(&self->buffer);
    free(self);
}

struct wavry_avcodec *wavry_avcodec_open(size_t slice_bytes_max)
{
    const AVCodec *codec = avcodec_find_decoder(AV_CODEC_ID_H264);
    struct wavry_avcodec *self = calloc(1, sizeof *self);
    if (!codec || !self)
        goto fail;
    av_log_set_level(AV_LOG_QUIET);
    self->context = avcodec_alloc_context3(codec);
    self->packet = av_packet_alloc();
    self->frame = av_frame_alloc();
    self->capacity = slice_bytes_max;
    self->buffer = av_buffer_allocz(slice_bytes_max + AV_INPUT_BUFFER_PADDING_SIZE);
    if (!self->context || !self->packet || !self->frame || !self->buffer)
        goto fail;
    self->context->flags |= AV_CODEC_FLAG_LOW_DELAY;
    /* Packets are parts of a picture: decode them as they come, put the picture out when it is whole. */
    self->context->flags2 |= AV_CODEC_FLAG2_CHUNKS;
    self->context->thread_count = 1;
    /* A damaged slice is an error, and nothing is concealed. */
    self->context->err_recognition = AV_EF_EXPLODE;
    self->context->error_concealment = 0;
    if (av_opt_set_int(self->context->priv_data, "enable_er", 0, 0) < 0)
        goto fail;
    if (avcodec_open2(self->context, codec, NULL) < 0)
        goto fail;
    return self;
fail:
    wavry_avcodec_close(self);
    return NULL;
}

static int send(struct wavry_avcodec *self, const uint8_t *data, size_t length)
{
    int code;
    memcpy(self->buffer->data, data, length);
    memset(self->buffer->data + length, 0, AV_INPUT_BUFFER_PADDING_SIZE);
    self->packet->data = self->buffer->data;
    self->packet->size = (int)length;
    /* Our reference keeps the buffer; the library takes and drops its own before the next push. */
    self->packet->buf = av_buffer_ref(self->buffer);
    if (!self->packet->buf)
        return AVERROR(ENOMEM);
    code = avcodec_send_packet(self->context, self->packet);
    av_packet_unref(self->packet);
    return code;
}

/* Gives up a picture of which some parts were pushed, and keeps all others. While told that packets are parts,
 * the library takes the first slice of the next picture for a wrong one of this; it forgets the picture when
 * told that a packet is whole. That packet is an access unit delimiter, which starts no picture, so the
 * library's complaint that it holds none is what is wanted. */
void wavry_avcodec_abandon(struct wavry_avcodec *self)
{
    static const uint8_t delimiter[] = { 0, 0, 0, 1, 9, 0xf0 };
    self->context->flags2 &= ~AV_CODEC_FLAG2_CHUNKS;
    if (send(self, delimiter, sizeof delimiter) >= 0)
        while (avcodec_receive_frame(self->context, self->frame) >= 0)
            av_frame_unref(self->frame);
    self->context->flags2 |= AV_CODEC_FLAG2_CHUNKS;
}

/* Decodes part of a picture. Returns 1 if that completed it (described in `picture`), 0 if not, a negative
 * number on an error. */
int32_t wavry_avcodec_push(struct wavry_avcodec *self, const uint8_t *data, size_t length,
                           struct wavry_avcodec_picture *picture)
{
    int code, got = 0;
    if (length > self->capacity)
        return AVERROR(EINVAL);
    av_frame_unref(self->frame);
    code = send(self, data, length);
    if (code < 0)
        return code;
    while ((code = avcodec_receive_frame(self->context, self->frame)) >= 0) {
        const AVFrame *frame = self->frame;
        if (frame->format != AV_PIX_FMT_YUV420P && frame->format != AV_PIX_FMT_YUVJ420P)
            return AVERROR_PATCHWELCOME;
        for (int i = 0; i < 3; i++) {
            picture->planes[i] = frame->data[i];
            picture->strides[i] = frame->linesize[i];
        }
        picture->width = frame->width;
        picture->height = frame->height;
        /* The flag left out is raised for every picture of several slices while the error bookkeeping is off;
         * slices that really fail are errors of avcodec_send_packet. */
        picture->damaged = (frame->decode_error_flags & ~FF_DECODE_ERROR_DECODE_SLICES) != 0 ||
                           (frame->flags & AV_FRAME_FLAG_CORRUPT) != 0;
        got++;
    }
    if (code != AVERROR(EAGAIN))
        return code;
    /* Two pictures from one part means that an unfinished one was put out first: the last one counts, but
     * receiving it again is not possible, so report damage. */
    if (got > 1)
        picture->damaged = 1;
    return got > 0;
}
