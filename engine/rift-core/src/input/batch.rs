//! `InputBatch` and `InputMessage`, written and read without allocation (RIFT section 4).
//!
//! The bytes are those of the generic encoder for `spec/rift.proto`, proved by property test.

use super::{InputEvent, InputState, TimedEvent};
use crate::DropReason;
#[cfg(test)]
use crate::Timestamp;
use crate::message::Malformed;
use crate::message::field::{
    Reader, Value, Writer, bytes_field_len, float_field_len, varint_field_len, varint_len,
};

const MESSAGE_INPUT: u32 = 2;
const MESSAGE_INPUT_BATCH: u32 = 100;

/// Most events that are taken from one batch.
pub(super) const EVENTS_MAX: usize = 64;

/// A batch as received.
pub(super) struct ReceivedBatch {
    pub(super) first_sequence: u64,
    events: [Option<InputEvent>; EVENTS_MAX],
    pub(super) count: usize,
    pub(super) state: InputState,
}

impl ReceivedBatch {
    /// The events in order; `None` where this version does not know an event or it is out of range.
    pub(super) fn events(&self) -> &[Option<InputEvent>] {
        &self.events[..self.count]
    }

    /// Reads the content of an `InputBatch`.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] if it is none, or has more than [`EVENTS_MAX`] events.
    pub(super) fn decode(content: &[u8]) -> Result<Self, DropReason> {
        Self::read(content).map_err(|Malformed| DropReason::Malformed)
    }

    fn read(content: &[u8]) -> Result<Self, Malformed> {
        let mut batch =
            Self { first_sequence: 0, events: [None; EVENTS_MAX], count: 0, state: InputState::default() };
        let mut fields = Reader::new(content);
        while let Some((number, value)) = fields.field()? {
            match number {
                1 => batch.first_sequence = value.number()?,
                2 => {
                    let slot = batch.events.get_mut(batch.count).ok_or(Malformed)?;
                    *slot = decode_event(value.bytes()?)?.filter(InputEvent::is_valid);
                    batch.count += 1;
                }
                3 => match value {
                    // A peer may send a repeated number packed or one by one.
                    Value::Varint(entry) => batch.state.press_listed(entry as u32),
                    _ => {
                        let mut entries = Reader::new(value.bytes()?);
                        while !entries.is_empty() {
                            batch.state.press_listed(entries.varint()? as u32);
                        }
                    }
                },
                4 => batch.state.set_buttons(value.number32()?),
                _ => {}
            }
        }
        Ok(batch)
    }
}

/// Writes `Message { input_batch }` with `events`, the first of them numbered `first_sequence`, and the
/// state after the last, to the start of `out`. `None` if `out` is too short.
pub(super) fn encode_batch<'a>(
    first_sequence: u64,
    events: impl Iterator<Item = &'a TimedEvent> + Clone,
    state: &InputState,
    out: &mut [u8],
) -> Option<usize> {
    let mut listed = 0;
    state.each_listed(|entry| listed += varint_len(entry.into()));
    let content = varint_field_len(1, first_sequence)
        + events.clone().map(|e| bytes_field_len(2, input_len(e))).sum::<usize>()
        + if listed == 0 { 0 } else { bytes_field_len(3, listed) }
        + varint_field_len(4, state.buttons().into());
    let mut w = Writer::new(out.get_mut(..bytes_field_len(MESSAGE_INPUT_BATCH, content))?);
    w.length_prefix(MESSAGE_INPUT_BATCH, content);
    w.varint_field(1, first_sequence);
    for event in events {
        w.length_prefix(2, input_len(event));
        write_input(&mut w, event);
    }
    if listed > 0 {
        w.length_prefix(3, listed);
        state.each_listed(|entry| w.varint(entry.into()));
    }
    w.varint_field(4, state.buttons().into());
    Some(w.len())
}

/// Writes `Message { input }`, the published single event, to the start of `out`.
pub(super) fn encode_single(event: &TimedEvent, out: &mut [u8]) -> Option<usize> {
    let content = input_len(event);
    let mut w = Writer::new(out.get_mut(..bytes_field_len(MESSAGE_INPUT, content))?);
    w.length_prefix(MESSAGE_INPUT, content);
    write_input(&mut w, event);
    Some(w.len())
}

fn input_len(event: &TimedEvent) -> usize {
    let (number, content) = shape(&event.event);
    varint_field_len(1, event.at.as_micros()) + bytes_field_len(number, content)
}

