//! Host and client of an emulated run: the loops of the programs' network threads over real sockets, with the
//! simulator's video source before the one and nothing but a log behind the other.
//!
//! Invariant: what happens at which event is what the simulated world does at it; only who tells the time differs.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rift_core::endpoint::{ClientEndpoint, HostEndpoint};
use rift_core::send::SenderCounters;
use rift_core::{FrameId, Timestamp};
use rift_sim::endpoint::{Client as _, EncodedSlice, Host as _, HostNotice};
use rift_sim::metrics::{Idle, StreamLog};
use rift_sim::scenario::{Action, Scenario};
use rift_sim::source::Source;
use wavry_netem::Lateness;
use wavry_runtime::transport::Transport;
use wavry_session_loop::{SessionLoop, now};

/// What the host's end wrote down. Times in microseconds of the run.
pub(super) struct HostLog {
    pub(super) stream: StreamLog,
    /// At the end of the warm-up and at the end.
    pub(super) sender: [SenderCounters; 2],
    /// How late the thread woke for what the endpoint had to do at a time: bursts of a paced frame, mostly.
    pub(super) woken: Lateness,
    /// How often it did.
    pub(super) wakes: u64,
}

/// The sending end.
pub(super) struct Host<'a, T> {
    session: SessionLoop<T, HostEndpoint>,
    source: Source,
    scenario: &'a Scenario,
    epoch: Timestamp,
    streaming: bool,
    next_capture: Timestamp,
    /// Slices that the encoder will have ready.
    encoding: VecDeque<(Timestamp, FrameId, u32)>,
    acted: usize,
    paused: bool,
    log: StreamLog,
    woken: Lateness,
    wakes: u64,
    slice: Vec<u8>,
}

impl<'a, T: Transport> Host<'a, T> {
    pub(super) fn new(
        transport: T,
        endpoint: HostEndpoint,
        scenario: &'a Scenario,
        seed: u64,
        epoch: Timestamp,
    ) -> Self {
        let source = Source::new(scenario.source, seed);
        let mut log = StreamLog::default();
        log.on_target(0, source.rate());
        Self {
            session: SessionLoop::new(transport, endpoint),
            source,
            scenario,
            epoch,
            streaming: false,
            next_capture: Timestamp::NEVER,
            encoding: VecDeque::new(),
            acted: 0,
            paused: false,
            log,
            woken: Lateness::default(),
            wakes: 0,
            slice: Vec::new(),
        }
    }

    /// Until `over`.
    pub(super) fn run(mut self, over: &AtomicBool) -> io::Result<HostLog> {
        let warm = self.epoch.plus_micros(self.scenario.warmup_us);
        let mut at_warm_up = None;
        while !over.load(Ordering::Acquire) {
            let now = now();
            if now >= warm {
                at_warm_up.get_or_insert_with(|| self.sender());
            }
            self.session.receive(now);
            self.act(now);
            self.hear(now);
            if self.streaming && now >= self.next_capture {
                self.capture(now);
            }
            while self.encoding.front().is_some_and(|&(at, ..)| at <= now)
                && let Some((_, frame, index)) = self.encoding.pop_front()
            {
                self.submit(now, frame, index);
            }
            self.session.transmit(now);
            self.hear(now);
            let encoded = self.encoding.front().map_or(Timestamp::NEVER, |&(at, ..)| at);
            let due = self.session.endpoint().poll_timeout();
            self.session.turn(self.next_capture.min(encoded).min(now.plus_micros(20_000)))?;
            let woken = wavry_session_loop::now();
            if due > now && due <= woken {
                self.wakes += 1;
                self.woken.add(woken.micros_since(due));
            }
        }
        Ok(HostLog {
            sender: [at_warm_up.unwrap_or_default(), self.sender()],
            stream: self.log,
            woken: self.woken,
            wakes: self.wakes,
        })
    }

    fn sender(&self) -> SenderCounters {
        self.session.endpoint().sender_counters().copied().unwrap_or_default()
    }

    /// Microseconds of the run.
    fn us(&self, at: Timestamp) -> u64 {
        at.micros_since(self.epoch)
    }

    /// What the scenario does to the pictures.
    fn act(&mut self, now: Timestamp) {
        while let Some((at, action)) = self.scenario.timeline.get(self.acted)
            && *at <= self.us(now)
        {
            match action {
                Action::Content(content) => self.source.set_content(*content),
                Action::Pause(_) => self.paused = true,
                Action::Resume(_) => self.paused = false,
                _ => {}
            }
            self.acted += 1;
        }
    }

