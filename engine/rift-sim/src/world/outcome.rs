//! The end of a run: what must hold of it as a whole, and its report.

use rift_core::Timestamp;

use super::pair::Pair;
use super::stage::{Stage, Way};
use super::{Peers, Side, World};
use crate::check::Rule;
use crate::check::stale::{RunLog, Stale, explain};
use crate::cross::Cross;
use crate::endpoint::Host as _;
use crate::link::{LinkConfig, STANDING_WINDOW_US};
use crate::metrics::share::{Guest, Shared, Stream};
use crate::metrics::{StreamMetrics, Traffic};
use crate::report::{Distribution, FlowReport, PathCounters, Report};
use crate::scenario::Action;

/// Shorter ones are two frames' worth of what real recovery cannot know, in microseconds.
const FAULT_US_MIN: u64 = 35_000;

impl<P: Peers> Pair<P> {
    /// Checks what can only be judged at the end.
    fn finish(&mut self, stage: &mut Stage) {
        let stands = self.client_connected && self.streaming;
        let now = stage.now;
        if stands {
            self.player.finish(now, &mut stage.violations);
            if self.scenario.input_per_s > 0 {
                self.input.check_settled(now, &mut stage.violations);
            }
        }
        // After a client is gone or a side has closed there need be no session.
        let last = self.scenario.timeline.iter().rev().find_map(|(_, action)| match action {
            Action::Vanish | Action::Close(_) => Some(false),
            Action::Restart => Some(true),
            _ => None,
        });
        let is_over = (self.index == 0 && last == Some(false)) || !self.is_on(now);
        if !stands && !is_over {
            stage.violations.add(now, Rule::Connected, "there is no session at the end");
        }
        let beyond_first = self.keyframes.beyond_first();
        if self.scenario.limits.keyframes.is_some_and(|most| beyond_first > most) {
            stage.violations.add(
                now,
                Rule::Keyframes,
                format_args!("{beyond_first} keyframes beyond the first: {:?}", self.keyframes),
            );
        }
        let shown = self.player.counters().shown as f64 / self.frames.max(1) as f64;
        if self.scenario.limits.shown.is_some_and(|least| shown < least) {
            stage.violations.add(
                now,
                Rule::FramesShown,
                format_args!("{:.2} % of frames shown", shown * 100.0),
            );
        }
        stage.note(30, self.local(Side::Host, now).as_micros());
    }

    /// Every stale time since the warm-up, with its cause. A fault breaks a rule.
    fn explain(&self, stage: &mut Stage) -> Vec<Stale> {
        let way_us = |link: &LinkConfig| {
            link.delay_us
                + self.flow.delay_us
                + link.jitter_us
                + 2 * link.jitter_sd_us
                + link.reorder_us_max()
        };
        let (there, back) = if self.flow.reverse {
            (&self.scenario.up, &self.scenario.down)
        } else {
            (&self.scenario.down, &self.scenario.up)
        };
        let end_us = stage.now.as_micros();
        let [down, up] = &stage.accounts[self.index].records;
        let log = RunLog {
            stream: &self.stream,
            down,
            up,
            samples: &self.samples,
            delay_us: (way_us(there), way_us(back)),
            encode_us: self.scenario.source.encode_us.into(),
            period_us: 1_000_000 / u64::from(self.scenario.source.fps.max(1)),
            span_us: (self.warm_up.at.as_micros(), self.flow.stop_us.unwrap_or(end_us).min(end_us)),
        };
        let stale = explain(&log);
        for one in stale.iter().filter(|one| one.cause.is_fault() && one.to_us - one.from_us > FAULT_US_MIN) {
            let at = Timestamp::from_micros(one.from_us);
            let ms = (one.to_us - one.from_us) as f64 / 1e3;
            let text = format!("stream {}: {} for {ms:.1} ms", self.index + 1, one.cause);
            stage.violations.add(at, Rule::AvoidableFreeze, text);
        }
        stale
    }

    /// What the stream was worth since its warm-up.
    fn metrics(&self, stage: &Stage) -> StreamMetrics {
        let before = &self.warm_up;
        let [down, up] = stage.accounts[self.index].counters;
        let [down_before, up_before] = before.paths;
        let sender = self.host.sender_counters().unwrap_or_default();
        // A new session counts from 0.
        let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        let wire = |now: &PathCounters, before: &PathCounters| now.wire_bytes - before.wire_bytes;
        let link = if self.flow.reverse { &self.scenario.up } else { &self.scenario.down };
        let traffic = Traffic {
            packets: down.packets - down_before.packets,
            gone: down.gone - down_before.gone,
            wire_bytes: wire(&down, &down_before),
            back_wire_bytes: wire(&up, &up_before),
            video_packets: [
                since(sender.data_packets, before.sender.data_packets),
                since(sender.parity_packets, before.sender.parity_packets),
                since(sender.retransmitted_packets, before.sender.retransmitted_packets),
            ],
            body_bytes: since(sender.body_bytes, before.sender.body_bytes),
            way_us: link.delay_us + self.flow.delay_us,
        };
        let from_us = before.at.as_micros();
        let from_window = from_us / STANDING_WINDOW_US;
        let link = stage.link(self.way(Side::Host));
        let waits = link.standing_us().iter().filter(|&&(window, _)| u64::from(window) >= from_window);
        let standing: Vec<u32> = waits.map(|&(_, us)| us).collect();
        let end_us = stage.now.as_micros();
        let span = (from_us, self.flow.stop_us.unwrap_or(end_us).min(end_us));
        StreamMetrics::of(&self.stream, &traffic, link.course(), &standing, span)
    }
}

