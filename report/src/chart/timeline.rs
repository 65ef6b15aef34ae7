//! Figures over what was kept one after the other: one line per system, a column for each.

use plotters::element::PathElement;
use plotters::style::ShapeStyle;
use plotters::style::text_anchor::HPos;

use super::painter::{self, Drawn, Painter, Shown};
use super::scale::tick_text;
use super::theme::Role;
use super::{AXIS, LEFT, PLOT, RIGHT, Scale, Shape, TOP, WIDTH};
use crate::error::ReportError;
use crate::stats::Interval;

/// Room for the values of the axis, left of the first column.
const VALUES: i32 = 44;
/// How far apart systems lie inside a column, so that their intervals can be told apart.
const APART: i32 = 7;

/// A figure.
#[derive(Clone, Debug)]
pub struct Dot {
    /// Its column.
    pub column: usize,
    /// Where it lies.
    pub value: f64,
    /// Whiskers.
    pub interval: Option<Interval>,
    /// Shown while the pointer rests on it.
    pub tip: String,
}

/// The figures of one system, by column. Neighbouring columns are joined.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Palette number.
    pub slot: u8,
    /// The system.
    pub name: String,
    /// The figures, in the order of their columns.
    pub dots: Vec<Dot>,
}

/// A shaded range in one column: the noise floor.
#[derive(Clone, Debug)]
pub struct Span {
    /// The column.
    pub column: usize,
    /// From where to where.
    pub interval: Interval,
    /// Shown while the pointer rests on it.
    pub tip: String,
}

/// A chart over columns.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// What assistive technology reads, and the name in errors.
    pub label: String,
    /// The vertical axis.
    pub scale: Scale,
    /// Under the columns.
    pub axis: String,
    /// The columns.
    pub columns: Vec<String>,
    /// Ranges behind the figures.
    pub spans: Vec<Span>,
    /// The lines.
    pub traces: Vec<Trace>,
}

impl Timeline {
    /// The chart as an `<svg>` element.
    ///
    /// # Errors
    /// If a figure has no column, or plotters refuses to draw.
    pub fn svg(&self) -> Result<String, ReportError> {
        painter::svg(&self.label, TOP + PLOT + AXIS, |p| self.draw(p))
    }

    fn draw(&self, p: &mut Painter<'_>) -> Result<Shown, String> {
        let columns = self.traces.iter().flat_map(|t| &t.dots).map(|d| d.column);
        let spans = self.spans.iter().map(|s| s.column);
        if let Some(column) = columns.chain(spans).find(|c| *c >= self.columns.len()) {
            return Err(format!("a figure in column {column}, which is not there"));
        }
        for span in &self.spans {
            self.span(p, span)?;
        }
        self.grid(p)?;
        let mut lines = 0;
        for (n, trace) in self.traces.iter().enumerate() {
            lines += self.trace(p, n, trace)?;
        }
        Ok(Shown { lines, points: 0 })
    }

    /// Pixels from one column to the next.
    fn step(&self) -> i32 {
        let n = i32::try_from(self.columns.len()).unwrap_or(i32::MAX).max(1);
        (WIDTH - LEFT - RIGHT - VALUES) / n
    }

    /// Pixel of the middle of a column.
    fn middle(&self, column: usize) -> i32 {
        let column = i32::try_from(column).unwrap_or(0);
        LEFT + VALUES + self.step() / 2 + column * self.step()
    }

    fn y(&self, value: f64) -> i32 {
        TOP + PLOT - (self.scale.share(value) * f64::from(PLOT)).round() as i32
    }

    fn span(&self, p: &mut Painter<'_>, span: &Span) -> Drawn {
        let half = (self.step() / 2).max(1);
        let x = self.middle(span.column);
        let (top, bottom) = (self.y(span.interval.high), self.y(span.interval.low));
        p.tips.push(span.tip.clone());
        // A floor too narrow to be seen is still one.
        let bottom = bottom.max(top + 1);
        p.rect(Role::Band, 0, (x - half, top), (x + half, bottom))
    }

