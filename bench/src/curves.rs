//! Draws the fills: binds per second, the slowest binds and memory, each over the number of addresses held.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;

use crate::runs::fill::{Fill, Point};

const SIZE: (u32, u32) = (900, 500);
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    BLACK,
];

/// One picture.
struct Curve {
    file: &'static str,
    unit: &'static str,
    of: fn(&Point) -> f64,
}

const CURVES: [Curve; 3] = [
    Curve { file: "binds.svg", unit: "binds per second", of: |point| point.binds_per_second },
    Curve { file: "latency.svg", unit: "p99 from create to bound, ms", of: |point| point.p99_ms },
    Curve { file: "memory.svg", unit: "resident memory, MB", of: |point| megabytes(point.rss_bytes) },
];

/// Writes the pictures into `folder` and returns their paths; none without a fill.
pub fn draw(fills: &[Fill], folder: &Path) -> Result<Vec<PathBuf>> {
    if fills.iter().all(|fill| fill.curve.is_empty()) {
        return Ok(Vec::new());
    }
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let mut drawn = Vec::new();
    for curve in CURVES {
        let path = folder.join(curve.file);
        std::fs::write(&path, svg(fills, &curve)?).with_context(|| format!("write {}", path.display()))?;
        drawn.push(path);
    }
    Ok(drawn)
}

fn svg(fills: &[Fill], curve: &Curve) -> Result<String> {
    let mut text = String::new();
    // The library's errors borrow what is drawn on.
    picture(fills, curve, &mut text).map_err(|error| anyhow!("draw {}: {error}", curve.file))?;
    Ok(text)
}

fn picture(fills: &[Fill], curve: &Curve, text: &mut String) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let points = || fills.iter().flat_map(|fill| &fill.curve);
    let width = points().map(|point| point.held).max().unwrap_or(1);
    let height = points().map(curve.of).fold(1.0, f64::max) * 1.05;

    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0..width, 0.0..height)?;
    chart.configure_mesh().max_light_lines(0).x_desc("addresses held").y_desc(curve.unit).draw()?;
    for (fill, colour) in fills.iter().zip(COLOURS.iter().cycle()) {
        let line = fill.curve.iter().map(|point| (point.held, (curve.of)(point)));
        let colour = *colour;
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(format!("{} claims, {} pools", fill.size, fill.pools))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
