//! Two figures as SVG: cost per delivery against readers, and latency against load.
//!
//! Text is set in the generic sans-serif face of whoever looks: no font of this machine is read.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;

use super::{Comparison, Entry, Outcome};
use crate::compare::work::Work;
use crate::stats::{Round, Summary};

const SIZE: (u32, u32) = (900, 560);
/// The right edge beyond the last point, as a factor: the names of the lines stand there.
const LEGEND: f64 = 3.0;
/// A colour for each target; told apart by most eyes, on white.
const COLOURS: [RGBColor; 8] = [
    RGBColor(90, 90, 90),
    RGBColor(170, 170, 170),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// A line of a figure: a target, and where it passes.
type Series = (String, Vec<(f64, f64)>);

/// Writes the figures that the comparison has points for, and says which.
pub fn write(comparison: &Comparison, dir: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut written = Vec::new();
    let figures = [
        (
            "cost.svg",
            "Server CPU per delivery: 1 publisher, 64 bytes, 256 in flight",
            ["readers", "CPU ns per delivery"],
            cost(comparison),
        ),
        (
            "latency.svg",
            "99th percentile of latency from when a message was due: 64 bytes",
            ["deliveries a second that were asked for", "p99 us"],
            latency(comparison),
        ),
    ];
    for (name, title, axes, series) in figures {
        let path = dir.join(name);
        if series.iter().any(|(_, points)| points.len() > 1) {
            let drawn = draw(&path, title, axes, &series);
            drawn.map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))?;
            written.push(path);
        }
    }
    Ok(written)
}

/// CPU per delivery by readers, of the workloads that differ in nothing else.
fn cost(comparison: &Comparison) -> Vec<Series> {
    series(comparison, |work, summary, _| {
        let Work::Window { workload: it } = work else { return None };
        let same = (it.topics, it.publishers, it.size, it.window) == (1, 1, 64, 256);
        same.then_some((it.readers as f64, summary.cpu_ns_per_delivery.median))
    })
}

/// p99 by deliveries a second, as far as the rate was kept: beyond, it only grows with the round.
fn latency(comparison: &Comparison) -> Vec<Series> {
    series(comparison, |work, summary, rounds| {
        let Work::Rate { workload: it, per_second } = work else { return None };
        let same = (it.topics, it.publishers, it.size) == (1, 1, 64);
        let late = rounds.iter().filter(|round| round.rate_kept == Some(false)).count();
        (same && late * 2 <= rounds.len())
            .then_some((per_second * it.readers as f64, summary.p99_ns.median / 1e3))
    })
}

fn series(
    comparison: &Comparison,
    point: impl Fn(&Work, &Summary, &[Round]) -> Option<(f64, f64)>,
) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for case in &comparison.cases {
        for Entry { target, outcome, .. } in &case.entries {
            let Outcome::Messages { summary, rounds } = outcome else { continue };
            let Some(point) = point(&case.case.work, summary, rounds) else { continue };
            match all.iter_mut().find(|(name, _)| name == target) {
                Some((_, points)) => points.push(point),
                None => all.push((target.clone(), vec![point])),
            }
        }
    }
    for (_, points) in &mut all {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    all
}

/// Both axes are logarithmic: a factor is as long anywhere.
fn draw(
    path: &Path,
    title: &str,
    [x_axis, y_axis]: [&str; 2],
    series: &[Series],
) -> Result<(), Box<dyn std::error::Error>> {
    let points = || series.iter().flat_map(|(_, points)| points);
    let range = |of: fn(&(f64, f64)) -> f64| {
        let (least, most) = points()
            .map(of)
            .fold((f64::INFINITY, 0.0_f64), |(least, most), at| (least.min(at), most.max(at)));
        (least * 0.8).max(f64::MIN_POSITIVE)..most * 1.25
    };
    let x = range(|point| point.0);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(
            (x.start..x.end * LEGEND).log_scale(),
            range(|point| point.1).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc(x_axis)
        .y_desc(y_axis)
        .x_label_formatter(&ToString::to_string)
        .y_label_formatter(&ToString::to_string)
        .label_style(("sans-serif", 13))
        .light_line_style(BLACK.mix(0.06))
        .draw()?;
    for (number, (name, points)) in series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(3);
        chart.draw_series(line)?.label(name).legend(move |(x, y)| {
            PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2))
        });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 13))
        .draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_svg_with_every_series_by_name() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("x.svg");
        let series = [
            ("blind".to_owned(), vec![(1.0, 140.0), (1000.0, 25.0)]),
            ("redis".to_owned(), vec![(1.0, 600.0), (1000.0, 130.0)]),
        ];
        draw(&path, "Title", ["readers", "ns"], &series).unwrap();
        let text = fs::read_to_string(path).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{text}");
        for word in ["blind", "redis", "Title", "readers", "polyline"] {
            assert!(text.contains(word), "{word}");
        }
    }
}
