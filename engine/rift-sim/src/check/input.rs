//! A model of a person at the keyboard and of the machine that is typed on.
//!
//! Makes events at random, follows what the host applies, and knows what must be down. Motion may be
//! put together on the way, so of motion only the sum counts and of the pointer only the last place;
//! keys and buttons count one by one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;
use rift_core::Timestamp;

use super::{Rule, Violations};
use crate::endpoint::Input;

/// Keys that are pressed: KEY_Q and up, as many as two hands reach.
const FIRST_KEY: u16 = 16;
const KEYS: u16 = 20;
const BUTTONS: u8 = 3;
/// Unapplied presses and releases that are remembered.
const SENT_MAX: usize = 10_000;

/// A key or button.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Switch {
    Key(u16),
    Button(u8),
}

/// What happened to input so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputCounters {
    /// Events typed.
    pub sent: u64,
    /// Events applied by the host.
    pub applied: u64,
    /// Presses and releases that never came, which is right only if the network lost them for good.
    pub skipped: u64,
    /// Releases that the host made up from the state.
    pub made_up: u64,
    /// Times that the host let everything go.
    pub released_all: u64,
}

/// Both sides of the keyboard.
#[derive(Debug)]
pub struct InputModel {
    rng: Rng,
    stuck_us: u64,
    /// Down at the client.
    held: BTreeSet<Switch>,
    /// Down at the host, and since when it should not be.
    injected: BTreeMap<Switch, Option<Timestamp>>,
    sent: VecDeque<(Switch, bool, Timestamp)>,
    pointer: [Option<(f32, f32)>; 2],
    motion: [(f64, f64); 2],
    latencies_us: Vec<u32>,
    counters: InputCounters,
}

impl InputModel {
    /// Nothing is down. A key that stays down for `stuck_us` after it was let go is stuck.
    #[must_use]
    pub fn new(stuck_us: u64, seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            stuck_us,
            held: BTreeSet::new(),
            injected: BTreeMap::new(),
            sent: VecDeque::new(),
            pointer: [None; 2],
            motion: [(0.0, 0.0); 2],
            latencies_us: Vec::new(),
            counters: InputCounters::default(),
        }
    }

    /// The next event that is typed.
    pub fn type_next(&mut self, now: Timestamp) -> Input {
        let input = match self.rng.u8(..10) {
            0..=4 => {
                let code = FIRST_KEY + self.rng.u16(..KEYS);
                Input::Key { code, pressed: !self.held.contains(&Switch::Key(code)) }
            }
            5..=6 => {
                let button = self.rng.u8(..BUTTONS);
                Input::Button { button, pressed: !self.held.contains(&Switch::Button(button)) }
            }
            7 => Input::Pointer { x: self.rng.f32(), y: self.rng.f32() },
            // Whole numbers, so that sums are exact.
            _ => Input::Motion { dx: f32::from(self.rng.i8(-20..20)), dy: f32::from(self.rng.i8(-20..20)) },
        };
        self.on_typed(now, input);
        input
    }

    /// Lets go one key or button that is down, if any is.
    pub fn release_next(&mut self, now: Timestamp) -> Option<Input> {
        let input = match *self.held.first()? {
            Switch::Key(code) => Input::Key { code, pressed: false },
            Switch::Button(button) => Input::Button { button, pressed: false },
        };
        self.on_typed(now, input);
        Some(input)
    }

    /// The host applied `input`.
    pub fn on_applied(&mut self, now: Timestamp, input: Input, violations: &mut Violations) {
        self.counters.applied += 1;
        match input {
            Input::Key { code, pressed } => self.on_switched(now, Switch::Key(code), pressed, violations),
            Input::Button { button, pressed } => {
                self.on_switched(now, Switch::Button(button), pressed, violations);
            }
            Input::Pointer { x, y } => self.pointer[1] = Some((x, y)),
            Input::Motion { dx, dy } => add(&mut self.motion[1], dx, dy),
        }
    }

    /// The host let everything go, as it must when a session ends.
    pub fn on_release_all(&mut self) {
        self.counters.released_all += 1;
        self.injected.clear();
    }

    /// The client is gone, and what it held with it: the host has to notice.
    pub fn restart(&mut self, now: Timestamp) {
        for since in self.injected.values_mut() {
            since.get_or_insert(now);
        }
        self.held.clear();
    }

    /// A session begins: the pointer is anywhere.
    pub fn on_session(&mut self) {
        self.pointer = [None; 2];
        self.motion = [(0.0, 0.0); 2];
    }

    /// Whether something is down at the host that was let go too long ago. `grace_us` is added to the limit.
    pub fn check_stuck(&mut self, now: Timestamp, grace_us: u64, violations: &mut Violations) {
        for (switch, since) in &mut self.injected {
            if let Some(at) = since
                && now.micros_since(*at) > self.stuck_us.saturating_add(grace_us)
            {
                violations.add(
                    now,
                    Rule::KeyStuck,
                    format_args!("{switch:?} down {} us after it was let go", now.micros_since(*at)),
                );
                // Told once per release.
                *since = None;
            }
        }
    }

    /// After a quiet time: both sides must agree.
    pub fn check_settled(&self, now: Timestamp, violations: &mut Violations) {
        let injected: BTreeSet<_> = self.injected.keys().copied().collect();
        if injected != self.held {
            violations.add(now, Rule::InputState, format_args!("down {injected:?}, held {:?}", self.held));
        }
        if self.pointer[0] != self.pointer[1] {
            violations.add(
                now,
                Rule::InputState,
                format_args!("pointer sent and applied: {:?}", self.pointer),
            );
        }
        let [sent, applied] = self.motion;
        if (sent.0 - applied.0).abs() > 0.5 || (sent.1 - applied.1).abs() > 0.5 {
            violations.add(now, Rule::InputState, format_args!("motion sent and applied: {:?}", self.motion));
        }
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &InputCounters {
        &self.counters
    }

    /// From typing to applying for each press and release, in microseconds.
    #[must_use]
    pub fn latencies_us(&self) -> &[u32] {
        &self.latencies_us
    }

    fn on_typed(&mut self, now: Timestamp, input: Input) {
        self.counters.sent += 1;
        let (switch, pressed) = match input {
            Input::Key { code, pressed } => (Switch::Key(code), pressed),
            Input::Button { button, pressed } => (Switch::Button(button), pressed),
            Input::Pointer { x, y } => {
                self.pointer[0] = Some((x, y));
                return;
            }
            Input::Motion { dx, dy } => {
                add(&mut self.motion[0], dx, dy);
                return;
            }
        };
        if pressed {
            self.held.insert(switch);
        } else {
            self.held.remove(&switch);
        }
        if let Some(since) = self.injected.get_mut(&switch) {
            *since = if pressed { None } else { Some(now) };
        }
        if self.sent.len() == SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((switch, pressed, now));
    }

    fn on_switched(&mut self, now: Timestamp, switch: Switch, pressed: bool, violations: &mut Violations) {
        match self.sent.iter().position(|&(s, p, _)| (s, p) == (switch, pressed)) {
            Some(at) => {
                self.counters.skipped += at as u64;
                let typed = self.sent.drain(..=at).next_back();
                let typed_at = typed.map_or(now, |(_, _, typed_at)| typed_at);
                self.latencies_us.push(u32::try_from(now.micros_since(typed_at)).unwrap_or(u32::MAX));
            }
            // The state told the host that the release is one of those it missed.
            None if !pressed && !self.held.contains(&switch) && self.injected.contains_key(&switch) => {
                self.counters.made_up += 1;
            }
            None => violations.add(
                now,
                Rule::InputOrder,
                format_args!("{switch:?} {} again or out of order", if pressed { "down" } else { "up" }),
            ),
        }
        if pressed {
            let since = (!self.held.contains(&switch)).then_some(now);
            self.injected.insert(switch, since);
        } else {
            self.injected.remove(&switch);
        }
    }
}

