//! Lines over two logarithmic axes: what a model says, with what was measured as points.

use plotters::element::PathElement;
use plotters::style::ShapeStyle;
use plotters::style::text_anchor::HPos;

use super::painter::{self, Drawn, Painter, Shown};
use super::scale::tick_text;
use super::theme::Role;
use super::{AXIS, LEFT, PLOT, RIGHT, Scale, Shape, TOP, WIDTH};
use crate::error::ReportError;

/// A line.
#[derive(Clone, Debug)]
pub struct Path {
    /// Palette number.
    pub slot: u8,
    /// Shown while the pointer rests on it.
    pub tip: String,
    /// Ascending by the first.
    pub points: Vec<(f64, f64)>,
}

/// A point that was measured.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Palette number.
    pub slot: u8,
    /// Shown while the pointer rests on it.
    pub tip: String,
    /// Where it lies.
    pub at: (f64, f64),
}

/// Lines and points in one chart.
#[derive(Clone, Debug)]
pub struct Lines {
    /// What assistive technology reads, and the name in errors.
    pub label: String,
    /// Stands inside the chart, so that it goes wherever the chart goes.
    pub stamp: String,
    /// Under the axis.
    pub axis: String,
    /// Values of the horizontal axis that are named.
    pub steps: Vec<f64>,
    /// The lines.
    pub lines: Vec<Path>,
    /// The points.
    pub seen: Vec<Seen>,
}

impl Lines {
    /// The chart as an `<svg>` element.
    ///
    /// # Errors
    /// If plotters refuses to draw.
    pub fn svg(&self) -> Result<String, ReportError> {
        painter::svg(&self.label, TOP + PLOT + AXIS, |p| self.draw(p))
    }

    fn draw(&self, p: &mut Painter<'_>) -> Result<Shown, String> {
        let x = Scale::steps(&self.steps);
        let values = self.lines.iter().flat_map(|l| &l.points);
        let seen = self.seen.iter().map(|s| &s.at);
        let y = Scale::decades(values.chain(seen).map(|(_, y)| *y));
        let down = |v: f64| TOP + PLOT - (y.share(v) * f64::from(PLOT)).round() as i32;
        for tick in &x.ticks {
            let x = x.x(*tick);
            p.line(Role::Grid, 0, (x, TOP), (x, TOP + PLOT + 2), 1)?;
        }
        for tick in &y.ticks {
            let y = down(*tick);
            p.line(Role::Grid, 0, (LEFT, y), (WIDTH - RIGHT, y), 1)?;
        }
        for line in &self.lines {
            let path = line.points.iter().map(|(a, b)| (x.x(*a), down(*b)));
            p.tips.push(line.tip.clone());
            let style = ShapeStyle::from(Role::Curve.code(line.slot)).stroke_width(2);
            p.area
                .draw(&PathElement::new(path.collect::<Vec<_>>(), style))
                .map_err(|e| e.to_string())?;
        }
        for seen in &self.seen {
            let at = (x.x(seen.at.0), down(seen.at.1));
            p.mark(seen.slot, at, Shape::Hollow, &seen.tip)?;
        }
        self.words(p, &x, &y, down)?;
        Ok(Shown {
            lines: self.lines.len(),
            points: 0,
        })
    }

    fn words(&self, p: &Painter<'_>, x: &Scale, y: &Scale, down: impl Fn(f64) -> i32) -> Drawn {
        for tick in &y.ticks {
            let text = tick_text(*tick);
            p.text(Role::Tick, 0, (LEFT, down(*tick) - 14), HPos::Left, &text)?;
        }
        super::tick_labels(p, x, 1.0, TOP + PLOT)?;
        let right = (WIDTH - RIGHT, 0);
        p.text(Role::Heading, 0, right, HPos::Right, &self.stamp)?;
        let under = (WIDTH / 2, TOP + PLOT + 21);
        p.text(Role::Tick, 0, under, HPos::Center, &self.axis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_and_a_point_have_words_and_the_stamp_is_inside() {
        let svg = Lines {
            label: "x".into(),
            stamp: "MODELLED".into(),
            axis: "cores".into(),
            steps: vec![1.0, 2.0, 4.0],
            lines: vec![Path {
                slot: 2,
                tip: "a <line>".into(),
                points: vec![(1.0, 10.0), (2.0, 100.0), (4.0, 1000.0)],
            }],
            seen: vec![Seen {
                slot: 1,
                tip: "measured".into(),
                at: (2.0, 90.0),
            }],
        }
        .svg()
        .unwrap();
        assert!(svg.contains("MODELLED"), "{svg}");
        assert!(svg.contains("<title>a &lt;line&gt;</title></polyline>"));
        assert!(svg.contains("class=\"hollow s1\""), "{svg}");
        let points = svg.split_once("class=\"curve s2\"").unwrap().1;
        let points = points.split_once("points=\"").unwrap().1;
        let points = points.split_once('"').unwrap().0;
        let at: Vec<(i32, i32)> = points
            .split_whitespace()
            .map(|p| p.split_once(',').unwrap())
            .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
            .collect();
        assert_eq!(at.len(), 3);
        assert_eq!(at[0], (LEFT, TOP + PLOT));
        assert_eq!(at[2], (WIDTH - RIGHT, TOP));
        assert_eq!(at[1], ((LEFT + WIDTH - RIGHT) / 2, at[1].1));
    }
}
