//! Cumulative distributions: one curve per system over a logarithmic axis.

use plotters::element::PathElement;
use plotters::style::ShapeStyle;
use plotters::style::text_anchor::HPos;

use super::painter::{self, Drawn, Painter, Shown};
use super::theme::Role;
use super::{AXIS, LEFT, PLOT, RIGHT, Scale, TOP, WIDTH};
use crate::error::ReportError;

/// The distribution of one system.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Palette number.
    pub slot: u8,
    /// Shown while the pointer rests on it.
    pub tip: String,
    /// `(value, count)`, ascending by value.
    pub bins: Vec<(u64, u64)>,
}

/// Cumulative distributions in one chart.
#[derive(Clone, Debug)]
pub struct Curves {
    /// What assistive technology reads, and the name in errors.
    pub label: String,
    /// Under the axis.
    pub axis: String,
    /// What a value is divided by on the axis.
    pub divisor: f64,
    /// The curves; those without a value above zero draw nothing.
    pub curves: Vec<Curve>,
}

impl Curves {
    /// The chart as an `<svg>` element.
    ///
    /// # Errors
    /// If plotters refuses to draw.
    pub fn svg(&self) -> Result<String, ReportError> {
        painter::svg(&self.label, TOP + PLOT + AXIS, |p| self.draw(p))
    }

    fn draw(&self, p: &mut Painter<'_>) -> Result<Shown, String> {
        // A logarithmic axis has no zero: values below one are drawn at one.
        let ends = self.curves.iter().flat_map(|c| {
            [c.bins.first(), c.bins.last()]
                .into_iter()
                .flatten()
                .map(|(v, _)| (*v).max(1) as f64 / self.divisor)
        });
        let scale = Scale::decades(ends);
        grid(p, &scale, &self.axis)?;
        for curve in &self.curves {
            self.curve(p, &scale, curve)?;
        }
        Ok(Shown {
            lines: self.curves.len(),
            points: 0,
        })
    }

    fn curve(&self, p: &mut Painter<'_>, scale: &Scale, curve: &Curve) -> Drawn {
        let total: u64 = curve.bins.iter().map(|(_, n)| n).sum();
        if total == 0 {
            return Err("a curve of nothing".to_owned());
        }
        let mut seen = 0;
        let mut path: Vec<(i32, i32)> = Vec::new();
        for (value, count) in &curve.bins {
            let x = scale.x((*value).max(1) as f64 / self.divisor);
            if path.is_empty() {
                path.push((x, y(0.0)));
            }
            seen += count;
            let point = (x, y(seen as f64 / total as f64));
            // Many bins share a pixel: the last of them is where the curve leaves it.
            let started = path.len() > 1;
            match path.last_mut() {
                Some(last) if started && last.0 == x => *last = point,
                _ => path.push(point),
            }
        }
        path.push((WIDTH - RIGHT, y(1.0)));
        p.tips.push(curve.tip.clone());
        let style = ShapeStyle::from(Role::Curve.code(curve.slot)).stroke_width(2);
        p.area
            .draw(&PathElement::new(path, style))
            .map_err(|e| e.to_string())
    }
}

/// Pixel of a share.
fn y(share: f64) -> i32 {
    TOP + PLOT - (share * f64::from(PLOT)).round() as i32
}

fn grid(p: &Painter<'_>, scale: &Scale, axis: &str) -> Drawn {
    for tick in &scale.ticks {
        let x = scale.x(*tick);
        p.line(Role::Grid, 0, (x, y(1.0)), (x, y(0.0) + 2), 1)?;
    }
    for percent in [0, 25, 50, 75, 100] {
        let y = y(f64::from(percent) / 100.0);
        p.line(Role::Grid, 0, (LEFT, y), (WIDTH - RIGHT, y), 1)?;
        if percent > 0 {
            let text = format!("{percent} %");
            p.text(Role::Tick, 0, (LEFT, y - 14), HPos::Left, &text)?;
        }
    }
    super::tick_labels(p, scale, 1.0, TOP + PLOT)?;
    let axis = format!("{axis} (logarithmic)");
    p.text(
        Role::Tick,
        0,
        (WIDTH / 2, TOP + PLOT + 21),
        HPos::Center,
        &axis,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curves(bins: Vec<(u64, u64)>) -> Curves {
        Curves {
            label: "x".into(),
            axis: "latency, \u{b5}s".into(),
            divisor: 1000.0,
            curves: vec![Curve {
                slot: 2,
                tip: "fuse: <p50>".into(),
                bins,
            }],
        }
    }

    #[test]
    fn a_curve_rises_from_nothing_to_all() {
        let svg = curves(vec![(0, 1), (1000, 1), (1_000_000, 2)])
            .svg()
            .unwrap();
        assert!(svg.contains("class=\"curve s2\""), "{svg}");
        assert!(
            svg.contains("<title>fuse: &lt;p50&gt;</title></polyline>"),
            "{svg}"
        );
        let points = svg.split_once("class=\"curve").unwrap().1;
        let points = points.split_once("points=\"").unwrap().1;
        let points = points.split_once('"').unwrap().0;
        let ys: Vec<i32> = points
            .split_whitespace()
            .map(|p| p.split_once(',').unwrap().1.parse().unwrap())
            .collect();
        assert_eq!(ys.first(), Some(&y(0.0)));
        assert_eq!(ys.last(), Some(&y(1.0)));
        assert!(ys.windows(2).all(|w| w[1] <= w[0]), "{ys:?}");
        assert!(ys.contains(&y(0.5)), "{ys:?}");
    }

    #[test]
    fn nothing_is_no_curve() {
        assert!(curves(vec![]).svg().is_err());
    }
}
