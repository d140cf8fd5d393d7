//! One relay with so many sessions as a box is meant to hold, bound through the protocol: how long that takes, the memory that the
//! relay has with all of them, and what a datagram costs when they take turns.
//!
//! Memory is what a relay with so many sessions, and room for them, has beyond one with a thousand: socket buffers, queues for
//! verification and the program itself do not depend on sessions.
//!
//! Owns nothing. Both peers of every session have keys of their own and prove them; nothing is entered by hand.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use wavry_bench::estimate::Estimate;
use wavry_bench::report::{Goal, Report};
use wavry_xdp::load::{Pace, Settings};
use wavry_xdp::relay::RelayProgram;

use super::contender::{self, Contender, Running};
use super::lab::Lab;
use super::sessions::{Issuer, Place};
use super::{Arguments, WINDOW, step, take};

/// What a relay may take for 10,000 sessions, in userspace and in its maps.
const MEMORY_MAX_MB: f64 = 10.0;
/// Bound before, at a relay with room for as many.
const FEW: u32 = 1000;
/// For a datagram where every session is found in memory anew.
const PROCESSOR_MAX_US: f64 = 1.1;

pub(super) fn measure(
    count: u32,
    lab: &Lab,
    place: &Place,
    issuer: &Issuer,
    arguments: &Arguments,
    report: &mut Report,
) -> anyhow::Result<()> {
    let few = contender::start(Contender::WavryXdp, lab, place, issuer, FEW)?;
    let base = memory(&few, FEW)?;
    drop(few);
    anyhow::ensure!(contender::room(count) > contender::room(FEW), "{count} sessions are no crowd");
    let name = format!("wavry-relay, XDP, {count} sessions");
    let begun = Instant::now();
    let running = contender::start(Contender::WavryXdp, lab, place, issuer, count)?;
    let bound = begun.elapsed();
    let more = memory(&running, count)? - base;
    let room = (contender::room(count) - contender::room(FEW)) as f64;
    report.note(format!("{name}: all are carried after"), Estimate::of(vec![bound.as_secs_f64()]), "s");
    report.judge(
        format!("{name}: memory, process and maps, per 10,000 of its room"),
        Estimate::of(vec![more / (room / 1e4)]),
        "MB",
        Goal::AtMost(MEMORY_MAX_MB),
    );
    for (number, flow) in (0..).zip(&running.flows) {
        lab.load.set_flow(number, flow, 0)?;
    }
    let settings = Settings {
        device: running.device,
        protocol: running.protocol,
        pace: Pace::Window(WINDOW),
        burst: 1,
        flows: count,
        flow_step: step(count),
        stamp_sent_at: running.stamp_sent_at,
        stamp_got_at: running.stamp_got_at,
        flood: None,
        batch: 32,
    };
    let span = Duration::from_millis(arguments.span);
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        let (results, cpu) = take(lab, &running, &settings, span)?;
        rates.push(results.received as f64 / results.elapsed.as_secs_f64() / 1e6);
        costs.push(cpu / results.received as f64 / 1e3);
    }
    report.note(format!("{name}, in turn"), Estimate::of(rates), "Mpps");
    let what = format!("{name}, in turn, processor");
    report.judge(what, Estimate::of(costs), "us", Goal::AtMost(PROCESSOR_MAX_US));
    Ok(())
}

/// Megabytes of a relay that lie in memory, and those of its maps.
fn memory(running: &Running, count: u32) -> anyhow::Result<f64> {
    let id = running.process.context("the relay is no process")?;
    let text = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok((kib * 1024.0 + RelayProgram::bytes(contender::room(count)) as f64) / 1e6)
}
