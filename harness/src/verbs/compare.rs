//! `eval compare`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use efuse_model::document::{Comparison, Outcome, Sides, VERSION};

use super::gate::{JudgeOptions, against, explain, refused};
use super::{Context, Status};
use crate::judge::between::{environment_differences, same};
use crate::judge::render;
use crate::reporter::{self, file_part, pages_folder};
use crate::stored::{self, Stored};

/// Compare two runs, baselines, or revisions of which there is a baseline: A is the old
/// one, B the new.
///
/// The rules are the gate's. Also writes a page with charts, both environments and both
/// commands. Exits with 0 if they could be compared, whatever came out, and with 2 if not.
#[derive(Debug, Args)]
pub struct Compare {
    /// The old one: a run, a baseline, or a revision.
    a: String,
    /// The new one.
    b: String,
    #[command(flatten)]
    options: JudgeOptions,
    /// Where to write the page [default: results/pages/compare-A-B.html].
    #[arg(long, value_name = "FILE", conflicts_with = "no_page")]
    html: Option<PathBuf>,
    /// Write no page.
    #[arg(long)]
    no_page: bool,
}

/// Compares.
///
/// # Errors
/// If the page or standard output cannot be written.
pub fn run(context: &Context, verb: &Compare) -> Result<Status> {
    let root = &context.root;
    let found = stored::find(root, &verb.a).and_then(|a| Ok((a, stored::find(root, &verb.b)?)));
    let (verdict, sides) = match found {
        Ok((old, new)) => (
            against(&new, &old, &verb.options),
            Some(sides(context, verb, &old, &new)),
        ),
        Err(e) => (
            refused(
                format!("{} against {}", verb.b, verb.a),
                verb.options.threshold(),
                &format!("{e:#}"),
            ),
            None,
        ),
    };
    let comparison = Comparison {
        version: VERSION,
        verdict,
        sides,
    };
    // Of a run and itself there is nothing to show.
    let shown = comparison.sides.as_ref().filter(|s| !s.same);
    let page = match shown {
        Some(sides) if !verb.no_page => Some(
            reporter::document_page(root, "compare", &comparison, &sides.page)
                .map(|()| sides.page.clone()),
        ),
        _ => None,
    };
    context.print(&comparison, || {
        let mut text = render::text(&comparison.verdict);
        if let Some(Ok(path)) = &page {
            text.push_str(&format!("page    {}\n", path.display()));
        }
        text
    })?;
    explain(&comparison.verdict);
    if let Some(Err(e)) = page {
        return Err(e).context("the comparison is above, but its page is missing");
    }
    let status = match comparison.verdict.outcome {
        Outcome::CouldNotJudge => Outcome::CouldNotJudge.status(),
        Outcome::Pass | Outcome::Regression => 0,
    };
    Ok(status)
}

fn sides(context: &Context, verb: &Compare, old: &Stored, new: &Stored) -> Sides {
    let differences = match (&new.environment, &old.environment) {
        (Some(new), Some(old)) => new.differences(old),
        _ => Vec::new(),
    };
    let page = verb.html.clone().unwrap_or_else(|| {
        let name = format!("compare-{}-{}.html", file_part(&verb.a), file_part(&verb.b));
        pages_folder(&context.root).join(name)
    });
    Sides {
        old: old.side(),
        new: new.side(),
        differences,
        forbidding: environment_differences(new, old),
        same: same(new, old),
        base: verb.options.base_of(new).map(str::to_owned),
        page,
    }
}
