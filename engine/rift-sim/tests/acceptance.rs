//! What the protocol must do in the simulator, with the real endpoints at both ends.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use rift_sim::{Preset, Report, Scenario, run};

fn preset(name: &str, seed: u64) -> Report {
    run(&Preset::find(name).unwrap().scenario(), seed)
}

fn text(text: &str, seed: u64) -> Report {
    run(&text.parse::<Scenario>().unwrap(), seed)
}

fn assert_passed(report: &Report) {
    assert!(report.passed(), "\n{report}");
}

/// Proves R-ROB-4: with 2 % random loss and 20 ms round-trip time nothing is shown late, nothing freezes,
/// and no keyframe is needed beyond the first.
#[test]
fn two_percent_loss_is_repaired_in_time_without_keyframes() {
    for seed in 1..=3 {
        let report = preset("lossy", seed);
        assert_passed(&report);
        assert!(report.down.lost > 100, "nothing was lost\n{report}");
    }
}

#[test]
fn a_sound_network_shows_every_frame_at_once() {
    let report = preset("lan", 1);
    assert_passed(&report);
    // 4 ms to encode, 2 ms to decode, 0.2 ms on the way, and the time to send the last slice.
    assert!(report.latency.p50 < 8_000, "{report}");
}

/// Proves R-PLAY-4: a queue that goes away between two slices of a frame leaves neither it nor what follows late.
#[test]
fn frames_of_several_slices_keep_their_order_when_a_queue_goes() {
    for seed in 1..=6 {
        assert_passed(&text(
            "duration 1s; warmup 0s; down rate 12Mbit/s; video rate 20Mbit/s slices 4",
            seed,
        ));
    }
}

/// Proves R-REC-11: a path that all but stands still for a while drops packets of frames that are asked for while
/// nobody can know whether they are late or lost; recovery does not wait until it is too late for them.
#[test]
fn no_freeze_behind_an_outage_could_have_been_avoided() {
    for seed in 1..=6 {
        let report = text(
            "name crawl; warmup 2s; duration 8s; input 0; decode 0us; protocol parity 0%;
             video rate 5Mbit/s min 1Mbit/s max 80Mbit/s slices 1 encode 0us noise 15% scene 2.5 4s;
             down delay 10ms queue 200ms; up delay 10ms; down steps 12Mbit/s 4s 100kbit/s 600ms 12Mbit/s 10s",
            seed,
        );
        assert_passed(&report);
        assert!(report.stale.iter().any(|one| one.to_us - one.from_us > 300_000), "no outage\n{report}");
    }
}

#[test]
fn rough_paths_are_survived() {
    for name in ["wifi", "bursts", "squeeze"] {
        assert_passed(&preset(name, 1));
    }
}

/// Proves R-REC-5, R-REC-6: what can no longer come in time is repaired by a frame that references an older
/// one, not by a keyframe.
#[test]
fn an_outage_is_repaired_by_reference_invalidation() {
    for seed in 1..=12 {
        let report = text(
            "name outage; duration 7s; down delay 10ms; up delay 10ms;
             at 5s down loss 100%; at 5150ms down loss none; limit latency 130ms freeze 260ms keyframes 0",
            seed,
        );
        assert_passed(&report);
        assert!(report.invalidations > 0 && report.player.gap_us_max > 150_000, "{report}");
    }
}

/// Proves R-ROB-1: an attacker who copies, reflects, damages and invents packets changes nothing.
#[test]
fn an_attacker_on_the_path_changes_nothing() {
    let report = preset("hostile", 1);
    assert_passed(&report);
    assert!(report.sessions == 1 && report.host_drops.iter().count() >= 3, "{report}");
}

/// Proves R-SESS-10.
#[test]
fn clock_jumps_end_no_session() {
    let report = preset("jumps", 1);
    assert_passed(&report);
    assert_eq!(report.sessions, 1, "{report}");
}

#[test]
fn clients_come_and_go() {
    let report = preset("roaming", 1);
    assert_passed(&report);
    assert_eq!(report.sessions, 3, "{report}");
    assert_eq!(report.input.released_all, 3, "{report}");
}

/// Proves R-ROB-5: a day of hourly key renewal.
#[test]
fn a_day_of_key_renewal() {
    let report = preset("day", 1);
    assert_passed(&report);
    assert_eq!(report.sessions, 1, "{report}");
    assert_eq!(report.key_generations, (23, 23), "{report}");
}

/// Proves R-ROB-5: packet ids across 2^32, with keys renewed every 5000 packets, under loss and reordering.
#[test]
fn packet_ids_across_two_to_the_32_with_keys_renewed_all_the_time() {
    let report = text(
        "name wrap; duration 20s; protocol first-packet 4294957296 rekey-packets 5000; video rate 20Mbit/s;
         down delay 5ms loss 0.5% reorder 1% 3ms; up delay 5ms loss 0.5%; limit freeze 100ms keyframes 0 shown 98% stuck 1s",
        1,
    );
    assert_passed(&report);
    assert!(report.down.packets > 30_000, "{report}");
    assert!(report.key_generations.0 >= 5, "{:?}\n{report}", report.key_generations);
}

/// Proves R-ROB-2: scenario and seed decide every bit.
#[test]
fn the_same_seed_gives_the_same_run() {
    let rough =
        "name again; duration 5s; down delay 8ms jitter 2ms loss 3% reorder 1% 2ms duplicate 1% corrupt 1%;
                 up delay 8ms loss 3%; attack 5%; protocol xx";
    let first = text(rough, 9);
    assert_eq!(first.fingerprint, text(rough, 9).fingerprint);
    assert_ne!(first.fingerprint, text(rough, 10).fingerprint);
    assert!(first.player.shown > 200, "{first}");
}
