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
    // Not `max_light_lines(0)`: looking for no key points on an axis of whole numbers never ends.
    chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("addresses held").y_desc(curve.unit).draw()?;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::latency::Latency;

    fn fill(points: &[usize]) -> Fill {
        let point = |held: &usize| Point { held: *held, binds_per_second: 100.0, p99_ms: 20.0, rss_bytes: 20_000_000 };
        Fill {
            size: 100,
            pools: 7,
            bound: 100,
            binds_per_second: 100.0,
            latency: Latency::default(),
            of_two_writes: 0.5,
            of_all_writes: 0.9,
            writes_per_bind: 3.0,
            writes: BTreeMap::new(),
            events_per_bind: 0.0,
            cpu_seconds_per_1000: 1.0,
            curve: points.iter().map(point).collect(),
        }
    }

    #[test]
    fn each_fill_has_a_line_and_a_name() {
        for curve in &CURVES {
            let svg = svg(&[fill(&[50, 100]), fill(&[100_000, 200_000])], curve).unwrap();
            assert!(svg.contains(curve.unit) && svg.matches("100 claims, 7 pools").count() == 2, "{svg}");
            assert!(svg.matches("<polyline").count() >= 4, "{svg}");
        }
    }

    #[test]
    fn without_a_fill_nothing_is_drawn() {
        let folder = Path::new("does-not-exist");
        assert_eq!(draw(&[fill(&[])], folder).unwrap(), Vec::<PathBuf>::new());
        assert!(!folder.exists());
    }
}
