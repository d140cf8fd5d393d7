//! Joins the frame traces of a host and a client on the same machine to latency per stage.
//!
//! Both traces carry `CLOCK_MONOTONIC`, so no clock needs to be estimated. The stages of a frame add up to
//! its total; what overlaps (a slice is sent and decoded while the next is being encoded) shows as a stage
//! that costs less than its work takes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use plotters::prelude::*;

/// Arguments of `wavry latency`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The trace that wavry-server wrote.
    host: PathBuf,
    /// The trace that wavry-client wrote.
    client: PathBuf,
    /// Draw latency over time into this file (SVG).
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Leave out the first frames, while caches warm and rates settle.
    #[arg(long, default_value_t = 30)]
    skip: usize,
}

/// Names of the stages, in order. The last is the sum of the others.
pub(crate) const STAGES: [&str; 8] =
    ["capture", "encode", "packetise+seal", "network", "recover", "decode", "present", "total"];

/// Microseconds that one shown frame spent in each stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameLatency {
    /// When its capture began.
    pub(crate) at_us: u64,
    /// In the order of [`STAGES`].
    pub(crate) stages_us: [u64; STAGES.len()],
}

/// Runs `wavry latency`.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let frames = join(&arguments.host, &arguments.client)?;
    ensure!(frames.len() > arguments.skip, "the traces share only {} shown frames", frames.len());
    let frames = &frames[arguments.skip..];
    print!("{}", table(frames));
    if let Some(path) = &arguments.plot {
        plot(frames, path)?;
    }
    Ok(())
}

/// Latency of every frame that both traces have and that was shown, in the order of frames.
pub(crate) fn join(host: &Path, client: &Path) -> anyhow::Result<Vec<FrameLatency>> {
    let host = Trace::read(host)?;
    let client = Trace::read(client)?;
    let mut frames = Vec::with_capacity(client.rows.len());
    for (frame, c) in &client.rows {
        let Some(h) = host.rows.get(frame) else { continue };
        if client.value(c, "shown")? == 0 {
            continue;
        }
        let host_us = |name| host.value(h, name);
        let client_us = |name| client.value(c, name);
        let started = host_us("capture_started_us")?;
        let (captured, encoded) = (host_us("captured_us")?, host_us("encoded_us")?);
        let (first_sealed, sealed) = (host_us("first_sealed_us")?, host_us("last_sealed_us")?);
        let (decoded, presented) = (client_us("decoded_us")?, client_us("presented_us")?);
        let complete = client_us("complete_us")?;
        let travel = complete.saturating_sub(sealed);
        let network = if client_us("repaired")? == 0 {
            travel
        } else {
            client_us("first_arrival_us")?.saturating_sub(first_sealed).min(travel)
        };
        frames.push(FrameLatency {
            at_us: started,
            stages_us: [
                captured.saturating_sub(started),
                encoded.saturating_sub(captured),
                sealed.saturating_sub(encoded),
                network,
                travel - network,
                decoded.saturating_sub(complete),
                presented.saturating_sub(decoded),
                presented.saturating_sub(started),
            ],
        });
    }
    Ok(frames)
}

/// The table that people read: percentiles per stage, in milliseconds.
pub(crate) fn table(frames: &[FrameLatency]) -> String {
    let mut out =
        format!("{:<16}{:>9}{:>9}{:>9}   (ms, {} frames)\n", "stage", "p50", "p95", "p99", frames.len());
    for (i, name) in STAGES.iter().enumerate() {
        let mut values: Vec<u64> = frames.iter().map(|f| f.stages_us[i]).collect();
        values.sort_unstable();
        let ms = |share| percentile(&values, share) as f64 / 1000.0;
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:<16}{:>9.3}{:>9.3}{:>9.3}", ms(0.50), ms(0.95), ms(0.99));
    }
    out
}

/// The value below which `share` of the sorted `values` lie (nearest rank).
pub(crate) fn percentile(values: &[u64], share: f64) -> u64 {
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.max(1) - 1).copied().unwrap_or(0)
}