    fn hear(&mut self, now: Timestamp) {
        while self.session.endpoint_mut().poll_decision().is_some() {}
        while let Some(notice) = self.session.endpoint_mut().poll_notice() {
            match notice {
                HostNotice::SessionStarted => {
                    self.streaming = true;
                    self.source.restart();
                    self.next_capture = now;
                }
                HostNotice::SessionEnded => {
                    self.streaming = false;
                    self.next_capture = Timestamp::NEVER;
                }
                HostNotice::KeyframeNeeded => self.source.on_keyframe_needed(),
                HostNotice::ReferenceInvalidated(last) => self.source.on_reference_invalidated(last),
                HostNotice::ReferencePreferred(known) => self.source.on_reference_preferred(known),
                HostNotice::FrameAcknowledged(frame) => self.source.on_acknowledged(frame),
                HostNotice::RateChanged { bitrate, fps } => {
                    self.source.on_rate_changed(bitrate, fps);
                    self.log.on_target(self.us(now), self.source.rate());
                }
                HostNotice::SkipFrames(frames) => self.source.on_skip_frames(frames),
                HostNotice::EncoderHeld(held) => self.source.on_held(held),
                HostNotice::Input(_) | HostNotice::ReleaseAllInput => {}
            }
        }
    }

    fn capture(&mut self, now: Timestamp) {
        let captured_us = self.us(now);
        let truth = if self.paused { None } else { self.source.capture(Timestamp::from_micros(captured_us)) };
        match truth {
            Some(truth) => {
                let slices = &truth.slices[..truth.slice_count as usize];
                let bytes: usize = slices.iter().sum();
                self.log.on_captured(truth.id, captured_us, bytes as u64);
                for index in 0..truth.slice_count {
                    let ready = now.plus_micros(self.source.slice_ready_us(index).into());
                    self.encoding.push_back((ready, truth.id, index));
                }
            }
            None => {
                let why = match (self.paused, self.source.is_held()) {
                    (true, _) => Idle::Paused,
                    (false, true) => Idle::Held,
                    (false, false) => Idle::Skipped,
                };
                self.log.on_idle(captured_us, why);
            }
        }
        // From when it was due, not from when the thread ran; but a thread that did not run makes up for nothing.
        let next = self.next_capture.plus_micros(self.source.interval_us());
        self.next_capture = if next > now { next } else { now.plus_micros(self.source.interval_us()) };
    }

    fn submit(&mut self, now: Timestamp, frame: FrameId, index: u32) {
        if !self.streaming || !self.source.emit_slice(frame, index, &mut self.slice) {
            return;
        }
        let Some(truth) = self.source.truth(frame) else { return };
        let slice = EncodedSlice {
            frame_id: frame,
            index,
            last: index + 1 == truth.slice_count,
            keyframe: truth.keyframe.is_some(),
            reference: truth.reference,
            captured_at: self.epoch.plus_micros(truth.captured_at.as_micros()),
            encode_us: self.source.slice_ready_us(index),
            data: &self.slice,
        };
        // What is refused never becomes complete, which the log shows.
        let _ = rift_sim::endpoint::Host::submit_slice(self.session.endpoint_mut(), now, &slice);
    }
}

/// The receiving end, until `over`. When each frame was complete, in microseconds of the run.
pub(super) fn receive<T: Transport>(
    mut session: SessionLoop<T, ClientEndpoint>,
    scenario: &Scenario,
    epoch: Timestamp,
    over: &AtomicBool,
) -> io::Result<Vec<(FrameId, u64)>> {
    let mut complete = Vec::new();
    let mut decoding: VecDeque<Decoding> = VecDeque::new();
    let mut waiting: VecDeque<(Timestamp, FrameId)> = VecDeque::new();
    while !over.load(Ordering::Acquire) {
        let now = now();
        session.receive(now);
        let endpoint = session.endpoint_mut();
        while endpoint.poll_notice().is_some() {}
        while let Some(slice) = endpoint.poll_slice(now) {
            if slice.last {
                complete.push((slice.frame_id, now.micros_since(epoch)));
                decoding.push_back(Decoding {
                    at: now.plus_micros(scenario.decode_us),
                    frame: slice.frame_id,
                    show: slice.show,
                    show_at: slice.show_at,
                    deadline: slice.deadline,
                });
            }
        }
        while decoding.front().is_some_and(|picture| picture.at <= now)
            && let Some(picture) = decoding.pop_front()
        {
            endpoint.on_decoded(now, picture.frame);
            if picture.show && now.max(picture.show_at) <= picture.deadline {
                waiting.push_back((picture.show_at, picture.frame));
            }
        }
        while waiting.front().is_some_and(|&(at, _)| at <= now)
            && let Some((_, frame)) = waiting.pop_front()
        {
            endpoint.on_shown(now, frame);
        }
        session.transmit(now);
        let decoded = decoding.front().map_or(Timestamp::NEVER, |picture| picture.at);
        let shown = waiting.front().map_or(Timestamp::NEVER, |&(at, _)| at);
        session.turn(decoded.min(shown).min(now.plus_micros(20_000)))?;
    }
    Ok(complete)
}

struct Decoding {
    at: Timestamp,
    frame: FrameId,
    show: bool,
    show_at: Timestamp,
    deadline: Timestamp,
}
