//! What the world asks of a host and a client.
//!
//! The seam between the world and the protocol: [`rift_core`]'s endpoints stand behind these traits, and
//! so do the deliberately wrong ones that prove that the checkers see faults. All times are the
//! endpoint's own clock.

use std::net::SocketAddr;

use rift_core::endpoint::Ecn;
use rift_core::send::SenderCounters;
use rift_core::{Bitrate, DropReason, FrameId, Timestamp};

use crate::report::Decision;

/// Datagrams that leave: `len` bytes of the buffer, cut every `segment_len` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Where to.
    pub to: SocketAddr,
    /// Bytes in the buffer.
    pub len: usize,
    /// Length of each datagram but the last.
    pub segment_len: usize,
    /// How they are marked.
    pub ecn: Ecn,
}

/// A sans-IO state machine that is driven with datagrams and time.
pub trait Endpoint {
    /// Takes a datagram that came from `from` with this mark; may change its bytes.
    ///
    /// # Errors
    /// Why it was dropped.
    fn handle_datagram(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        ecn: Ecn,
        datagram: &mut [u8],
    ) -> Result<(), DropReason>;
    /// Is called at [`poll_timeout`](Self::poll_timeout) or later.
    fn handle_timeout(&mut self, now: Timestamp);
    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    fn poll_timeout(&self) -> Timestamp;
    /// Writes what is to be sent next into `buf`.
    fn poll_transmit(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Departure>;
    /// Ends the session with a word to the peer.
    fn close(&mut self, now: Timestamp);
}

/// A part of an encoded frame, with what the host is told about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedSlice<'a> {
    /// The frame.
    pub frame_id: FrameId,
    /// Position in the frame, from 0.
    pub index: u32,
    /// The frame's last.
    pub last: bool,
    /// Decodable without any other frame.
    pub keyframe: bool,
    /// What the frame predicts from.
    pub reference: Option<FrameId>,
    /// When the frame was captured, by the host's clock.
    pub captured_at: Timestamp,
    /// From capture to this moment, in microseconds.
    pub encode_us: u32,
    /// The encoded bytes.
    pub data: &'a [u8],
}

/// The sending end.
pub trait Host: Endpoint {
    /// Takes a slice to be sent.
    ///
    /// # Errors
    /// Why it will not be sent.
    fn submit_slice(&mut self, now: Timestamp, slice: &EncodedSlice<'_>) -> Result<(), DropReason>;
    /// The next notice.
    fn poll_notice(&mut self) -> Option<HostNotice>;
    /// How often the keys of the running session were renewed, for sending and for receiving.
    fn key_generations(&self) -> (u32, u32) {
        (0, 0)
    }
    /// Sets what is to be made and how fast packets leave, where the controller is an oracle.
    fn set_target(&mut self, _now: Timestamp, _video: Bitrate, _fps: u32, _parity: f32, _pace: Bitrate) {}
    /// The next decision about the rate, oldest first. Its time is not used.
    fn poll_decision(&mut self) -> Option<Decision> {
        None
    }
    /// What the video sender of the running session counted.
    fn sender_counters(&self) -> Option<SenderCounters> {
        None
    }
}

/// What a host tells the program around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HostNotice {
    /// A client wants to see pictures.
    SessionStarted,
    /// No client is there any more.
    SessionEnded,
    /// An input event is to be applied.
    Input(Input),
    /// Every key and button must come up.
    ReleaseAllInput,
    /// Only a keyframe helps.
    KeyframeNeeded,
    /// Nothing newer than this frame may be referenced.
    ReferenceInvalidated(FrameId),
    /// The next frame should reference nothing newer, if it need not be a keyframe for that.
    ReferencePreferred(FrameId),
    /// The client has decoded this frame.
    FrameAcknowledged(FrameId),
    /// The encoder's new target.
    RateChanged {
        /// Video without parity.
        bitrate: Bitrate,
        /// Frames per second.
        fps: u32,
    },
    /// So many captured frames should not be encoded.
    SkipFrames(u32),
    /// Nothing should be encoded until this comes with `false`.
    EncoderHeld(bool),
}

/// A slice that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeSlice<'a> {
    /// The frame.
    pub frame_id: FrameId,
    /// Position in the frame, from 0.
    pub index: u32,
    /// The frame's last.
    pub last: bool,
    /// Whether the frame is to be shown, or only decoded for the sake of later ones.
    pub show: bool,
    /// The earliest moment to show the frame at.
    pub show_at: Timestamp,
    /// The latest moment to show the frame at.
    pub deadline: Timestamp,
    /// The encoded bytes.
    pub data: &'a [u8],
}

/// The receiving end.
pub trait Client: Endpoint {
    /// Takes an input event to be sent.
    fn submit_input(&mut self, now: Timestamp, input: Input);
    /// The next slice to be decoded.
    fn poll_slice(&mut self, now: Timestamp) -> Option<WholeSlice<'_>>;
    /// The next notice.
    fn poll_notice(&mut self) -> Option<ClientNotice>;
    /// A frame was decoded without error.
    fn on_decoded(&mut self, now: Timestamp, frame: FrameId);
    /// A frame could not be decoded.
    fn on_decode_failed(&mut self, now: Timestamp, frame: FrameId);
    /// A frame is on the screen.
    fn on_shown(&mut self, now: Timestamp, frame: FrameId);
}

/// What a client tells the program around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientNotice {
    /// The session stands.
    Connected,
    /// There is no session any more, or there will be none.
    Closed,
}

/// An input event, as the checkers need to tell events apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input {
    /// A key by its evdev code.
    Key {
        /// The code.
        code: u16,
        /// Down or up.
        pressed: bool,
    },
    /// A mouse button.
    Button {
        /// From 0.
        button: u8,
        /// Down or up.
        pressed: bool,
    },
    /// The pointer's place, 0..1.
    Pointer {
        /// From the left.
        x: f32,
        /// From the top.
        y: f32,
    },
    /// Motion of the mouse.
    Motion {
        /// To the right.
        dx: f32,
        /// Down.
        dy: f32,
    },
}
