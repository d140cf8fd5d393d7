//! Encrypted video through loopback, both ends on one core, beside QUIC datagrams.
//!
//! A round is a frame of 1 MB in slices, from the host that takes it to the client that has it whole, with what the
//! two have to tell each other. The ends take turns whenever there is something to do, the engine's slice by slice,
//! QUIC's as its runtime wakes them; it carries the same payload in datagrams of the same size on the wire.

use std::time::Instant;

use anyhow::ensure;

use super::Effort;
use super::pair::{Pair, Settings, keep};
use super::per_packet::pattern;
use super::quic::Quic;
use crate::estimate::{Estimate, median_ns, timed};
use crate::report::{Goal, Report};

const FRAME_LEN: usize = 1_000_000;
const ROUNDS: usize = 20;
const THROUGHPUT: Goal = Goal::AtLeast(6.0);
const TO_QUIC: Goal = Goal::AtLeast(2.3);

pub(super) fn measure(effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    let data = pattern(FRAME_LEN);
    let mut pair = Pair::connect(Settings { parity: 0.0, paced: false, arrival_times: false })?;
    let mut quic = Quic::connect()?;
    let (mut engine, mut peer) = (Vec::new(), Vec::new());
    let rounds = effort.samples(ROUNDS);
    // The first blocks warm up, QUIC's congestion control too.
    for block in 0..effort.blocks + 2 {
        let mut times = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            pair.prepare(&data);
            times.push(timed(|| {
                pair.send_and_receive(keep)?;
                pair.answer()
            })?);
        }
        let engine_ns = median_ns(&mut times);
        let mut times = Vec::with_capacity(rounds);
        let mut carried = 0;
        for _ in 0..rounds {
            let start = Instant::now();
            carried = quic.carry(FRAME_LEN)?;
            times.push(start.elapsed());
        }
        if block >= 2 {
            engine.push(FRAME_LEN as f64 * 8.0 / engine_ns);
            peer.push(carried as f64 * 8.0 / median_ns(&mut times));
        }
    }
    ensure!(pair.losses() == 0, "packets or frames were lost, so the figures are not sound");
    report.judge("throughput, engine, one core", Estimate::of(engine.clone()), "Gbit/s", THROUGHPUT);
    report.note("throughput, QUIC datagrams (quinn), one core", Estimate::of(peer.clone()), "Gbit/s");
    report.judge("throughput, engine to QUIC datagrams", Estimate::ratio(&engine, &peer), "x", TO_QUIC);
    Ok(())
}
