//! The rules, on a model of a path: a queue in front of a link of known speed.

use proptest::prelude::*;

use super::*;
use crate::PacketId;
use crate::feedback::{InFlight, SentHistory};
use crate::message::ArrivalFeedback;

const PERIOD_US: u64 = 16_667;
const DELAY_US: u64 = 10_000;
const BYTES: u16 = 1_228;

/// A sender that follows the controller, a path, and a client that reports each frame.
struct Model {
    delta: Delta2,
    history: SentHistory,
    now: u64,
    /// When the link is free again.
    busy_us: f64,
    capacity_bps: f64,
    next_id: u64,
    frame: u64,
    /// Percent of the target that the content needs.
    content: f64,
    loss: u64,
    /// How many packets are lost in a row.
    row: u64,
    /// The most that jitter holds a packet back, in microseconds; the order is kept.
    jitter_us: u64,
    last_arrival: u64,
    rng: fastrand::Rng,
    /// Parity packets per packet.
    redundancy: f64,
    marked: bool,
    held_frames: u64,
    /// Bits per second that somebody else puts into the same queue.
    rival_bps: f64,
    reports: Vec<(u64, u64, Vec<u8>)>,
    seen: Vec<DecisionTrace>,
}

fn config() -> Delta2Config {
    Delta2Config {
        bitrate_min: Bitrate::from_mbps(1),
        bitrate_max: Bitrate::from_mbps(80),
        bitrate_initial: Bitrate::from_mbps(5),
        fps_max: 60,
    }
}

impl Model {
    fn new(capacity_mbps: f64) -> Self {
        Self {
            delta: Delta2::new(&config()),
            history: SentHistory::new(16_384),
            now: 1_000_000,
            busy_us: 0.0,
            capacity_bps: capacity_mbps * 1e6,
            next_id: 0,
            frame: 0,
            content: 1.0,
            loss: 0,
            row: 1,
            redundancy: 0.0,
            jitter_us: 0,
            last_arrival: 0,
            rng: fastrand::Rng::with_seed(5),
            marked: false,
            held_frames: 0,
            rival_bps: 0.0,
            reports: Vec::new(),
            seen: Vec::new(),
        }
    }

    fn mbps(&self) -> f64 {
        self.delta.rate_bps / 1e6
    }

    fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    /// Sends one frame and lets one period pass.
    fn frame(&mut self) {
        self.deliver_reports();
        let flight = self.history.in_flight();
        if Self::at(self.now) >= self.delta.poll_timeout() {
            self.delta.handle_timeout(Self::at(self.now), flight);
        }
        while let Some(decision) = self.delta.poll_trace() {
            self.seen.push(decision);
        }
        if self.delta.is_held() {
            self.held_frames += 1;
        } else {
            self.send_frame();
        }
        self.busy_us += self.rival_bps / self.capacity_bps * PERIOD_US as f64;
        self.now += PERIOD_US;
    }

    fn send_frame(&mut self) {
        let rate = self.delta.target_bitrate().as_bps() as f64 * self.content;
        let packets = ((rate / 60.0 / 8.0 / 1_100.0).round() as u64).max(1);
        let pace_bps = self.delta.pacing().map_or(1e9, |p| p.as_bps() as f64);
        self.delta.on_slice(Self::at(self.now), packets as usize * 1_100, true);
        let first = self.next_id;
        let mut arrivals = Vec::new();
        let again = (packets as f64 * self.redundancy) as u64;
        for i in 0..packets + again {
            let sent = self.now + (i as f64 * f64::from(BYTES) * 8e6 / pace_bps) as u64;
            let packet = SentPacket {
                id: PacketId(self.next_id),
                frame: FrameId(self.frame),
                position: i as u16,
                bytes: BYTES,
                sent_at: Self::at(sent),
                kind: if i < packets { PacketKind::Data } else { PacketKind::Parity },
            };
            self.history.on_sent(packet);
            self.delta.on_sent(&packet);
            self.busy_us = self.busy_us.max(sent as f64) + f64::from(BYTES) * 8e6 / self.capacity_bps;
            // 37 scatters what is lost of each 100.
            let lost = self.next_id / self.row * 37 % 100 < self.loss;
            let jitter_us = self.rng.u64(0..=self.jitter_us).saturating_sub(self.jitter_us / 2);
            self.last_arrival = self.last_arrival.max(self.busy_us as u64 + DELAY_US + jitter_us);
            arrivals.push((!lost).then_some(self.last_arrival));
            self.next_id += 1;
        }
        self.frame += 1;
        let report_us = arrivals.iter().flatten().max().map_or(self.now, |last| last + 500);
        let mark = if self.marked { 0xc000 } else { 0 };
        let entries = arrivals.iter().flat_map(|a| {
            a.map_or(0xffff, |a| mark | ((report_us - a) / 64).min(0x3ffe) as u16).to_be_bytes()
        });
        self.reports.push((report_us + DELAY_US, first, entries.collect()));
    }

