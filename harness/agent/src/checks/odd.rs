//! The project's `efuse-odd`, daemons that do what few do and all may: programs must not change what
//! callers see of them.

mod control;
mod elsewhere;
mod groups;
mod late;
mod plus;
mod reused;
mod short;
mod stream;

use std::path::{Path, PathBuf};

use efuse_bpf::{Attachment, Dev, Policy, Tunables, attached_to, data_counts};
use efuse_systems::Mounted;

use super::{Site, Trouble, fail, plugin};

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    let said = [
        groups::run(site).map_err(|trouble| trouble.of("by groups"))?,
        late::run(site).map_err(|trouble| trouble.of("late writes"))?,
        control::run(site).map_err(|trouble| trouble.of("device control"))?,
        short::run(site).map_err(|trouble| trouble.of("short reads"))?,
        elsewhere::run(site).map_err(|trouble| trouble.of("changes elsewhere"))?,
        reused::run(site).map_err(|trouble| trouble.of("numbers used again"))?,
        stream::run(site).map_err(|trouble| trouble.of("bytes that come once"))?,
        plus::run(site).map_err(|trouble| trouble.of("lists with attributes"))?,
    ];
    Ok(said.join("; "))
}

const GETATTR: u32 = 3;

/// A mount of one of the daemons.
pub(super) struct Odd {
    mounted: Mounted,
    dev: Dev,
}

impl Odd {
    pub(super) fn mount(site: &Site<'_>, mode: &str, options: &[&str]) -> Result<Odd, Trouble> {
        let words: Vec<String> = options.iter().map(|word| format!(", {word:?}")).collect();
        let text = format!(
            "id = \"odd\"\ntitle = \"efuse-odd\"\nfs_type = \"efuse\"\nbackground = false\n\
             command = [\"efuse-odd\", \"{mode}\", \"{{mountpoint}}\"{}]\n\
             [ready]\nline = \"ready\"\n[needs]\ndevices = [\"/dev/efuse\"]\n",
            words.concat()
        );
        let mounted = site.mount_with(&plugin("odd", text)?, &site.context("odd"))?;
        let dev = Dev::of_mount(mounted.root())?;
        Ok(Odd { mounted, dev })
    }

    pub(super) fn root(&self) -> &Path {
        self.mounted.root()
    }

    pub(super) fn file(&self, n: u32) -> PathBuf {
        self.root().join(format!("f{n}"))
    }

    /// Programs that believe what they learnt until it changes, for as long as the result is kept.
    fn attach(&self, policy: &str) -> Result<Attachment, Trouble> {
        let tunables = Tunables {
            until_invalidated: true,
            cache_bytes: (policy == "cache").then_some(1 << 20),
            ..Tunables::default()
        };
        Ok(Policy::load(policy, self.dev, &tunables)?.attach()?)
    }

    /// Requests that no daemon saw: answered from maps, or by the kernel as a program had before.
    fn answered(&self) -> Result<u64, Trouble> {
        let counts = attached_to(self.dev)?.counts()?;
        let by_programs: u64 = counts.values().map(|counts| counts.answered).sum();
        let kept: u64 = data_counts(self.dev)?
            .iter()
            .filter(|(name, _)| name.starts_with("kept_"))
            .map(|(_, n)| n)
            .sum();
        Ok(by_programs + kept)
    }

    /// The same of GETATTR alone.
    fn attributes_answered(&self) -> Result<u64, Trouble> {
        let counts = attached_to(self.dev)?.counts()?;
        let by_programs = counts.get(&GETATTR).map_or(0, |counts| counts.answered);
        let kept = data_counts(self.dev)?.get("kept_getattr").copied();
        Ok(by_programs + kept.unwrap_or_default())
    }

    /// Does something during which so many GETATTR have to be answered, or its result would say
    /// nothing of the answers.
    fn answering(
        &self,
        at_least: usize,
        work: impl FnOnce() -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let before = self.attributes_answered()?;
        work()?;
        let answered = self.attributes_answered()? - before;
        if answered < at_least as u64 {
            return fail(format!(
                "{answered} GETATTR were answered, not {at_least} or more"
            ));
        }
        Ok(())
    }

    pub(super) fn unmount(self) -> Result<(), Trouble> {
        Ok(self.mounted.unmount()?)
    }
}
