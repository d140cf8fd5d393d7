//! Any loss, reordering and duplication: what is handed out is what was sent, in order, each once.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rift_core::Timestamp;
use rift_core::receive::{ReceiverConfig, VideoReceiver};

use crate::packetiser::{FrameSpec, Packet, Packetiser, deliver, picture};

#[derive(Clone, Debug)]
struct Fate {
    lost: bool,
    duplicated: bool,
    delay: u32,
}

#[derive(Clone, Debug)]
struct Case {
    /// For each frame: lengths of its slices, and its reference distance where it is not a keyframe.
    frames: Vec<(Vec<usize>, u32, bool)>,
    fates: Vec<Fate>,
    parity_percent: usize,
    group_max: usize,
    answers_nacks: bool,
}

fn fate(loss: u32, spread: u32) -> impl Strategy<Value = Fate> {
    (0..100u32, 0..100u32, 0..=spread).prop_map(move |(lost, duplicated, delay)| Fate {
        lost: lost < loss,
        duplicated: duplicated < 10,
        delay,
    })
}

fn case() -> impl Strategy<Value = Case> {
    let slices = prop::collection::vec(1usize..3000, 1..4);
    let frame = (slices, 1u32..4, prop::bool::weighted(0.1));
    (prop::collection::vec(frame, 1..14), 0u32..40, 0u32..30, 0usize..50, 1usize..20, any::<bool>())
        .prop_flat_map(|(frames, loss, spread, parity_percent, group_max, answers_nacks)| {
            prop::collection::vec(fate(loss, spread), 64).prop_map(move |fates| Case {
                frames: frames.clone(),
                fates,
                parity_percent,
                group_max,
                answers_nacks,
            })
        })
}

/// What was sent, and the order rules for what comes out.
#[derive(Default)]
struct Checker {
    slices: BTreeMap<(u64, u32), Vec<u8>>,
    last_slice: BTreeMap<u64, u32>,
    reference: BTreeMap<u64, Option<u64>>,
    newest: Option<(u64, u32)>,
    whole: Vec<u64>,
}

impl Checker {
    fn sent(&mut self, spec: FrameSpec, slices: &[Vec<u8>]) {
        for (i, slice) in slices.iter().enumerate() {
            self.slices.insert((spec.id, i as u32), slice.clone());
        }
        self.last_slice.insert(spec.id, slices.len() as u32 - 1);
        let distance = u64::from(spec.reference_distance);
        self.reference.insert(spec.id, (distance > 0).then(|| spec.id - distance));
    }

    fn drain(&mut self, receiver: &mut VideoReceiver, now: Timestamp) {
        while let Some(ready) = receiver.poll_slice(now) {
            let at = (ready.frame_id.0, ready.index);
            assert_eq!(Some(ready.data), self.slices.get(&at).map(Vec::as_slice), "{at:?}");
            assert!(self.newest.is_none_or(|newest| at > newest), "{at:?} after {:?}", self.newest);
            if ready.index > 0 {
                assert_eq!(self.newest, Some((at.0, at.1 - 1)), "slices leave one after the other");
            }
            assert_eq!(ready.last, self.last_slice[&at.0] == at.1);
            let reference = self.reference[&at.0];
            assert_eq!(ready.keyframe, reference.is_none());
            if let Some(reference) = reference {
                assert!(self.whole.contains(&reference), "{at:?} needs {reference}");
            }
            assert!(!ready.show || now <= ready.deadline);
            self.newest = Some(at);
            if ready.last {
                self.whole.push(at.0);
            }
        }
    }
}

fn run(case: &Case) -> (Vec<u64>, usize) {
    let mut sender = Packetiser::new(200, case.group_max, case.parity_percent);
    let config =
        ReceiverConfig { frames: 16, frame_bytes_max: 16 << 10, slices_max: 4, ..Default::default() };
    let mut receiver = VideoReceiver::new(&config);
    let mut checker = Checker::default();
    // In flight: (arrival, order of sending) -> packet.
    let mut flight: BTreeMap<(u64, u64), Packet> = BTreeMap::new();
    let mut sent = 0u64;
    let mut send = |flight: &mut BTreeMap<(u64, u64), Packet>, at: u64, packet: Packet, reliable: bool| {
        let fate = &case.fates[sent as usize % case.fates.len()];
        if !fate.lost || reliable {
            let arrival = at + 5_000 + u64::from(fate.delay) * 100;
            flight.insert((arrival, sent * 2), packet.clone());
            if fate.duplicated {
                flight.insert((arrival + 700, sent * 2 + 1), packet);
            }
        }
        sent += 1;
    };

    let mut frames: Vec<(u64, FrameSpec, Vec<Vec<u8>>)> = Vec::new();
    for (id, (lens, distance, keyframe)) in case.frames.iter().enumerate() {
        let id = id as u64;
        let distance = if id == 0 || *keyframe { 0 } else { (*distance).min(id as u32) };
        let spec = FrameSpec::after(id, distance);
        let slices: Vec<_> = lens.iter().enumerate().map(|(i, &len)| picture(id, i, len)).collect();
        frames.push((10_000 + id * 10_000, spec, slices));
    }
    let mut frames = frames.into_iter().peekable();
    let end = 10_000 + case.frames.len() as u64 * 10_000 + 150_000;
    let mut now = 0;
    while now < end {
        now += 200;
        let time = Timestamp::from_micros(now);
        while frames.peek().is_some_and(|(at, ..)| *at <= now) {
            let (_, spec, slices) = frames.next().unwrap();
            checker.sent(spec, &slices);
            for packet in sender.frame(spec, &slices) {
                send(&mut flight, now, packet, false);
            }
        }
        while flight.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
            let (_, packet) = flight.pop_first().unwrap();
            let _ = deliver(&mut receiver, time, &packet);
            checker.drain(&mut receiver, time);
        }
        if receiver.poll_timeout() <= time {
            receiver.handle_timeout(time);
        }
        checker.drain(&mut receiver, time);
        let mut ids = [Default::default(); 64];
        let asked = receiver.poll_nack(time, &mut ids);
        for id in &ids[..asked] {
            if let Some(packet) = sender.resend(*id).filter(|_| case.answers_nacks) {
                send(&mut flight, now + 5_000, packet, true);
            }
        }
        while receiver.poll_request(time).is_some() {}
    }
    (checker.whole, case.frames.len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..Default::default() })]

    /// Proves R-VID-3, R-VID-4, R-PLAY-4.
    #[test]
    fn slices_come_out_as_sent_in_order_each_once(case in case()) {
        run(&case);
    }

    #[test]
    fn nothing_is_lost_for_good_where_resends_arrive(mut case in case()) {
        case.answers_nacks = true;
        // With references to the frame before only, every frame must come out.
        for (_, distance, keyframe) in &mut case.frames {
            (*distance, *keyframe) = (1, false);
        }
        // The last frame's own tail can be lost with nothing behind it to tell: end on one that is not.
        case.frames.push((vec![100], 1, false));
        let whole_loss = case.fates.iter().all(|f| f.lost);
        let (whole, sent) = run(&case);
        if !whole_loss {
            let missing: Vec<u64> = (0..sent as u64 - 1).filter(|id| !whole.contains(id)).collect();
            prop_assert!(missing.len() <= usize::from(!whole.contains(&(sent as u64 - 1))) * sent, "{missing:?}");
        }
    }
}
