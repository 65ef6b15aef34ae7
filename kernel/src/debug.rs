//! The debug kernel: the distribution's source as a whole, the series in its tree, and a
//! configuration (`kernel/debug.config`) with the guest's needs and what finds mistakes.
//!
//! Source and build are kept, and make builds what a change touches. As with the module, nothing
//! is done when a hash over all that goes in is the one of the last build.
//!
//! ```text
//! <version>/debug/source/   the tree, with fs/efuse
//!                 build/    make's output
//!                 out/      vmlinux, config, root/lib/modules/<release>, built-from
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Artifacts;
use crate::cache::{self, Files, Layout};
use crate::command;
use crate::error::KernelError;
use crate::fetch::{self, Packages};
use crate::module;
use crate::series::Series;
use crate::tree;

/// Changed when the way of building changes, so that older kernels are built anew.
const BUILD_FORMAT: &str = "1";

/// Programs that the build uses, and Debian's packages of them.
const PROGRAMS: [(&str, &str); 9] = [
    ("make", "build-essential"),
    ("gcc", "build-essential"),
    ("ld", "build-essential"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("pahole", "pahole"),
    ("depmod", "kmod"),
    ("strip", "build-essential"),
];

/// Headers of libraries that the build's own tools are linked with, likewise.
const HEADERS: [(&str, &str); 2] = [("libelf.h", "libelf-dev"), ("zlib.h", "zlib1g-dev")];

/// What KASAN and UBSAN leave alone: not ours, known to be right, and most of the time that an
/// emulated kernel takes. The first loads programs, the others run at each lock and at each trace
/// of an allocation. What they allocate is watched as ever.
const UNINSTRUMENTED: [&str; 6] = [
    "verifier",
    "btf",
    "lockdep",
    "unwind_frame",
    "extable",
    "trace_preemptirq",
];

/// About how many files a build from nothing compiles.
const FILES: usize = 1450;
/// After so many files there is news.
const STEP: usize = 100;
/// Lines of a failed build in the error.
const LINES: usize = 60;

/// The debug kernel; builds it if something changed. Needs its lock.
///
/// # Errors
/// When the source cannot be had, the series does not apply, packages are missing, a line of the
/// configuration does not come into effect, or the compiler refuses the source.
pub fn ensure(
    layout: &Layout,
    packages: &Packages,
    progress: &mut dyn FnMut(&str),
) -> Result<Artifacts, KernelError> {
    let series = Series::load(&layout.patches(), &layout.ours())?;
    let files = series.compose(&packages.fuse_source())?;
    let path = layout.debug_config();
    let config = fs::read_to_string(&path).map_err(KernelError::io("read", &path))?;
    let hash = hash(&packages.selection.version, &config, &files);
    let folders = Folders::new(&packages.debug());
    if let Some(release) = folders.built(&hash) {
        return Ok(folders.artifacts(release, hash));
    }
    require_packages()?;
    fetch::whole_source(layout, packages, &folders.source, progress)?;
    tree::apply(&series, &folders.source)?;
    folders.forget()?;
    folders.configure(&path, &config)?;
    folders.build(progress)?;
    let release = folders.install(&hash)?;
    Ok(folders.artifacts(release, hash))
}

/// Hash over all that goes into it. The compiler is not part of it: make itself notices another.
fn hash(version: &str, config: &str, files: &Files) -> String {
    cache::hash_build(&[BUILD_FORMAT, version, config], files)
}

struct Folders {
    source: PathBuf,
    build: PathBuf,
    out: PathBuf,
}

impl Folders {
    fn new(debug: &Path) -> Self {
        Self {
            source: debug.join("source"),
            build: debug.join("build"),
            out: debug.join("out"),
        }
    }

    fn stamp(&self) -> PathBuf {
        self.out.join("built-from")
    }

    fn vmlinux(&self) -> PathBuf {
        self.out.join("vmlinux")
    }

    fn root(&self) -> PathBuf {
        self.out.join("root")
    }

    /// The release of the last build if it was of this hash: the stamp is `<hash> <release>`.
    fn built(&self, hash: &str) -> Option<String> {
        let stamp = fs::read_to_string(self.stamp()).ok()?;
        let (of, release) = stamp.split_once(' ')?;
        (of == hash && self.vmlinux().is_file()).then(|| release.to_owned())
    }

    /// From here on there is no kernel until the build has ended.
    fn forget(&self) -> Result<(), KernelError> {
        for folder in [&self.build, &self.out] {
            fs::create_dir_all(folder).map_err(KernelError::io("create", folder))?;
        }
        match fs::remove_file(self.stamp()) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(KernelError::io("remove", &self.stamp())(source))
            }
            _ => Ok(()),
        }
    }

    fn artifacts(&self, release: String, hash: String) -> Artifacts {
        let modules_dir = self.root().join("lib/modules").join(&release);
        Artifacts {
            vmlinuz: self.vmlinux(),
            config: self.out.join("config"),
            module: modules_dir.join("kernel/fs/efuse/efuse.ko"),
            modules_dir,
            release,
            module_hash: hash,
        }
    }

    fn make(&self) -> Result<Command, KernelError> {
        let mut make = module::make_in(command::find("make", "make")?, &self.source);
        make.arg(format!("O={}", self.build.display()))
            .arg("ARCH=x86_64");
        for stem in UNINSTRUMENTED {
            for sanitizer in ["KASAN", "UBSAN"] {
                make.arg(format!("{sanitizer}_SANITIZE_{stem}.o=n"));
            }
        }
        Ok(make)
    }

    /// `allnoconfig` but for the given lines, all of which must then be in effect.
    fn configure(&self, path: &Path, config: &str) -> Result<(), KernelError> {
        command::output(
            self.make()?
                .env("KCONFIG_ALLCONFIG", path)
                .args(["-s", "allnoconfig"]),
        )?;
        let result = self.build.join(".config");
        let result = fs::read_to_string(&result).map_err(KernelError::io("read", &result))?;
        let lost = not_in_effect(config, &result);
        if lost.is_empty() {
            Ok(())
        } else {
            Err(KernelError::Configuration {
                lines: lost.join("\n"),
            })
        }
    }

    fn build(&self, progress: &mut dyn FnMut(&str)) -> Result<(), KernelError> {
        let fresh = !self.build.join("vmlinux").is_file();
        progress(if fresh {
            "building the debug kernel (20 to 40 minutes on two processors, once)"
        } else {
            "building what changed of the debug kernel"
        });
        let mut compiled = 0;
        let mut said = Vec::new();
        let status =
            command::stream(
                self.make()?.args(["vmlinux", "modules"]),
                &mut |line| match kind(line) {
                    Line::Compiled => {
                        compiled += 1;
                        if compiled % STEP == 0 {
                            progress(&if fresh {
                                format!("compiled {compiled} files of about {FILES}")
                            } else {
                                format!("compiled {compiled} files")
                            });
                        }
                    }
                    Line::Linking => progress("linking the debug kernel and collecting its types"),
                    Line::Chatter => {}
                    Line::Said => said.push(line.to_owned()),
                },
            )?;
        let tree = format!("{}/", self.source.display());
        let messages = said[said.len().saturating_sub(LINES)..]
            .join("\n")
            .replace(&tree, "");
        if !status.success() {
            return Err(KernelError::Kernel { messages });
        }
        if messages.contains(": warning: ") {
            progress(&messages);
        }
        Ok(())
    }

    /// Puts what a guest needs into `out`; returns the kernel's release.
    fn install(&self, hash: &str) -> Result<String, KernelError> {
        let path = self.build.join("include/config/kernel.release");
        let release = fs::read_to_string(&path).map_err(KernelError::io("read", &path))?;
        let release = release.trim().to_owned();
        cache::remove_tree(&self.root())?;
        command::output(
            self.make()?
                .arg(format!("INSTALL_MOD_PATH={}", self.root().display()))
                .args(["INSTALL_MOD_STRIP=1", "-s", "modules_install"]),
        )?;
        // What the compressed image would hold, which the guest would have to unpack.
        command::output(
            command::new(command::find("strip", "binutils")?)
                .args(["-s", "-o"])
                .args([self.vmlinux(), self.build.join("vmlinux")]),
        )?;
        let (from, to) = (self.build.join(".config"), self.out.join("config"));
        fs::copy(&from, &to).map_err(KernelError::io("copy", &from))?;
        cache::write_atomically(&self.stamp(), format!("{hash} {release}").as_bytes())?;
        Ok(release)
    }
}

