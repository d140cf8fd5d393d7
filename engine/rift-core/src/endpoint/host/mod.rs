//! The host's end.

mod config;
mod event;

pub use config::{ControllerKind, HostConfig, StreamOffer};
pub use event::HostEvent;
