//! Input events as they travel from a viewer to a host. Owns the vocabulary; never a device.
//!
//! Keys and buttons are Linux evdev codes (`linux/input-event-codes.h`): physical keys, independent of any layout.
//! Positions are fractions of the picture, so that neither side needs to know the other's size.
#![forbid(unsafe_code)]

/// Left mouse button (`BTN_LEFT`).
pub const BTN_LEFT: u32 = 0x110;
/// Right mouse button (`BTN_RIGHT`).
pub const BTN_RIGHT: u32 = 0x111;
/// Middle mouse button (`BTN_MIDDLE`).
pub const BTN_MIDDLE: u32 = 0x112;
/// Thumb button nearer to the wrist, "back" in browsers (`BTN_SIDE`).
pub const BTN_SIDE: u32 = 0x113;
/// Thumb button nearer to the finger, "forward" in browsers (`BTN_EXTRA`).
pub const BTN_EXTRA: u32 = 0x114;
/// Forward button of mice that have one beside the thumb buttons (`BTN_FORWARD`).
pub const BTN_FORWARD: u32 = 0x115;
/// Back button of mice that have one beside the thumb buttons (`BTN_BACK`).
pub const BTN_BACK: u32 = 0x116;
/// Task button (`BTN_TASK`).
pub const BTN_TASK: u32 = 0x117;

/// Something the user did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum InputEvent {
    /// The pointer is at this place: 0 is the left or top edge of the picture, 1 the right or bottom one.
    MouseMoveAbs {
        /// Fraction of the width.
        x: f32,
        /// Fraction of the height.
        y: f32,
    },
    /// The mouse moved by this much, in counts of the device, unaccelerated. Right and down are positive.
    MouseMoveRel {
        /// To the right.
        dx: f32,
        /// Down.
        dy: f32,
    },
    /// A mouse button went down or up.
    MouseButton {
        /// `BTN_LEFT` and so on.
        button: u32,
        /// Down or up.
        pressed: bool,
    },
    /// A key went down or up. Repeats are not sent: the host's own repeat makes them.
    Key {
        /// evdev key code.
        keycode: u32,
        /// Down or up.
        pressed: bool,
    },
    /// The wheel turned, in notches; fractions from touchpads and fine wheels.
    Scroll {
        /// Positive to the right (`REL_HWHEEL`).
        dx: f32,
        /// Positive away from the user, which scrolls up (`REL_WHEEL`).
        dy: f32,
    },
}

impl InputEvent {
    /// Whether every number in it is one. Events from a network are checked by this before they are used.
    pub fn is_finite(&self) -> bool {
        match *self {
            Self::MouseMoveAbs { x, y } => x.is_finite() && y.is_finite(),
            Self::MouseMoveRel { dx, dy } | Self::Scroll { dx, dy } => dx.is_finite() && dy.is_finite(),
            Self::MouseButton { .. } | Self::Key { .. } => true,
        }
    }
}
