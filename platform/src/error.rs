//! The error of a device: which device, which operation, what went wrong, and whether retrying helps.
//!
//! One type for capture, injection and presentation, because all three fail for the same reasons (no display, not
//! allowed, an extension is missing, the server went away) and a caller acts on [`DeviceFault`] and [`Retry`], not
//! on which half of the display failed. The text says what to do.
#![forbid(unsafe_code)]

use std::fmt;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What kind of trouble it is; stable, for code to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceFault {
    /// No display is named, or nothing answers at that name.
    NoDisplay,
    /// The display is there and refuses this user.
    NotAuthorised,
    /// The display server lacks this extension.
    MissingExtension(&'static str),
    /// The display has a pixel format or a size that is not handled.
    UnsupportedFormat,
    /// The display was there and went away.
    Lost,
    /// The device takes nothing at the moment; nothing was lost.
    Busy,
    /// The caller asked for something impossible, such as a monitor that does not exist.
    InvalidArgument,
    /// A system call or a program that is needed failed.
    System,
}

/// Whether the same operation can succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not before something outside is changed.
    Never,
    /// The same call can succeed in a moment.
    Later,
    /// After the device was dropped and opened anew.
    Reopen,
}

/// Why an operation on a device failed.
#[derive(Debug)]
pub struct DeviceError {
    device: String,
    operation: &'static str,
    fault: DeviceFault,
    retry: Retry,
    advice: String,
    source: Option<Source>,
}

impl DeviceError {
    /// An error of `operation` on `device`. `advice` is a full sentence: what was found and what to do.
    pub fn new(
        device: impl Into<String>,
        operation: &'static str,
        fault: DeviceFault,
        retry: Retry,
        advice: impl Into<String>,
    ) -> Self {
        Self { device: device.into(), operation, fault, retry, advice: advice.into(), source: None }
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The device, such as `X display :0`.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// What was being done, such as `connect`.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// What kind of trouble it is.
    pub fn fault(&self) -> DeviceFault {
        self.fault
    }

    /// Whether retrying helps.
    pub fn retry(&self) -> Retry {
        self.retry
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.device, self.operation, self.advice)?;
        if let Some(source) = &self.source {
            write!(f, " ({source})")?;
        }
        match self.retry {
            Retry::Never => Ok(()),
            Retry::Later => f.write_str(" Trying again can help."),
            Retry::Reopen => f.write_str(" Opening it again can help."),
        }
    }
}

impl std::error::Error for DeviceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_device_operation_advice_cause_and_retry() {
        let error = DeviceError::new(
            "X display :9",
            "connect",
            DeviceFault::NoDisplay,
            Retry::Later,
            "Nothing answers.",
        )
        .caused_by(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(
            error.to_string(),
            "X display :9: connect: Nothing answers. (connection refused) Trying again can help."
        );
        assert!(std::error::Error::source(&error).is_some());
    }
}
