//! Processor time that is taken away: a client that stands still, as where a game or the system takes all cores.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Host, Place, Running, assert_succeeds, column};

/// Frames of both traces: when each was captured and shown, in microseconds of the machine's clock.
fn shown(host: &Path, client: &Path) -> Vec<(u64, u64)> {
    let captured: HashMap<u64, u64> =
        column(host, "frame").into_iter().zip(column(host, "captured_us")).collect();
    let frames = column(client, "frame").into_iter().zip(column(client, "presented_us"));
    frames
        .zip(column(client, "shown"))
        .filter(|&(_, shown)| shown == 1)
        .filter_map(|((frame, at), _)| Some((*captured.get(&frame)?, at)))
        .collect()
}

fn sorted(latencies: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut latencies: Vec<_> = latencies.collect();
    latencies.sort_unstable();
    latencies
}

/// The client's process stands still for 300 ms, three times. A second later frames come as soon as before, and what came
/// meanwhile costs no keyframe.
#[test]
fn latency_is_back_a_second_after_the_client_stood_still() {
    let place = Place::new("still");
    let (host_trace, client_trace) = (place.join("host.csv"), place.join("client.csv"));
    let mut host = Host::start_with(&place, &["--fps", "60", "--trace", host_trace.to_str().unwrap()]);
    assert_succeeds(&host.pair(&place, &host.pin));
    let mut command = host.client(&place, "6.5");
    command.arg("--trace").arg(&client_trace);
    let mut client = Running::start(command);
    client.wait_for("connected to ");
    let begun = Instant::now();
    let mut stopped_us = Vec::new();
    for at_ms in [1500, 3200, 4900] {
        std::thread::sleep(Duration::from_millis(at_ms).saturating_sub(begun.elapsed()));
        client.signal("STOP");
        // A frame captured just now is the last that was not held up.
        stopped_us.push(begun.elapsed().as_micros() as u64);
        std::thread::sleep(Duration::from_millis(300));
        client.signal("CONT");
    }
    client.wait_for("verified: every shown frame was right (");
    assert_eq!(client.exit_code(), Some(0));
    host.running.signal("INT");
    assert_eq!(host.running.exit_code(), Some(0));

    let shown = shown(&host_trace, &client_trace);
    let first_us = shown[0].0;
    // Connected is a little before the first frame: the times here are as much too early, which only makes it harder.
    let after = |stop: u64| {
        let from = first_us + stop + 300_000 + 1_000_000;
        (from, from + 300_000)
    };
    let normal = sorted(shown.iter().filter(|f| f.0 < first_us + 1_300_000).map(|f| f.1 - f.0));
    let normal = normal[normal.len() / 2];
    for stop in &stopped_us {
        let (from, to) = after(*stop);
        let later = sorted(shown.iter().filter(|f| (from..to).contains(&f.0)).map(|f| f.1 - f.0));
        assert!(later.len() >= 12, "{} frames in 0.3 s", later.len());
        let median = later[later.len() / 2];
        assert!(
            median < 2 * normal + 4_000,
            "{normal} us before, {median} us a second after {stop}: {later:?}"
        );
    }
    // The clock that tells: the client really stood still.
    let longest = shown.windows(2).map(|pair| pair[1].1 - pair[0].1).max().unwrap();
    assert!(longest > 250_000, "{longest}");
    let keyframes: u64 = column(&host_trace, "keyframe").iter().sum();
    assert_eq!(keyframes, 1);
}
