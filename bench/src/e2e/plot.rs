//! The distributions of total latency, as a picture.

use std::path::Path;

use plotters::prelude::*;

use super::report::Report;

/// Draws, for each subject, the share of frames that were decoded within a time (SVG, logarithmic in time).
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn distributions(report: &Report, path: &Path) -> anyhow::Result<()> {
    draw(report, path)
        .map_err(|error| anyhow::anyhow!("the plot {} was not written: {error}", path.display()))
}

fn draw(report: &Report, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let all = || report.distributions.iter().flat_map(|(_, values)| values.iter().copied());
    let (least, most) = (all().fold(f64::INFINITY, f64::min).max(0.1), all().fold(1.0, f64::max));
    let root = SVGBackend::new(path, (1000, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("Painted to decoded, {}", report.stream), ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(42)
        .y_label_area_size(54)
        .build_cartesian_2d((least * 0.9..most * 1.1).log_scale(), 0.0..100.0)?;
    chart
        .configure_mesh()
        .x_desc("milliseconds")
        .y_desc("% of frames")
        .x_label_formatter(&|ms| format!("{ms:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for (index, (name, values)) in report.distributions.iter().enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        let count = values.len() as f64;
        let points = (1..).zip(values).map(|(rank, &ms)| (ms, f64::from(rank) / count * 100.0));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}
