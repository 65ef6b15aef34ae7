//! What every chart is drawn with.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::theme::{Role, escape, themed};
use super::{Shape, WIDTH};
use crate::error::ReportError;

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
pub(super) type Drawn = Result<(), String>;

/// Draws with colour codes and remembers the words for marks, in drawing order.
pub(super) struct Painter<'a> {
    pub area: Area<'a>,
    pub tips: Vec<String>,
}

impl Painter<'_> {
    pub fn line(&self, role: Role, slot: u8, a: (i32, i32), b: (i32, i32), width: u32) -> Drawn {
        let style = ShapeStyle::from(role.code(slot)).stroke_width(width);
        self.area
            .draw(&PathElement::new([a, b], style))
            .map_err(|e| e.to_string())
    }

    pub fn text(&self, role: Role, slot: u8, at: (i32, i32), h: HPos, text: &str) -> Drawn {
        let style = ("sans-serif", 12)
            .into_font()
            .color(&role.code(slot))
            .pos(Pos::new(h, VPos::Top));
        self.area
            .draw_text(text, &style, at)
            .map_err(|e| e.to_string())
    }

    pub fn rect(&self, role: Role, slot: u8, a: (i32, i32), b: (i32, i32)) -> Drawn {
        let style = role.code(slot).filled();
        self.area
            .draw(&Rectangle::new([a, b], style))
            .map_err(|e| e.to_string())
    }

    pub fn point(&mut self, slot: u8, at: (i32, i32), tip: &str) -> Drawn {
        self.tips.push(tip.to_owned());
        let style = Role::Point.code(slot).filled();
        self.area
            .draw(&Circle::new(at, 3, style))
            .map_err(|e| e.to_string())
    }

    pub fn mark(&mut self, slot: u8, (x, y): (i32, i32), shape: Shape, tip: &str) -> Drawn {
        self.tips.push(tip.to_owned());
        let role = if shape == Shape::Hollow {
            Role::Hollow
        } else {
            Role::Mark
        };
        let style = role.code(slot).filled();
        let corners: &[(i32, i32)] = match shape {
            Shape::Circle => {
                let circle = Circle::new((x, y), 5, style);
                return self.area.draw(&circle).map_err(|e| e.to_string());
            }
            Shape::Triangle => &[(0, -6), (6, 5), (-6, 5)],
            Shape::Square => &[(-5, -5), (5, -5), (5, 5), (-5, 5)],
            Shape::Hollow => &[(-5, -5), (5, -5), (5, 5), (-5, 5)],
            Shape::Diamond => &[(0, -6), (6, 0), (0, 6), (-6, 0)],
        };
        let corners: Vec<_> = corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        self.area
            .draw(&Polygon::new(corners, style))
            .map_err(|e| e.to_string())
    }
}

/// How many lines and points a chart shows, for whoever checks the page.
pub(super) struct Shown {
    pub lines: usize,
    pub points: usize,
}

/// The `<svg>` element of this height that `paint` draws.
///
/// # Errors
/// If plotters refuses to draw, or the chart cannot be drawn; with its label.
pub(super) fn svg(
    label: &str,
    height: i32,
    paint: impl FnOnce(&mut Painter<'_>) -> Result<Shown, String>,
) -> Result<String, ReportError> {
    let draw = || {
        let mut raw = String::new();
        let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
        let (Shown { lines, points }, tips) = {
            let mut painter = Painter {
                area: SVGBackend::with_string(&mut raw, size).into_drawing_area(),
                tips: Vec::new(),
            };
            let shown = paint(&mut painter)?;
            painter.area.present().map_err(|e| e.to_string())?;
            (shown, painter.tips)
        };
        let open = format!(
            "<svg class=\"chart\" role=\"img\" aria-label=\"{}\" viewBox=\"0 0 {WIDTH} {height}\" \
             data-lines=\"{lines}\" data-points=\"{points}\">",
            escape(label),
        );
        themed(&raw, &open, &tips)
    };
    draw().map_err(|problem| ReportError::Chart {
        chart: label.to_owned(),
        problem,
    })
}