/// Field number in `InputMessage` and content length of an event.
fn shape(event: &InputEvent) -> (u32, usize) {
    match *event {
        InputEvent::MouseMove { x, y } => (2, float_field_len(1, x) + float_field_len(2, y)),
        InputEvent::MouseButton { button, pressed } => {
            (3, varint_field_len(1, button.into()) + varint_field_len(2, pressed.into()))
        }
        InputEvent::Key { keycode, pressed } => {
            (4, varint_field_len(1, keycode.into()) + varint_field_len(2, pressed.into()))
        }
        InputEvent::Scroll { dx, dy } => (5, float_field_len(1, dx) + float_field_len(2, dy)),
        InputEvent::GamepadAxis { gamepad, axis, value } => {
            (6, varint_field_len(1, gamepad.into()) + bytes_field_len(2, axis_len(axis, value)))
        }
        InputEvent::GamepadButton { gamepad, button, pressed } => {
            (6, varint_field_len(1, gamepad.into()) + bytes_field_len(3, pad_button_len(button, pressed)))
        }
        InputEvent::MouseMoveRelative { dx, dy } => (100, float_field_len(1, dx) + float_field_len(2, dy)),
    }
}

fn axis_len(axis: u8, value: f32) -> usize {
    varint_field_len(1, axis.into()) + float_field_len(2, value)
}

fn pad_button_len(button: u8, pressed: bool) -> usize {
    varint_field_len(1, button.into()) + varint_field_len(2, pressed.into())
}

fn write_input(w: &mut Writer<'_>, event: &TimedEvent) {
    w.varint_field(1, event.at.as_micros());
    let (number, content) = shape(&event.event);
    w.length_prefix(number, content);
    match event.event {
        InputEvent::MouseMove { x: a, y: b }
        | InputEvent::Scroll { dx: a, dy: b }
        | InputEvent::MouseMoveRelative { dx: a, dy: b } => {
            w.float_field(1, a);
            w.float_field(2, b);
        }
        InputEvent::MouseButton { button, pressed } => {
            w.varint_field(1, button.into());
            w.varint_field(2, pressed.into());
        }
        InputEvent::Key { keycode, pressed } => {
            w.varint_field(1, keycode.into());
            w.varint_field(2, pressed.into());
        }
        InputEvent::GamepadAxis { gamepad, axis, value } => {
            w.varint_field(1, gamepad.into());
            w.length_prefix(2, axis_len(axis, value));
            w.varint_field(1, axis.into());
            w.float_field(2, value);
        }
        InputEvent::GamepadButton { gamepad, button, pressed } => {
            w.varint_field(1, gamepad.into());
            w.length_prefix(3, pad_button_len(button, pressed));
            w.varint_field(1, button.into());
            w.varint_field(2, pressed.into());
        }
    }
}

/// Reads the content of an `InputMessage` with one event; `None` for an event that is not known.
fn decode_event(content: &[u8]) -> Result<Option<InputEvent>, Malformed> {
    let mut event = None;
    let mut fields = Reader::new(content);
    while let Some((number, value)) = fields.field()? {
        event = match number {
            2 => {
                let (x, y) = two_floats(value)?;
                Some(InputEvent::MouseMove { x, y })
            }
            3 => {
                let (button, pressed) = number_and_flag(value)?;
                u8::try_from(button).ok().map(|button| InputEvent::MouseButton { button, pressed })
            }
            4 => {
                let (keycode, pressed) = number_and_flag(value)?;
                u16::try_from(keycode).ok().map(|keycode| InputEvent::Key { keycode, pressed })
            }
            5 => {
                let (dx, dy) = two_floats(value)?;
                Some(InputEvent::Scroll { dx, dy })
            }
            6 => decode_gamepad(value.bytes()?)?,
            100 => {
                let (dx, dy) = two_floats(value)?;
                Some(InputEvent::MouseMoveRelative { dx, dy })
            }
            _ => event,
        };
    }
    Ok(event)
}

