//! A user's own FUSE daemon, described by a TOML file.
//!
//! ```toml
//! id = "bindfs"                    # name on the command line and in results
//! title = "bindfs on stock FUSE"   # one line for charts
//! command = ["bindfs", "-f", "{lower}", "{mountpoint}"]
//!
//! # Everything below may be left out.
//! foreground = true                # false: the daemon puts itself into the background
//! device = "/dev/efuse"            # hand the daemon this device, mounted, as /dev/fd/N
//! fs_type = "fuse"                 # what appears in the list of mounts
//! background = true                # the shared limit of background requests
//! unmount = ["fusermount3", "-u", "{mountpoint}"]   # else umount(2)
//!
//! [ready]                          # else: mounted and answering
//! line = "ready"                   # also wait for this line of its output
//! timeout = "120s"
//!
//! [needs]
//! programs = ["bindfs"]            # that of `command` is always needed
//! devices = ["/dev/fuse"]          # `device` is always needed, else /dev/fuse
//! kernel = ["fuse-passthrough"]    # or fuse-over-io-uring, efuse-bpf, efuse-ring
//! place = "host"
//!
//! [env]
//! NAME = "value"
//! ```
//!
//! `{lower}`, `{mountpoint}`, `{threads}` and `{timeout}` (seconds that the kernel may cache names
//! and attributes, which metadata tests choose) may stand anywhere in `command`, `unmount` and the
//! values of `env`. With `device`, the daemon's `{mountpoint}` is
//! `/dev/fd/N`: libfuse 3 takes that for a file system which is mounted already, so that
//! an unmodified daemon runs on a device it does not know.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use efuse_model::environment::Place;
use efuse_reader::{Item, ReadError, Source, Table};

use crate::recipe::{PLACEHOLDERS, READY_LIMIT, Recipe};
use crate::{KernelFeature, MountContext, Mounted, Need, System, SystemError, digest_of, need};

const STOCK_DEVICE: &str = "/dev/fuse";

/// A system from a file.
#[derive(Clone, Debug)]
pub struct Plugin {
    file: String,
    id_line: usize,
    id: String,
    title: String,
    recipe: Recipe,
    needs: Vec<Need>,
}

impl Plugin {
    /// Reads a description.
    ///
    /// # Errors
    /// If the file cannot be read or something in it is wrong, with the line.
    pub fn load(path: &Path) -> Result<Self, SystemError> {
        let text = fs::read_to_string(path)
            .map_err(SystemError::io(path, "read the description of a system"))?;
        Ok(Self::parse(&Source::new(path.display().to_string(), text))?)
    }

    /// Reads a description from a text.
    ///
    /// # Errors
    /// If something in it is wrong, with the line.
    pub fn parse(source: &Source) -> Result<Self, ReadError> {
        let mut top = source.parse()?;
        let id_item = top.need("id")?;
        let id = name(&id_item)?;
        let title = top.need("title")?.text()?;
        let mut command = command(top.need("command")?)?;
        let program = command.remove(0);
        let foreground = boolean(&mut top, "foreground")?.unwrap_or(true);
        let handover = top.take("device").map(|d| path(&d)).transpose()?;
        let fs_type = match top.take("fs_type") {
            Some(item) => item.text()?,
            None => family(handover.as_deref()),
        };
        let set_background = boolean(&mut top, "background")?.unwrap_or(true);
        let unmount = top.take("unmount").map(self::command).transpose()?;
        let (ready_line, ready_limit) = match top.take("ready") {
            Some(item) => ready(item.table()?)?,
            None => (None, READY_LIMIT),
        };
        let mut needs = vec![Need::Root];
        needs.push(match &handover {
            Some(device) => Need::device(device),
            None => Need::device(STOCK_DEVICE),
        });
        needs.push(Need::program(&program));
        if handover.is_some() {
            needs.push(Need::TakesDescriptor {
                program: program.clone(),
            });
        }
        if let Some(item) = top.take("needs") {
            more_needs(item.table()?, &mut needs)?;
        }
        let env = match top.take("env") {
            Some(item) => environment(item.table()?)?,
            None => BTreeMap::new(),
        };
        top.finish()?;
        Ok(Self {
            file: source.name().to_owned(),
            id_line: id_item.line(),
            id,
            title,
            needs,
            recipe: Recipe {
                program,
                args: command,
                env,
                foreground,
                ready_line,
                ready_limit,
                fs_type,
                handover,
                set_background,
                unmount,
                // A stranger may have its own idea of a status; a signal is an error.
                strict_exit: false,
            },
        })
    }

    /// The error for a name that is taken.
    pub(crate) fn duplicate(&self) -> ReadError {
        ReadError {
            file: self.file.clone(),
            line: self.id_line,
            problem: format!(
                "there is already a system \"{}\"; choose another id",
                self.id
            ),
        }
    }
}

