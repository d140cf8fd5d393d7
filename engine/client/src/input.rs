//! What the user does, on its way from the window to the network thread.

use rift_core::input::InputEvent;
use wavry_platform::InputEvent as PlatformEvent;
use wavry_platform::input::BTN_LEFT;
use wavry_runtime::Waker;
use wavry_runtime::spsc::Producer;

use crate::notice::ClientCommand;

/// The sending end. Never blocks: if the network thread is so far behind that the ring is full, what is
/// dropped is made good by the state that travels with every later event.
pub(crate) struct InputLink {
    ring: Producer<ClientCommand>,
    waker: Waker,
}

impl InputLink {
    pub(crate) fn new(ring: Producer<ClientCommand>, waker: Waker) -> Self {
        Self { ring, waker }
    }

    /// Sends one event.
    pub(crate) fn send(&mut self, event: &PlatformEvent) {
        if let Some(event) = to_protocol(event) {
            let _ = self.ring.push(ClientCommand::Input(event));
            self.waker.wake();
        }
    }

    /// Asks for the end of the session.
    pub(crate) fn close(&mut self) {
        let _ = self.ring.push(ClientCommand::Close);
        self.waker.wake();
    }
}

/// The event as the protocol numbers it; `None` for codes that it has no number for.
fn to_protocol(event: &PlatformEvent) -> Option<InputEvent> {
    Some(match *event {
        PlatformEvent::MouseMoveAbs { x, y } => InputEvent::MouseMove { x, y },
        PlatformEvent::MouseMoveRel { dx, dy } => InputEvent::MouseMoveRelative { dx, dy },
        PlatformEvent::MouseButton { button, pressed } => {
            InputEvent::MouseButton { button: u8::try_from(button.checked_sub(BTN_LEFT)?).ok()?, pressed }
        }
        PlatformEvent::Key { keycode, pressed } => {
            InputEvent::Key { keycode: u16::try_from(keycode).ok()?, pressed }
        }
        PlatformEvent::Scroll { dx, dy } => InputEvent::Scroll { dx, dy },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buttons_count_from_the_left_one() {
        let event = PlatformEvent::MouseButton { button: BTN_LEFT + 2, pressed: true };
        assert_eq!(to_protocol(&event), Some(InputEvent::MouseButton { button: 2, pressed: true }));
        let below = PlatformEvent::MouseButton { button: 3, pressed: true };
        assert_eq!(to_protocol(&below), None);
    }
}