fn decode_gamepad(content: &[u8]) -> Result<Option<InputEvent>, Malformed> {
    let mut gamepad = 0;
    let mut axis = None;
    let mut button = None;
    let mut fields = Reader::new(content);
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => gamepad = value.number32()?,
            2 => axis = Some(decode_axis(value.bytes()?)?),
            3 => button = Some(number_and_flag(value)?),
            _ => {}
        }
    }
    let Ok(gamepad) = u8::try_from(gamepad) else { return Ok(None) };
    let narrow = |number: u32| u8::try_from(number).ok();
    Ok(match (axis, button) {
        (Some((axis, value)), _) => narrow(axis).map(|axis| InputEvent::GamepadAxis { gamepad, axis, value }),
        (None, Some((button, pressed))) => {
            narrow(button).map(|button| InputEvent::GamepadButton { gamepad, button, pressed })
        }
        (None, None) => None,
    })
}

fn decode_axis(content: &[u8]) -> Result<(u32, f32), Malformed> {
    let (mut axis, mut position) = (0, 0.0);
    let mut fields = Reader::new(content);
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => axis = value.number32()?,
            2 => position = value.float()?,
            _ => {}
        }
    }
    Ok((axis, position))
}

fn two_floats(value: Value<'_>) -> Result<(f32, f32), Malformed> {
    let (mut a, mut b) = (0.0, 0.0);
    let mut fields = Reader::new(value.bytes()?);
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => a = value.float()?,
            2 => b = value.float()?,
            _ => {}
        }
    }
    Ok((a, b))
}

fn number_and_flag(value: Value<'_>) -> Result<(u32, bool), Malformed> {
    let (mut n, mut flag) = (0, false);
    let mut fields = Reader::new(value.bytes()?);
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => n = value.number32()?,
            2 => flag = value.number()? != 0,
            _ => {}
        }
    }
    Ok((n, flag))
}

/// A later time than any that the encoding is sized for: 2^56 us are two thousand years.
#[cfg(test)]
pub(super) const LATEST: Timestamp = Timestamp::from_micros((1 << 56) - 1);

#[cfg(test)]
pub(super) mod tests {
    use super::super::event::{GAMEPADS, KEY_MAX};
    use super::super::{PRESSED_MAX, UNACKED_MAX};
    use super::*;
    use crate::message::proto;
    use crate::wire::{DEFAULT_DATAGRAM_LEN, TRANSPORT_OVERHEAD};
    use proptest::prelude::*;
    use prost::Message as _;

    pub(in super::super) fn any_event() -> impl Strategy<Value = InputEvent> {
        let unit = 0.0f32..=1.0;
        prop_oneof![
            (unit.clone(), unit.clone()).prop_map(|(x, y)| InputEvent::MouseMove { x, y }),
            (-9.0f32..9.0, -9.0f32..9.0).prop_map(|(dx, dy)| InputEvent::MouseMoveRelative { dx, dy }),
            (-9.0f32..9.0, -9.0f32..9.0).prop_map(|(dx, dy)| InputEvent::Scroll { dx, dy }),
            (0..=KEY_MAX, any::<bool>()).prop_map(|(keycode, pressed)| InputEvent::Key { keycode, pressed }),
            (0u8..32, any::<bool>())
                .prop_map(|(button, pressed)| InputEvent::MouseButton { button, pressed }),
            (0..GAMEPADS, any::<u8>(), unit).prop_map(|(gamepad, axis, value)| InputEvent::GamepadAxis {
                gamepad,
                axis,
                value
            }),
            (0..GAMEPADS, 0u8..32, any::<bool>()).prop_map(|(gamepad, button, pressed)| {
                InputEvent::GamepadButton { gamepad, button, pressed }
            }),
        ]
    }

    fn generic(event: &TimedEvent) -> proto::InputMessage {
        use proto::input_message::Event;
        let event_of = match event.event {
            InputEvent::MouseMove { x, y } => Event::MouseMove(proto::MouseMove { x, y }),
            InputEvent::MouseMoveRelative { dx, dy } => {
                Event::MouseMoveRelative(proto::MouseMoveRelative { dx, dy })
            }
            InputEvent::MouseButton { button, pressed } => {
                Event::MouseButton(proto::MouseButton { button: button.into(), pressed })
            }
            InputEvent::Key { keycode, pressed } => {
                Event::Key(proto::Key { keycode: keycode.into(), pressed })
            }
            InputEvent::Scroll { dx, dy } => Event::Scroll(proto::Scroll { dx, dy }),
            InputEvent::GamepadAxis { gamepad, axis, value } => Event::Gamepad(proto::Gamepad {
                gamepad_id: gamepad.into(),
                axes: vec![proto::GamepadAxis { axis: axis.into(), value }],
                buttons: vec![],
            }),
            InputEvent::GamepadButton { gamepad, button, pressed } => Event::Gamepad(proto::Gamepad {
                gamepad_id: gamepad.into(),
                axes: vec![],
                buttons: vec![proto::GamepadButton { button: button.into(), pressed }],
            }),
        };
        proto::InputMessage { timestamp_us: event.at.as_micros(), event: Some(event_of) }
    }

