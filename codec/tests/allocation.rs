//! Nothing of ours allocates once a stream runs. (The C libraries have their own heap use, which a Rust
//! allocator does not see.)
#![allow(clippy::unwrap_used)]
// A counting allocator cannot be written without.
#![allow(unsafe_code)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use common::Pattern;
use wavry_codec::{
    DecoderChoice, DecoderConfig, EncodeRequest, EncodedSlice, EncoderChoice, EncoderConfig, FrameInput,
    SliceSink, open_decoder, open_encoder,
};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as our caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as our caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as our caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// One test only: the count is of the whole process.
#[test]
fn a_running_stream_does_not_allocate() {
    const WIDTH: u32 = 640;
    const HEIGHT: u32 = 368;
    let mut pattern = Pattern::new(WIDTH, HEIGHT);
    let pictures: Vec<Vec<u8>> = (0..40).map(|number| pattern.frame(number).to_vec()).collect();
    let encoders = [
        (EncoderChoice::OpenH264, 1),
        (EncoderChoice::OpenH264, 2),
        #[cfg(feature = "x264")]
        (EncoderChoice::X264, 1),
        #[cfg(feature = "x264")]
        (EncoderChoice::X264, 2),
    ];
    let decoders = [
        DecoderChoice::OpenH264,
        #[cfg(feature = "libavcodec")]
        DecoderChoice::Libavcodec,
    ];
    for (choice, threads) in encoders {
        for decoder_choice in decoders {
            let config = EncoderConfig { threads, ..EncoderConfig::new(WIDTH, HEIGHT, 60, 12_000_000) };
            let mut encoder = open_encoder(choice, &config).unwrap();
            let mut decoder = open_decoder(decoder_choice, &DecoderConfig::default()).unwrap();
            let mut before = 0;
            let mut shown = 0;
            for (id, data) in pictures.iter().enumerate() {
                if id == 10 {
                    before = ALLOCATIONS.load(Ordering::Relaxed);
                }
                // A keyframe and a recovery are part of a running stream.
                let request = EncodeRequest {
                    force_keyframe: id == 15,
                    reference_at_most: (id == 25).then_some(24),
                    ..EncodeRequest::frame(id as u64)
                };
                let mut forward = |slice: EncodedSlice<'_>| {
                    decoder.push_slice(slice.frame_id, slice.index, slice.last, slice.data).unwrap();
                };
                let sink: &mut SliceSink<'_> = &mut forward;
                encoder
                    .encode(FrameInput::Bgrx { data, stride: WIDTH as usize * 4 }, &request, sink)
                    .unwrap();
                shown += u32::from(decoder.poll_frame().unwrap().is_some());
            }
            let after = ALLOCATIONS.load(Ordering::Relaxed);
            assert_eq!(shown, 40);
            assert_eq!(after - before, 0, "{choice:?} on {threads} threads to {decoder_choice:?}");
        }
    }
}