    fn deliver_reports(&mut self) {
        while self.reports.first().is_some_and(|r| r.0 <= self.now) {
            let (at, first, arrivals) = self.reports.remove(0);
            let report = ArrivalFeedback {
                first_packet_id: first,
                report_us: at - DELAY_US,
                arrivals: &arrivals,
                marked_packets: 0,
            };
            let delta = &mut self.delta;
            let summary = self.history.on_report(Self::at(at), &report, |o| delta.on_outcome(o));
            self.delta.on_report(Self::at(at), &summary, self.history.in_flight());
            while let Some(decision) = self.delta.poll_trace() {
                self.seen.push(decision);
            }
        }
    }

    fn seconds(&mut self, seconds: f64) {
        let end = self.now + (seconds * 1e6) as u64;
        while self.now < end {
            self.frame();
        }
    }

    fn saw(&self, reason: Reason) -> usize {
        self.seen.iter().filter(|d| d.reason == reason).count()
    }
}

/// Proves R-CTRL-2, R-CTRL-3: capacity is found within half a second and nine tenths of it are used.
#[test]
fn the_rate_ramps_to_its_share_of_the_capacity_and_stays() {
    for capacity in [8.0, 20.0, 50.0, 80.0] {
        let mut model = Model::new(capacity);
        model.seconds(0.5);
        assert!(model.mbps() > 0.75 * capacity, "{capacity}: {}", model.mbps());
        model.seconds(5.0);
        // Finding a slow path may cost a frame or two.
        let held = model.held_frames;
        assert!(held <= 2, "{capacity}: {held}");
        for _ in 0..300 {
            model.frame();
            let share = model.mbps() / capacity;
            assert!((0.86..=0.91).contains(&share), "{capacity}: {share}");
        }
        assert_eq!(model.delta.state(), PathState::Stable);
        assert_eq!(model.held_frames, held, "{capacity}");
    }
}

/// Proves R-CTRL-3: however far the goal, one round trip and frame brings no more than the ramp's factor.
#[test]
fn growth_is_bounded() {
    let mut model = Model::new(70.0);
    model.seconds(0.1);
    for _ in 0..60 {
        let before = model.mbps();
        model.frame();
        assert!(model.mbps() <= before * RAMP.powf(1.5) + 1e-6, "{before} -> {}", model.mbps());
    }
}

/// Proves R-CTRL-4, R-CTRL-5: a path that becomes four times as slow is followed within a quarter of a second, before
/// the frame under way is through, and back within one.
#[test]
fn a_step_of_the_capacity_is_followed() {
    let mut model = Model::new(20.0);
    model.seconds(4.0);
    model.capacity_bps = 5e6;
    model.seconds(0.25);
    assert!(model.mbps() < 5.2, "{}", model.mbps());
    assert!(model.saw(Reason::SlowFrame) + model.saw(Reason::Queue) + model.saw(Reason::Capacity) > 0);
    model.seconds(3.0);
    assert!((3.0..=4.7).contains(&model.mbps()), "{}", model.mbps());
    model.capacity_bps = 20e6;
    model.seconds(1.0);
    assert!(model.mbps() > 14.0, "{}", model.mbps());
}

/// Proves R-CTRL-4: the queue of somebody else lowers the rate, once per round trip, to the published share.
#[test]
fn a_queue_of_others_is_congestion() {
    let mut model = Model::new(20.0);
    model.seconds(4.0);
    model.rival_bps = 6e6;
    model.seconds(2.0);
    assert!(model.saw(Reason::Queue) > 0);
    assert!(model.mbps() < 15.0, "{}", model.mbps());
    let reductions: Vec<_> = model.seen.iter().filter(|d| d.reason == Reason::Queue).collect();
    for pair in reductions.windows(2) {
        assert!(pair[1].at.micros_since(pair[0].at) >= 2 * DELAY_US, "{pair:?}");
    }
}

