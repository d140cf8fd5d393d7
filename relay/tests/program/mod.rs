//! The relay's program, where it may be loaded.

use wavry_xdp::program::LoadError;
use wavry_xdp::relay::{RelayConfig, RelayProgram};

/// `None`, with the reason printed, where eBPF programs may not be loaded.
pub(crate) fn load(config: &RelayConfig) -> Option<RelayProgram> {
    match RelayProgram::load(config) {
        Ok(program) => Some(program),
        Err(error @ LoadError::NotPermitted) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
