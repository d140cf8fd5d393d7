//! The two ends of a stream, as state machines without input or output.
//!
//! [`HostEndpoint`] serves one port of `wavry-server`: handshakes of anybody, one streaming session,
//! pairing. [`ClientEndpoint`] is one connection of `wavry-client`. Both are driven the same way:
//!
//! * `handle_datagram` for each datagram (opened in place), `handle_timeout` when the time that
//!   `poll_timeout` gave has come, and the `submit_` methods;
//! * after any batch of these at one `now`: on the client `poll_slice`, then on both `poll_transmit` and
//!   `poll_event`, each until it gives nothing, and last `poll_timeout`. Calling one again without a new
//!   input is harmless.
//!
//! ```text
//! both    new(config, now)                 handle_datagram(now, Path, Ecn, &mut [u8]) -> Result<(), DropReason>
//!         handle_timeout(now)              poll_timeout() -> Timestamp
//!         poll_transmit(now, &mut [u8]) -> Option<Transmit>         (give it 64 KiB)
//!         poll_event() -> Option<HostEvent | ClientEvent>           close(now, CloseReason)
//!         drops() -> &DropCounters                                  is_drained() -> bool
//! host    submit_slice(now, &SliceMeta, &[u8]) -> Result<(), DropReason>
//!         submit_audio(now, timestamp, &[u8]) -> Result<(), DropReason>
//!         submit_cursor_shape(CursorShape)     submit_cursor_position(CursorPosition)
//!         submit_clipboard(&str)               set_monitors(Vec<Monitor>)
//!         set_audio_format(AudioFormat)        set_stream(StreamOffer)
//!         set_allowed(now, Vec<WavryId>)       open_pairing(Pin, until)    close_pairing()
//!         session() -> Option<SessionInfo>     target() -> Option<(Bitrate, fps)>
//! client  submit_input(now, InputEvent) -> Result<(), DropReason>
//!         poll_slice(now) -> Option<ReadySlice<'_>>                 poll_audio() -> Option<AudioFrame<'_>>
//!         on_decoded(now, FrameId)  on_decode_failed(now, FrameId)  on_shown(now, FrameId)
//!         select_monitor(u32)       request_display_mode(w, h, fps) submit_clipboard(&str)
//!         clock_offset_us() -> Option<i64>   (host clock less client clock)
//!         session() -> Option<SessionInfo>
//! ```
//!
//! Neither reads a clock, draws randomness that its seed does not give, or allocates per packet or
//! frame once a session runs. Invariant: the same seed and inputs give the same outputs.

mod client;
mod host;
mod info;
mod path;

pub use client::{
    ClientConfig, ClientEndpoint, ClientEvent, ExpectedHost, Purpose, Refusal, StreamInfo, Via,
};
pub use host::{ControllerKind, HostConfig, HostEndpoint, HostEvent, StreamOffer};
pub use info::SessionInfo;
pub use path::{Ecn, Path, TrafficClass, Transmit};