/// Proves R-CTRL-6.
#[test]
fn what_is_not_used_is_not_assumed() {
    let mut model = Model::new(60.0);
    model.content = 0.4;
    model.seconds(6.0);
    let sent = model.delta.sending.rate_bps(Timestamp::from_micros(model.now), false).unwrap() / 1e6;
    assert!(model.mbps() < 6.0, "{} while {sent} were sent", model.mbps());
    model.content = 1.0;
    model.seconds(0.8);
    assert!(model.mbps() > 0.8 * 54.0, "{}", model.mbps());
}

/// Proves R-CTRL-7: nothing is put behind what does not arrive, but for ten frames a second; and it goes on at once.
#[test]
fn an_outage_holds_the_encoder_and_is_probed() {
    let mut model = Model::new(20.0);
    model.seconds(3.0);
    assert_eq!(model.held_frames, 0);
    let began = model.now;
    model.busy_us = (began + 1_000_000) as f64;
    let frames = model.frame;
    model.seconds(0.9);
    let sent = model.frame - frames;
    assert!((8..=18).contains(&sent), "{sent} frames in an outage of 0.9 s");
    assert!(model.delta.is_held() && model.saw(Reason::Probe) >= 6, "{}", model.saw(Reason::Probe));
    let mbps = |model: &Model| model.delta.target_bitrate().as_bps() as f64 / 1e6;
    assert!((1.0..=0.1 * model.mbps()).contains(&mbps(&model)), "what tries the path is small");
    model.seconds(0.6);
    assert!(!model.delta.is_held());
    assert!(model.saw(Reason::Resumed) >= 1 && mbps(&model) > 0.5 * model.mbps());
}

/// Proves R-CTRL-8.
#[test]
fn random_loss_is_no_congestion_until_it_is_a_flood() {
    let mut model = Model::new(20.0);
    model.loss = 5;
    model.seconds(6.0);
    assert!(model.mbps() > 16.0, "{}", model.mbps());
    assert_eq!(model.saw(Reason::Loss), 0);
    model.loss = 30;
    model.seconds(3.0);
    assert!(model.mbps() < 12.0 && model.saw(Reason::Loss) > 0, "{}", model.mbps());
}

/// Proves R-CTRL-8: what an outage took is no flood.
#[test]
fn losses_of_an_outage_do_not_count() {
    let told_lost = |silence_us: u64| {
        let mut model = Model::new(20.0);
        model.seconds(3.0);
        let sent_at = model.now;
        let at = |us: u64| Model::at(sent_at + us);
        let flight = InFlight { bytes: 30_000, oldest_unreported: Some(at(0)) };
        model.delta.handle_timeout(at(60_000), flight);
        assert!(model.delta.is_overdue());
        let packet = SentPacket { bytes: BYTES, sent_at: at(0), ..SentPacket::default() };
        (0..100).for_each(|_| model.delta.on_outcome(&PacketOutcome { packet, fate: Fate::Lost }));
        let last = model.delta.last_report.unwrap().as_micros();
        let report = ReportSummary { rtt_us: Some(20_000), ..ReportSummary::default() };
        model.delta.last_report = Some(Model::at(last + 60_000));
        model.delta.on_report(Model::at(last + 60_000 + silence_us), &report, flight);
        model.delta.loss
    };
    assert!(told_lost(44_000) > 0.3);
    assert!(told_lost(60_000) < 0.01);
}

/// Proves R-CTRL-15: jitter neither hides most of the path nor is taken for a queue, and a queue still is one.
#[test]
fn jitter_is_no_congestion() {
    let mut model = Model::new(20.0);
    model.jitter_us = 12_000;
    model.seconds(6.0);
    let (mut least, mut sum) = (f64::INFINITY, 0.0);
    for _ in 0..1200 {
        model.frame();
        least = least.min(model.mbps());
        sum += model.mbps() / 1200.0;
    }
    assert!(least > 11.0 && (14.0..=19.0).contains(&sum), "{least}, mean {sum}");
    model.capacity_bps = 10e6;
    model.seconds(1.0);
    assert!(model.mbps() < 10.0, "{}", model.mbps());
}

/// Proves R-CTRL-14.
#[test]
fn parity_and_retransmissions_are_within_the_rate() {
    let mut model = Model::new(20.0);
    model.seconds(4.0);
    let video = model.delta.target_bitrate().as_bps() as f64;
    model.redundancy = 0.25;
    model.seconds(4.0);
    assert!((17.0..=18.2).contains(&model.mbps()), "{}", model.mbps());
    let left = model.delta.target_bitrate().as_bps() as f64 / video;
    assert!((0.78..=0.82).contains(&left), "{left}");
}

