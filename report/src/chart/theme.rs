//! From plotters' fixed colours to classes of the style sheet.

use std::fmt::Write as _;

use plotters::style::RGBColor;

/// Roles of what is drawn: the first byte of a colour code.
#[derive(Clone, Copy)]
pub(super) enum Role {
    Grid = 1,
    Reference,
    Bar,
    Whisker,
    Point,
    Mark,
    Hollow,
    Join,
    Track,
    Name,
    Value,
    Tick,
    Missing,
    Heading,
    Band,
    Curve,
    /// Parts of a stacked bar, in order.
    Part0,
    Part1,
    Part2,
    Part3,
}

impl Role {
    const ALL: [(Self, &str); 20] = [
        (Self::Grid, "grid"),
        (Self::Reference, "ref"),
        (Self::Bar, "bar"),
        (Self::Whisker, "whisker"),
        (Self::Point, "pt"),
        (Self::Mark, "mark"),
        (Self::Hollow, "hollow"),
        (Self::Join, "join"),
        (Self::Track, "track"),
        (Self::Name, "t-name"),
        (Self::Value, "t-value"),
        (Self::Tick, "t-tick"),
        (Self::Missing, "t-miss"),
        (Self::Heading, "t-head"),
        (Self::Band, "band"),
        (Self::Curve, "curve"),
        (Self::Part0, "part p0"),
        (Self::Part1, "part p1"),
        (Self::Part2, "part p2"),
        (Self::Part3, "part p3"),
    ];

    /// The role of a part of a stacked bar; parts beyond the last share its look.
    pub(super) const fn part(n: usize) -> Self {
        match n {
            0 => Self::Part0,
            1 => Self::Part1,
            2 => Self::Part2,
            _ => Self::Part3,
        }
    }

    /// The last byte tells our codes from any colour that plotters might add.
    pub(super) const fn code(self, slot: u8) -> RGBColor {
        RGBColor(self as u8, slot, 0xA7)
    }
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Replaces the root element by `open`, colour codes by classes, and gives marks their
/// words. plotters writes one element per line.
pub(super) fn themed(raw: &str, open: &str, tips: &[String]) -> Result<String, String> {
    let mut out = String::with_capacity(raw.len());
    out.push_str(open);
    out.push('\n');
    let mut tips = tips.iter();
    for line in raw.lines().skip(1) {
        let line = line
            .replace(" opacity=\"1\"", "")
            .replace(" font-family=\"sans-serif\"", "");
        let Some((attribute, code)) = colour_code(&line) else {
            out.push_str(&line);
            out.push('\n');
            continue;
        };
        let (kind, slot) = decode(&code)?;
        let class = format!("class=\"{kind} s{slot}\"");
        let mut line = line.replace(&format!("{attribute}=\"#{code}\""), &class);
        if line.starts_with("<text") {
            // The style sheet sets the size.
            if let Some(from) = line.find(" font-size=\"") {
                let value = from + " font-size=\"".len();
                if let Some(end) = line[value..].find('"') {
                    line.replace_range(from..=value + end, "");
                }
            }
        }
        if matches!(kind, "pt" | "mark" | "hollow" | "band" | "curve") || kind.starts_with("part") {
            let tip = tips.next().ok_or("a mark without words")?;
            let element = line[1..].split(' ').next().unwrap_or_default().to_owned();
            let start = line
                .strip_suffix("/>")
                .ok_or("a mark that is not one element")?;
            line = format!("{start}><title>{}</title></{element}>", escape(tip));
        }
        let _ = writeln!(out, "{line}");
    }
    if tips.next().is_some() {
        return Err("words without a mark".to_owned());
    }
    Ok(out)
}

/// The attribute that carries a colour, and its six digits.
fn colour_code(line: &str) -> Option<(&'static str, String)> {
    ["fill", "stroke"].into_iter().find_map(|attribute| {
        let from = line.find(&format!(" {attribute}=\"#"))? + attribute.len() + 4;
        Some((attribute, line.get(from..from + 6)?.to_owned()))
    })
}

fn decode(code: &str) -> Result<(&'static str, u8), String> {
    let byte = |i: usize| u8::from_str_radix(&code[i..i + 2], 16).ok();
    let (Some(role), Some(slot), Some(0xA7)) = (byte(0), byte(2), byte(4)) else {
        return Err(format!("a fixed colour #{code} instead of a code"));
    };
    Role::ALL
        .iter()
        .find(|(r, _)| *r as u8 == role)
        .map(|(_, class)| (*class, slot))
        .ok_or_else(|| format!("an unknown colour code #{code}"))
}
