//! `wavry netsim --plot`: a run over time.
//!
//! Owns the picture: delay with stale times and their causes, rates, losses and what repaired them, and the
//! controller's state with the reason of each decision.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use rift_core::delta2::{PathState, Reason};
use rift_sim::Report;
use rift_sim::check::stale::{Cause, Stale};
use rift_sim::metrics::NEVER_US;
use rift_sim::report::{Decision, Sample};

type Svg<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Failure<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

const WIDTH: u32 = 1_200;
const HEIGHTS: [u32; 3] = [270, 300, 180];
const LANE_HEIGHT: u32 = 18;
const GREY: RGBColor = RGBColor(170, 170, 170);
const ORANGE: RGBColor = RGBColor(230, 140, 0);
const PURPLE: RGBColor = RGBColor(130, 60, 170);
/// Left edge of all panels, so that their times lie above each other.
const LABELS: u32 = 92;

/// A curve: name, colour, points.
type Line = (&'static str, RGBColor, Vec<(f64, f64)>);

/// Draws `report` into `path` (SVG).
pub(super) fn draw(report: &Report, path: &Path) -> anyhow::Result<()> {
    let reasons = reasons(&report.decisions);
    let lanes = 60 + LANE_HEIGHT * reasons.len().max(1) as u32;
    let height = HEIGHTS.iter().sum::<u32>() + lanes;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    let failed = |e: Failure<'_>| anyhow::anyhow!("the plot {} was not written: {e}", path.display());
    root.fill(&WHITE).map_err(failed)?;
    let (delay, rest) = root.split_vertically(HEIGHTS[0]);
    let (rate, rest) = rest.split_vertically(HEIGHTS[1]);
    let (loss, state) = rest.split_vertically(HEIGHTS[2]);
    let end = seconds(report.simulated_us).max(0.1);
    draw_delay(&delay, report, end).map_err(failed)?;
    draw_rate(&rate, report, end).map_err(failed)?;
    draw_loss(&loss, report, end).map_err(failed)?;
    draw_reasons(&root, &state, &report.decisions, &reasons, end).map_err(failed)?;
    root.present().map_err(failed)
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn top(lines: &[Line]) -> f64 {
    lines.iter().flat_map(|(_, _, points)| points.iter().map(|p| p.1)).fold(1.0, f64::max) * 1.1
}

/// `value` of each sample and of the time since the one before, in seconds.
fn curve(samples: &[Sample], value: impl Fn(&Sample, &Sample, f64) -> f64) -> Vec<(f64, f64)> {
    let mut before = Sample::default();
    let point = |sample: &Sample| {
        let span = seconds(sample.at_us.saturating_sub(before.at_us)).max(1e-6);
        let point = (seconds(sample.at_us), value(sample, &before, span));
        before = *sample;
        point
    };
    samples.iter().map(point).collect()
}

fn panel<'a, 'b>(
    area: &'a Svg<'b>,
    caption: &str,
    unit: &str,
    (end, height): (f64, f64),
) -> Result<Chart<'a, 'b>, Failure<'b>> {
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(LABELS)
        .build_cartesian_2d(0.0..end, 0.0..height)?;
    chart.configure_mesh().y_desc(unit).light_line_style(WHITE).y_labels(6).draw()?;
    Ok(chart)
}

fn draw_lines<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>, lines: Vec<Line>) -> Result<(), Failure<'b>> {
    for (name, colour, points) in lines {
        chart
            .draw_series(LineSeries::new(points, &colour))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()
}

fn draw_delay<'b>(area: &Svg<'b>, report: &Report, end: f64) -> Result<(), Failure<'b>> {
    let ms = |us: u64| us as f64 / 1e3;
    let frames = report.log.frames.iter().filter(|frame| frame.delay_us() != NEVER_US);
    let delays: Vec<_> =
        frames.map(|frame| (seconds(frame.captured_us), f64::from(frame.delay_us()) / 1e3)).collect();
    let queue = curve(&report.samples, |sample, _, _| ms(sample.queue_us));
    let lines = vec![("capture to complete frame", BLUE, delays), ("queue on the path", RED, queue)];
    let height = top(&lines);
    let caption = format!("{}, seed {}: delay; stale times with their causes", report.name, report.seed);
    let mut chart = panel(area, &caption, "milliseconds", (end, height))?;
    let mut causes: Vec<Cause> = report.stale.iter().map(|stale| stale.cause).collect();
    causes.sort_unstable();
    causes.dedup();
    for cause in causes {
        let bar = |stale: &Stale| {
            let corners = [(seconds(stale.from_us), 0.0), (seconds(stale.to_us), height)];
            Rectangle::new(corners, colour_of(cause).mix(0.35).filled())
        };
        chart
            .draw_series(report.stale.iter().filter(|stale| stale.cause == cause).map(bar))?
            .label(format!("stale: {cause}"))
            .legend(move |(x, y)| {
                Rectangle::new([(x, y - 5), (x + 16, y + 5)], colour_of(cause).mix(0.35).filled())
            });
    }
    draw_lines(&mut chart, lines)
}