impl System for Plugin {
    fn id(&self) -> &str {
        &self.id
    }

    fn title(&self) -> &str {
        &self.title
    }

    fn digest(&self) -> String {
        digest_of([self.id.as_str(), &self.recipe.fingerprint()])
    }

    fn needs(&self) -> Vec<Need> {
        self.needs.clone()
    }

    fn mount(&self, ctx: &MountContext) -> Result<Mounted, SystemError> {
        let _raised = need::settings_for(&self.needs)?;
        self.recipe.mount(&self.id, ctx)
    }
}

/// The type that a device's file systems have: that of its name.
fn family(device: Option<&Path>) -> String {
    device
        .and_then(|d| d.file_name()?.to_str())
        .unwrap_or("fuse")
        .to_owned()
}

fn boolean(table: &mut Table<'_>, key: &'static str) -> Result<Option<bool>, ReadError> {
    table.take(key).map(|item| item.boolean()).transpose()
}

/// A name that can stand on a command line and in a file name.
fn name(item: &Item<'_>) -> Result<String, ReadError> {
    let text = item.text()?;
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !text.chars().all(good) || text.starts_with('-') {
        return Err(item.error(format_args!(
            "must consist of small letters, digits, - and _, but is \"{text}\""
        )));
    }
    Ok(text)
}

fn path(item: &Item<'_>) -> Result<PathBuf, ReadError> {
    let path = PathBuf::from(item.text()?);
    if !path.is_absolute() {
        return Err(item.error(format_args!(
            "must be a full path, but is \"{}\"",
            path.display()
        )));
    }
    Ok(path)
}

fn command(item: Item<'_>) -> Result<Vec<String>, ReadError> {
    let empty = item.error("must name at least the program");
    let words = item.list()?;
    if words.is_empty() {
        return Err(empty);
    }
    words.iter().map(template).collect()
}

/// A string whose placeholders exist.
fn template(item: &Item<'_>) -> Result<String, ReadError> {
    let text = item.string()?;
    for (at, _) in text.match_indices('{') {
        let Some(length) = text[at..].find('}') else {
            continue;
        };
        let word = &text[at..=at + length];
        let inner = &word[1..word.len() - 1];
        let like_one =
            !inner.is_empty() && inner.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if like_one && !PLACEHOLDERS.contains(&word) {
            return Err(item.error(format_args!(
                "has the unknown placeholder {word}; there are {}",
                PLACEHOLDERS.join(", ")
            )));
        }
    }
    Ok(text)
}

fn ready(mut table: Table<'_>) -> Result<(Option<String>, Duration), ReadError> {
    let line = table.take("line").map(|item| item.text()).transpose()?;
    let limit = match table.take("timeout") {
        Some(item) => match item.duration_ms()? {
            0 => return Err(item.error("must not be zero")),
            ms => Duration::from_millis(ms),
        },
        None => READY_LIMIT,
    };
    table.finish()?;
    Ok((line, limit))
}

fn more_needs(mut table: Table<'_>, needs: &mut Vec<Need>) -> Result<(), ReadError> {
    if let Some(item) = table.take("programs") {
        needs.extend(item.strings()?.iter().map(|p| Need::program(p)));
    }
    if let Some(item) = table.take("devices") {
        for device in item.list()? {
            needs.push(Need::device(path(&device)?));
        }
    }
    if let Some(item) = table.take("kernel") {
        for feature in item.list()? {
            let word = feature.text()?;
            let known = KernelFeature::ALL.into_iter().find(|f| f.name() == word);
            needs.push(Need::Kernel(known.ok_or_else(|| {
                feature.error(format_args!(
                    "names the unknown kernel feature \"{word}\"; there are {}",
                    KernelFeature::ALL.map(KernelFeature::name).join(", ")
                ))
            })?));
        }
    }
    if let Some(item) = table.take("place") {
        let place = match item.text()?.as_str() {
            "host" => Place::Host,
            "vm" => Place::Vm,
            other => {
                return Err(item.error(format_args!("must be host or vm, but is \"{other}\"")));
            }
        };
        needs.insert(0, Need::Place(place));
    }
    table.finish()?;
    // The device and the program of the command may have been named again.
    let mut seen = Vec::new();
    needs.retain(|need| {
        let new = !seen.contains(need);
        if new {
            seen.push(need.clone());
        }
        new
    });
    Ok(())
}

