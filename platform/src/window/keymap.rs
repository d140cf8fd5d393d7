//! Physical keys and mouse buttons of the window library as Linux evdev codes.
//!
//! Owns the table (`linux/input-event-codes.h`), which is the same on every platform the window library runs on. Keys
//! that the library cannot name, on Linux, come with their evdev code already.
#![forbid(unsafe_code)]

use winit::event::MouseButton;
use winit::keyboard::{KeyCode, NativeKeyCode, PhysicalKey};

use crate::input::{BTN_BACK, BTN_EXTRA, BTN_FORWARD, BTN_LEFT, BTN_MIDDLE, BTN_RIGHT, BTN_SIDE, BTN_TASK};

/// The evdev code of a key; `None` for keys that Linux has no code for.
pub fn evdev_of_key(key: PhysicalKey) -> Option<u32> {
    match key {
        PhysicalKey::Code(code) => evdev_of_code(code),
        PhysicalKey::Unidentified(NativeKeyCode::Xkb(code)) => (code != 0).then_some(code),
        PhysicalKey::Unidentified(_) => None,
    }
}

/// The evdev code of a mouse button.
pub fn evdev_of_button(button: MouseButton) -> Option<u32> {
    Some(match button {
        MouseButton::Left => BTN_LEFT,
        MouseButton::Right => BTN_RIGHT,
        MouseButton::Middle => BTN_MIDDLE,
        MouseButton::Back => BTN_SIDE,
        MouseButton::Forward => BTN_EXTRA,
        // X11 hands out its own numbers, Wayland evdev's.
        MouseButton::Other(10) => BTN_FORWARD,
        MouseButton::Other(11) => BTN_BACK,
        MouseButton::Other(12) => BTN_TASK,
        MouseButton::Other(code) => return (0x110..0x120).contains(&code).then_some(u32::from(code)),
    })
}