    fn grid(&self, p: &Painter<'_>) -> Drawn {
        for tick in &self.scale.ticks {
            let y = self.y(*tick);
            p.line(Role::Grid, 0, (LEFT, y), (WIDTH - RIGHT, y), 1)?;
            p.text(Role::Tick, 0, (LEFT, y - 14), HPos::Left, &tick_text(*tick))?;
        }
        let one = self.y(1.0);
        p.line(Role::Reference, 0, (LEFT, one), (WIDTH - RIGHT, one), 1)?;
        let bottom = TOP + PLOT;
        // The newest keeps its label; going back, one that would touch the next is left out.
        let mut free = WIDTH;
        for (n, name) in self.columns.iter().enumerate().rev() {
            let half = i32::try_from(name.chars().count()).unwrap_or(0) * super::CHAR / 20;
            let x = self.middle(n).min(WIDTH - half - 1);
            p.line(
                Role::Grid,
                0,
                (self.middle(n), bottom),
                (self.middle(n), bottom + 3),
                1,
            )?;
            if x + half <= free && x >= half {
                p.text(Role::Tick, 0, (x, bottom + 6), HPos::Center, name)?;
                free = x - half - 6;
            }
        }
        let axis = if self.scale.is_log() {
            format!("{} (logarithmic)", self.axis)
        } else {
            self.axis.clone()
        };
        p.text(Role::Tick, 0, (WIDTH / 2, bottom + 21), HPos::Center, &axis)
    }

    /// Draws a trace and says in how many pieces.
    fn trace(&self, p: &mut Painter<'_>, n: usize, trace: &Trace) -> Result<usize, String> {
        let count = i32::try_from(self.traces.len()).unwrap_or(1);
        let apart = APART.min(self.step() / (count + 1)).max(0);
        let shift = (i32::try_from(n).unwrap_or(0) * 2 - (count - 1)) * apart / 2;
        let at = |d: &Dot| (self.middle(d.column) + shift, self.y(d.value));
        let pieces: Vec<&[Dot]> = trace
            .dots
            .chunk_by(|a, b| b.column == a.column + 1)
            .filter(|piece| piece.len() > 1)
            .collect();
        for piece in &pieces {
            p.tips.push(trace.name.clone());
            let style = ShapeStyle::from(Role::Curve.code(trace.slot)).stroke_width(2);
            let path: Vec<_> = piece.iter().map(at).collect();
            p.area
                .draw(&PathElement::new(path, style))
                .map_err(|e| e.to_string())?;
        }
        for dot in &trace.dots {
            let (x, y) = at(dot);
            if let Some(i) = dot.interval {
                let (low, high) = (self.y(i.low), self.y(i.high));
                p.line(Role::Whisker, trace.slot, (x, low), (x, high), 2)?;
                for end in [low, high] {
                    p.line(Role::Whisker, trace.slot, (x - 3, end), (x + 3, end), 2)?;
                }
            }
            p.mark(trace.slot, (x, y), Shape::Diamond, &dot.tip)?;
        }
        Ok(pieces.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(column: usize, value: f64) -> Dot {
        Dot {
            column,
            value,
            interval: Some(Interval {
                low: value * 0.9,
                high: value * 1.1,
            }),
            tip: format!("<{value}>"),
        }
    }

    fn timeline(dots: Vec<Dot>) -> Timeline {
        Timeline {
            label: "x".into(),
            scale: Scale::marks([0.9, 2.2]),
            axis: "revision".into(),
            columns: (0..4).map(|n| format!("abcdef{n}")).collect(),
            spans: vec![],
            traces: vec![Trace {
                slot: 2,
                name: "efuse".into(),
                dots,
            }],
        }
    }

    #[test]
    fn only_neighbours_are_joined_and_every_figure_has_words_and_whiskers() {
        let svg = timeline(vec![dot(0, 1.0), dot(1, 1.5), dot(3, 2.0)])
            .svg()
            .unwrap();
        assert_eq!(svg.matches("class=\"curve s2\"").count(), 1, "{svg}");
        assert!(svg.contains("data-lines=\"1\""), "{svg}");
        assert_eq!(svg.matches("class=\"mark s2\"").count(), 3);
        assert_eq!(svg.matches("class=\"whisker s2\"").count(), 9);
        assert!(svg.contains("<title>&lt;1.5&gt;</title>"), "{svg}");
        assert!(svg.contains("abcdef3") && !svg.contains('#'), "{svg}");
    }

    #[test]
    fn more_is_higher() {
        let t = timeline(vec![]);
        assert!(t.y(2.0) < t.y(1.0) && t.middle(0) < t.middle(3));
    }

    #[test]
    fn a_figure_without_a_column_is_refused() {
        assert!(timeline(vec![dot(4, 1.0)]).svg().is_err());
    }
}
