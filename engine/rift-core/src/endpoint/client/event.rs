//! What a client tells the program around it.

use rift_crypto::PeerProof;

use crate::Bitrate;
use crate::message::proto::{
    AudioFormat, Codec, CursorPosition, CursorShape, Monitor, RefusalReason, Resolution,
};
use crate::session::{CloseReason, Features};

/// Something that the program around a client must know or do.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent {
    /// The host took the client.
    Connected {
        /// Who the host proved to be.
        peer: PeerProof,
        /// What it streams; without a picture where none was asked for.
        stream: StreamInfo,
        /// Which handshake it was.
        via: Via,
    },
    /// The PIN was right on both sides: remember the host.
    Paired {
        /// Identity and static key.
        host: PeerProof,
    },
    /// The host does not know this client; it must be paired first.
    PairingRequired,
    /// The host does not take this client, for another reason. `Closed` follows.
    Refused(Refusal),
    /// The PIN was wrong.
    WrongPin {
        /// How many more tries the host grants.
        attempts_left: u32,
    },
    /// The session, or the attempt at one, is over. Comes exactly once.
    Closed(CloseReason),
    /// The cursor looks like this now.
    CursorShape(CursorShape),
    /// The cursor is here now.
    CursorPosition(CursorPosition),
    /// What can be chosen from.
    Monitors(Vec<Monitor>),
    /// The sound has this format from now on.
    AudioFormat(AudioFormat),
    /// The host drives its encoder at this from now on.
    StreamChanged {
        /// Of the video.
        bitrate: Bitrate,
        /// Frames per second.
        fps: u32,
    },
    /// The host's clipboard.
    Clipboard(String),
    /// A round trip was measured, in microseconds.
    RttSample(u64),
}

/// What a host streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// How the video is encoded.
    pub codec: Codec,
    /// Of the picture, in pixels; `None` where no stream was asked for.
    pub resolution: Option<Resolution>,
    /// Frames per second.
    pub fps: u32,
    /// At the start.
    pub initial_bitrate: Bitrate,
    /// The extensions in use.
    pub features: Features,
    /// The session's name on both sides, for logs.
    pub session_id: [u8; 16],
}

/// Which handshake connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Noise XX: the host's static key was not known, or not accepted.
    Xx,
    /// Noise IK.
    Ik,
}

/// Why a host does not take a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The host said so inside the sealed channel.
    Host(RefusalReason),
    /// Somebody on the path, most likely the host, said so before a channel was there.
    Unauthenticated(u8),
}
