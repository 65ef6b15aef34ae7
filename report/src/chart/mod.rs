//! Charts as inline SVG.
//!
//! Every chart is a list of rows: the system's name and its figure in words above, the
//! marks below. That needs no gutter for names, so nothing is clipped at any width and
//! ten systems stay readable.
//!
//! plotters writes fixed colours. Here a colour is only a code: role and palette number,
//! decoded after drawing into CSS classes, so that the page's style sheet decides how a
//! mark looks in the light theme, in the dark one and in print.

mod curves;
mod lines;
mod painter;
mod scale;
mod theme;
mod timeline;

use plotters::style::text_anchor::HPos;

use self::painter::{Drawn, Painter, Shown};
use self::scale::{bounds, tick_text};
use self::theme::Role;
use crate::error::ReportError;
use crate::stats::Interval;

pub use self::curves::{Curve, Curves};
pub use self::lines::{Lines, Path, Seen};
pub use self::scale::Scale;
pub use self::timeline::{Dot, Span, Timeline, Trace};

const WIDTH: i32 = 400;
const LEFT: i32 = 8;
const RIGHT: i32 = 22;
const ROW: i32 = 40;
const HEADING: i32 = 24;
/// Height of the words above a row's marks.
const WORDS: i32 = 15;
const BAR: i32 = 14;
/// How far points lie above and below the middle of a row.
const SPREAD: i32 = 6;
const AXIS: i32 = 36;
/// Of charts with a vertical axis: room above it, and its length.
const TOP: i32 = 16;
const PLOT: i32 = 190;
/// Widths of a character in the widest of the fonts that the style sheet may end at
/// (DejaVu Sans, 12 px): a bold name, and anything else. Tenths of a pixel.
const BOLD_CHAR: i32 = 83;
const CHAR: i32 = 74;

/// The form of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Filled circle.
    Circle,
    /// Filled triangle.
    Triangle,
    /// Filled square.
    Square,
    /// Filled diamond: medians.
    Diamond,
    /// Outline of a square: values measured elsewhere.
    Hollow,
}

/// A mark with the words that appear over it.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Its form.
    pub shape: Shape,
    /// Where it lies.
    pub value: f64,
    /// Shown while the pointer rests on it.
    pub tip: String,
}

/// What a row shows.
#[derive(Clone, Debug)]
pub enum Content {
    /// A heading between rows.
    Heading,
    /// No figure, and why.
    Missing(String),
    /// Figures.
    Data {
        /// The figure in words, at the right.
        words: String,
        /// End of the bar (or place of the median's diamond on a logarithmic axis).
        median: Option<f64>,
        /// Whiskers.
        interval: Option<Interval>,
        /// One point per repetition.
        points: Vec<(f64, String)>,
        /// Further marks, joined by a line if there are several of one colour.
        marks: Vec<Mark>,
    },
    /// A bar from zero, cut into parts.
    Stack {
        /// The figure in words, at the right.
        words: String,
        /// The parts from left to right: number (for its look), length and words.
        parts: Vec<(usize, f64, String)>,
        /// Further marks on the same axis.
        marks: Vec<Mark>,
    },
}

/// A shaded range behind some rows: the noise floor.
#[derive(Clone, Debug)]
pub struct Band {
    /// The rows, by their place in [`Chart::lines`].
    pub lines: std::ops::Range<usize>,
    /// From where to where.
    pub interval: Interval,
    /// Shown while the pointer rests on it.
    pub tip: String,
}

/// A row.
#[derive(Clone, Debug)]
pub struct Line {
    /// Name at the left.
    pub name: String,
    /// Palette number.
    pub slot: u8,
    /// What it shows.
    pub content: Content,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What assistive technology reads, and the name in errors.
    pub label: String,
    /// The axis.
    pub scale: Scale,
    /// Under the axis.
    pub axis: String,
    /// What a stored value is divided by on the axis.
    pub divisor: f64,
    /// A reference line, at 1 for ratios.
    pub reference: Option<f64>,
    /// Bars (from zero) or diamonds for the medians.
    pub bars: bool,
    /// Whether several marks of a row are joined.
    pub joined: bool,
    /// Ranges behind the rows.
    pub bands: Vec<Band>,
    /// The rows.
    pub lines: Vec<Line>,
}

