//! Two machines on a cable.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part of it, and all of it is for tests"
)]

use wavry_netns::{Namespace, cable, unavailable};

/// `left` has device `l0`, `right` has `r0`; 10.77.0.1 and fd77::1 are on the left, 10.77.0.2 and fd77::2 on the
/// right.
pub(crate) struct Lan {
    pub(crate) left: Namespace,
    pub(crate) right: Namespace,
}

impl Lan {
    /// `None` where namespaces cannot be made.
    pub(crate) fn new(queues: u32) -> Option<Self> {
        if unavailable().is_some() {
            return None;
        }
        let lan = Self { left: Namespace::new("left").unwrap(), right: Namespace::new("right").unwrap() };
        cable((&lan.left, "l0"), (&lan.right, "r0"), queues).unwrap();
        for (machine, device, number) in [(&lan.left, "l0", 1), (&lan.right, "r0", 2)] {
            machine.ip(&format!("address add 10.77.0.{number}/24 dev {device}")).unwrap();
            machine.ip(&format!("address add fd77::{number}/64 dev {device} nodad")).unwrap();
        }
        Some(lan)
    }
}

/// Says why a test is skipped.
pub(crate) fn skip<T>() -> Option<T> {
    eprintln!("skipped: {}", unavailable().unwrap_or_default());
    None
}
