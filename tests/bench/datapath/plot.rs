//! Plot of the median connection time of each variant, by case.

use super::{
    figures::{Case, Figures},
    variants::Kind,
};
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use std::path::Path;

/// Size in pixels.
const SIZE: (u32, u32) = (900, 480);
/// Colour of each variant, in the order of [`Kind::ALL`].
const COLOURS: [RGBColor; 3] = [RGBColor(0x1b, 0x7f, 0x5c), RGBColor(0x88, 0x88, 0x88), RGBColor(0xc0, 0x50, 0x2a)];

pub(super) fn write(path: &Path, measured: &[(Case, Figures)]) -> Result<()> {
    draw(path, measured).map_err(|error| anyhow!("drawing {}: {error}", path.display()))
}

fn draw(path: &Path, measured: &[(Case, Figures)]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let microseconds = |figures: &Figures, kind| figures.of(kind).as_secs_f64() * 1e6;
    let all = measured.iter().flat_map(|(_, figures)| Kind::ALL.map(|kind| microseconds(figures, kind)));
    let highest = all.fold(0.0, f64::max) * 1.1;
    let groups = u32::try_from(measured.len())?;
    let mut chart = ChartBuilder::on(&root)
        .caption("new connection with one request, median", ("sans-serif", 20))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..f64::from(groups), 0.0..highest)?;
    let label = |at: &f64| {
        let group = measured.iter().zip(1_u32..).find(|(_, end)| *at < f64::from(*end));
        group.map_or(String::new(), |((case, _), _)| format!("{} rules, {} interfaces", case.rules, case.interfaces))
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(measured.len() * 2)
        .x_label_formatter(&label)
        .y_desc("µs")
        .draw()?;
    for (kind, colour) in Kind::ALL.into_iter().zip(COLOURS) {
        let bars = (0_u32..).zip(measured).map(|(group, (_, figures))| {
            let left = f64::from(group) + 0.1 + 0.27 * f64::from(kind as u8);
            Rectangle::new([(left, 0.0), (left + 0.25, microseconds(figures, kind))], colour.filled())
        });
        let legend = move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled());
        chart.draw_series(bars)?.label(kind.name()).legend(legend);
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    root.present()?;
    Ok(())
}
