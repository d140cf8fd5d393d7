//! The relay beside other forwarders: datagrams per second and core, processor time, added latency.
//!
//! Sender, relay and receiver are network namespaces with cables between them ([`lab`]). Datagrams come from an eBPF
//! program on one core and end in another on the same core, with the time that each took; the relay's core does nothing but
//! relay, and neither core sleeps. Contenders take turns, round by round, under the same load ([`contender`]).
//!
//! Processor time is that of the kernel thread that receives on the relay's core and of the forwarder's threads
//! (`/proc/PID/schedstat`), at saturation: packets are received, forwarded and sent in these threads and nowhere else on that core. A
//! contender that leaves its core idle at saturation was limited by the generator; its rate is then marked. Memory is touched before each
//! contender: it is not a forwarder's fault when the host of a virtual machine is slow to give some.

mod contender;
mod crowd;
pub(crate) mod floods;
mod lab;
mod program;
mod sessions;
mod turn;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use wavry_bench::estimate::Estimate;
use wavry_bench::machine::Machine;
use wavry_bench::report::{Goal, Report};
use wavry_xdp::load::{Pace, Settings};

use contender::{Contender, Running, start};
use lab::Lab;
use sessions::{Issuer, Place};

/// What is to be measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds; every figure is the median over them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Milliseconds per figure and round.
    #[arg(long, default_value_t = 700, value_parser = clap::value_parser!(u64).range(50..=10_000))]
    span: u64,
    /// Sessions that take turns where there are many.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sessions: u32,
    /// Only these: part of a contender's name, several with commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Also bind so many sessions at one relay, once, and measure it with all of them taking turns. 100,000 take a minute.
    #[arg(long, value_name = "SESSIONS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    crowd: Option<u32>,
    /// The relay's program; the one beside this program unless given.
    #[arg(long, value_name = "FILE")]
    relay: Option<PathBuf>,
    /// Also write the figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write the table to this file, as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

const CONTENDERS: [Contender; 11] = [
    Contender::Straight,
    Contender::Routing,
    Contender::BareXdp,
    Contender::BareXdpGeneric,
    Contender::CForwarder,
    Contender::CMerging,
    Contender::Coturn,
    Contender::WavrySlow,
    Contender::WavryXdp,
    Contender::WavryGeneric,
    Contender::WavryProgram,
];

/// Frames under way at saturation: fewer than a cable's ring of 256 holds.
const WINDOW: u32 = 192;
/// 20,000 a second for the latency.
const PACE: Duration = Duration::from_micros(50);
/// Bursts of 16, four of them under way; and 100,000 datagrams a second in such bursts.
const BURST: u32 = 16;
const BURST_WINDOW: u32 = 4 * BURST;
const BURST_MAX_US: f64 = 2.4;
const BURST_PACE: Duration = Duration::from_micros(160);
/// Below this share of its core a contender was not what limited the rate.
const BUSY: f64 = 0.9;