/// Proves R-CTRL-9: a queue that somebody keeps full is shared, and left alone soon after it is gone.
#[test]
fn a_rival_is_competed_with_until_it_is_gone() {
    let mut model = Model::new(20.0);
    model.seconds(4.0);
    // A flow that tops the queue up to 80 ms whenever it is shorter.
    let end = model.now + 8_000_000;
    while model.now < end {
        model.frame();
        model.busy_us = model.busy_us.max((model.now + 80_000) as f64);
    }
    assert!(model.saw(Reason::Compete) > 0);
    assert!(model.delta.rivalry.is_on());
    assert!((5.0..=9.5).contains(&model.mbps()), "{}", model.mbps());
    model.seconds(1.0);
    assert!(!model.delta.rivalry.is_on());
    assert!(model.mbps() > 15.0, "its share is free: {}", model.mbps());
}

/// Proves R-CTRL-4: a queue that takes several steps to drain is one congestion, after which growth is bounded by what
/// was before the first of them.
#[test]
fn what_a_short_burst_of_others_took_is_had_back_soon() {
    let mut model = Model::new(20.0);
    model.seconds(4.0);
    model.rival_bps = 14e6;
    model.seconds(0.25);
    assert!(model.saw(Reason::Queue) >= 2 && model.mbps() < 9.0, "{}", model.mbps());
    model.rival_bps = 0.0;
    model.seconds(0.6);
    assert!(model.mbps() > 13.0, "{}", model.mbps());
}

/// Proves R-CTRL-3: what is lost in a row leaves room for what is sent again.
#[test]
fn losses_in_a_row_leave_room() {
    let rate = |row: u64| {
        let mut model = Model::new(20.0);
        (model.loss, model.row) = (2, row);
        model.seconds(6.0);
        let mut sum = 0.0;
        for _ in 0..600 {
            model.frame();
            sum += model.mbps() / 600.0;
        }
        assert_eq!(model.saw(Reason::Loss), 0);
        (model.delta.runs.mean(), sum)
    };
    let ((one, single), (eight, rows)) = (rate(1), rate(8));
    assert!(one < 1.1 && eight > 7.0, "{one} {eight}");
    assert!((0.9..0.97).contains(&(rows / single)), "{rows} {single}");
}

/// Proves R-CTRL-9: whoever only gives way slowly is not competed with for long, and a rival that stays is tested less and
/// less often.
#[test]
fn a_rival_is_put_to_the_test() {
    let tests = |stays: bool| {
        let mut model = Model::new(20.0);
        model.seconds(4.0);
        let (began, mut tests, mut was_on) = (model.now, 0, false);
        while model.now < began + 20_000_000 {
            model.frame();
            // The other one keeps the queue where it is, but does not fill what this one leaves.
            let is_there = stays || tests == 0 || model.delta.rivalry.is_on();
            if is_there {
                model.busy_us = model.busy_us.max((model.now + 80_000) as f64);
            }
            let is_on = model.delta.rivalry.is_on();
            tests += u32::from(was_on && !is_on);
            was_on = is_on;
        }
        tests
    };
    assert_eq!(tests(false), 1);
    // After 3 and 6 s, and perhaps after 12.
    assert!((2..=4).contains(&tests(true)), "{}", tests(true));
}

/// Proves R-CTRL-10.
#[test]
fn marks_lower_the_rate_in_proportion() {
    let mut model = Model::new(20.0);
    model.seconds(4.0);
    let before = model.mbps();
    model.marked = true;
    model.seconds(1.0);
    assert!(model.saw(Reason::Marked) > 0 && model.mbps() < 0.5 * before, "{}", model.mbps());
}

/// Proves R-CTRL-11: a slow path gets bursts at 1.15 times its capacity at most, a fast one is found out and gets
/// frames at once.
#[test]
fn the_pace_follows_the_path() {
    let mut model = Model::new(20.0);
    model.seconds(4.0);
    let pace = model.delta.pacing().unwrap().as_bps() as f64 / 1e6;
    assert!((18.0..=25.5).contains(&pace), "{pace}");
    let mut model = Model::new(2_000.0);
    model.seconds(2.0);
    assert_eq!(model.delta.pacing(), None);
}

/// Proves R-CTRL-12: each change of the rate has its reason, and the trace says how things stand.
#[test]
fn decisions_are_told() {
    let mut model = Model::new(20.0);
    model.seconds(2.0);
    assert!(model.saw(Reason::Ramp) > 0 && model.saw(Reason::Approach) > 0);
    let last = model.seen.last().unwrap();
    assert!((19e6..21e6).contains(&(last.capacity.as_bps() as f64)), "{last:?}");
    assert!(last.rtt_us >= 20_000 && last.video < last.rate);
}

