//! How long a frame takes to leave, with pacing as in use.
//!
//! Two figures. At the host: from the moment it takes the frame to the moment the kernel has its last packet,
//! which includes sealing the first, so it is never too small. At the client's socket: between the kernel's
//! arrival stamps of the first and the last batch; a frame that leaves in one send arrives at one moment.

use super::Effort;
use super::pair::{Pair, Settings, keep};
use super::per_packet::{pattern, shape_of};
use crate::estimate::{Estimate, timed};
use crate::report::{Goal, Report};

const ROUNDS: usize = 20;
/// Arrival stamps are exact only some milliseconds after opening.
const WARM_UP: usize = 20;

/// Name, bytes, and the goal in milliseconds. 40 kB are 35 packets.
const CASES: [(&str, usize, Goal); 2] =
    [("35 packets", 40_000, Goal::AtMost(0.1)), ("1 MB", 1_000_000, Goal::AtMost(1.5))];

pub(super) fn measure(effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    // As network threads do: without it, the kernel may wake the thread 50 us late.
    wavry_runtime::cores::raise_priority(false);
    for (name, len, goal) in CASES {
        let data = pattern(len);
        let unpaced = Settings { parity: 0.0, paced: false, arrival_times: false };
        let packets = shape_of(&mut Pair::connect(unpaced)?, &data)?.packets;
        let mut pair = Pair::connect(Settings { parity: 0.0, paced: true, arrival_times: true })?;
        let (mut leaving, mut arriving) = (Vec::new(), Vec::new());
        for round in 0..WARM_UP + effort.blocks * effort.samples(ROUNDS) {
            pair.prepare(&data);
            let time = timed(|| pair.send_paced(packets as u64))?;
            pair.receive(keep)?;
            pair.answer()?;
            if round >= WARM_UP
                && let Some((first, last)) = pair.arrivals()
            {
                leaving.push(time.as_secs_f64() * 1e3);
                arriving.push(last.saturating_sub(first) as f64 * 1e-6);
            }
        }
        report.judge(
            format!("burst of {name} ({packets} packets), taken to last sent"),
            Estimate::of(leaving),
            "ms",
            goal,
        );
        report.judge(
            format!("burst of {name} ({packets} packets), first to last arrival"),
            Estimate::of(arriving),
            "ms",
            goal,
        );
    }
    Ok(())
}
