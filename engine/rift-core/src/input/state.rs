//! What is pressed.

use super::InputEvent;
use super::event::{GAMEPADS, KEY_MAX};

/// Most keys and buttons that can be held at once and still be told in one batch.
pub const PRESSED_MAX: usize = 48;

const KEY_WORDS: usize = (KEY_MAX as usize + 1) / 64;

/// The keys, mouse buttons and gamepad buttons that are down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputState {
    keys: [u64; KEY_WORDS],
    buttons: u32,
    gamepads: [u32; GAMEPADS as usize],
}

impl InputState {
    /// Takes note of a valid `event`. Anything but presses and releases changes nothing.
    pub fn apply(&mut self, event: &InputEvent) {
        match *event {
            InputEvent::Key { keycode, pressed } => {
                if let Some(word) = self.keys.get_mut(usize::from(keycode / 64)) {
                    set(word, u64::from(keycode % 64), pressed);
                }
            }
            InputEvent::MouseButton { button, pressed } if button < 32 => {
                set32(&mut self.buttons, button, pressed);
            }
            InputEvent::GamepadButton { gamepad, button, pressed } if button < 32 => {
                if let Some(buttons) = self.gamepads.get_mut(usize::from(gamepad)) {
                    set32(buttons, button, pressed);
                }
            }
            _ => {}
        }
    }

    /// Whether nothing is down.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many keys and gamepad buttons are down: what a batch lists one by one.
    #[must_use]
    pub fn listed(&self) -> usize {
        let keys: u32 = self.keys.iter().map(|w| w.count_ones()).sum();
        let gamepads: u32 = self.gamepads.iter().map(|w| w.count_ones()).sum();
        (keys + gamepads) as usize
    }

    /// The events that lead from `self` to `target`: releases first, then presses.
    pub fn each_difference(&self, target: &Self, mut apply: impl FnMut(InputEvent)) {
        for pressed in [false, true] {
            let changed = |from: u64, to: u64| if pressed { to & !from } else { from & !to };
            for (word, (&from, &to)) in self.keys.iter().zip(&target.keys).enumerate() {
                each_bit(changed(from, to), |bit| {
                    apply(InputEvent::Key { keycode: word as u16 * 64 + u16::from(bit), pressed });
                });
            }
            each_bit(changed(self.buttons.into(), target.buttons.into()), |button| {
                apply(InputEvent::MouseButton { button, pressed });
            });
            for (gamepad, (&from, &to)) in self.gamepads.iter().zip(&target.gamepads).enumerate() {
                each_bit(changed(from.into(), to.into()), |button| {
                    apply(InputEvent::GamepadButton { gamepad: gamepad as u8, button, pressed });
                });
            }
        }
    }

    /// Mouse buttons as `InputBatch.pressed_buttons`.
    pub(super) fn buttons(&self) -> u32 {
        self.buttons
    }

    pub(super) fn set_buttons(&mut self, buttons: u32) {
        self.buttons = buttons;
    }

    /// Entries of `InputBatch.pressed_keys`: key codes, then gamepad buttons as
    /// `(gamepad + 1) << 16 | button`.
    pub(super) fn each_listed(&self, mut give: impl FnMut(u32)) {
        for (word, &bits) in self.keys.iter().enumerate() {
            each_bit(bits, |bit| give(word as u32 * 64 + u32::from(bit)));
        }
        for (gamepad, &bits) in self.gamepads.iter().enumerate() {
            each_bit(bits.into(), |bit| give((gamepad as u32 + 1) << 16 | u32::from(bit)));
        }
    }

    /// Takes note of an entry of `InputBatch.pressed_keys`; numbers that this version does not know
    /// are skipped.
    pub(super) fn press_listed(&mut self, entry: u32) {
        let number = entry as u16;
        let event = match entry >> 16 {
            0 => InputEvent::Key { keycode: number, pressed: true },
            gamepad if gamepad <= u32::from(GAMEPADS) && number < 32 => {
                InputEvent::GamepadButton { gamepad: gamepad as u8 - 1, button: number as u8, pressed: true }
            }
            _ => return,
        };
        self.apply(&event);
    }
}

fn set(word: &mut u64, bit: u64, on: bool) {
    if on { *word |= 1 << bit } else { *word &= !(1 << bit) }
}

fn set32(word: &mut u32, bit: u8, on: bool) {
    if on { *word |= 1 << bit } else { *word &= !(1 << bit) }
}

fn each_bit(mut bits: u64, mut give: impl FnMut(u8)) {
    while bits != 0 {
        give(bits.trailing_zeros() as u8);
        bits &= bits - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event() -> impl Strategy<Value = InputEvent> {
        prop_oneof![
            (0..=KEY_MAX, any::<bool>()).prop_map(|(keycode, pressed)| InputEvent::Key { keycode, pressed }),
            (0u8..32, any::<bool>())
                .prop_map(|(button, pressed)| InputEvent::MouseButton { button, pressed }),
            (0..GAMEPADS, 0u8..32, any::<bool>()).prop_map(|(gamepad, button, pressed)| {
                InputEvent::GamepadButton { gamepad, button, pressed }
            }),
        ]
    }

    fn state() -> impl Strategy<Value = InputState> {
        prop::collection::vec(event(), 0..60).prop_map(|events| {
            let mut state = InputState::default();
            events.iter().for_each(|e| state.apply(e));
            state
        })
    }

    proptest! {
        #[test]
        fn the_difference_leads_from_one_state_to_the_other(from in state(), to in state()) {
            let mut reached = from.clone();
            from.each_difference(&to, |e| reached.apply(&e));
            prop_assert_eq!(reached, to);
        }

        #[test]
        fn the_list_tells_the_whole_state(state in state()) {
            let mut read = InputState::default();
            let mut entries = 0;
            state.each_listed(|entry| {
                entries += 1;
                read.press_listed(entry);
            });
            read.set_buttons(state.buttons());
            prop_assert_eq!(entries, state.listed());
            prop_assert_eq!(read, state);
        }

        #[test]
        fn any_listed_number_is_harmless(entries in prop::collection::vec(any::<u32>(), 0..50)) {
            let mut state = InputState::default();
            entries.iter().for_each(|&e| state.press_listed(e));
            prop_assert!(state.listed() <= entries.len());
        }
    }
}