/// Proves R-CTRL-2: a stall in the middle of a frame is not taken for a slow link.
#[test]
fn one_gap_is_a_stall() {
    let mut capacity = Capacity::default();
    let mut feed = |frame: u64, stall_us: u64| {
        for i in 0..20u64 {
            let late = if i >= 10 { stall_us } else { 0 };
            let arrived_us = frame * 100_000 + i * 500 + late;
            let packet = SentPacket {
                frame: FrameId(frame),
                bytes: 1_250,
                sent_at: Timestamp::from_micros(frame * 100_000 + i * 300),
                ..SentPacket::default()
            };
            let fate = Fate::Arrived { arrived_us, delay_us: 0, marked: false };
            capacity.on_outcome(&PacketOutcome { packet, fate }, 0.0, 0.0);
        }
        capacity.bps()
    };
    assert_eq!(feed(0, 0), None);
    // 1250 bytes every 500 us are 20 Mbit/s.
    assert!((19e6..21e6).contains(&feed(1, 20_000).unwrap()));
    assert!((18e6..22e6).contains(&feed(2, 0).unwrap()));
}

/// Proves R-CTRL-2: frames of two packets find a path again that carries more, and never make it look slower.
#[test]
fn small_frames_only_raise_the_capacity() {
    let feed = |capacity: &mut Capacity, frames: core::ops::Range<u64>, packets: u64, apart_us: u64| {
        for (frame, i) in frames.flat_map(|frame| (0..packets).map(move |i| (frame, i))) {
            let packet = SentPacket {
                frame: FrameId(frame),
                bytes: 1_250,
                sent_at: Timestamp::from_micros(frame * 100_000),
                ..SentPacket::default()
            };
            let arrived_us = frame * 100_000 + i * apart_us;
            let fate = Fate::Arrived { arrived_us, delay_us: 0, marked: false };
            capacity.on_outcome(&PacketOutcome { packet, fate }, 0.0, 0.0);
        }
        capacity.bps()
    };
    let mut capacity = Capacity::default();
    // 10 Mbit/s.
    let first = feed(&mut capacity, 0..20, 20, 1_000).unwrap();
    assert!((9e6..11e6).contains(&first), "{first}");
    let held_up = feed(&mut capacity, 20..40, 2, 8_000).unwrap();
    assert!(held_up >= 0.99 * first, "{held_up}");
    // 20 Mbit/s.
    let found = feed(&mut capacity, 40..60, 2, 500).unwrap();
    assert!((18e6..21e6).contains(&found), "{found}");
}

proptest! {
    /// Proves R-CTRL-1: whatever is reported, rate and frame rate stay in their bounds.
    #[test]
    fn absurd_reports_leave_the_rate_in_its_bounds(
        steps in prop::collection::vec((any::<u64>(), any::<u16>(), any::<i64>(), any::<bool>(), 0u8..6), 1..400)
    ) {
        let mut delta = Delta2::new(&config());
        for (at, small, delay_us, flag, what) in steps {
            let now = Timestamp::from_micros(at);
            let packet = SentPacket {
                id: PacketId(at), frame: FrameId(u64::from(small)), position: small % 8, bytes: small, sent_at: now,
                ..SentPacket::default()
            };
            match what {
                0 => delta.on_sent(&packet),
                1 => delta.on_slice(now, small.into(), flag),
                2 => delta.on_outcome(&PacketOutcome {
                    packet,
                    fate: Fate::Arrived { arrived_us: at.wrapping_add(delay_us as u64), delay_us, marked: flag },
                }),
                3 => delta.on_outcome(&PacketOutcome { packet, fate: Fate::Lost }),
                4 => delta.on_report(now, &ReportSummary { rtt_us: Some(at), ..Default::default() }, InFlight { bytes: at, oldest_unreported: flag.then_some(now) }),
                _ => if flag { delta.on_clock_jump(now) } else { delta.handle_timeout(now, InFlight { bytes: at, oldest_unreported: Some(packet.sent_at) }) },
            }
            let bitrate = delta.target_bitrate();
            prop_assert!(bitrate >= Bitrate::from_mbps(1) && bitrate <= Bitrate::from_mbps(80), "{:?}", bitrate);
            prop_assert!((1..=60).contains(&delta.target_fps()));
            prop_assert!(delta.rate_bps.is_finite() && !delta.pace_bps.is_nan());
        }
    }
}
