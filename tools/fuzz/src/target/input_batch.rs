//! The receiver of input.

use prost::Message as _;
use rift_core::input::{InputEvent, InputReceiver, InputState};
use rift_core::message::proto::{self, input_message::Event, message::Body};
use rift_core::message::{self, Incoming};

use super::script::{script, steps};

/// Runs several messages into one receiver and keeps its own account of what is down.
pub(super) fn run(data: &[u8]) {
    let mut receiver = InputReceiver::new();
    let mut applied = InputState::default();
    let mut acknowledged = 0;
    for step in steps(data).take(64) {
        let mut apply = |event: InputEvent| {
            assert!(event.is_valid(), "{event:?} was applied");
            applied.apply(&event);
        };
        match message::decode(step) {
            Ok(Incoming::InputBatch(content)) => {
                let _ = receiver.handle_batch(content, &mut apply);
            }
            Ok(Incoming::Input(single)) => receiver.handle_single(&single, &mut apply),
            _ => continue,
        }
        assert_eq!(receiver.state(), &applied, "the receiver's state is not that of the events it gave");
        if let Some(sequence) = receiver.poll_ack() {
            assert!(sequence >= acknowledged, "acknowledged {sequence} after {acknowledged}");
            acknowledged = sequence;
        }
    }
}

pub(super) fn messages() -> Vec<Vec<u8>> {
    let event = |event| proto::InputMessage { timestamp_us: 1000, event: Some(event) };
    let key = |keycode, pressed| event(Event::Key(proto::Key { keycode, pressed }));
    let batch = |first_sequence, events: Vec<_>, pressed_keys: Vec<u32>| {
        let batch = proto::InputBatch { first_sequence, events, pressed_keys, pressed_buttons: 1 };
        proto::Message { body: Some(Body::InputBatch(batch)) }.encode_to_vec()
    };
    let single = |input| proto::Message { body: Some(Body::Input(input)) }.encode_to_vec();
    vec![
        batch(
            1,
            vec![key(30, true), event(Event::MouseMove(proto::MouseMove { x: 0.5, y: 0.25 }))],
            vec![30],
        ),
        batch(2, vec![key(30, false), event(Event::Scroll(proto::Scroll { dx: 1.0, dy: -1.0 }))], vec![]),
        batch(900, vec![key(31, true)], vec![31, 32, 40]),
        single(event(Event::MouseButton(proto::MouseButton { button: 1, pressed: true }))),
        single(event(Event::MouseMoveRelative(proto::MouseMoveRelative { dx: 3.0, dy: -8.0 }))),
        single(event(Event::Gamepad(proto::Gamepad {
            gamepad_id: 0,
            axes: vec![proto::GamepadAxis { axis: 1, value: 0.5 }],
            buttons: vec![proto::GamepadButton { button: 2, pressed: true }],
        }))),
    ]
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let messages = messages();
    let mut seeds: Vec<_> = messages.iter().map(|m| script([&m[..]])).collect();
    seeds.push(script(messages.iter().map(|m| &m[..])));
    seeds
}
