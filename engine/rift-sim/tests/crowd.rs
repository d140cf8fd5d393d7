//! Several streams and other traffic on one path, with the real endpoints.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use rift_sim::{Report, Scenario, run};

const PATH: &str = "name crowd; duration 12s; warmup 2s; input 0; decode 0us; protocol parity 0%;
    video rate 5Mbit/s min 1Mbit/s max 80Mbit/s slices 1 encode 0us; down rate 20Mbit/s delay 10ms queue 200ms; up delay 10ms";

fn text(more: &str, seed: u64) -> Report {
    run(&format!("{PATH}; {more}").parse::<Scenario>().unwrap(), seed)
}

#[test]
fn streams_share_a_queue_and_each_has_its_own_account() {
    let report = text("flow start 3s delay 20ms", 1);
    assert!(report.violations.count() == 0, "{report}");
    let (first, second) = (&report.stream, &report.flows[0].stream);
    let frames = |stream: &rift_sim::metrics::StreamMetrics| stream.frames - stream.incomplete;
    assert!(frames(first) > 500 && frames(second) > 300, "{report}");
    // 20 ms longer one way, on the same queue.
    assert!(second.delay_us[0] > first.delay_us[0] + 10_000, "{:?} {:?}", first.delay_us, second.delay_us);
    let used = first.shared.together.unwrap();
    assert!((0.6..1.01).contains(&used), "{used}");
    assert_eq!(text("flow start 3s delay 20ms", 1).fingerprint, report.fingerprint);
    assert_ne!(text("flow start 3s delay 20ms", 2).fingerprint, report.fingerprint);
}

#[test]
fn a_stream_that_stops_leaves_the_path_to_the_others() {
    let report = text("flow start 1s stop 5s", 1);
    assert!(report.violations.count() == 0, "{report}");
    let last = report.flows[0].samples.iter().filter(|s| s.arrived_bytes > 2_000).map(|s| s.at_us).max();
    assert!((4_900_000..5_300_000).contains(&last.unwrap()), "{last:?}");
}

#[test]
fn each_way_has_its_own_queue() {
    let report = text("flow reverse; up rate 10Mbit/s queue 200ms", 1);
    assert!(report.violations.count() == 0, "{report}");
    let reverse = &report.flows[0].stream;
    assert!((9.9..10.1).contains(&reverse.capacity_mbps.unwrap()), "{reverse:?}");
    assert!(report.up.bytes > 5_000_000 && reverse.utilisation.unwrap() > 0.5, "{report}");
}

#[test]
fn others_take_their_part_of_the_path() {
    let report = text("cross cbr 8Mbit/s start 4s stop 8s; cross web every 500ms size 20kB", 1);
    assert!(report.violations.count() == 0, "{report}");
    let [cbr, web] = report.cross[..] else { panic!("{:?}", report.cross) };
    assert!((3_800_000..4_010_000).contains(&cbr.arrived_bytes), "{cbr:?}");
    assert!(web.downloads > 8, "{web:?}");
    let beside = report.stream.shared.beside_mbps.unwrap();
    assert!(beside < 19.0, "{beside}");
}

#[test]
fn a_paused_stream_sends_no_pictures() {
    let report = text("flow; at 4s pause 2; at 8s resume 2", 1);
    let captured = |from: u64, to: u64| {
        report.flows[0].log.frames.iter().filter(|f| (from..to).contains(&f.captured_us)).count()
    };
    assert_eq!(captured(4_100_000, 7_900_000), 0);
    assert!(captured(8_100_000, 11_000_000) > 100);
}

/// The oracle knows the capacity, and paces to it: no shallow queue overflows, no step takes it by surprise for long.
#[test]
fn an_oracle_uses_what_there_is_and_no_more() {
    for (path, used, late) in [
        ("down queue 20ms", 0.93, 0.004),
        ("down loss 1%", 0.93, 0.04),
        ("down steps 20Mbit/s 4s 5Mbit/s 4s", 0.9, 0.05),
        // What the others take is not there for it.
        ("cross cbr 8Mbit/s on 3s off 3s", 0.6, 0.02),
    ] {
        let report = text(&format!("controller oracle; video noise 15% scene 2.5 4s; {path}"), 1);
        let stream = &report.stream;
        let queue_full = report.down.queue_full as f64 / report.down.packets as f64;
        assert!(stream.utilisation.unwrap() >= used, "{path}: {report}");
        assert!(stream.over_50ms <= late && queue_full < 0.002, "{path}: {report}");
    }
}