fn add(sum: &mut (f64, f64), dx: f32, dy: f32) {
    sum.0 += f64::from(dx);
    sum.1 += f64::from(dy);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1_000)
    }

    /// Types `count` events and applies those that `keep` lets through; gives the rules that broke.
    fn run(count: u64, keep: impl Fn(u64) -> usize) -> (Vec<Rule>, InputModel) {
        let mut model = InputModel::new(100_000, 4);
        let mut violations = Violations::default();
        for i in 0..count {
            let input = model.type_next(at(i));
            for _ in 0..keep(i) {
                model.on_applied(at(i), input, &mut violations);
            }
        }
        model.check_stuck(at(count + 200), 0, &mut violations);
        model.check_settled(at(count + 200), &mut violations);
        let mut rules: Vec<_> = violations.kept().iter().map(|v| v.rule).collect();
        rules.dedup();
        (rules, model)
    }

    #[test]
    fn what_all_arrives_once_breaks_no_rule() {
        let (rules, model) = run(500, |_| 1);
        assert_eq!(rules, []);
        assert_eq!(model.counters().skipped, 0);
    }

    #[test]
    fn an_event_applied_twice_is_seen() {
        let mut model = InputModel::new(100_000, 1);
        let mut violations = Violations::default();
        for i in 0..20 {
            let input = model.type_next(at(i));
            model.on_applied(at(i), input, &mut violations);
            assert_eq!(violations.count(), 0);
            if matches!(input, Input::Key { .. }) {
                model.on_applied(at(i), input, &mut violations);
                assert!(violations.broke(Rule::InputOrder));
                return;
            }
        }
        panic!("no key was typed");
    }

    #[test]
    fn a_lost_release_is_a_stuck_key() {
        let mut model = InputModel::new(100_000, 1);
        let mut violations = Violations::default();
        let press = std::iter::repeat_with(|| model.type_next(at(0)))
            .find(|i| matches!(i, Input::Key { pressed: true, .. }))
            .unwrap();
        model.on_applied(at(1), press, &mut violations);
        while model.release_next(at(10)).is_some() {}
        model.check_stuck(at(110), 0, &mut violations);
        assert_eq!(violations.count(), 0, "not yet");
        model.check_stuck(at(111), 0, &mut violations);
        assert!(violations.broke(Rule::KeyStuck));
    }

    #[test]
    fn a_release_made_up_from_the_state_is_right_and_a_press_is_not() {
        let mut model = InputModel::new(100_000, 1);
        let mut violations = Violations::default();
        let press = std::iter::repeat_with(|| model.type_next(at(0)))
            .find(|i| matches!(i, Input::Key { pressed: true, .. }))
            .unwrap();
        model.on_applied(at(1), press, &mut violations);
        let Input::Key { code, .. } = press else { unreachable!() };
        model.restart(at(2));
        model.on_applied(at(3), Input::Key { code, pressed: false }, &mut violations);
        assert_eq!((violations.count(), model.counters().made_up), (0, 1));
        model.on_applied(at(0), Input::Key { code: 20, pressed: true }, &mut violations);
        assert!(violations.broke(Rule::InputOrder));
    }

    #[test]
    fn lost_motion_is_seen() {
        let mut model = InputModel::new(100_000, 1);
        let mut violations = Violations::default();
        while !matches!(model.type_next(at(0)), Input::Motion { dx, .. } if dx > 0.0) {}
        model.held.clear();
        model.pointer = [None; 2];
        model.check_settled(at(1), &mut violations);
        assert!(violations.broke(Rule::InputState));
    }
}
