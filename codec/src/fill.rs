//! Frames of exactly the size that the rate asks for, whatever is in the picture: for measuring networks.
//!
//! Owns: the filler behind an encoder's last slice. Never: changes what is decoded; filler data (ITU-T H.264 section
//! 7.3.2.7) is skipped by every decoder.
//! Invariant: no frame is smaller than its share of the bitrate; larger ones stay as they are.

use crate::{
    CodecError, EncodeReport, EncodeRequest, EncodedSlice, Encoder, EncoderCapabilities, FrameInput,
    SliceSink,
};

/// Start code and header of a filler unit, and how it ends.
const BEGIN: [u8; 5] = [0, 0, 0, 1, 12];
const END: u8 = 0x80;
/// What the encoder itself gets of the rate, so that there is something to fill.
const OWN_SHARE: f64 = 0.75;

/// Fills the frames of `encoder` up, whose rates are in `bitrate_bps` and `fps`.
pub fn filled(
    mut encoder: Box<dyn Encoder>,
    bitrate_bps: u64,
    fps: f32,
) -> Result<Box<dyn Encoder>, CodecError> {
    encoder.set_bitrate(own(bitrate_bps))?;
    Ok(Box::new(Filled { encoder, bitrate_bps, fps, last: Vec::new() }))
}

struct Filled {
    encoder: Box<dyn Encoder>,
    bitrate_bps: u64,
    fps: f32,
    /// The last slice and what fills its frame.
    last: Vec<u8>,
}

impl Encoder for Filled {
    fn encode(
        &mut self,
        frame: FrameInput<'_>,
        request: &EncodeRequest,
        sink: &mut SliceSink<'_>,
    ) -> Result<EncodeReport, CodecError> {
        let share = (self.bitrate_bps as f64 / 8.0 / f64::from(self.fps.max(1.0))) as usize;
        let (mut bytes, last) = (0, &mut self.last);
        let mut padded = |slice: EncodedSlice<'_>| {
            bytes += slice.data.len();
            if !slice.last || bytes + BEGIN.len() + 2 > share {
                return sink(slice);
            }
            last.clear();
            last.extend_from_slice(slice.data);
            last.extend_from_slice(&BEGIN);
            last.resize(slice.data.len() + share - bytes - 1, 0xff);
            last.push(END);
            sink(EncodedSlice { data: last, ..slice });
        };
        let report = self.encoder.encode(frame, request, &mut padded)?;
        let bytes = u32::try_from(bytes.max(share)).unwrap_or(u32::MAX);
        Ok(EncodeReport { bytes, ..report })
    }

    fn set_bitrate(&mut self, bitrate_bps: u64) -> Result<(), CodecError> {
        self.bitrate_bps = bitrate_bps;
        self.encoder.set_bitrate(own(bitrate_bps))
    }

    fn set_frame_rate(&mut self, fps: f32) -> Result<(), CodecError> {
        self.fps = fps;
        self.encoder.set_frame_rate(fps)
    }

    fn on_acknowledged(&mut self, frame_id: u64) {
        self.encoder.on_acknowledged(frame_id);
    }

    fn capabilities(&self) -> EncoderCapabilities {
        self.encoder.capabilities()
    }
}

fn own(bitrate_bps: u64) -> u64 {
    (bitrate_bps as f64 * OWN_SHARE) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecoderChoice, DecoderConfig, EncoderChoice, EncoderConfig, open_decoder, open_encoder};

    /// Every frame has its share of the rate, of a changed one too, and is decoded as if nothing was filled.
    #[test]
    fn frames_have_their_size_and_decode() {
        let config = EncoderConfig::new(64, 64, 50, 4_000_000);
        let encoder = open_encoder(EncoderChoice::OpenH264, &config).unwrap();
        let mut encoder = filled(encoder, config.bitrate_bps, 50.0).unwrap();
        let mut decoder = open_decoder(DecoderChoice::OpenH264, &DecoderConfig::default()).unwrap();
        let mut pixels = vec![90; 64 * 64 * 4];
        for frame in 0..20_u64 {
            if frame == 10 {
                encoder.set_bitrate(8_000_000).unwrap();
            }
            pixels[frame as usize * 64..][..64].fill(200);
            let mut slices = Vec::new();
            let input = FrameInput::Bgrx { data: &pixels, stride: 256 };
            let mut sink =
                |slice: EncodedSlice<'_>| slices.push((slice.index, slice.last, slice.data.to_vec()));
            let report = encoder.encode(input, &EncodeRequest::frame(frame), &mut sink).unwrap();
            let share = if frame < 10 { 10_000 } else { 20_000 };
            let bytes: usize = slices.iter().map(|(.., data)| data.len()).sum();
            assert_eq!((bytes, report.bytes as usize), (share, share), "frame {frame}");
            for (index, last, data) in &slices {
                decoder.push_slice(frame, *index, *last, data).unwrap();
            }
            let decoded = decoder.poll_frame().unwrap().unwrap();
            assert_eq!((decoded.frame_id, decoded.picture.width), (frame, 64));
        }
    }
}