fn evdev_of_code(code: KeyCode) -> Option<u32> {
    Some(match code {
        KeyCode::Escape => 1,
        KeyCode::Digit1 => 2,
        KeyCode::Digit2 => 3,
        KeyCode::Digit3 => 4,
        KeyCode::Digit4 => 5,
        KeyCode::Digit5 => 6,
        KeyCode::Digit6 => 7,
        KeyCode::Digit7 => 8,
        KeyCode::Digit8 => 9,
        KeyCode::Digit9 => 10,
        KeyCode::Digit0 => 11,
        KeyCode::Minus => 12,
        KeyCode::Equal => 13,
        KeyCode::Backspace => 14,
        KeyCode::Tab => 15,
        KeyCode::KeyQ => 16,
        KeyCode::KeyW => 17,
        KeyCode::KeyE => 18,
        KeyCode::KeyR => 19,
        KeyCode::KeyT => 20,
        KeyCode::KeyY => 21,
        KeyCode::KeyU => 22,
        KeyCode::KeyI => 23,
        KeyCode::KeyO => 24,
        KeyCode::KeyP => 25,
        KeyCode::BracketLeft => 26,
        KeyCode::BracketRight => 27,
        KeyCode::Enter => 28,
        KeyCode::ControlLeft => 29,
        KeyCode::KeyA => 30,
        KeyCode::KeyS => 31,
        KeyCode::KeyD => 32,
        KeyCode::KeyF => 33,
        KeyCode::KeyG => 34,
        KeyCode::KeyH => 35,
        KeyCode::KeyJ => 36,
        KeyCode::KeyK => 37,
        KeyCode::KeyL => 38,
        KeyCode::Semicolon => 39,
        KeyCode::Quote => 40,
        KeyCode::Backquote => 41,
        KeyCode::ShiftLeft => 42,
        KeyCode::Backslash => 43,
        KeyCode::KeyZ => 44,
        KeyCode::KeyX => 45,
        KeyCode::KeyC => 46,
        KeyCode::KeyV => 47,
        KeyCode::KeyB => 48,
        KeyCode::KeyN => 49,
        KeyCode::KeyM => 50,
        KeyCode::Comma => 51,
        KeyCode::Period => 52,
        KeyCode::Slash => 53,
        KeyCode::ShiftRight => 54,
        KeyCode::NumpadMultiply | KeyCode::NumpadStar => 55,
        KeyCode::AltLeft => 56,
        KeyCode::Space => 57,
        KeyCode::CapsLock => 58,
        KeyCode::F1 => 59,
        KeyCode::F2 => 60,
        KeyCode::F3 => 61,
        KeyCode::F4 => 62,
        KeyCode::F5 => 63,
        KeyCode::F6 => 64,
        KeyCode::F7 => 65,
        KeyCode::F8 => 66,
        KeyCode::F9 => 67,
        KeyCode::F10 => 68,
        KeyCode::NumLock => 69,
        KeyCode::ScrollLock => 70,
        KeyCode::Numpad7 => 71,
        KeyCode::Numpad8 => 72,
        KeyCode::Numpad9 => 73,
        KeyCode::NumpadSubtract => 74,
        KeyCode::Numpad4 => 75,
        KeyCode::Numpad5 => 76,
        KeyCode::Numpad6 => 77,
        KeyCode::NumpadAdd => 78,
        KeyCode::Numpad1 => 79,
        KeyCode::Numpad2 => 80,
        KeyCode::Numpad3 => 81,
        KeyCode::Numpad0 => 82,
        KeyCode::NumpadDecimal => 83,
        KeyCode::Lang5 => 85,
        KeyCode::IntlBackslash => 86,
        KeyCode::F11 => 87,
        KeyCode::F12 => 88,
        KeyCode::IntlRo => 89,
        KeyCode::Lang3 | KeyCode::Katakana => 90,
        KeyCode::Lang4 | KeyCode::Hiragana => 91,
        KeyCode::Convert => 92,
        KeyCode::KanaMode => 93,
        KeyCode::NonConvert => 94,
        KeyCode::NumpadEnter => 96,
        KeyCode::ControlRight => 97,
        KeyCode::NumpadDivide => 98,
        KeyCode::PrintScreen => 99,
        KeyCode::AltRight => 100,
        KeyCode::Home => 102,
        KeyCode::ArrowUp => 103,
        KeyCode::PageUp => 104,
        KeyCode::ArrowLeft => 105,
        KeyCode::ArrowRight => 106,
        KeyCode::End => 107,
        KeyCode::ArrowDown => 108,
        KeyCode::PageDown => 109,
        KeyCode::Insert => 110,
        KeyCode::Delete => 111,
        KeyCode::AudioVolumeMute => 113,
        KeyCode::AudioVolumeDown => 114,
        KeyCode::AudioVolumeUp => 115,
        KeyCode::Power => 116,
        KeyCode::NumpadEqual => 117,
        KeyCode::Pause => 119,
        KeyCode::NumpadComma => 121,
        KeyCode::Lang1 => 122,
        KeyCode::Lang2 => 123,
        KeyCode::IntlYen => 124,
        KeyCode::SuperLeft | KeyCode::Meta => 125,
        KeyCode::SuperRight => 126,
        KeyCode::ContextMenu => 127,
        KeyCode::BrowserStop => 128,
        KeyCode::Again => 129,
        KeyCode::Props => 130,
        KeyCode::Undo => 131,
        KeyCode::Copy => 133,
        KeyCode::Open => 134,
        KeyCode::Paste => 135,
        KeyCode::Find => 136,
        KeyCode::Cut => 137,
        KeyCode::Help => 138,
        KeyCode::LaunchApp2 => 140,
        KeyCode::Sleep => 142,
        KeyCode::WakeUp => 143,
        KeyCode::LaunchApp1 => 144,
        KeyCode::LaunchMail => 155,
        KeyCode::BrowserFavorites => 156,
        KeyCode::BrowserBack => 158,
        KeyCode::BrowserForward => 159,
        KeyCode::Eject => 161,
        KeyCode::MediaTrackNext => 163,
        KeyCode::MediaPlayPause => 164,
        KeyCode::MediaTrackPrevious => 165,
        KeyCode::MediaStop => 166,
        KeyCode::BrowserHome => 172,
        KeyCode::BrowserRefresh => 173,
        KeyCode::NumpadParenLeft => 179,
        KeyCode::NumpadParenRight => 180,
        KeyCode::F13 => 183,
        KeyCode::F14 => 184,
        KeyCode::F15 => 185,
        KeyCode::F16 => 186,
        KeyCode::F17 => 187,
        KeyCode::F18 => 188,
        KeyCode::F19 => 189,
        KeyCode::F20 => 190,
        KeyCode::F21 => 191,
        KeyCode::F22 => 192,
        KeyCode::F23 => 193,
        KeyCode::F24 => 194,
        KeyCode::Suspend => 205,
        KeyCode::BrowserSearch => 217,
        KeyCode::MediaSelect => 226,
        KeyCode::Select => 0x161,
        KeyCode::Fn => 0x1d0,
        // Keys of other systems' keyboards, for which Linux has no code.
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use winit::platform::scancode::PhysicalKeyExtScancode as _;

    use super::*;

    #[test]
    fn every_code_the_library_knows_comes_back_as_itself() {
        // On Linux the library makes keys out of evdev codes; its own table is the independent check of ours.
        let mut named = 0;
        // 240 is KEY_UNKNOWN, which the library keeps no number of.
        for code in (1..768).filter(|&code| code != 240) {
            let key = PhysicalKey::from_scancode(code);
            assert_eq!(evdev_of_key(key), Some(code), "{key:?}");
            named += u32::from(matches!(key, PhysicalKey::Code(_)));
            if let Some(back) = key.to_scancode() {
                assert_eq!(back, code);
            }
        }
        assert!(named > 110, "{named} keys have a name");
        assert_eq!(evdev_of_key(PhysicalKey::from_scancode(0)), None);
    }

    #[test]
    fn no_two_buttons_are_one() {
        let buttons = [MouseButton::Left, MouseButton::Right, MouseButton::Middle, MouseButton::Back]
            .into_iter()
            .chain([MouseButton::Forward])
            .chain((10..13).map(MouseButton::Other));
        let codes: BTreeMap<_, _> = buttons.map(|button| (evdev_of_button(button), button)).collect();
        assert_eq!(codes.len(), 8);
        assert!(!codes.contains_key(&None));
        assert_eq!(evdev_of_button(MouseButton::Other(0x113)), Some(BTN_SIDE));
        assert_eq!(evdev_of_button(MouseButton::Other(13)), None);
    }
}
