//! From runs to figures: the tables, the goals, and what goes into JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Command;

use serde::Serialize;

use super::Setting;
use super::codec::{CodecTime, CodecTimes};
use super::goal::Goal;
use super::own::{FrameTimes, OwnRun};
use super::peer::PeerRun;
use super::stats::{Percentiles, median};

/// Figures of one stream.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Size and rate.
    pub(crate) stream: String,
    /// Where it was measured.
    machine: Machine,
    runs: usize,
    seconds: u64,
    threads: u32,
    slices: u32,
    bitrate_mbps: u32,
    /// Codec alone: encode, decode, and both in sequence.
    codec: [Row; 3],
    /// The engine's stages.
    stages: Vec<Row>,
    /// Seconds per second that a hypervisor took from this machine's cores during the engine's runs.
    stolen: f64,
    /// Total of everybody, the engine first.
    totals: Vec<Subject>,
    goals: Vec<Goal>,
    /// Sorted total latencies of all runs, for the plot.
    #[serde(skip)]
    pub(crate) distributions: Vec<(String, Vec<f64>)>,
}

#[derive(Debug, Serialize)]
struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    commit: String,
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    ms: Percentiles,
}

#[derive(Debug, Serialize)]
struct Subject {
    name: String,
    total_ms: Percentiles,
    cpu: f64,
    sent: usize,
    shown: usize,
    /// The engine's p50, p99 and processor time by this subject's, medians over the rounds.
    ratio: Option<Ratio>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Ratio {
    p50: f64,
    p99: f64,
    cpu: f64,
}

/// A stage by its name and how it follows from a frame's times.
type Stage = (&'static str, fn(&FrameTimes) -> u64);

/// In the order in which a frame goes through them; those from `encode` to `decode after last slice` add up
/// to the total.
const STAGES: [Stage; 8] = [
    ("paint to encoder", |f| f.captured.saturating_sub(f.painted)),
    ("encode", |f| f.encoded.saturating_sub(f.captured)),
    ("hand over, seal, send", |f| f.sealed.saturating_sub(f.encoded)),
    ("network, open, reassemble", |f| f.complete.saturating_sub(f.sealed)),
    ("decode after last slice", |f| f.decoded.saturating_sub(f.complete)),
    ("total", |f| f.decoded.saturating_sub(f.painted)),
    ("convert and present", |f| f.presented.saturating_sub(f.decoded)),
    ("encode to first slice sent", |f| f.first_sealed.saturating_sub(f.captured)),
];

impl Report {
    /// Of all runs of one stream.
    ///
    /// # Errors
    /// When no picture was in both a run of the engine and one of the codec alone.
    pub(crate) fn new(
        setting: &Setting,
        codec: &[CodecTimes],
        own: Vec<OwnRun>,
        peers: Vec<(String, Vec<PeerRun>)>,
    ) -> anyhow::Result<Self> {
        let over = |part: fn(&CodecTime) -> f64| {
            let runs: Vec<_> = codec.iter().map(|run| Percentiles::of(run.values().map(part))).collect();
            Percentiles::median(&runs)
        };
        let sum = over(CodecTime::sum_ms);
        let alone = alone(codec);
        let overhead = overhead(&alone, &own);
        let noise = noise(&alone, codec);
        anyhow::ensure!(!overhead.p50.is_nan(), "no picture was measured with and without the network");
        let mut stages: Vec<Row> = STAGES
            .iter()
            .map(|(name, of)| Row {
                name,
                ms: per_run(&own, |run| run.frames.iter().map(|f| ms(of(f))).collect()),
            })
            .collect();
        stages.push(Row { name: "total beyond codec alone", ms: overhead });
        stages.push(Row { name: "codec alone beyond itself", ms: noise });
        let total = per_run(&own, total_ms);
        let share = median(own.iter().map(|run| {
            median(run.frames.iter().map(|f| {
                ms(f.first_sealed.saturating_sub(f.captured))
                    / ms(f.encoded.saturating_sub(f.captured).max(1))
            }))
        }));
        let after_last = per_run(&own, |run| {
            run.frames.iter().map(|f| ms(f.decoded.saturating_sub(f.complete))).collect()
        });

        let mut goals = vec![
            Goal::new("total beyond encode + decode alone, p50", overhead.p50, 0.25, "ms"),
            Goal::new("total beyond encode + decode alone, p99", overhead.p99, 1.0, "ms"),
            Goal::new("first slice sent, share of the encode time, p50", share, 0.25, ""),
            Goal::new("decoded after the last slice, p50", after_last.p50, 0.4, "ms"),
            Goal::new("total by encode + decode alone, p50", total.p50 / sum.p50, 0.85, ""),
            Goal::new("total by encode + decode alone, p99", total.p99 / sum.p99, 0.95, ""),
        ];
        let mut totals = vec![Subject {
            name: "wavry".to_owned(),
            total_ms: total,
            cpu: median(own.iter().map(|run| run.cpu)),
            sent: own.iter().map(|run| run.sent).sum(),
            shown: own.iter().map(|run| run.frames.len()).sum(),
            ratio: None,
        }];
        for (name, runs) in &peers {
            let subject = Subject::peer(name, runs, &own);
            if let Some(ratio) = subject.ratio {
                goals.extend(peer_goals(name, ratio));
            }
            totals.push(subject);
        }
        let own_stolen: Vec<f64> = own.iter().map(|run| run.stolen).collect();
        let mut distributions = vec![("wavry".to_owned(), own.iter().flat_map(total_ms).collect::<Vec<_>>())];
        distributions.extend(
            peers
                .into_iter()
                .map(|(name, runs)| (name, runs.into_iter().flat_map(|run| run.latency_ms).collect())),
        );
        for (_, values) in &mut distributions {
            values.sort_by(f64::total_cmp);
        }
        Ok(Self {
            stream: setting.stream.to_string(),
            machine: Machine::this(),
            runs: own.len(),
            seconds: setting.measured.as_secs(),
            threads: setting.threads,
            slices: setting.slices,
            bitrate_mbps: setting.bitrate_mbps,
            codec: [
                Row { name: "encode alone", ms: over(|t| t.encode_ms) },
                Row { name: "decode alone", ms: over(|t| t.decode_ms) },
                Row { name: "both in sequence", ms: sum },
            ],
            stages,
            stolen: median(own_stolen),
            totals,
            goals,
            distributions,
        })
    }

    /// Goals that are missed by more than this share.
    pub(crate) fn missed(&self, noise: f64) -> impl Iterator<Item = String> {
        let missed = self.goals.iter().filter(move |goal| !goal.is_met(noise));
        missed.map(|goal| format!("{}: {} is {:.3}", self.stream, goal.what, goal.measured))
    }
}

impl Subject {
    fn peer(name: &str, runs: &[PeerRun], own: &[OwnRun]) -> Self {
        let of = |run: &PeerRun| Percentiles::of(run.latency_ms.iter().copied());
        // Ratios within each round first: what slowed down both of a round cancels.
        let rounds =
            || own.iter().zip(runs).map(|(own, peer)| (Percentiles::of(total_ms(own)), own.cpu, peer));
        Self {
            name: name.to_owned(),
            total_ms: Percentiles::median(&runs.iter().map(of).collect::<Vec<_>>()),
            cpu: median(runs.iter().map(|run| run.cpu)),
            sent: runs.iter().map(|run| run.sent).sum(),
            shown: runs.iter().map(|run| run.latency_ms.len()).sum(),
            ratio: Some(Ratio {
                p50: median(rounds().map(|(own, _, peer)| own.p50 / of(peer).p50)),
                p99: median(rounds().map(|(own, _, peer)| own.p99 / of(peer).p99)),
                cpu: median(rounds().map(|(_, cpu, peer)| cpu / peer.cpu)),
            }),
        }
    }
}

fn peer_goals(name: &str, ratio: Ratio) -> Vec<Goal> {
    match name {
        "gstreamer-rtp" => vec![
            Goal::new("total by gstreamer-rtp, p50", ratio.p50, 1.0, ""),
            Goal::new("total by gstreamer-rtp, p99", ratio.p99, 1.0, ""),
            Goal::new("processor time by gstreamer-rtp", ratio.cpu, 0.9, ""),
        ],
        "ffmpeg-rtp" => vec![Goal::new("total by ffmpeg-rtp, p50", ratio.p50, 0.2, "")],
        _ => Vec::new(),
    }
}

/// What each picture takes in the codec alone: the median over the runs.
fn alone(codec: &[CodecTimes]) -> BTreeMap<u32, f64> {
    let mut alone: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for (number, time) in codec.iter().flatten() {
        alone.entry(*number).or_default().push(time.sum_ms());
    }
    alone.into_iter().map(|(number, times)| (number, median(times))).collect()
}

/// What the codec alone took beyond what the same picture takes at the median: what the machine itself adds to work of
/// this kind at its worst moments, and so the least that [`overhead`] can be there.
fn noise(alone: &BTreeMap<u32, f64>, codec: &[CodecTimes]) -> Percentiles {
    let beyond = |run: &CodecTimes| {
        Percentiles::of(run.iter().filter_map(|(number, time)| Some(time.sum_ms() - alone.get(number)?)))
    };
    Percentiles::median(&codec.iter().map(beyond).collect::<Vec<_>>())
}

/// What each frame took beyond what its picture takes in the codec alone. Below zero where sending and
/// decoding early saved more than everything else cost.
fn overhead(alone: &BTreeMap<u32, f64>, own: &[OwnRun]) -> Percentiles {
    per_run(own, |run| {
        run.frames
            .iter()
            .filter_map(|f| Some(ms(f.decoded.saturating_sub(f.painted)) - alone.get(&f.number)?))
            .collect()
    })
}

fn per_run(own: &[OwnRun], values: impl Fn(&OwnRun) -> Vec<f64>) -> Percentiles {
    Percentiles::median(&own.iter().map(|run| Percentiles::of(values(run))).collect::<Vec<_>>())
}

fn total_ms(run: &OwnRun) -> Vec<f64> {
    run.frames.iter().map(|f| ms(f.decoded.saturating_sub(f.painted))).collect()
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

impl Machine {
    fn this() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()))
            .unwrap_or_else(|| "unknown".to_owned());
        let git = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
        let commit = git
            .ok()
            .filter(|output| output.status.success())
            .map_or_else(|| "unknown".to_owned(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
        Self {
            processor,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            commit,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, cores, kernel, commit } = &self.machine;
        writeln!(f, "{}: {processor}, {cores} cores, kernel {kernel}, commit {commit}", self.stream)?;
        writeln!(
            f,
            "medians of {} runs of {} s; {} encoder threads, {} slices, {} Mbit/s; milliseconds\n",
            self.runs, self.seconds, self.threads, self.slices, self.bitrate_mbps
        )?;
        writeln!(f, "{:<28}{:>9}{:>9}{:>9}", "", "p50", "p95", "p99")?;
        for Row { name, ms } in self.codec.iter().chain(&self.stages) {
            writeln!(f, "{name:<28}{:>9.3}{:>9.3}{:>9.3}", ms.p50, ms.p95, ms.p99)?;
        }
        writeln!(
            f,
            "taken from the cores by a hypervisor meanwhile: {:.1} ms each second",
            self.stolen * 1000.0
        )?;
        writeln!(
            f,
            "\n{:<16}{:>9}{:>9}{:>9}{:>8}{:>14}   wavry by it: p50, p99, CPU",
            "painted-decoded", "p50", "p95", "p99", "CPU", "shown"
        )?;
        for Subject { name, total_ms: ms, cpu, sent, shown, ratio } in &self.totals {
            write!(f, "{name:<16}{:>9.3}{:>9.3}{:>9.3}{:>7.1}%", ms.p50, ms.p95, ms.p99, cpu * 100.0)?;
            write!(f, "{:>14}", format!("{shown}/{sent}"))?;
            match ratio {
                Some(r) => writeln!(f, "   {:>8.2} {:>6.2} {:>6.2}", r.p50, r.p99, r.cpu)?,
                None => writeln!(f)?,
            }
        }
        writeln!(f)?;
        for goal in &self.goals {
            writeln!(f, "{goal}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(number: u32, total_us: u64) -> FrameTimes {
        FrameTimes {
            number,
            painted: 1000,
            captured: 1000,
            first_slice: 1100,
            encoded: 1400,
            first_sealed: 1110,
            sealed: 1410,
            complete: 1450,
            decoded: 1000 + total_us,
            presented: 1000 + total_us + 10,
        }
    }

    #[test]
    fn overhead_is_by_picture() {
        let alone: CodecTimes = [
            (1, CodecTime { encode_ms: 3.0, decode_ms: 1.0 }),
            (2, CodecTime { encode_ms: 7.0, decode_ms: 1.0 }),
        ]
        .into();
        let frames = vec![frame(1, 4_500), frame(2, 8_500), frame(9, 99_000)];
        let run = OwnRun { frames, sent: 3, cpu: 0.5, stolen: 0.0 };
        let overhead = overhead(&super::alone(&[alone]), &[run]);
        assert_eq!((overhead.p50, overhead.p99), (0.5, 0.5), "frame 9 has no counterpart");
    }

    #[test]
    fn the_codecs_own_noise_is_by_picture() {
        let time = |encode_ms| CodecTime { encode_ms, decode_ms: 1.0 };
        let runs: Vec<CodecTimes> = [[3.0, 7.0], [3.5, 7.0], [3.0, 9.0]]
            .map(|[first, second]| [(1, time(first)), (2, time(second))].into())
            .into();
        let noise = noise(&alone(&runs), &runs);
        assert_eq!((noise.p50, noise.p99), (0.0, 0.5), "medians of the runs: 0, 0 and 0; 0, 0.5 and 2");
    }

    #[test]
    fn stages_add_up_to_the_total() {
        let frame = frame(1, 700);
        let of = |name| STAGES.iter().find(|(n, _)| *n == name).unwrap().1(&frame);
        let parts: u64 = STAGES[..5].iter().map(|(_, of)| of(&frame)).sum();
        assert_eq!(parts, of("total"));
    }

    #[test]
    fn a_peer_is_compared_within_its_round() {
        let own = |ms: u64, cpu| OwnRun { frames: vec![frame(1, ms * 1000)], sent: 1, cpu, stolen: 0.0 };
        let peer = |ms, cpu| PeerRun { latency_ms: vec![ms], sent: 1, cpu };
        let subject = Subject::peer(
            "p",
            &[peer(10.0, 1.0), peer(20.0, 2.0), peer(10.0, 1.0)],
            &[own(5, 0.5), own(10, 1.0), own(5, 0.5)],
        );
        let ratio = subject.ratio.unwrap();
        assert_eq!((ratio.p50, ratio.p99, ratio.cpu), (0.5, 0.5, 0.5));
    }
}
