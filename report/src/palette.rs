//! One colour per system, the same in every chart and every report.
//!
//! The first hues are those of Okabe and Ito ("Color Universal Design", 2008); the others
//! were searched for the largest smallest distance (CIE Lab) between any two under normal
//! sight, protanopia and deuteranopia, with a contrast of 3:1 to the page of their theme
//! (WCAG 2.2, 1.4.11). The tests below hold both. Rows also carry the system's name, so
//! colour is never the only carrier.

use efuse_model::plan::{Plan, PlannedSystem};

/// The page behind the charts, light and dark.
pub const PAGE: (&str, &str) = ("#ffffff", "#14171c");

/// A colour in both themes.
#[derive(Clone, Copy, Debug)]
pub struct Colour {
    /// On the light page.
    pub light: &'static str,
    /// On the dark page.
    pub dark: &'static str,
}

const fn c(light: &'static str, dark: &'static str) -> Colour {
    Colour { light, dark }
}

/// Systems with a colour of their own, then colours for any others.
const KNOWN: [(&str, Colour); 10] = [
    ("fuse", c("#0072b2", "#56b4e9")),
    ("ext4", c("#5f6670", "#aab2bd")),
    ("efuse", c("#d55e00", "#ff8c42")),
    ("fuse-passthrough", c("#009e73", "#1f9e74")),
    ("libfuse", c("#66004c", "#8f5681")),
    ("efuse-bare", c("#664d00", "#f5e2bc")),
    ("extfuse", c("#443399", "#8c66ff")),
    ("fuse-uring", c("#df2040", "#cc0022")),
    ("rfuse", c("#1a3913", "#95ff80")),
    ("efuse-prelim", c("#1999b3", "#66f2ff")),
];

const OTHERS: [Colour; 4] = [
    c("#1f7a8c", "#6fd3e8"),
    c("#6b6b12", "#d5d26a"),
    c("#6a3d9a", "#cab2f6"),
    c("#7b4b2a", "#d8b08c"),
];

/// Colours in the style sheet, `--s0` and on.
#[must_use]
pub fn all() -> Vec<Colour> {
    KNOWN.iter().map(|(_, c)| *c).chain(OTHERS).collect()
}

/// Number of the colour of a system. A twin has the colour of its original. A system that
/// is not known here takes the next of the others, by its place among the unknown systems
/// of the plan.
#[must_use]
pub fn slot(plan: &Plan, system: &str) -> u8 {
    slot_among(&plan.systems, system)
}

/// The same among these systems.
#[must_use]
pub fn slot_among(systems: &[PlannedSystem], system: &str) -> u8 {
    let twin_of = |id: &str| {
        let planned = systems.iter().find(|s| s.id == id)?;
        planned.twin_of.as_deref()
    };
    let system = twin_of(system).unwrap_or(system);
    let known = |id: &str| KNOWN.iter().position(|(k, _)| *k == id);
    let n = known(system).unwrap_or_else(|| {
        let among = systems
            .iter()
            .filter(|s| s.twin_of.is_none() && known(&s.id).is_none())
            .position(|s| s.id == system)
            .unwrap_or(0);
        KNOWN.len() + among % OTHERS.len()
    });
    u8::try_from(n).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rgb(hex: &str) -> [f64; 3] {
        [1, 3, 5].map(|i| f64::from(u8::from_str_radix(&hex[i..i + 2], 16).unwrap()) / 255.0)
    }

    fn linear(c: [f64; 3]) -> [f64; 3] {
        c.map(|v| {
            if v <= 0.04045 {
                v / 12.92
            } else {
                ((v + 0.055) / 1.055).powf(2.4)
            }
        })
    }

    fn luminance(hex: &str) -> f64 {
        let [r, g, b] = linear(rgb(hex));
        0.2126 * r + 0.7152 * g + 0.0722 * b
    }

    fn contrast(a: &str, b: &str) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn every_colour_contrasts_with_its_page() {
        for colour in all() {
            let (l, d) = (
                contrast(colour.light, PAGE.0),
                contrast(colour.dark, PAGE.1),
            );
            assert!(l >= 3.0, "{} on light: {l:.2}", colour.light);
            assert!(d >= 3.0, "{} on dark: {d:.2}", colour.dark);
        }
    }

    fn lab([r, g, b]: [f64; 3]) -> [f64; 3] {
        let x = (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.95047;
        let y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
        let z = (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.08883;
        let f = |t: f64| {
            if t > 0.008_856 {
                t.cbrt()
            } else {
                7.787 * t + 16.0 / 116.0
            }
        };
        let (x, y, z) = (f(x), f(y), f(z));
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }

    /// Full dichromacy after Machado, Oliveira and Fernandes (2009), on linear RGB.
    const DEFICIENCIES: [(&str, [[f64; 3]; 3]); 3] = [
        ("none", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        (
            "protanopia",
            [
                [0.152_286, 1.052_583, -0.204_868],
                [0.114_503, 0.786_281, 0.099_216],
                [-0.003_882, -0.048_116, 1.051_998],
            ],
        ),
        (
            "deuteranopia",
            [
                [0.367_322, 0.860_646, -0.227_968],
                [0.280_085, 0.672_501, 0.047_413],
                [-0.011_820, 0.042_940, 0.968_881],
            ],
        ),
    ];

    /// Every pair of systems with a colour of their own.
    #[test]
    fn the_known_systems_stay_apart_under_colour_vision_deficiency() {
        let mut worst = (f64::INFINITY, String::new());
        for (name, m) in DEFICIENCIES {
            for theme in [|c: &Colour| c.light, |c: &Colour| c.dark] {
                let seen: Vec<_> = KNOWN
                    .iter()
                    .map(|(id, c)| {
                        let c = linear(rgb(theme(c)));
                        let c = m.map(|row| {
                            row.iter()
                                .zip(c)
                                .map(|(a, b)| a * b)
                                .sum::<f64>()
                                .clamp(0.0, 1.0)
                        });
                        (id, lab(c))
                    })
                    .collect();
                for (i, (a, x)) in seen.iter().enumerate() {
                    for (b, y) in &seen[i + 1..] {
                        let d = x
                            .iter()
                            .zip(y)
                            .map(|(p, q)| (p - q).powi(2))
                            .sum::<f64>()
                            .sqrt();
                        if d < worst.0 {
                            worst = (d, format!("{a} and {b} ({name})"));
                        }
                    }
                }
            }
        }
        // 2.3 is a just noticeable difference; bars and points need several of them.
        assert!(worst.0 > 15.0, "{} apart: {}", worst.0, worst.1);
    }
}
