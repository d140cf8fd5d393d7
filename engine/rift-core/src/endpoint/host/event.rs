//! What a host tells the program around it.

use crate::delta2::Scale;
use crate::input::InputEvent;
use crate::message::proto::Resolution;
use crate::session::{CloseReason, Features};
use crate::{Bitrate, FrameId};
use rift_crypto::WavryId;

/// Something that the program around a host must know or do.
#[derive(Clone, Debug, PartialEq)]
pub enum HostEvent {
    /// A client streams from now on: begin with a keyframe.
    SessionStarted {
        /// Who.
        peer: WavryId,
        /// What it calls itself; free text from the network.
        name: String,
        /// The largest picture it can show, where it said.
        max_resolution: Option<Resolution>,
        /// The frame rate of the session: the lower one of the offer's and the client's.
        fps: u32,
        /// The first bitrate for the encoder.
        bitrate: Bitrate,
        /// The extensions in use.
        features: Features,
    },
    /// The session is over. Comes once after each `SessionStarted`.
    SessionEnded {
        /// Whose it was.
        peer: WavryId,
        /// Why.
        reason: CloseReason,
    },
    /// Inject this now.
    Input(InputEvent),
    /// Let go of every key and button. Comes with every end of a session.
    ReleaseAllInput,
    /// The next frame must be decodable alone.
    KeyframeNeeded,
    /// The next frame must not reference anything newer than this.
    ReferenceInvalidated {
        /// The newest frame that the client decoded well.
        last_valid: FrameId,
    },
    /// Better let the next frame reference nothing newer than this: what is newer may be lost, and it would take long
    /// until that is known. An encoder that would have to make a keyframe for it passes it over.
    ReferencePreferred {
        /// A frame that the client has decoded.
        known: FrameId,
    },
    /// The client decoded this frame, and so has all that it was predicted from. Later frames may be
    /// acknowledged though this one's own acknowledgement was lost.
    FrameAcknowledged(FrameId),
    /// Set the encoder to this.
    RateChanged {
        /// Of the video, without parity.
        bitrate: Bitrate,
        /// Frames per second.
        fps: u32,
        /// Parity packets per data packet.
        parity: f32,
    },
    /// Leave out so many frames.
    SkipFrames(u32),
    /// Encode nothing until this comes again with `false`: what was sent has not arrived, and more would only
    /// wait behind it.
    EncoderHeld(bool),
    /// The rate suffices for a picture of this size. A program may scale, or leave it to the encoder's
    /// quantiser.
    ScaleChanged(Scale),
    /// Capture this monitor.
    MonitorSelected(u32),
    /// The client asks for another display mode.
    DisplayModeRequested {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Frames per second.
        fps: u32,
    },
    /// A client proved the PIN; put it on the allow-list file. The host takes it from now on.
    Paired {
        /// Who.
        id: WavryId,
        /// What it calls itself; free text from the network.
        name: String,
    },
    /// A wrong PIN was tried.
    PairingFailed {
        /// How many more tries there are; 0 means that pairing mode is over.
        attempts_left: u32,
    },
    /// Pairing mode is over because its time is.
    PairingExpired,
    /// The client's clipboard.
    Clipboard(String),
    /// A client was turned away.
    ClientRefused {
        /// Who.
        peer: WavryId,
        /// Why.
        reason: crate::message::proto::RefusalReason,
    },
}
