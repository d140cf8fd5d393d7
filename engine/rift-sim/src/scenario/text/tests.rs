//! What is written is read back, and what is wrong is told.

use super::*;

const EXAMPLE: &str = "
    name evening
    duration 60s
    down rate 50Mbit/s delay 10ms jitter 2ms queue 200kB loss 2% reorder 1% 3ms duplicate 0.5% corrupt 0.25%
    up delay 10ms loss burst 1% 5
    video fps 30 rate 2Mbit/s slices 2 encode 4ms keyframe 5 noise 30% fixed   # a comment; not a statement
    input 5; attack 1%
    clock host 1h -20
    protocol xx first-packet 4294900000 rekey 1min
    at 10s down rate 5Mbit/s
    at 20s jump client -5s
    at 30s rebind
    at 40s vanish; at 45s restart; at 50s close client
    at 55s down loss none
    limit latency 130ms freeze 100ms recovery 3 keyframes 0 shown 97% stuck 1s";

#[test]
fn every_statement_is_understood() {
    let s: Scenario = EXAMPLE.parse().unwrap();
    assert_eq!(s.name, "evening");
    assert_eq!(s.down.capacity, Capacity::Constant(Bitrate::from_mbps(50)));
    assert_eq!((s.down.delay_us, s.down.jitter_us), (10_000, 2_000));
    assert_eq!(s.down.queue, QueueLimit::Bytes(200_000));
    assert_eq!(s.down.loss, Loss::Random { rate: 0.02 });
    assert_eq!(s.up.loss, Loss::bursts(0.01, 5.0));
    assert_eq!((s.source.fps, s.source.slices, s.source.adaptive), (30, 2, false));
    assert_eq!(s.host_clock, ClockConfig { start_us: 3_600_000_000, drift_ppm: -20 });
    assert_eq!((s.protocol.ik, s.protocol.rekey_us), (false, 60_000_000));
    assert_eq!(s.protocol.first_packet_id, 4_294_900_000);
    assert_eq!(s.timeline.len(), 7);
    let Action::Down(first) = &s.timeline[0].1 else { panic!("{:?}", s.timeline[0]) };
    let narrow = Capacity::Constant(Bitrate::from_mbps(5));
    assert_eq!((&first.capacity, first.loss), (&narrow, s.down.loss));
    let Action::Down(last) = &s.timeline[6].1 else { panic!("{:?}", s.timeline[6]) };
    assert_eq!((&last.capacity, last.loss), (&narrow, Loss::None));
    assert_eq!(s.timeline[1], (20_000_000, Action::ClockJump(Side::Client, -5_000_000)));
    assert_eq!(s.limits.shown, Some(0.97));
}

#[test]
fn what_is_written_is_read_back() {
    let text = EXAMPLE.parse::<Scenario>().unwrap().to_string();
    let again: Scenario = text.parse().unwrap();
    assert_eq!(again.to_string(), text);
    assert_eq!(again.timeline.len(), 7);
    let plain = Scenario::default();
    assert_eq!(plain.to_string().parse::<Scenario>(), Ok(plain));
}

#[test]
fn capacities_queues_and_video_are_understood_and_written() {
    let text = "warmup 5s; controller oracle; down steps 20Mbit/s 20s 5Mbit/s 10s queue 200ms codel;
        up trace Verizon-LTE-short.down x0.25 from 3s queue 3MB mark 2ms 10ms jitter sd 5ms;
        video rate 5Mbit/s min 1Mbit/s max 80Mbit/s scene 2.5 4s content 4Mbit/s;
        at 20s content unlimited; at 21s down lte 8Mbit/s droptail; at 22s up wifi 80Mbit/s; at 23s content 1Mbit/s";
    let s: Scenario = text.parse().unwrap();
    assert_eq!((s.warmup_us, s.controller), (5_000_000, Controller::Oracle));
    let mbps = Bitrate::from_mbps;
    assert_eq!(s.down.capacity, Capacity::Steps([(mbps(20), 20_000_000), (mbps(5), 10_000_000)].into()));
    assert_eq!(s.down.queue, QueueLimit::Time(200_000));
    assert_eq!(s.down.aqm, Aqm::CoDel { target_us: 5_000, interval_us: 100_000 });
    assert_eq!((s.up.jitter_sd_us, s.up.aqm), (5_000, Aqm::Mark { low_us: 2_000, high_us: 10_000 }));
    assert_eq!(s.missing_traces().collect::<Vec<_>>(), ["Verizon-LTE-short.down"]);
    assert_eq!((s.source.rate_min, s.source.content), (Some(mbps(1)), Some(mbps(4))));
    assert_eq!(s.timeline[0].1, Action::Content(None));
    assert_eq!(s.to_string().parse::<Scenario>(), Ok(s));
}

