//! What is held down in the window, and the few keys that the window keeps to itself.
//!
//! Owns the state of keys and buttons. Invariant: every press that went out is followed by exactly one release, at the
//! latest when the window loses the keyboard. `F11` (fullscreen) never goes out; `Ctrl+Alt+Shift`, which takes and
//! releases the mouse, does, because the three keys mean nothing by themselves.
#![forbid(unsafe_code)]

use crate::input::InputEvent;

const KEY_LEFTCTRL: u32 = 29;
const KEY_LEFTSHIFT: u32 = 42;
const KEY_RIGHTSHIFT: u32 = 54;
const KEY_LEFTALT: u32 = 56;
const KEY_F11: u32 = 87;
const KEY_RIGHTCTRL: u32 = 97;
const KEY_RIGHTALT: u32 = 100;

/// Codes there are: `KEY_CNT` of the kernel's header.
const CODES: u32 = 0x300;

/// What a key asks of the window itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chord {
    Fullscreen,
    Mouse,
}

/// What follows from a key.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Reaction {
    /// To send.
    pub(super) event: Option<InputEvent>,
    /// To do here.
    pub(super) chord: Option<Chord>,
}

/// Keys and buttons that are down.
#[derive(Debug, Default)]
pub(super) struct Keyboard {
    keys: Held,
    buttons: Held,
    f11: bool,
}

impl Keyboard {
    /// A key went down or up. Repeats and releases of what is up are nothing.
    pub(super) fn on_key(&mut self, keycode: u32, pressed: bool) -> Reaction {
        if keycode == KEY_F11 {
            let toggles = pressed && !self.f11;
            self.f11 = pressed;
            return Reaction { event: None, chord: toggles.then_some(Chord::Fullscreen) };
        }
        let armed = self.all_modifiers();
        if !self.keys.change(keycode, pressed) {
            return Reaction::default();
        }
        let chord = (!armed && self.all_modifiers()).then_some(Chord::Mouse);
        Reaction { event: Some(InputEvent::Key { keycode, pressed }), chord }
    }

    /// A mouse button went down or up.
    pub(super) fn on_button(&mut self, button: u32, pressed: bool) -> Option<InputEvent> {
        self.buttons.change(button, pressed).then_some(InputEvent::MouseButton { button, pressed })
    }

    /// The window lost the keyboard: releases of everything that is down, one per call.
    pub(super) fn poll_release(&mut self) -> Option<InputEvent> {
        self.f11 = false;
        if let Some(keycode) = self.keys.take_any() {
            return Some(InputEvent::Key { keycode, pressed: false });
        }
        self.buttons.take_any().map(|button| InputEvent::MouseButton { button, pressed: false })
    }

    fn all_modifiers(&self) -> bool {
        [(KEY_LEFTCTRL, KEY_RIGHTCTRL), (KEY_LEFTALT, KEY_RIGHTALT), (KEY_LEFTSHIFT, KEY_RIGHTSHIFT)]
            .into_iter()
            .all(|(left, right)| self.keys.holds(left) || self.keys.holds(right))
    }
}

/// Which of the kernel's codes are down.
#[derive(Debug, Default)]
struct Held([u64; (CODES / 64) as usize]);

impl Held {
    /// Notes the new state; whether it is one. Codes beyond the kernel's are never down.
    fn change(&mut self, code: u32, pressed: bool) -> bool {
        let Some(word) = self.0.get_mut((code / 64) as usize) else { return false };
        let before = *word;
        let bit = 1 << (code % 64);
        *word = if pressed { before | bit } else { before & !bit };
        *word != before
    }

    fn holds(&self, code: u32) -> bool {
        self.0.get((code / 64) as usize).is_some_and(|word| word >> (code % 64) & 1 == 1)
    }

    /// One that is down, which is then up.
    fn take_any(&mut self) -> Option<u32> {
        let (index, word) = (0u32..).zip(&mut self.0).find(|(_, word)| **word != 0)?;
        let code = index * 64 + word.trailing_zeros();
        *word &= *word - 1;
        Some(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(keycode: u32, pressed: bool) -> Option<InputEvent> {
        Some(InputEvent::Key { keycode, pressed })
    }

    #[test]
    fn repeats_and_stray_releases_are_nothing() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keyboard.on_key(30, false), Reaction::default());
        assert_eq!(keyboard.on_key(30, true).event, key(30, true));
        assert_eq!(keyboard.on_key(30, true), Reaction::default());
        assert_eq!(keyboard.on_key(30, false).event, key(30, false));
        assert_eq!(keyboard.on_key(u32::MAX, true), Reaction::default());
    }

    #[test]
    fn fullscreen_key_stays_here() {
        let mut keyboard = Keyboard::default();
        let toggle = Reaction { event: None, chord: Some(Chord::Fullscreen) };
        assert_eq!(keyboard.on_key(KEY_F11, true), toggle);
        assert_eq!(keyboard.on_key(KEY_F11, true), Reaction::default(), "held");
        assert_eq!(keyboard.on_key(KEY_F11, false), Reaction::default());
        assert_eq!(keyboard.on_key(KEY_F11, true), toggle);
    }

    #[test]
    fn three_modifiers_toggle_the_mouse_once_and_go_out() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keyboard.on_key(KEY_RIGHTCTRL, true).chord, None);
        assert_eq!(keyboard.on_key(KEY_LEFTSHIFT, true).chord, None);
        let third = keyboard.on_key(KEY_LEFTALT, true);
        assert_eq!((third.event, third.chord), (key(KEY_LEFTALT, true), Some(Chord::Mouse)));
        assert_eq!(keyboard.on_key(KEY_RIGHTALT, true).chord, None, "a fourth changes nothing");
        assert_eq!(keyboard.on_key(KEY_RIGHTALT, false).chord, None);
        keyboard.on_key(KEY_LEFTALT, false);
        assert_eq!(keyboard.on_key(KEY_LEFTALT, true).chord, Some(Chord::Mouse));
    }

    #[test]
    fn everything_held_is_released_once() {
        let mut keyboard = Keyboard::default();
        keyboard.on_key(30, true);
        keyboard.on_key(0x2ff, true);
        keyboard.on_button(0x110, true);
        let released: Vec<_> = std::iter::from_fn(|| keyboard.poll_release()).collect();
        assert_eq!(released.len(), 3);
        assert_eq!(released[0], InputEvent::Key { keycode: 30, pressed: false });
        assert_eq!(released[2], InputEvent::MouseButton { button: 0x110, pressed: false });
        assert_eq!(keyboard.on_key(30, false), Reaction::default(), "its release is not sent twice");
    }
}
