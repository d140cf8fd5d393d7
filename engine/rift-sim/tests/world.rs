//! The world itself: it is deterministic, and each checker finds what it is there for.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod toy;

use rift_sim::check::Rule;
use rift_sim::{Report, Scenario, run_with};
use toy::{Mistake, Toys};

const SOUND: &str = "name toy; duration 10s; down delay 5ms rate 100Mbit/s; up delay 5ms; video rate 5Mbit/s;
    limit latency 40ms freeze 40ms keyframes 0 shown 99% stuck 100ms recovery 3";

fn run(text: &str, seed: u64, mistake: Mistake) -> Report {
    let scenario: Scenario = text.parse().unwrap();
    run_with(&scenario, seed, Toys(mistake))
}

#[test]
fn a_sound_protocol_on_a_sound_path_breaks_no_rule() {
    let report = run(SOUND, 1, Mistake::None);
    assert!(report.passed(), "{report}");
    assert!(report.frames > 590 && report.player.shown > 590, "{report}");
    assert!(report.input.applied > 300, "{report}");
    // 4 ms to encode, 5 ms on the way, 2 ms to decode, and the time to send the last slice.
    assert!((11_000..12_500).contains(&report.latency.p50), "{report}");
    assert!((5_000..5_200).contains(&report.input_latency.p50), "{report}");
}

/// Proves that each checker can fail.
#[test]
fn every_mistake_is_found() {
    for (mistake, rule) in [
        (Mistake::PacketIdTwice, Rule::NonceOnce),
        (Mistake::SendInTheClear, Rule::Sealed),
        (Mistake::DamageSlice, Rule::SliceIntegrity),
        (Mistake::SliceTwice, Rule::SliceIntegrity),
        (Mistake::HoldFramesBack, Rule::ShownInTime),
        (Mistake::HoldFramesBack, Rule::ShownInOrder),
        (Mistake::LoseReleases, Rule::KeyStuck),
        (Mistake::InputTwice, Rule::InputOrder),
        (Mistake::NeverSleeps, Rule::Endless),
        (Mistake::NeverStopsSending, Rule::Endless),
        (Mistake::NoChecksum, Rule::Framing),
        (Mistake::AnswerAnybody, Rule::Amplification),
        (Mistake::AskForKeyframes, Rule::Keyframes),
        (Mistake::NeverConnect, Rule::Connected),
    ] {
        let report = run(&SOUND.replace("duration 10s", "duration 4s"), 3, mistake);
        assert!(report.violations.broke(rule), "{mistake:?} is not found as {rule:?}:\n{report}");
    }
}

/// A protocol that never repairs anything: one lost packet, and nothing more is decoded. The path is sound by then,
/// so that it is no excuse.
#[test]
fn a_freeze_that_recovery_could_have_avoided_fails_a_run() {
    let loss = "; limit freeze 60s latency 60s shown 0%; at 4s down loss 30%; at 4050ms down loss none";
    let report = run(&format!("{SOUND}{loss}"), 1, Mistake::None);
    assert!(report.violations.broke(Rule::AvoidableFreeze), "{report}");
    let blamed: u64 = report.stale.iter().filter(|s| s.cause.is_fault()).map(|s| s.to_us - s.from_us).sum();
    assert!(blamed > 5_000_000, "{report}");
}

/// While nothing gets through, nobody is at fault.
#[test]
fn an_outage_explains_a_freeze() {
    let outage = "; at 4s down loss 100%; at 4500ms down loss none";
    let report = run(&format!("{SOUND}{outage}"), 1, Mistake::None);
    let within = |us: u64| (4_050_000..4_500_000).contains(&us);
    let first = report.stale.iter().find(|stale| within(stale.from_us)).unwrap();
    assert!(!first.cause.is_fault() && first.to_us >= 4_500_000, "{report}");
}

#[test]
fn an_outage_is_a_freeze_and_lost_frames() {
    let outage = "; at 4s down loss 100%; at 4500ms down loss none";
    let report = run(&format!("{SOUND}{outage}"), 1, Mistake::None);
    assert!(report.violations.broke(Rule::Freeze), "{report}");
    assert!(report.violations.broke(Rule::FramesShown), "{report}");
    assert!(report.player.gap_us_max > 450_000, "{report}");
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_another() {
    let rough =
        format!("{SOUND}; down jitter 3ms loss 0.5% duplicate 1% corrupt 1%; up jitter 1ms; attack 5%");
    let fingerprint = |seed| run(&rough, seed, Mistake::None).fingerprint;
    assert_eq!(fingerprint(7), fingerprint(7));
    assert_ne!(fingerprint(7), fingerprint(8));
}

#[test]
fn the_printed_command_repeats_the_run() {
    let report = run(SOUND, 5, Mistake::NoChecksum);
    let command = report.reproduce();
    let text = command.split('\'').nth(1).unwrap();
    assert!(command.contains("--seed 5"));
    assert_eq!(run(text, 5, Mistake::NoChecksum).fingerprint, report.fingerprint);
    assert!(report.to_string().contains(&command), "a failed run prints how to repeat it");
}

#[test]
fn a_client_that_leaves_in_order_takes_its_keys_with_it() {
    let report = run(&format!("{SOUND}; at 5s close client"), 1, Mistake::None);
    assert!(report.passed(), "{report}");
    assert_eq!(report.input.released_all, 1);
}