#[test]
fn streams_and_other_traffic_are_understood_and_written() {
    let text = "main start 5s delay 1ms; flow start 10s stop 40s delay 30ms reverse controller oracle; flow;
        cross cubic; cross cubic hystart start 5s stop 35s delay 10ms; cross web every 2s size 50kB;
        cross cbr 8Mbit/s on 5s off 6s reverse; cross cbr 1Mbit/s; at 40s pause 2; at 60s resume 2";
    let s: Scenario = text.parse().unwrap();
    assert_eq!(s.main, FlowConfig { start_us: 5_000_000, delay_us: 1_000, ..FlowConfig::default() });
    let far = FlowConfig {
        start_us: 10_000_000,
        stop_us: Some(40_000_000),
        delay_us: 30_000,
        reverse: true,
        controller: Some(Controller::Oracle),
    };
    assert_eq!(s.flows, [far, FlowConfig::default()]);
    let kinds: Vec<_> = s.cross.iter().map(|cross| cross.kind).collect();
    let rate = Bitrate::from_mbps;
    assert_eq!(kinds[1], CrossKind::Cubic { hystart: true });
    assert_eq!(kinds[2], CrossKind::Web { every_us: 2_000_000, bytes: 50_000 });
    assert_eq!(kinds[3], CrossKind::Cbr { rate: rate(8), on_us: 5_000_000, off_us: 6_000_000 });
    assert_eq!(kinds[4], CrossKind::Cbr { rate: rate(1), on_us: 0, off_us: 0 });
    assert_eq!((s.cross[1].stop_us, s.cross[3].reverse), (Some(35_000_000), true));
    assert_eq!(s.timeline[0].1, Action::Pause(2));
    assert_eq!(s.to_string().parse::<Scenario>(), Ok(s));
}

#[test]
fn faults_are_told_with_their_place() {
    for (text, fault) in [
        ("name a; speed 3", "statement 2"),
        ("down delay 10", "needs a unit"),
        ("down delay -1ms", "negative"),
        ("up loss 120%", "0% to 100%"),
        ("at 5s explode", "no action"),
        ("at 5s rebind; at 4s rebind", "order of time"),
        ("duration", "missing"),
        ("duration 5s 6s", "too much"),
        ("input many", "not a number"),
        ("clock cellar 1s 0", "neither"),
        ("controller magic", "delta-v1"),
        ("down steps 5Mbit/s", "missing"),
        ("down steps 5Mbit/s 0s", "no time"),
        ("down trace a/b", "directory"),
        ("down trace a x0", "x0.001"),
        ("down mark 5ms 1ms", "shorter"),
        ("down queue 5apples", "needs a unit"),
        ("flow start 5s stop 4s", "later than"),
        ("flow speed 5", "a stream has no"),
        ("flow controller magic", "delta-v1"),
        ("cross torrent", "cubic, web, cbr"),
        ("cross cbr 8Mbit/s on 5s", "needs an `off`"),
        ("cross web every 0s", "some time"),
        ("cross cubic stop 0s", "later than"),
        ("at 5s pause 2", "numbered 1 to 1"),
    ] {
        let error = text.parse::<Scenario>().unwrap_err().to_string();
        assert!(error.contains(fault), "{text}: {error}");
    }
}