/// The lines of a configuration that are not in the one that came of it.
fn not_in_effect<'a>(wanted: &'a str, result: &str) -> Vec<&'a str> {
    wanted
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter(|line| !result.lines().any(|there| there == *line))
        .collect()
}

/// What a line of make's output tells.
enum Line {
    Compiled,
    Linking,
    Chatter,
    Said,
}

fn kind(line: &str) -> Line {
    let Some((tag, what)) = line
        .strip_prefix("  ")
        .and_then(|rest| rest.split_once(' '))
        .filter(|(tag, _)| !tag.is_empty() && tag.bytes().all(|b| b.is_ascii_uppercase()))
    else {
        return if line.starts_with("make[") || line.starts_with("make: Entering") {
            Line::Chatter
        } else {
            Line::Said
        };
    };
    match tag {
        "CC" | "AS" => Line::Compiled,
        "LD" if what.trim() == "vmlinux.o" => Line::Linking,
        _ => Line::Chatter,
    }
}

/// Everything that is missing in one message.
fn require_packages() -> Result<(), KernelError> {
    let mut missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, package)| command::find(program, package).is_err())
        .map(|(_, package)| *package)
        .collect();
    if let Ok(gcc) = command::find("gcc", "build-essential") {
        missing.extend(
            HEADERS
                .iter()
                .filter(|(header, _)| !has_header(&gcc, header))
                .map(|(_, package)| *package),
        );
    }
    missing.dedup();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(KernelError::MissingPackages {
            packages: missing.join(" "),
        })
    }
}