impl Chart {
    /// The chart as an `<svg>` element.
    ///
    /// # Errors
    /// If plotters refuses to draw.
    pub fn svg(&self) -> Result<String, ReportError> {
        let plot: i32 = self.lines.iter().map(Self::height_of).sum();
        painter::svg(&self.label, plot + AXIS, |p| self.draw(p, plot))
    }

    fn height_of(line: &Line) -> i32 {
        if matches!(line.content, Content::Heading) {
            HEADING
        } else {
            ROW
        }
    }

    fn draw(&self, p: &mut Painter<'_>, plot: i32) -> Result<Shown, String> {
        self.bands(p)?;
        self.axis(p, plot)?;
        let mut y = 0;
        for line in &self.lines {
            self.line(p, line, y)?;
            y += Self::height_of(line);
        }
        let points = self.lines.iter().map(|l| match &l.content {
            Content::Data { points, .. } => points.len(),
            _ => 0,
        });
        Ok(Shown {
            lines: self
                .lines
                .iter()
                .filter(|l| !matches!(l.content, Content::Heading))
                .count(),
            points: points.sum(),
        })
    }

    fn bands(&self, p: &mut Painter<'_>) -> Drawn {
        let height = |lines: &[Line]| lines.iter().map(Self::height_of).sum::<i32>();
        for band in &self.bands {
            let Some(rows) = self.lines.get(band.lines.clone()) else {
                return Err(format!(
                    "a band over rows {:?} that are not there",
                    band.lines
                ));
            };
            let top = height(&self.lines[..band.lines.start]);
            let (a, b) = (
                self.scale.x(band.interval.low),
                self.scale.x(band.interval.high),
            );
            // A floor too narrow to be seen is still one.
            p.tips.push(band.tip.clone());
            p.rect(Role::Band, 0, (a, top), (b.max(a + 1), top + height(rows)))?;
        }
        Ok(())
    }

    fn axis(&self, p: &Painter<'_>, bottom: i32) -> Drawn {
        for tick in &self.scale.ticks {
            let x = self.scale.x(*tick);
            p.line(Role::Grid, 0, (x, 0), (x, bottom + 2), 1)?;
        }
        if let Some(v) = self.reference {
            let x = self.scale.x(v);
            // Beside the marks, not through the words above them.
            let mut y = 0;
            for line in &self.lines {
                let end = y + Self::height_of(line);
                if matches!(line.content, Content::Data { .. } | Content::Stack { .. }) {
                    p.line(Role::Reference, 0, (x, y + WORDS + 2), (x, end), 1)?;
                }
                y = end;
            }
        }
        tick_labels(p, &self.scale, self.divisor, bottom)?;
        let axis = if self.scale.is_log() {
            format!("{} (logarithmic)", self.axis)
        } else {
            self.axis.clone()
        };
        p.text(Role::Tick, 0, (WIDTH / 2, bottom + 21), HPos::Center, &axis)
    }

