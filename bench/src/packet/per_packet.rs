//! What a packet costs at the sender and at the receiver, beside the floor.
//!
//! One round is one frame of the engine, without and with parity, and one of the floor. Sending and
//! receiving are timed apart; acknowledgements travel between the rounds and are not timed. Times are
//! per packet with data: parity is what protecting it costs.

use std::time::Duration;

use anyhow::ensure;

use super::Effort;
use super::floor::Floor;
use super::pair::{Pair, Settings, keep};
use crate::estimate::{Estimate, median_ns, timed};
use crate::report::{Goal, Report};

/// Share of parity that the goal names.
const PARITY: f32 = 0.2;
const SENDER: Goal = Goal::AtMost(1.3);
const SENDER_WITH_PARITY: Goal = Goal::AtMost(2.0);
const RECEIVER: Goal = Goal::AtMost(1.3);

/// A frame size, and rounds in a block.
const CASES: [(&str, usize, usize); 2] = [("42 kB", 42_000, 200), ("1 MB", 1_000_000, 20)];

const NAMES: [&str; 3] = ["floor", "engine", "engine, 20 % parity"];

pub(super) fn measure(effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    for (name, len, rounds) in CASES {
        Case::new(len)?.measure(name, effort.blocks, effort.samples(rounds), report)?;
    }
    Ok(())
}

struct Case {
    data: Vec<u8>,
    floor_data: Vec<u8>,
    /// What the floor sends: written anew for each frame, as the engine's slices are.
    floor_frame: Vec<u8>,
    packets: usize,
    floor: Floor,
    plain: Pair,
    protected: Pair,
}

impl Case {
    fn new(len: usize) -> anyhow::Result<Self> {
        let data = pattern(len);
        let settings = Settings { parity: 0.0, paced: false, arrival_times: false };
        let mut plain = Pair::connect(settings)?;
        let mut protected = Pair::connect(Settings { parity: PARITY, ..settings })?;
        for pair in [&mut plain, &mut protected] {
            pair.prepare(&data);
            pair.send_frame()?;
            let mut arrived = Vec::new();
            pair.receive(|slice| arrived.extend_from_slice(slice))?;
            ensure!(arrived == data, "what arrived is not what was sent");
            pair.answer()?;
        }
        let shape = shape_of(&mut plain, &data)?;
        let mut floor = Floor::new(shape.datagram_len, shape.packets)?;
        let floor_data = pattern(floor.frame_len());
        floor.send(&floor_data)?;
        ensure!(floor.receive()? == floor_data, "what arrived over the floor is not what was sent");
        let floor_frame = floor_data.clone();
        Ok(Self { data, floor_data, floor_frame, packets: shape.packets, floor, plain, protected })
    }

    fn measure(
        mut self,
        name: &str,
        blocks: usize,
        rounds: usize,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let (mut sending, mut receiving) = (<[Vec<f64>; 3]>::default(), <[Vec<f64>; 3]>::default());
        // The first block warms up.
        for block in 0..=blocks {
            let (mut sent, mut received) = (<[Vec<Duration>; 3]>::default(), <[Vec<Duration>; 3]>::default());
            for _ in 0..rounds {
                self.floor_frame.copy_from_slice(&self.floor_data);
                sent[0].push(timed(|| self.floor.send(&self.floor_frame))?);
                received[0].push(timed(|| self.floor.receive().map(|_| ()))?);
                for (pair, at) in [(&mut self.plain, 1), (&mut self.protected, 2)] {
                    pair.prepare(&self.data);
                    sent[at].push(timed(|| pair.send_frame())?);
                    received[at].push(timed(|| pair.receive(keep))?);
                    pair.answer()?;
                }
            }
            for at in 0..3 {
                if block > 0 {
                    sending[at].push(median_ns(&mut sent[at]) / self.packets as f64);
                    receiving[at].push(median_ns(&mut received[at]) / self.packets as f64);
                }
            }
        }
        for (side, times) in [("sender", &sending), ("receiver", &receiving)] {
            for (at, contender) in NAMES.into_iter().enumerate() {
                report.note(
                    format!("{side}, {name}, {contender}"),
                    Estimate::of(times[at].clone()),
                    "ns/packet",
                );
            }
        }
        let payload_bits = self.data.len() as f64 * 8.0 / self.packets as f64;
        let both =
            sending[0].iter().zip(&receiving[0]).map(|(sent, received)| payload_bits / (sent + received));
        report.note(
            format!("throughput, {name}, floor of both sides on one core"),
            Estimate::of(both.collect()),
            "Gbit/s",
        );
        let ratio = |times: &[Vec<f64>; 3], at: usize| Estimate::ratio(&times[at], &times[0]);
        report.judge(format!("sender, {name}, engine to floor"), ratio(&sending, 1), "x", SENDER);
        report.judge(
            format!("sender, {name}, engine with 20 % parity to floor"),
            ratio(&sending, 2),
            "x",
            SENDER_WITH_PARITY,
        );
        report.judge(format!("receiver, {name}, engine to floor"), ratio(&receiving, 1), "x", RECEIVER);
        let losses = self.plain.losses() + self.protected.losses();
        ensure!(losses == 0, "{losses} packets or frames were lost, so the figures are not sound");
        Ok(())
    }
}

/// In what a frame leaves.
pub(super) struct Shape {
    pub(super) datagram_len: usize,
    pub(super) packets: usize,
}

/// Sends a frame over a pair without parity and tells in what it left.
pub(super) fn shape_of(pair: &mut Pair, data: &[u8]) -> anyhow::Result<Shape> {
    let mut shape = Shape { datagram_len: 0, packets: 0 };
    pair.prepare(data);
    pair.send_frame_and(|video| {
        shape.datagram_len = shape.datagram_len.max(video.segment_len);
        shape.packets += video.datagrams();
    })?;
    pair.receive(|_| {})?;
    pair.answer()?;
    Ok(shape)
}

/// Bytes that no two pages share.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}