/// Draws the stages of every frame, stacked, over time.
pub(crate) fn plot(frames: &[FrameLatency], path: &Path) -> anyhow::Result<()> {
    let Some(first) = frames.first() else { bail!("there is no frame to plot") };
    let seconds = |f: &FrameLatency| f.at_us.saturating_sub(first.at_us) as f64 / 1e6;
    let end = frames.last().map_or(0.0, seconds).max(0.1);
    let mut totals: Vec<u64> = frames.iter().map(|f| f.stages_us[STAGES.len() - 1]).collect();
    totals.sort_unstable();
    // One outlier must not flatten all the rest.
    let top = (percentile(&totals, 0.995) as f64 / 1000.0 * 1.25).max(1.0);
    let failed =
        |e: &dyn std::fmt::Display| anyhow::anyhow!("the plot {} was not written: {e}", path.display());

    let root = SVGBackend::new(path, (1100, 520)).into_drawing_area();
    root.fill(&WHITE).map_err(|e| failed(&e))?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Capture to presentation, by stage", ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(42)
        .y_label_area_size(54)
        .build_cartesian_2d(0.0..end, 0.0..top)
        .map_err(|e| failed(&e))?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_desc("milliseconds")
        .light_line_style(WHITE)
        .draw()
        .map_err(|e| failed(&e))?;
    // From the top of the stack down, so that each area is painted over by those below it.
    for stage in (0..STAGES.len() - 1).rev() {
        let colour = Palette99::pick(stage).to_rgba();
        let up_to = |f: &FrameLatency| f.stages_us[..=stage].iter().sum::<u64>() as f64 / 1000.0;
        chart
            .draw_series(AreaSeries::new(
                frames.iter().map(|f| (seconds(f), up_to(f).min(top))),
                0.0,
                colour.filled(),
            ))
            .map_err(|e| failed(&e))?
            .label(STAGES[stage])
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()
        .map_err(|e| failed(&e))?;
    root.present().map_err(|e| failed(&e))
}

/// A CSV file of numbers with named columns, keyed by the first one.
struct Trace {
    path: PathBuf,
    columns: BTreeMap<String, usize>,
    rows: BTreeMap<u64, Vec<u64>>,
}

impl Trace {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the trace {}", path.display()))?;
        let mut lines = text.lines();
        let header = lines.next().with_context(|| format!("{} is empty", path.display()))?;
        let columns: BTreeMap<_, _> =
            header.split(',').enumerate().map(|(i, name)| (name.to_owned(), i)).collect();
        let mut rows = BTreeMap::new();
        for (number, line) in lines.enumerate() {
            let row: Result<Vec<u64>, _> = line.split(',').map(str::parse).collect();
            let row =
                row.with_context(|| format!("{}, line {}: not a number", path.display(), number + 2))?;
            ensure!(
                row.len() == columns.len(),
                "{}, line {}: columns are missing",
                path.display(),
                number + 2
            );
            rows.insert(row[0], row);
        }
        Ok(Self { path: path.to_owned(), columns, rows })
    }

    fn value(&self, row: &[u64], name: &str) -> anyhow::Result<u64> {
        let at = self
            .columns
            .get(name)
            .with_context(|| format!("{} has no column {name}", self.path.display()))?;
        Ok(row[*at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&values, 0.50), 50);
        assert_eq!(percentile(&values, 0.99), 99);
        assert_eq!(percentile(&values, 1.0), 100);
        assert_eq!(percentile(&[], 0.5), 0);
        assert_eq!(percentile(&[7], 0.01), 7);
    }

    #[test]
    fn stages_add_up_to_the_total() {
        let directory = std::env::temp_dir().join(format!("wavry-latency-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (host, client) = (directory.join("h.csv"), directory.join("c.csv"));
        std::fs::write(
            &host,
            "frame,keyframe,slices,bytes,capture_started_us,captured_us,first_slice_us,encoded_us,first_sealed_us,last_sealed_us\n\
             7,0,4,9000,1000,1500,3000,6000,3050,6100\n8,0,4,9000,2000,2500,3000,6000,3050,6100\n",
        )
        .unwrap();
        std::fs::write(
            &client,
            "frame,first_arrival_us,last_arrival_us,complete_us,decode_started_us,decoded_us,presented_us,shown,repaired\n\
             7,3100,6200,6200,3200,6900,7000,1,0\n8,3100,6200,9000,3200,9500,9600,1,1\n9,1,1,1,1,1,1,1,0\n",
        )
        .unwrap();
        let frames = join(&host, &client).unwrap();
        assert_eq!(frames.len(), 2, "frame 9 is not in the host's trace");
        assert_eq!(frames[0].stages_us, [500, 4500, 100, 100, 0, 700, 100, 6000]);
        assert_eq!(frames[1].stages_us, [500, 3500, 100, 50, 2850, 500, 100, 7600]);
        for frame in &frames {
            assert_eq!(frame.stages_us[..7].iter().sum::<u64>(), frame.stages_us[7]);
        }
        let svg = directory.join("plot.svg");
        plot(&frames, &svg).unwrap();
        assert!(std::fs::read_to_string(&svg).unwrap().contains("<svg"));
        assert!(table(&frames).contains("total"));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