    fn line(&self, p: &mut Painter<'_>, line: &Line, y: i32) -> Drawn {
        let slot = line.slot;
        let middle = y + WORDS + BAR / 2 + 5;
        let words = match &line.content {
            Content::Heading => {
                return p.text(Role::Heading, slot, (LEFT, y + 8), HPos::Left, &line.name);
            }
            Content::Missing(reason) => {
                let name = shorten(&line.name, fitting(WIDTH - LEFT, BOLD_CHAR));
                let reason = shorten(reason, fitting(WIDTH - LEFT, CHAR));
                p.text(Role::Name, slot, (LEFT, y + 3), HPos::Left, &name)?;
                return p.text(
                    Role::Missing,
                    slot,
                    (LEFT, y + WORDS + 3),
                    HPos::Left,
                    &reason,
                );
            }
            Content::Data { words, .. } | Content::Stack { words, .. } => words,
        };
        let taken = i32::try_from(words.chars().count()).unwrap_or(0) * CHAR / 10;
        let room = fitting(WIDTH - LEFT - 16 - taken, BOLD_CHAR).max(4);
        p.text(
            Role::Name,
            slot,
            (LEFT, y + 3),
            HPos::Left,
            &shorten(&line.name, room),
        )?;
        p.text(Role::Value, slot, (WIDTH - 4, y + 3), HPos::Right, words)?;
        let x = |v: f64| self.scale.x(v);
        let (median, interval, points, marks) = match &line.content {
            Content::Heading | Content::Missing(_) => return Ok(()),
            Content::Stack { parts, marks, .. } => {
                self.stack(p, slot, middle, parts)?;
                for mark in marks {
                    p.mark(slot, (x(mark.value), middle), mark.shape, &mark.tip)?;
                }
                return Ok(());
            }
            Content::Data {
                median,
                interval,
                points,
                marks,
                ..
            } => (median, interval, points, marks),
        };
        if self.bars && !self.scale.is_log() {
            if let Some(m) = median {
                let top = middle - BAR / 2;
                p.rect(Role::Bar, slot, (LEFT, top), (x(*m), top + BAR))?;
            }
        } else {
            p.line(
                Role::Track,
                slot,
                (LEFT, middle),
                (WIDTH - RIGHT, middle),
                1,
            )?;
        }
        // Repetitions are spread over the row's height, in order, so that equal ones show.
        let n = i32::try_from(points.len()).unwrap_or(1).max(1);
        for (i, (value, tip)) in points.iter().enumerate() {
            let i = i32::try_from(i).unwrap_or(0);
            let dy = if n == 1 {
                0
            } else {
                -SPREAD + 2 * SPREAD * i / (n - 1)
            };
            p.point(slot, (x(*value), middle + dy), tip)?;
        }
        if let Some(i) = interval {
            let (a, b) = (x(i.low), x(i.high));
            p.line(Role::Whisker, slot, (a, middle), (b, middle), 2)?;
            for end in [a, b] {
                p.line(Role::Whisker, slot, (end, middle - 5), (end, middle + 5), 2)?;
            }
        }
        // On top: with few repetitions one of them lies under it.
        if let (Some(m), false) = (median, self.bars && !self.scale.is_log()) {
            let tip = format!("{}: {words}", line.name);
            p.mark(slot, (x(*m), middle), Shape::Diamond, &tip)?;
        }
        if self.joined && marks.len() > 1 {
            let (low, high) = bounds(&marks.iter().map(|m| m.value).collect::<Vec<_>>());
            p.line(Role::Join, slot, (x(low), middle), (x(high), middle), 2)?;
        }
        for mark in marks {
            p.mark(slot, (x(mark.value), middle), mark.shape, &mark.tip)?;
        }
        Ok(())
    }
}

impl Chart {
    fn stack(
        &self,
        p: &mut Painter<'_>,
        slot: u8,
        middle: i32,
        parts: &[(usize, f64, String)],
    ) -> Drawn {
        let top = middle - BAR / 2;
        let mut end = 0.0;
        for (n, value, tip) in parts.iter().filter(|(_, v, _)| *v > 0.0) {
            let from = self.scale.x(end);
            end += value;
            // What is there is seen, however short.
            let to = self.scale.x(end).max(from + 1);
            p.tips.push(tip.clone());
            p.rect(Role::part(*n), slot, (from, top), (to, top + BAR))?;
        }
        Ok(())
    }
}

/// The values under an axis. Labels that would touch the one before are left out; their
/// line stays.
fn tick_labels(p: &Painter<'_>, scale: &Scale, divisor: f64, bottom: i32) -> Drawn {
    let mut free = i32::MIN;
    for tick in &scale.ticks {
        let text = tick_text(*tick / divisor);
        let half = i32::try_from(text.len()).unwrap_or(0) * 7 / 2;
        let x = scale.x(*tick);
        if x - half < free {
            continue;
        }
        free = x + half + 6;
        // A wide label at an end leans inwards.
        let (at, h) = if x - half < 0 {
            (0, HPos::Left)
        } else if x + half > WIDTH {
            (WIDTH, HPos::Right)
        } else {
            (x, HPos::Center)
        };
        p.text(Role::Tick, 0, (at, bottom + 5), h, &text)?;
    }
    Ok(())
}