fn colour_of(cause: Cause) -> RGBColor {
    match cause {
        Cause::Avoidable | Cause::HeldForNothing => RED,
        Cause::Outage => BLACK,
        Cause::CapacityDrop => PURPLE,
        Cause::Queue => ORANGE,
        Cause::Loss => BLUE,
        Cause::KeptBack => GREEN,
        Cause::Feedback => CYAN,
        Cause::Source | Cause::Distance => GREY,
    }
}

fn draw_rate<'b>(area: &Svg<'b>, report: &Report, end: f64) -> Result<(), Failure<'b>> {
    let mbps = |bytes: u64, span: f64| bytes as f64 * 8.0 / span / 1e6;
    let mut lines: Vec<Line> = Vec::new();
    if report.stream.capacity_mbps.is_some() {
        lines.push(("capacity", GREY, curve(&report.samples, |s, _, span| mbps(s.offered_bytes, span))));
    }
    lines.push(("arrived", BLUE, curve(&report.samples, |s, _, span| mbps(s.arrived_bytes, span))));
    let target = curve(&report.samples, |s, _, _| f64::from(s.target_kbps) / 1e3);
    lines.push(("encoder's target", GREEN, target));
    let estimate = report.decisions.iter().filter(|d| d.trace.capacity.as_bps() > 0);
    let estimate: Vec<_> =
        estimate.map(|d| (seconds(d.at_us), d.trace.capacity.as_bps() as f64 / 1e6)).collect();
    let height = top(&lines);
    if !estimate.is_empty() {
        // A first estimate may lie far above everything.
        let points = estimate.into_iter().map(|(at, value)| (at, value.min(height))).collect();
        lines.push(("estimate of the capacity", ORANGE, points));
    }
    for (flow, colour) in report.flows.iter().zip([PURPLE, CYAN, MAGENTA, BLACK, RED].into_iter().cycle()) {
        let points = curve(&flow.samples, |s, _, span| mbps(s.arrived_bytes, span));
        lines.push(("another stream", colour, points));
    }
    let mut chart = panel(area, "rates", "Mbit/s", (end, height))?;
    draw_lines(&mut chart, lines)
}

fn draw_loss<'b>(area: &Svg<'b>, report: &Report, end: f64) -> Result<(), Failure<'b>> {
    let share = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
    let sent = |now: &Sample, before: &Sample, i: usize| now.sender[i].saturating_sub(before.sender[i]);
    let of_data = |i: usize| curve(&report.samples, |s, b, _| share(sent(s, b, i), sent(s, b, 0)).min(100.0));
    let lost = curve(&report.samples, |s, b, _| {
        let all = (0..3).map(|i| sent(s, b, i)).sum();
        share(s.lost, all).min(100.0)
    });
    let lines = vec![("lost", RED, lost), ("parity", PURPLE, of_data(1)), ("sent again", ORANGE, of_data(2))];
    let mut chart = panel(area, "losses, and what repairs them", "% of packets", (end, top(&lines)))?;
    draw_lines(&mut chart, lines)
}

/// Reasons that occur, in the order of their first occurrence.
fn reasons(decisions: &[Decision]) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for decision in decisions {
        if !reasons.contains(&decision.trace.reason) {
            reasons.push(decision.trace.reason);
        }
    }
    reasons
}

fn draw_reasons<'b>(
    root: &Svg<'b>,
    area: &Svg<'b>,
    decisions: &[Decision],
    reasons: &[Reason],
    end: f64,
) -> Result<(), Failure<'b>> {
    let caption =
        "why the rate is what it is: stable (green), rising (orange), congested (red), held (black)";
    let lanes = reasons.len().max(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(LABELS)
        .build_cartesian_2d(0.0..end, 0.0..lanes)?;
    chart.configure_mesh().disable_y_mesh().x_desc("seconds").y_labels(0).light_line_style(WHITE).draw()?;
    let ends = decisions.iter().skip(1).map(|d| seconds(d.at_us)).chain([end]);
    let bars = decisions.iter().zip(ends).map(|(decision, until)| {
        let lane = reasons.iter().position(|&r| r == decision.trace.reason).unwrap_or(0);
        let low = lanes - 1.0 - lane as f64;
        let from = seconds(decision.at_us);
        // A decision of a moment is seen too.
        let until = until.max(from + end * 0.0008);
        let colour = match (decision.trace.held, decision.trace.state) {
            (true, _) => BLACK,
            (false, PathState::Stable) => GREEN,
            (false, PathState::Rising) => ORANGE,
            (false, PathState::Congested) => RED,
        };
        Rectangle::new([(from, low + 0.12), (until, low + 0.88)], colour.filled())
    });
    chart.draw_series(bars)?;
    for (lane, reason) in reasons.iter().enumerate() {
        let (_, y) = chart.backend_coord(&(0.0, lanes - 0.5 - lane as f64));
        let text = Text::new(format!("{reason:?}"), (12, y - 6), ("sans-serif", 12).into_font());
        root.draw(&text)?;
    }
    if decisions.is_empty() {
        let text = "this controller gives no reasons";
        chart.draw_series([Text::new(text, (end * 0.02, 0.5), ("sans-serif", 13).into_font())])?;
    }
    Ok(())
}