impl<P: Peers> World<P> {
    /// Checks what can only be judged at the end.
    pub(super) fn finish(&mut self) {
        for pair in &mut self.pairs {
            pair.finish(&mut self.stage);
        }
    }

    /// What the streams that use the first one's queue were to each other.
    fn shared(&self) -> Shared {
        let way = self.pairs[0].way(Side::Host);
        let end_us = self.stage.now.as_micros();
        let streams: Vec<_> = self
            .pairs
            .iter()
            .filter(|pair| pair.way(Side::Host) == way)
            .map(|pair| Stream {
                from_us: pair.flow.start_us,
                to_us: pair.flow.stop_us.unwrap_or(end_us).min(end_us),
                pauses: self.pauses(pair.index),
                samples: &pair.samples,
            })
            .collect();
        let guests: Vec<_> = self
            .cross
            .iter()
            .map(Cross::config)
            .filter(|config| config.reverse == (way == Way::Up))
            .map(|config| Guest {
                from_us: config.start_us,
                to_us: config.stop_us.unwrap_or(end_us).min(end_us),
            })
            .collect();
        let link = self.stage.link(way);
        let mut changes: Vec<u64> = link.course().changes(end_us).iter().map(|&(at, ..)| at).collect();
        let acted = self
            .scenario
            .timeline
            .iter()
            .filter(|(_, action)| matches!(action, Action::Down(_) | Action::Up(_) | Action::Content(_)));
        changes.extend(acted.map(|&(at, _)| at));
        Shared::of(&streams, &guests, &changes, link.standing_us(), self.scenario.warmup_us)
    }

    /// When the stream of this index was paused.
    fn pauses(&self, index: usize) -> Vec<(u64, u64)> {
        let mut pauses = Vec::new();
        for (at, action) in &self.scenario.timeline {
            match action {
                Action::Pause(flow) if flow.saturating_sub(1) == index => pauses.push((*at, u64::MAX)),
                Action::Resume(flow) if flow.saturating_sub(1) == index => {
                    if let Some(last) = pauses.last_mut() {
                        last.1 = *at;
                    }
                }
                _ => {}
            }
        }
        pauses
    }

    pub(super) fn into_report(self) -> Report {
        let shared = self.shared();
        let (down, up) = (*self.stage.link(Way::Down).counters(), *self.stage.link(Way::Up).counters());
        let mut stage = self.stage;
        let mut explained: Vec<_> = self.pairs.iter().map(|pair| pair.explain(&mut stage)).collect();
        let mut pairs = self.pairs.into_iter();
        // There always is a first.
        let Some(first) = pairs.next() else { return Report::default() };
        let stream = StreamMetrics { shared, ..first.metrics(&stage) };
        let flows = pairs
            .zip(&mut explained[1..])
            .map(|(pair, stale)| FlowReport {
                stream: pair.metrics(&stage),
                samples: pair.samples,
                log: pair.stream,
                stale: std::mem::take(stale),
                decisions: pair.decisions,
            })
            .collect();
        Report {
            stream,
            stale: std::mem::take(&mut explained[0]),
            flows,
            cross: self.cross.iter().map(Cross::counters).collect(),
            log: first.stream,
            decisions: first.decisions,
            name: self.scenario.name.clone(),
            scenario: self.scenario.to_string(),
            seed: self.seed,
            simulated_us: stage.now.as_micros(),
            events: self.events,
            fingerprint: stage.log.value(),
            frames: first.frames,
            keyframes: first.keyframes,
            invalidations: first.invalidations,
            slices_refused: first.slices_refused,
            player: *first.player.counters(),
            latency: Distribution::of(first.player.latencies_us()),
            input_latency: Distribution::of(first.input.latencies_us()),
            input: *first.input.counters(),
            down,
            up,
            host_drops: first.host_drops,
            client_drops: first.client_drops,
            sessions: first.sessions,
            key_generations: first.host.key_generations(),
            first_picture_us: first.first_picture.map(Timestamp::as_micros),
            samples: first.samples,
            violations: stage.violations,
        }
    }
}
