//! One thing that a person did.

use crate::Timestamp;
use crate::message::proto;

/// One input event. Numbers are those of Linux input devices (`linux/input-event-codes.h`), so that a
/// key means a place on the keyboard and not a letter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InputEvent {
    /// The pointer is at this place of the picture.
    MouseMove {
        /// From the left edge, 0 to 1.
        x: f32,
        /// From the top edge, 0 to 1.
        y: f32,
    },
    /// The mouse moved, in its own counts, not accelerated.
    MouseMoveRelative {
        /// To the right.
        dx: f32,
        /// Down.
        dy: f32,
    },
    /// A mouse button changed.
    MouseButton {
        /// Code less `BTN_LEFT`: 0 left, 1 right, 2 middle, 3 side, 4 extra; below 32.
        button: u8,
        /// Down.
        pressed: bool,
    },
    /// A key changed.
    Key {
        /// `KEY_*` code, at most `KEY_MAX` (0x2ff).
        keycode: u16,
        /// Down.
        pressed: bool,
    },
    /// The wheel turned.
    Scroll {
        /// To the right, in detents.
        dx: f32,
        /// Up (away from the user), in detents.
        dy: f32,
    },
    /// A stick, trigger or hat moved.
    GamepadAxis {
        /// Which gamepad, below 4.
        gamepad: u8,
        /// `ABS_*` code.
        axis: u8,
        /// -1 to 1, triggers 0 to 1.
        value: f32,
    },
    /// A gamepad button changed.
    GamepadButton {
        /// Which gamepad, below 4.
        gamepad: u8,
        /// Code less `BTN_GAMEPAD` (0x130), below 32.
        button: u8,
        /// Down.
        pressed: bool,
    },
}

/// An event and when it happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimedEvent {
    /// On the client's clock.
    pub at: Timestamp,
    /// What happened.
    pub event: InputEvent,
}

impl InputEvent {
    /// Whether all numbers are in their ranges. Events that are not are neither sent nor applied.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        match *self {
            Self::MouseMove { x, y } => (0.0..=1.0).contains(&x) && (0.0..=1.0).contains(&y),
            Self::MouseMoveRelative { dx, dy } | Self::Scroll { dx, dy } => dx.is_finite() && dy.is_finite(),
            Self::MouseButton { button, .. } => button < 32,
            Self::Key { keycode, .. } => keycode <= KEY_MAX,
            Self::GamepadAxis { gamepad, value, .. } => gamepad < GAMEPADS && (-1.0..=1.0).contains(&value),
            Self::GamepadButton { gamepad, button, .. } => gamepad < GAMEPADS && button < 32,
        }
    }

    /// Whether this event only says where something is or how far it went, so that two in a row can
    /// be told as one; the merged event, or `None` if these two cannot.
    #[must_use]
    pub fn merged(&self, later: &Self) -> Option<Self> {
        match (*self, *later) {
            (Self::MouseMove { .. }, Self::MouseMove { .. }) => Some(*later),
            (Self::MouseMoveRelative { dx, dy }, Self::MouseMoveRelative { dx: dx2, dy: dy2 }) => {
                Some(Self::MouseMoveRelative { dx: dx + dx2, dy: dy + dy2 })
            }
            (Self::Scroll { dx, dy }, Self::Scroll { dx: dx2, dy: dy2 }) => {
                Some(Self::Scroll { dx: dx + dx2, dy: dy + dy2 })
            }
            (
                Self::GamepadAxis { gamepad, axis, .. },
                Self::GamepadAxis { gamepad: gamepad2, axis: axis2, .. },
            ) => (gamepad == gamepad2 && axis == axis2).then_some(*later),
            _ => None,
        }
    }

    /// Reads a published single input message; it may hold several gamepad changes.
    pub(crate) fn each_of(message: &proto::InputMessage, mut apply: impl FnMut(Self)) {
        use proto::input_message::Event;
        let mut give = |event: Option<Self>| {
            if let Some(event) = event.filter(Self::is_valid) {
                apply(event);
            }
        };
        match &message.event {
            Some(Event::MouseMove(m)) => give(Some(Self::MouseMove { x: m.x, y: m.y })),
            Some(Event::MouseMoveRelative(m)) => give(Some(Self::MouseMoveRelative { dx: m.dx, dy: m.dy })),
            Some(Event::MouseButton(b)) => {
                give(narrow(b.button).map(|button| Self::MouseButton { button, pressed: b.pressed }));
            }
            Some(Event::Key(k)) => {
                let keycode = u16::try_from(k.keycode).ok();
                give(keycode.map(|keycode| Self::Key { keycode, pressed: k.pressed }));
            }
            Some(Event::Scroll(s)) => give(Some(Self::Scroll { dx: s.dx, dy: s.dy })),
            Some(Event::Gamepad(g)) => {
                let Some(gamepad) = narrow(g.gamepad_id) else { return };
                for a in &g.axes {
                    give(narrow(a.axis).map(|axis| Self::GamepadAxis { gamepad, axis, value: a.value }));
                }
                for b in &g.buttons {
                    let pressed = b.pressed;
                    give(narrow(b.button).map(|button| Self::GamepadButton { gamepad, button, pressed }));
                }
            }
            None => {}
        }
    }
}

/// Highest key code of Linux (`KEY_MAX`).
pub(super) const KEY_MAX: u16 = 0x2ff;
/// Gamepads that can be told apart.
pub(super) const GAMEPADS: u8 = 4;

fn narrow(number: u32) -> Option<u8> {
    u8::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_not_valid() {
        assert!(!InputEvent::MouseMove { x: f32::NAN, y: 0.0 }.is_valid());
        assert!(!InputEvent::MouseMove { x: 0.0, y: 1.5 }.is_valid());
        assert!(!InputEvent::Scroll { dx: f32::INFINITY, dy: 0.0 }.is_valid());
        assert!(!InputEvent::MouseButton { button: 32, pressed: true }.is_valid());
        assert!(!InputEvent::Key { keycode: 0x300, pressed: true }.is_valid());
        assert!(InputEvent::Key { keycode: 0x2ff, pressed: true }.is_valid());
        assert!(!InputEvent::GamepadButton { gamepad: 4, button: 0, pressed: true }.is_valid());
    }

    #[test]
    fn only_motion_of_one_kind_merges() {
        let here = InputEvent::MouseMoveRelative { dx: 1.0, dy: 2.0 };
        let there = InputEvent::MouseMoveRelative { dx: 3.0, dy: -1.0 };
        assert_eq!(here.merged(&there), Some(InputEvent::MouseMoveRelative { dx: 4.0, dy: 1.0 }));
        let key = InputEvent::Key { keycode: 30, pressed: true };
        assert_eq!(here.merged(&key), None);
        assert_eq!(key.merged(&key), None);
        let axis = |axis| InputEvent::GamepadAxis { gamepad: 0, axis, value: 0.5 };
        assert_eq!(axis(0).merged(&axis(1)), None);
        assert_eq!(axis(1).merged(&axis(1)), Some(axis(1)));
    }
}