/// What one round found about a contender.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    mpps: f64,
    cpu_ns: f64,
    busy: f64,
    many_mpps: Option<f64>,
    many_cpu_ns: Option<f64>,
    burst_cpu_ns: f64,
    paced_burst_cpu_ns: f64,
    p50_us: f64,
    p99_us: f64,
    lost: f64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let place = Place::new()?;
    let lab = Lab::new(false)?;
    let issuer = Issuer::new(&place, arguments.relay.clone())?;
    let missing = contender::coturn_missing();
    let wanted = |contender: &Contender| {
        let named = |name: &String| contender.name().contains(name.as_str());
        let skipped = *contender == Contender::Coturn && missing.is_some();
        !skipped
            && (arguments.only.is_empty()
                || *contender == Contender::Straight
                || arguments.only.iter().any(named))
    };
    if let Some(reason) = missing {
        eprintln!("skipped: {reason}");
    }
    let contenders: Vec<Contender> = CONTENDERS.into_iter().filter(wanted).collect();
    let mut table = Table { rows: contenders.iter().map(|&contender| (contender, Vec::new())).collect() };
    let mut touching = Vec::new();
    for _ in 0..arguments.rounds {
        for (contender, rounds) in &mut table.rows {
            touching.push(lab::warm_memory().context("touching memory")?);
            let figures = measure(*contender, &lab, &place, &issuer, arguments);
            rounds.push(figures.with_context(|| format!("measuring {}", contender.name()))?);
        }
    }
    let mut report = table.report();
    if let Some(count) = arguments.crowd {
        crowd::measure(count, &lab, &place, &issuer, arguments, &mut report)
            .with_context(|| format!("measuring {count} sessions"))?;
    }
    let most = touching.iter().copied().fold(0.0, f64::max);
    report.note("the machine: a page that was free, at most", Estimate::of(vec![most]), "ns");
    for (what, time) in program::refusing(&lab).context("running the program by itself")? {
        report.note(format!("XDP: refusing {what}, by BPF_PROG_TEST_RUN"), time, "ns");
    }
    let text = table.markdown(&report.machine);
    println!("{text}");
    report.print();
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    if let Some(path) = &arguments.markdown {
        std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

fn measure(
    contender: Contender,
    lab: &Lab,
    place: &Place,
    issuer: &Issuer,
    arguments: &Arguments,
) -> anyhow::Result<Figures> {
    let flows = contender.flows(arguments.sessions);
    let running = start(contender, lab, place, issuer, flows)?;
    for (number, flow) in (0..).zip(&running.flows) {
        lab.load.set_flow(number, flow, 0)?;
    }
    let span = Duration::from_millis(arguments.span);
    let settings = |flows: u32, pace, burst, batch| Settings {
        device: running.device,
        protocol: running.protocol,
        pace,
        burst,
        flows,
        flow_step: step(flows),
        stamp_sent_at: running.stamp_sent_at,
        stamp_got_at: running.stamp_got_at,
        flood: None,
        batch,
    };
    let few = contender.few().min(flows);
    let one = settings(few, Pace::Window(WINDOW), 1, 32);
    let load = |settings: &Settings, span| take(lab, &running, settings, span);
    load(&one, Duration::from_millis(100))?;
    let (full, cpu) = load(&one, span)?;
    let mut figures = Figures {
        mpps: full.received as f64 / full.elapsed.as_secs_f64() / 1e6,
        cpu_ns: cpu / full.received as f64,
        busy: cpu / full.elapsed.as_nanos() as f64,
        ..Figures::default()
    };
    if flows > 1 {
        let many = settings(flows, Pace::Window(WINDOW), 1, 32);
        let (full, cpu) = load(&many, span)?;
        figures.many_mpps = Some(full.received as f64 / full.elapsed.as_secs_f64() / 1e6);
        figures.many_cpu_ns = Some(cpu / full.received as f64);
    }
    for (pace, figure) in [
        (Pace::Window(BURST_WINDOW), &mut figures.burst_cpu_ns),
        (Pace::Every(BURST_PACE), &mut figures.paced_burst_cpu_ns),
    ] {
        let (bursts, cpu) = load(&settings(few, pace, BURST, BURST), span)?;
        *figure = cpu / bursts.received as f64;
    }
    let (paced, _) = load(&settings(1, Pace::Every(PACE), 1, 1), span)?;
    figures.p50_us = paced.latency_us(0.5);
    figures.p99_us = paced.latency_us(0.99);
    figures.lost = 1.0 - paced.received as f64 / paced.sent as f64;
    Ok(figures)
}

fn take(
    lab: &Lab,
    running: &Running,
    settings: &Settings,
    span: Duration,
) -> anyhow::Result<(wavry_xdp::load::Results, f64)> {
    let (results, cpu) = lab.measure(settings, &running.flows[0], span, running.process)?;
    anyhow::ensure!(results.received > 100, "{} of {} datagrams arrived", results.received, results.sent);
    Ok((results, cpu as f64))
}

/// A step through flows that visits all of them, far apart.
fn step(flows: u32) -> u32 {
    let prime = [7919, 7907, 104_729].into_iter().find(|prime| !flows.is_multiple_of(*prime)).unwrap_or(1);
    prime % flows.max(1)
}

/// All rounds of all contenders.
struct Table {
    rows: Vec<(Contender, Vec<Figures>)>,
}

impl Table {
    fn of(&self, contender: Contender, figure: impl Fn(&Figures) -> f64) -> Option<Vec<f64>> {
        let (_, rounds) = self.rows.iter().find(|(found, _)| *found == contender)?;
        Some(rounds.iter().map(figure).collect())
    }

    /// What a contender adds to the straight cable, round by round.
    fn added(&self, contender: Contender, figure: impl Fn(&Figures) -> f64) -> Vec<f64> {
        let base = self.of(Contender::Straight, &figure).unwrap_or_default();
        let own = self.of(contender, &figure).unwrap_or_default();
        own.iter().zip(base).map(|(own, base)| own - base).collect()
    }

    /// One line per contender.
    fn markdown(&self, machine: &Machine) -> String {
        use std::fmt::Write as _;
        let mut out = format!(
            "{machine}\n\n| relay | Mpps, one session | ns processor | core busy | Mpps, many sessions | ns processor | \
             ns processor, bursts of 16 | the same at 100 kpps | added p50 us | added p99 us | lost at 20 kpps |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
        );
        for (contender, rounds) in &self.rows {
            let middle =
                |figure: &dyn Fn(&Figures) -> f64| Estimate::of(rounds.iter().map(figure).collect()).value;
            let straight = *contender == Contender::Straight;
            let busy = middle(&|f| f.busy);
            let mark = if busy < BUSY { ">= " } else { "" };
            let many = |figure: &dyn Fn(&Figures) -> Option<f64>, places: usize| {
                let known = rounds.iter().all(|f| figure(f).is_some());
                if known {
                    format!("{:.places$}", middle(&|f| figure(f).unwrap_or(0.0)))
                } else {
                    "-".to_owned()
                }
            };
            let latency = |figure: &dyn Fn(&Figures) -> f64| {
                if straight {
                    format!("({:.1})", middle(figure))
                } else {
                    format!("{:.1}", Estimate::of(self.added(*contender, figure)).value)
                }
            };
            let _ = writeln!(
                out,
                "| {} | {mark}{:.3} | {:.0} | {:.0} % | {} | {} | {:.0} | {:.0} | {} | {} | {:.3} % |",
                contender.name(),
                middle(&|f| f.mpps),
                middle(&|f| f.cpu_ns),
                busy * 100.0,
                many(&|f| f.many_mpps, 3),
                many(&|f| f.many_cpu_ns, 0),
                middle(&|f| f.burst_cpu_ns),
                middle(&|f| f.paced_burst_cpu_ns),
                latency(&|f| f.p50_us),
                latency(&|f| f.p99_us),
                middle(&|f| f.lost) * 100.0,
            );
        }
        out.push_str(
            "\n\"Busy\" is the relay's core at saturation; where it is not full the generator was the limit and the rate is \
             marked. Latencies in parentheses are the straight cable's own.\n",
        );
        out
    }

    /// Figures with goals.
    fn report(&self) -> Report {
        let mut report = Report::new(Machine::detect());
        for (contender, rounds) in &self.rows {
            let name = contender.name();
            report.note(
                format!("{name}: one session"),
                Estimate::of(rounds.iter().map(|f| f.mpps).collect()),
                "Mpps",
            );
            report.note(
                format!("{name}: processor"),
                Estimate::of(rounds.iter().map(|f| f.cpu_ns).collect()),
                "ns",
            );
            report.note(format!("{name}: busy"), Estimate::of(rounds.iter().map(|f| f.busy).collect()), "");
            // Where the generator was the limit; more datagrams at a time make each cheaper, so it is no less than this.
            let full = rounds.iter().filter(|f| f.busy > 0.0).map(|f| f.mpps / f.busy).collect::<Vec<_>>();
            if !full.is_empty() {
                report.note(format!("{name}: one session, a full core"), Estimate::of(full), "Mpps");
            }
            if let Some(many) = rounds.iter().map(|f| f.many_mpps).collect() {
                report.note(format!("{name}: many sessions"), Estimate::of(many), "Mpps");
            }
            let burst = rounds.iter().map(|f| f.burst_cpu_ns).collect();
            report.note(format!("{name}: processor, bursts of 16"), Estimate::of(burst), "ns");
            let (p50, p99) = (self.added(*contender, |f| f.p50_us), self.added(*contender, |f| f.p99_us));
            report.note(format!("{name}: added p50"), Estimate::of(p50), "us");
            report.note(format!("{name}: added p99"), Estimate::of(p99), "us");
        }
        self.judge(&mut report);
        report
    }

    fn judge(&self, report: &mut Report) {
        let slow = Contender::WavrySlow;
        let fast = Contender::WavryXdp;
        for (name, found) in [("XDP", fast), ("generic XDP", Contender::WavryGeneric)] {
            let (Some(_), Some(bare)) =
                (self.of(found, |f| f.mpps), self.of(Contender::BareXdp, |f| f.p50_us))
            else {
                continue;
            };
            let own = self.of(found, |f| f.p50_us).unwrap_or_default();
            let more = own.iter().zip(bare).map(|(own, bare)| own - bare).collect();
            if found == fast {
                report.judge(
                    "XDP: added p50 beyond the bare program's",
                    Estimate::of(more),
                    "us",
                    Goal::AtMost(1.0),
                );
            } else {
                report.note(format!("{name}: added p50 beyond the bare program's"), Estimate::of(more), "us");
            }
        }
        if let Some(rate) = self.of(Contender::WavryGeneric, |f| f.mpps) {
            report.judge("generic XDP, chosen by itself", Estimate::of(rate), "Mpps", Goal::AtLeast(0.8));
        }
        let mut ratio = |what: &str, own: Contender, to: Contender, figure: fn(&Figures) -> f64, goal| {
            if let (Some(own), Some(to)) = (self.of(own, figure), self.of(to, figure)) {
                report.judge(what, Estimate::ratio(&own, &to), "x", goal);
            }
        };
        let bare = Contender::BareXdp;
        ratio("XDP to the bare program, rate", fast, bare, |f| f.mpps, Goal::AtLeast(0.9));
        ratio("XDP to the bare program, processor", fast, bare, |f| f.cpu_ns, Goal::AtMost(1.5));
        ratio("XDP to coturn, rate", fast, Contender::Coturn, |f| f.mpps, Goal::AtLeast(8.0));
        ratio("slow path to coturn, one session", slow, Contender::Coturn, |f| f.mpps, Goal::AtLeast(1.5));
        ratio(
            "slow path to C forwarder, one session",
            slow,
            Contender::CForwarder,
            |f| f.mpps,
            Goal::AtLeast(1.0),
        );
        let many = |f: &Figures| f.many_mpps.unwrap_or(f.mpps);
        ratio(
            "slow path to C forwarder, many sessions",
            slow,
            Contender::CForwarder,
            many,
            Goal::AtLeast(1.0),
        );
        if let Some(many) = self.of(Contender::WavryProgram, |f| f.many_cpu_ns.unwrap_or(f.cpu_ns)) {
            let figure = Estimate::of(many).scaled(1e-3);
            report.judge("XDP, 100,000 sessions shuffled, processor", figure, "us", Goal::AtMost(1.1));
        }
        let bytes = wavry_xdp::relay::RelayProgram::bytes(10_000) as f64 / 1e6;
        report.judge("XDP: maps for 10,000 sessions", Estimate::of(vec![bytes]), "MB", Goal::AtMost(10.0));
        if let Some(burst) = self.of(slow, |f| f.burst_cpu_ns) {
            let figure = Estimate::of(burst).scaled(1e-3);
            let what = "slow path, bursts of 16, processor per datagram";
            match self.of(Contender::CMerging, |f| f.burst_cpu_ns) {
                Some(floor) => {
                    let floor = Estimate::of(floor).scaled(1e-3);
                    report.judge_beside(what, figure, "us", BURST_MAX_US, floor);
                }
                None => report.judge(what, figure, "us", Goal::AtMost(BURST_MAX_US)),
            }
        }
    }
}