/// How many characters fit into this many pixels.
fn fitting(pixels: i32, tenths_per_character: i32) -> usize {
    usize::try_from(pixels * 10 / tenths_per_character).unwrap_or(0)
}

fn shorten(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(room.saturating_sub(1)).collect();
    out.truncate(out.trim_end().len());
    out.push('\u{2026}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(median: f64, points: &[f64]) -> Content {
        Content::Data {
            words: format!("{median} IOPS"),
            median: Some(median),
            interval: Some(Interval {
                low: median * 0.9,
                high: median * 1.1,
            }),
            points: points.iter().map(|v| (*v, format!("<{v}>"))).collect(),
            marks: vec![],
        }
    }

    fn chart(lines: Vec<Line>, scale: Scale) -> Chart {
        Chart {
            label: "a & b".into(),
            scale,
            axis: "IOPS".into(),
            divisor: 1.0,
            reference: None,
            bars: true,
            joined: false,
            bands: vec![],
            lines,
        }
    }

    fn line(name: &str, content: Content) -> Line {
        Line {
            name: name.into(),
            slot: 3,
            content,
        }
    }

    #[test]
    fn no_fixed_colour_is_left_and_every_point_has_words() {
        let lines = vec![
            line("fuse", data(100.0, &[90.0, 100.0, 110.0])),
            line("x", Content::Missing("skipped: no <such> thing".into())),
        ];
        let svg = chart(lines, Scale::bars(&[90.0, 110.0], false))
            .svg()
            .unwrap();
        assert!(!svg.contains('#'), "{svg}");
        assert!(!svg.contains("http"), "{svg}");
        assert_eq!(svg.matches("class=\"pt s3\"").count(), 3);
        assert_eq!(svg.matches("class=\"bar s3\"").count(), 1);
        assert!(svg.contains("<title>&lt;110&gt;</title></circle>"), "{svg}");
        assert!(svg.contains("aria-label=\"a &amp; b\""));
        assert!(svg.contains("data-points=\"3\""));
        assert!(svg.contains("no &lt;such&gt; thing"));
        assert!(svg.ends_with("</svg>\n"));
    }

    #[test]
    fn a_stack_and_a_band_have_words() {
        let lines = vec![line(
            "fuse",
            Content::Stack {
                words: "3 a request".into(),
                parts: vec![
                    (0, 1.0, "fio 1".into()),
                    (1, 0.0, "nothing".into()),
                    (3, 2.0, "rest 2".into()),
                ],
                marks: vec![],
            },
        )];
        let mut chart = chart(lines, Scale::bars(&[3.0], false));
        chart.bands = vec![Band {
            lines: 0..1,
            interval: Interval {
                low: 0.5,
                high: 1.5,
            },
            tip: "floor".into(),
        }];
        let svg = chart.svg().unwrap();
        assert!(svg.contains("class=\"part p0 s3\""), "{svg}");
        assert!(svg.contains("<title>rest 2</title></rect>"), "{svg}");
        assert_eq!(
            svg.matches("class=\"part").count(),
            2,
            "a zero is not drawn"
        );
        assert!(svg.contains("<title>floor</title></rect>"), "{svg}");
        assert!(!svg.contains('#'), "{svg}");
        chart.bands[0].lines = 0..2;
        assert!(chart.svg().is_err());
    }

    #[test]
    fn a_logarithmic_axis_has_diamonds_instead_of_bars() {
        let lines = vec![
            line("a", data(1.0, &[1.0])),
            line("b", data(1000.0, &[1000.0])),
        ];
        let svg = chart(lines, Scale::bars(&[1.0, 1000.0], true))
            .svg()
            .unwrap();
        assert_eq!(svg.matches("class=\"bar").count(), 0);
        assert_eq!(svg.matches("<polygon").count(), 2);
        assert!(svg.contains("IOPS (logarithmic)"));
    }
}