    proptest! {
        /// Proves R-MSG-1 for input.
        #[test]
        fn batch_equals_generic_encoder(
            first in any::<u64>(),
            events in prop::collection::vec((any_event(), any::<u64>()), 0..40),
        ) {
            let events: Vec<_> = events
                .into_iter()
                .map(|(event, at)| TimedEvent { at: Timestamp::from_micros(at), event })
                .collect();
            let mut state = InputState::default();
            events.iter().for_each(|e| state.apply(&e.event));
            let mut pressed_keys = vec![];
            state.each_listed(|k| pressed_keys.push(k));
            let expected = proto::Message {
                body: Some(proto::message::Body::InputBatch(proto::InputBatch {
                    first_sequence: first,
                    events: events.iter().map(generic).collect(),
                    pressed_keys,
                    pressed_buttons: state.buttons(),
                })),
            }
            .encode_to_vec();
            let mut out = vec![0; expected.len()];
            prop_assert_eq!(encode_batch(first, events.iter(), &state, &mut out), Some(expected.len()));
            prop_assert_eq!(&out, &expected);
            prop_assert_eq!(encode_batch(first, events.iter(), &state, &mut out[1..]), None);

            let Ok(crate::message::Incoming::InputBatch(content)) = crate::message::decode(&out) else {
                return Err(TestCaseError::fail("not a batch"));
            };
            let read = ReceivedBatch::decode(content).unwrap();
            prop_assert_eq!(read.first_sequence, first);
            let read_events: Vec<_> = read.events().iter().map(|e| e.unwrap()).collect();
            prop_assert_eq!(read_events, events.iter().map(|e| e.event).collect::<Vec<_>>());
            prop_assert_eq!(read.state, state);
        }

        /// Proves R-INP-6.
        #[test]
        fn single_equals_generic_encoder(event in any_event(), at: u64) {
            let event = TimedEvent { at: Timestamp::from_micros(at), event };
            let message = generic(&event);
            let expected =
                proto::Message { body: Some(proto::message::Body::Input(message.clone())) }.encode_to_vec();
            let mut out = [0; 100];
            let len = encode_single(&event, &mut out).unwrap();
            prop_assert_eq!(&out[..len], &expected[..]);
            let mut read = vec![];
            InputEvent::each_of(&message, |e| read.push(e));
            prop_assert_eq!(read, vec![event.event]);
        }

        /// Proves R-INP-7: what is out of range never comes out.
        #[test]
        fn any_bytes_are_a_batch_or_malformed(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(batch) = ReceivedBatch::decode(&bytes) {
                prop_assert!(batch.events().iter().flatten().all(InputEvent::is_valid));
            }
        }
    }

    #[test]
    fn the_longest_batch_fits_a_default_datagram() {
        let longest =
            TimedEvent { at: LATEST, event: InputEvent::GamepadAxis { gamepad: 3, axis: 255, value: 0.7 } };
        let mut state = InputState::default();
        for button in 0..PRESSED_MAX as u8 {
            state.apply(&InputEvent::GamepadButton {
                gamepad: 2 + button / 32,
                button: button % 32,
                pressed: true,
            });
        }
        state.set_buttons(u32::MAX);
        assert_eq!(state.listed(), PRESSED_MAX);
        let mut out = [0; DEFAULT_DATAGRAM_LEN - TRANSPORT_OVERHEAD];
        let events = [longest; UNACKED_MAX];
        assert!(encode_batch(u64::MAX, events.iter(), &state, &mut out).is_some());
    }

    #[test]
    fn a_batch_with_too_many_events_is_malformed() {
        let batch = proto::InputBatch {
            events: vec![proto::InputMessage::default(); EVENTS_MAX + 1],
            ..Default::default()
        };
        assert_eq!(ReceivedBatch::decode(&batch.encode_to_vec()).err(), Some(DropReason::Malformed));
    }
}
