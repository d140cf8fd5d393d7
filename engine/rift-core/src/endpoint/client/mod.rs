//! The client's end.

mod config;
mod event;

pub use config::{ClientConfig, ExpectedHost, Purpose};
pub use event::{ClientEvent, Refusal, StreamInfo, Via};
