//! Axes, exclusions, and the tests they span.

use efuse_reader::{Item, ReadError, Source, Table};

use crate::draft::{Draft, KEYS, Names, Value};

/// One key and the values it takes in turn.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub key: &'static str,
    /// Each with the line it stands on.
    pub values: Vec<(Value, usize)>,
}

/// Combinations to leave out: those that match every key.
#[derive(Clone, Debug)]
pub(crate) struct Exclusion {
    pub keys: Vec<(&'static str, Vec<Value>)>,
    line: usize,
}

/// A `[[matrix]]`.
#[derive(Debug)]
pub(crate) struct Matrix {
    names: Names,
    base: Draft,
    axes: Vec<Axis>,
    exclusions: Vec<Exclusion>,
}

impl Matrix {
    /// Reads a matrix over the defaults.
    pub(crate) fn read(mut table: Table<'_>, defaults: &Draft) -> Result<Self, ReadError> {
        let line = table.line();
        let id = template(&table.need("id")?)?;
        let title = template(&table.need("title")?)?;
        let axes = axes(table.need("axes")?)?;
        let exclusions = match table.take("exclude") {
            Some(item) => item
                .list()?
                .into_iter()
                .map(|item| exclusion(item, &axes))
                .collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        let mut base = defaults.clone();
        base.read(&mut table)?;
        table.finish()?;
        Ok(Self {
            names: Names {
                id,
                title,
                published: None,
                line,
            },
            base,
            axes,
            exclusions,
        })
    }

    /// One draft for each combination that is not excluded.
    pub(crate) fn expand(&self, source: &Source) -> Result<Vec<(Draft, Names)>, ReadError> {
        let mut used = vec![false; self.exclusions.len()];
        let mut out = Vec::new();
        for combination in combinations(&self.axes) {
            let mut excluded = false;
            for (exclusion, used) in self.exclusions.iter().zip(&mut used) {
                if matches(exclusion, &combination) {
                    (excluded, *used) = (true, true);
                }
            }
            if excluded {
                continue;
            }
            let mut draft = self.base.clone();
            for (key, value, line) in combination {
                draft.set(key, value.clone(), line);
            }
            let names = Names {
                id: fill(&self.names.id, &draft),
                title: fill(&self.names.title, &draft),
                ..self.names.clone()
            };
            out.push((draft, names));
        }
        if let Some(unused) = used.iter().position(|used| !used) {
            return Err(source.error(
                self.exclusions[unused].line,
                "this exclusion matches no combination of the axes",
            ));
        }
        if out.is_empty() {
            return Err(source.error(
                self.names.line,
                "every combination of this matrix is excluded",
            ));
        }
        Ok(out)
    }
}

type Combination<'a> = Vec<(&'static str, &'a Value, usize)>;

/// Every combination of the axes' values; the last axis changes fastest.
pub(crate) fn combinations(axes: &[Axis]) -> Vec<Combination<'_>> {
    let mut all: Vec<Combination<'_>> = vec![Vec::new()];
    for axis in axes {
        all = all
            .into_iter()
            .flat_map(|so_far| {
                axis.values.iter().map(move |(value, line)| {
                    let mut longer = so_far.clone();
                    longer.push((axis.key, value, *line));
                    longer
                })
            })
            .collect();
    }
    all
}

/// Whether every key of the exclusion has one of its values.
pub(crate) fn matches(exclusion: &Exclusion, combination: &Combination<'_>) -> bool {
    exclusion.keys.iter().all(|(key, values)| {
        combination
            .iter()
            .any(|(k, value, _)| k == key && values.contains(value))
    })
}

/// Axes in the order of [`KEYS`], which is also the order in which they change: a TOML
/// table has none of its own.
fn axes(item: Item<'_>) -> Result<Vec<Axis>, ReadError> {
    let none = item.error("must have at least one axis");
    let mut table = item.table()?;
    let mut axes = Vec::new();
    for key in KEYS {
        let Some(item) = table.take(key) else {
            continue;
        };
        let empty = item.error("must have at least one value");
        let mut values: Vec<(Value, usize)> = Vec::new();
        for item in item.list()? {
            let value = Value::read(key, &item)?;
            if values.iter().any(|(v, _)| *v == value) {
                return Err(item.error(format_args!("has {} twice", value.label())));
            }
            values.push((value, item.line()));
        }
        if values.is_empty() {
            return Err(empty);
        }
        axes.push(Axis { key, values });
    }
    table.finish()?;
    if axes.is_empty() {
        return Err(none);
    }
    Ok(axes)
}

fn exclusion(item: Item<'_>, axes: &[Axis]) -> Result<Exclusion, ReadError> {
    let line = item.line();
    let empty = item.error("must name at least one axis");
    let mut table = item.table()?;
    let mut keys = Vec::new();
    for axis in axes {
        let Some(item) = table.take(axis.key) else {
            continue;
        };
        let items = if item.is_list() {
            item.list()?
        } else {
            vec![item]
        };
        let mut values = Vec::new();
        for item in items {
            let value = Value::read(axis.key, &item)?;
            if !axis.values.iter().any(|(v, _)| *v == value) {
                return Err(
                    item.error(format_args!("is {}, which its axis has not", value.label()))
                );
            }
            values.push(value);
        }
        keys.push((axis.key, values));
    }
    table.finish()?;
    if keys.is_empty() {
        return Err(empty);
    }
    Ok(Exclusion { keys, line })
}

/// A text whose `{key}` placeholders are keys of a job.
fn template(item: &Item<'_>) -> Result<String, ReadError> {
    let text = item.text()?;
    for (at, _) in text.match_indices('{') {
        let word = text[at + 1..].split('}').next().unwrap_or_default();
        if !KEYS.contains(&word) {
            return Err(item.error(format_args!(
                "has the unknown placeholder {{{word}}}; there are {}",
                KEYS.map(|key| format!("{{{key}}}")).join(", ")
            )));
        }
    }
    Ok(text)
}

fn fill(template: &str, draft: &Draft) -> String {
    let mut text = template.to_owned();
    for key in KEYS {
        if let Some(value) = draft.get(key) {
            text = text.replace(&format!("{{{key}}}"), &value.label());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const AXES: [&str; 4] = ["depth", "jobs", "files", "read_percent"];

    /// Up to four axes of distinct counts.
    fn any_axes() -> impl Strategy<Value = Vec<Axis>> {
        prop::collection::vec(prop::collection::btree_set(1..9u32, 1..5), 1..=AXES.len()).prop_map(
            |sets| {
                sets.into_iter()
                    .zip(AXES)
                    .map(|(set, key)| Axis {
                        key,
                        values: set.into_iter().map(|n| (Value::Count(n), 1)).collect(),
                    })
                    .collect()
            },
        )
    }

    /// One value of some of the axes.
    type Point = Vec<(&'static str, u32)>;

    /// Axes, and exclusions drawn from their values.
    fn any_matrix() -> impl Strategy<Value = (Vec<Axis>, Vec<Point>)> {
        any_axes().prop_flat_map(|axes| {
            let one: Vec<_> = axes
                .iter()
                .map(|axis| {
                    let values: Vec<u32> = axis
                        .values
                        .iter()
                        .filter_map(|(v, _)| match v {
                            Value::Count(n) => Some(*n),
                            _ => None,
                        })
                        .collect();
                    (
                        Just(axis.key),
                        prop::option::of(prop::sample::select(values)),
                    )
                })
                .collect();
            let exclusion = one.prop_map(|picks| {
                picks
                    .into_iter()
                    .filter_map(|(key, pick)| Some((key, pick?)))
                    .collect::<Vec<_>>()
            });
            let exclusions = prop::collection::vec(
                exclusion.prop_filter("names an axis", |e| !e.is_empty()),
                0..4,
            );
            (Just(axes), exclusions)
        })
    }

    fn as_toml(axes: &[Axis], exclusions: &[Point]) -> String {
        let axes_text: Vec<String> = axes
            .iter()
            .map(|axis| {
                let values: Vec<String> = axis.values.iter().map(|(v, _)| v.label()).collect();
                format!("{} = [{}]", axis.key, values.join(", "))
            })
            .collect();
        let exclude: Vec<String> = exclusions
            .iter()
            .map(|e| {
                let keys: Vec<String> = e.iter().map(|(k, v)| format!("{k} = {v}")).collect();
                format!("{{ {} }}", keys.join(", "))
            })
            .collect();
        let id: Vec<String> = axes.iter().map(|a| format!("{{{}}}", a.key)).collect();
        format!(
            "id = '{}'\ntitle = 't'\naxes = {{ {} }}\nexclude = [{}]\n",
            id.join("-"),
            axes_text.join(", "),
            exclude.join(", ")
        )
    }

    proptest! {
        /// Each combination comes once or, if an exclusion names it, not at all; and
        /// none is lost.
        #[test]
        fn expansion_has_no_duplicates_and_respects_exclusions(
            (axes, exclusions) in any_matrix()
        ) {
            let source = Source::new("m.toml", as_toml(&axes, &exclusions));
            let matrix = Matrix::read(source.parse().unwrap(), &Draft::default()).unwrap();
            let count = |draft: &Draft, key: &str| match draft.get(key) {
                Some(Value::Count(n)) => *n,
                other => panic!("{key}: {other:?}"),
            };
            let product: usize = axes.iter().map(|a| a.values.len()).product();
            let keys: Vec<&str> = axes.iter().map(|a| a.key).collect();
            let excluded = |point: &[u32]| exclusions.iter().any(|e| {
                e.iter().all(|(key, n)| {
                    point[keys.iter().position(|k| k == key).unwrap()] == *n
                })
            });
            let mut wanted: Vec<Vec<u32>> = vec![vec![]];
            for axis in &axes {
                wanted = wanted.iter().flat_map(|p| axis.values.iter().map(move |(v, _)| {
                    let Value::Count(n) = v else { unreachable!() };
                    let mut p = p.clone();
                    p.push(*n);
                    p
                })).collect();
            }
            prop_assert_eq!(wanted.len(), product);
            wanted.retain(|p| !excluded(p));
            match matrix.expand(&source) {
                Ok(tests) => {
                    let got: Vec<Vec<u32>> = tests.iter()
                        .map(|(draft, _)| keys.iter().map(|k| count(draft, k)).collect())
                        .collect();
                    let ids: BTreeSet<&String> = tests.iter().map(|(_, n)| &n.id).collect();
                    prop_assert_eq!(ids.len(), tests.len(), "two tests have the same id");
                    let distinct: BTreeSet<&Vec<u32>> = got.iter().collect();
                    prop_assert_eq!(distinct.len(), got.len());
                    prop_assert_eq!(distinct, wanted.iter().collect());
                }
                Err(e) => prop_assert!(wanted.is_empty(), "{}", e),
            }
        }
    }
}
