//! A network device by name.
//!
//! Owns two plain values. Never watches the device: an index stays valid until the device is removed.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;

use crate::sys;

/// A network device of the network namespace that the thread was in when it was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    index: u32,
    name: String,
}

impl Interface {
    /// Looks a device up by its name, such as `eth0`.
    ///
    /// # Errors
    ///
    /// When there is none of this name.
    pub fn named(name: &str) -> Result<Self, NoInterface> {
        match sys::device::index_of(name) {
            Ok(index) => Ok(Self { index, name: name.to_owned() }),
            Err(source) => Err(NoInterface { name: name.to_owned(), source }),
        }
    }

    /// The device with this number.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn with_index(index: u32) -> Result<Self, NoInterface> {
        match sys::device::name_of(index) {
            Ok(name) => Ok(Self { index, name }),
            Err(source) => Err(NoInterface { name: format!("with the number {index}"), source }),
        }
    }

    /// The name of its driver, for the log; `unknown` if it has none to tell.
    #[must_use]
    pub fn driver(&self) -> String {
        sys::device::driver_of(&self.name).unwrap_or_else(|_| "unknown".to_owned())
    }

    /// The kernel's number of it.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// There is no such device.
#[derive(Debug, thiserror::Error)]
#[error("there is no network interface {name}: `ip link` lists them ({source})")]
pub struct NoInterface {
    /// What was looked for.
    pub name: String,
    /// What the kernel said.
    pub source: io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_and_nonsense_is_not() {
        assert_eq!(Interface::named("lo").unwrap().index(), 1);
        let error = Interface::named("no-such-device").unwrap_err();
        assert!(error.to_string().contains("`ip link` lists them"), "{error}");
        assert!(Interface::named("a\0b").is_err());
    }
}
