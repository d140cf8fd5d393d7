//! The end of a run: what must hold of it as a whole, and its report.

use super::{Peers, Side, World};
use crate::check::Rule;
use crate::endpoint::Host as _;
use crate::link::{IP_UDP_HEADER_LEN, LinkCounters, STANDING_WINDOW_US};
use crate::metrics::{StreamMetrics, Traffic};
use crate::report::{Distribution, Report};
use crate::scenario::Action;

impl<P: Peers> World<P> {
    /// Checks what can only be judged at the end.
    pub(super) fn finish(&mut self) {
        let stands = self.client_connected && self.streaming;
        if stands {
            self.player.finish(self.now, &mut self.violations);
            if self.scenario.input_per_s > 0 {
                self.input.check_settled(self.now, &mut self.violations);
            }
        }
        // After a client is gone or a side has closed there need be no session.
        let last = self.scenario.timeline.iter().rev().find_map(|(_, action)| match action {
            Action::Vanish | Action::Close(_) => Some(false),
            Action::Restart => Some(true),
            _ => None,
        });
        if !stands && last != Some(false) {
            self.violations.add(self.now, Rule::Connected, "there is no session at the end");
        }
        let beyond_first = self.keyframes.beyond_first();
        if self.scenario.limits.keyframes.is_some_and(|most| beyond_first > most) {
            self.violations.add(
                self.now,
                Rule::Keyframes,
                format_args!("{beyond_first} keyframes beyond the first: {:?}", self.keyframes),
            );
        }
        let share = self.player.counters().shown as f64 / self.frames.max(1) as f64;
        if self.scenario.limits.shown.is_some_and(|least| share < least) {
            self.violations.add(
                self.now,
                Rule::FramesShown,
                format_args!("{:.2} % of frames shown", share * 100.0),
            );
        }
        self.note(30, self.local(Side::Host).as_micros());
    }

    /// What the stream was worth since the warm-up.
    fn metrics(&self) -> StreamMetrics {
        let (before, down, up) = (&self.warm_up, self.down.counters(), self.up.counters());
        let sender = self.host.sender_counters().unwrap_or_default();
        // A new session counts from 0.
        let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        let wire = |now: &LinkCounters, before: &LinkCounters| {
            now.bytes - before.bytes + (now.packets - before.packets) * IP_UDP_HEADER_LEN
        };
        let traffic = Traffic {
            packets: down.packets - before.down.packets,
            gone: down.gone() - before.down.gone(),
            wire_bytes: wire(down, &before.down),
            back_wire_bytes: wire(up, &before.up),
            video_packets: [
                since(sender.data_packets, before.sender.data_packets),
                since(sender.parity_packets, before.sender.parity_packets),
                since(sender.retransmitted_packets, before.sender.retransmitted_packets),
            ],
            body_bytes: since(sender.body_bytes, before.sender.body_bytes),
        };
        let from_us = before.at.as_micros();
        let from_window = from_us / STANDING_WINDOW_US;
        let waits = self.down.standing_us().iter().filter(|&&(window, _)| u64::from(window) >= from_window);
        let standing: Vec<u32> = waits.map(|&(_, us)| us).collect();
        let span = (from_us, self.now.as_micros());
        StreamMetrics::of(&self.stream, &traffic, self.down.course(), &standing, span)
    }

    pub(super) fn into_report(self) -> Report {
        let stream = self.metrics();
        Report {
            stream,
            log: self.stream,
            name: self.scenario.name.clone(),
            scenario: self.scenario.to_string(),
            seed: self.seed,
            simulated_us: self.now.as_micros(),
            events: self.events,
            fingerprint: self.log.value(),
            frames: self.frames,
            keyframes: self.keyframes,
            invalidations: self.invalidations,
            slices_refused: self.slices_refused,
            player: *self.player.counters(),
            latency: Distribution::of(self.player.latencies_us()),
            input_latency: Distribution::of(self.input.latencies_us()),
            input: *self.input.counters(),
            down: *self.down.counters(),
            up: *self.up.counters(),
            host_drops: self.host_drops,
            client_drops: self.client_drops,
            sessions: self.sessions,
            key_generations: self.host.key_generations(),
            first_picture_us: self.first_picture.map(rift_core::Timestamp::as_micros),
            samples: self.samples,
            violations: self.violations,
        }
    }
}