fn environment(mut table: Table<'_>) -> Result<BTreeMap<String, String>, ReadError> {
    let mut env = BTreeMap::new();
    for (key, value) in table.take_rest() {
        if key.is_empty() || key.contains(['=', '\0']) {
            return Err(value.error("is no name of an environment variable"));
        }
        env.insert(key, template(&value)?);
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"id = "mine"
title = "Mine"
command = ["mined", "--dir={lower}", "{mountpoint}", "-t", "{threads}"]
"#;

    fn parse(text: &str) -> Result<Plugin, ReadError> {
        Plugin::parse(&Source::new("mine.toml", text))
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_shortest_description() {
        let plugin = parse(GOOD).unwrap();
        assert_eq!(plugin.recipe.program, "mined");
        assert_eq!(plugin.recipe.fs_type, "fuse");
        assert!(plugin.recipe.foreground);
        assert_eq!(
            plugin.needs(),
            [Need::Root, Need::dev_fuse(), Need::program("mined")]
        );
    }

    #[test]
    fn the_longest_description() {
        let plugin = parse(&format!(
            "{GOOD}foreground = false\ndevice = '/dev/efuse'\nbackground = false\n\
             unmount = ['fusermount3', '-u', '{{mountpoint}}']\n\
             [ready]\nline = 'up'\ntimeout = '5s'\n\
             [needs]\nprograms = ['mined', 'helper']\ndevices = ['/dev/efuse', '/dev/null']\n\
             kernel = ['fuse-passthrough']\nplace = 'vm'\n[env]\nRUST_LOG = 'debug'\n"
        ))
        .unwrap();
        assert_eq!(plugin.recipe.fs_type, "efuse");
        assert_eq!(plugin.recipe.ready_limit, Duration::from_secs(5));
        assert_eq!(plugin.recipe.ready_line.as_deref(), Some("up"));
        assert_eq!(plugin.recipe.env["RUST_LOG"], "debug");
        assert_eq!(
            plugin.needs(),
            [
                Need::Place(Place::Vm),
                Need::Root,
                Need::device("/dev/efuse"),
                Need::program("mined"),
                Need::TakesDescriptor {
                    program: "mined".into()
                },
                Need::program("helper"),
                Need::device("/dev/null"),
                Need::Kernel(KernelFeature::FusePassthrough),
            ]
        );
    }

    #[test]
    fn messages_name_file_and_line() {
        for (more, expected) in [
            (
                "foregound = true",
                "mine.toml:4: unknown key `foregound` in the file; the keys are: id, title, command, foreground, device, fs_type, background, unmount, ready, needs, env",
            ),
            (
                "foreground = 'yes'",
                "mine.toml:4: `foreground` must be true or false, but is a string",
            ),
            (
                "device = 'efuse'",
                "mine.toml:4: `device` must be a full path, but is \"efuse\"",
            ),
            (
                "[ready]\nlines = 'x'",
                "mine.toml:5: unknown key `lines` in `ready`; the keys are: line, timeout",
            ),
            (
                "[ready]\ntimeout = 5",
                "mine.toml:5: `ready.timeout` must be a duration such as \"30s\", but is a whole number",
            ),
            (
                "unmount = ['u', '{mount}']",
                "mine.toml:4: `unmount` has the unknown placeholder {mount}; there are {lower}, {mountpoint}, {threads}, {timeout}",
            ),
            (
                "[needs]\nkernel = [\n 'fuse-passthrough',\n 'fast']",
                "mine.toml:7: `needs.kernel` names the unknown kernel feature \"fast\"; there are fuse-passthrough, fuse-over-io-uring, efuse-bpf, efuse-ring",
            ),
            (
                "[needs]\nplace = 'cloud'",
                "mine.toml:5: `needs.place` must be host or vm, but is \"cloud\"",
            ),
        ] {
            assert_eq!(error(&format!("{GOOD}{more}\n")), expected);
        }
        assert_eq!(
            error("id = 'x'\ntitle = 'x'\n"),
            "mine.toml:1: the file has no `command`; it must be given"
        );
        assert_eq!(
            error("id = 'x'\ntitle = 'x'\ncommand = []\n"),
            "mine.toml:3: `command` must name at least the program"
        );
        assert_eq!(
            error("id = 'My FS'\n"),
            "mine.toml:1: `id` must consist of small letters, digits, - and _, but is \"My FS\""
        );
    }

    #[test]
    fn braces_that_are_no_placeholder_stay() {
        let text = GOOD.replace("\"-t\"", "\"{\\\"a\\\": {}}\"");
        assert!(parse(&text).is_ok());
    }

    #[test]
    fn every_option_changes_the_digest_and_comments_do_not() {
        let base = parse(GOOD).unwrap().digest();
        assert_eq!(parse(&format!("# hello\n{GOOD}")).unwrap().digest(), base);
        for more in ["foreground = false", "background = false", "[env]\nA = '1'"] {
            assert_ne!(parse(&format!("{GOOD}{more}\n")).unwrap().digest(), base);
        }
    }
}