/// Whether the compiler finds a header, wherever the distribution keeps it.
fn has_header(gcc: &Path, header: &str) -> bool {
    let mut look = command::new(gcc);
    look.args(["-E", "-x", "c", "-include", header, "/dev/null"]);
    command::output(&mut look).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_effect_is_named() {
        let wanted = "# why\nCONFIG_A=y\n\nCONFIG_B=m\nCONFIG_C=\"x\"\n";
        let result = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x\"\nCONFIG_BB=m\n";
        assert_eq!(not_in_effect(wanted, result), ["CONFIG_B=m"]);
    }

    #[test]
    fn what_make_says_is_told_from_its_chatter() {
        assert!(matches!(kind("  CC [M]  fs/efuse/ring.o"), Line::Compiled));
        assert!(matches!(kind("  LD      vmlinux.o"), Line::Linking));
        for chatter in ["  HOSTCC  scripts/x", "make[1]: Entering directory '/b'"] {
            assert!(matches!(kind(chatter), Line::Chatter), "{chatter}");
        }
        for said in [
            "/b/fs/efuse/ring.c:3:1: error: unknown type name",
            "    3 |  x",
            "ld: out of memory",
            "  |  ^",
        ] {
            assert!(matches!(kind(said), Line::Said), "{said}");
        }
    }

    #[test]
    fn a_build_counts_only_for_what_it_was_built_from() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders::new(folder.path());
        folders.forget().unwrap();
        assert_eq!(folders.built("h"), None);
        fs::write(folders.vmlinux(), "").unwrap();
        fs::write(folders.stamp(), "h 6.12.1-x").unwrap();
        assert_eq!(folders.built("h").as_deref(), Some("6.12.1-x"));
        assert_eq!(folders.built("i"), None);
        folders.forget().unwrap();
        assert_eq!(folders.built("h"), None);
    }

    #[test]
    fn a_missing_header_is_seen() {
        let Ok(gcc) = command::find("gcc", "build-essential") else {
            println!("skipped: gcc is not installed");
            return;
        };
        assert!(has_header(&gcc, "stddef.h"));
        assert!(!has_header(&gcc, "no-such-header-here.h"));
    }

    #[test]
    fn the_hash_follows_configuration_and_sources() {
        let one = Files::from([("a.c".to_owned(), b"1".to_vec())]);
        let two = Files::from([("a.c".to_owned(), b"2".to_vec())]);
        let all = [
            hash("v", "c", &one),
            hash("v", "c", &two),
            hash("v", "d", &one),
            hash("w", "c", &one),
        ];
        for (n, hash) in all.iter().enumerate() {
            assert!(!all[..n].contains(hash));
        }
    }
}
