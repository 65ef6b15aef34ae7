//! Building `efuse.ko` out of tree.
//!
//! The build folder is kept, and only files whose content changed are written, so that make
//! compiles what a change touches. The whole step is skipped when a hash over all that goes into
//! the module is the one of the last build.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::Artifacts;
use crate::cache::{self, Files, Layout};
use crate::command;
use crate::error::KernelError;
use crate::fetch::Packages;
use crate::series::Series;

/// Changed when the way of building changes, so that older modules are built anew.
const BUILD_FORMAT: &str = "1";

/// Variables by which a make or kernel build around us would steer ours.
const FOREIGN: [&str; 9] = [
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
    "ARCH",
    "CROSS_COMPILE",
    "KBUILD_OUTPUT",
    "KCFLAGS",
    "LLVM",
    "O",
];

/// The built module of the kernel in use; builds it if something changed. Needs the lock.
///
/// # Errors
/// When the series does not apply, a tool is missing, or the compiler refuses the source.
pub fn ensure(
    layout: &Layout,
    packages: &Packages,
    progress: &mut dyn FnMut(&str),
) -> Result<Artifacts, KernelError> {
    let series = Series::load(&layout.patches(), &layout.ours())?;
    let files = series.compose(&packages.fuse_source())?;
    let release = &packages.selection.release;
    let hash = hash(release, &packages.selection.version, &files);
    let folder = packages.build();
    let job = Job {
        release,
        headers: &packages.headers(),
        sources: &files,
        own_files: series.own_files().collect(),
        folder: &folder,
        btf: true,
    };
    let module = job.ensure(&hash, progress)?;
    Ok(Artifacts {
        release: release.clone(),
        vmlinuz: packages.vmlinuz(),
        modules_dir: packages.modules(),
        config: packages.config(),
        module,
        module_hash: hash,
    })
}

/// What the cache has for the kernel in use: the module's path and whether it is up to date with
/// the tree. Builds nothing.
///
/// # Errors
/// When the series cannot be read or does not apply.
pub fn state(layout: &Layout, packages: &Packages) -> Result<(PathBuf, String, bool), KernelError> {
    let series = Series::load(&layout.patches(), &layout.ours())?;
    let files = series.compose(&packages.fuse_source())?;
    let hash = hash(
        &packages.selection.release,
        &packages.selection.version,
        &files,
    );
    let output = Output::new(&packages.build());
    let current = output.is_current(&hash);
    Ok((output.module, hash, current))
}

/// Hash over all that goes into a module. The compiler is not part of it: the headers name the
/// one the kernel was built with, down to its major version.
#[must_use]
pub fn hash(release: &str, version: &str, files: &Files) -> String {
    cache::hash_build(&[BUILD_FORMAT, release, version], files)
}

/// Where a build folder has its result, and the hash it was built from.
struct Output {
    module: PathBuf,
    stamp: PathBuf,
}

impl Output {
    fn new(build: &Path) -> Self {
        Self {
            module: build.join("out/efuse.ko"),
            stamp: build.join("out/built-from"),
        }
    }

    fn is_current(&self, hash: &str) -> bool {
        self.module.is_file() && fs::read_to_string(&self.stamp).is_ok_and(|text| text == hash)
    }
}

/// One build.
pub struct Job<'a> {
    /// The kernel it is for.
    pub release: &'a str,
    /// The folder to build against.
    pub headers: &'a Path,
    /// The composed source.
    pub sources: &'a Files,
    /// Which of the source files are ours, for the paths in messages.
    pub own_files: BTreeSet<&'a str>,
    /// The build folder.
    pub folder: &'a Path,
    /// Whether the module must have BTF.
    pub btf: bool,
}

impl Job<'_> {
    /// Builds unless the last build in this folder was of the same hash. Returns the module's
    /// path.
    ///
    /// # Errors
    /// When a tool is missing, the compiler refuses the source, or the result lacks BTF.
    pub fn ensure(
        &self,
        hash: &str,
        progress: &mut dyn FnMut(&str),
    ) -> Result<PathBuf, KernelError> {
        let output = Output::new(self.folder);
        if output.is_current(hash) {
            return Ok(output.module);
        }
        progress(&format!("building efuse.ko for {}", self.release));
        self.run(hash)
    }

    fn run(&self, hash: &str) -> Result<PathBuf, KernelError> {
        let make = command::find("make", "make")?;
        let strip = command::find("strip", "binutils")?;
        let readelf = command::find("readelf", "binutils")?;
        if self.btf {
            command::find("pahole", "pahole")?;
        }
        if let Some(compiler) = compiler_of(self.headers) {
            command::find(&compiler, "build-essential")?;
        }
        cache::sync_sources(self.folder, self.sources)?;
        let mut command = make_in(make, self.headers);
        command
            .arg(format!("M={}", self.folder.display()))
            .arg("CONFIG_EFUSE_FS=m")
            .arg("modules");
        let mut lines = Vec::new();
        let status = command::stream(&mut command, &mut |line| lines.push(line.to_owned()))?;
        if !status.success() {
            return Err(KernelError::Compile {
                release: self.release.to_owned(),
                messages: self.readable(&lines),
                hint: String::new(),
            });
        }
        let output = Output::new(self.folder);
        let out = self.folder.join("out");
        fs::create_dir_all(&out).map_err(KernelError::io("create", &out))?;
        let stripped = out.join("efuse.ko.new");
        command::output(
            command::new(strip)
                .arg("-g")
                .arg("-o")
                .args([&stripped, &self.folder.join("efuse.ko")]),
        )?;
        if self.btf {
            let sections = command::output(command::new(readelf).arg("-SW").arg(&stripped))?;
            if !sections.split_whitespace().any(|word| word == ".BTF") {
                return Err(KernelError::Compile {
                    release: self.release.to_owned(),
                    messages: self.readable(&lines),
                    hint: "the build ended, but the module has no .BTF section".to_owned(),
                });
            }
        }
        // The stamp is the last to come and the first to go: it never vouches for another module.
        match fs::remove_file(&output.stamp) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(KernelError::io("remove", &output.stamp)(source));
            }
            _ => {}
        }
        fs::rename(&stripped, &output.module).map_err(KernelError::io("rename", &stripped))?;
        cache::write_atomically(&output.stamp, hash.as_bytes())?;
        Ok(output.module)
    }

    /// The compiler's messages without make's chatter, with the paths of the files to edit in
    /// place of their copies.
    fn readable(&self, lines: &[String]) -> String {
        let copy = format!("{}/", self.folder.display());
        lines
            .iter()
            .filter(|line| !is_chatter(line))
            .map(|line| {
                let mut text = String::with_capacity(line.len());
                let mut parts = line.split(&copy);
                text.push_str(parts.next().unwrap_or_default());
                for part in parts {
                    let end = part
                        .find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)))
                        .unwrap_or(part.len());
                    text.push_str(if self.own_files.contains(&part[..end]) {
                        "kernel/efuse/"
                    } else {
                        &copy
                    });
                    text.push_str(part);
                }
                text + "\n"
            })
            .collect()
    }
}

/// A make of a kernel's build in `folder`, on all processors, steered by nothing around us.
pub(crate) fn make_in(make: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = command::new(make);
    for name in FOREIGN {
        command.env_remove(name);
    }
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    command
        .arg("-C")
        .arg(folder)
        .arg("--no-print-directory")
        .arg(format!("-j{jobs}"));
    command
}

fn is_chatter(line: &str) -> bool {
    let progress = [
        "  CC [M] ",
        "  LD [M] ",
        "  BTF [M] ",
        "  MODPOST ",
        "make[",
        "make: ***",
        "warning: the compiler differs from the one used to build the kernel",
        "  The kernel was built by: ",
        "  You are using: ",
    ];
    progress.iter().any(|start| line.starts_with(start))
}

/// The compiler that the headers ask for, which is the one the kernel was built with.
fn compiler_of(headers: &Path) -> Option<String> {
    let variables = fs::read_to_string(headers.join(".kernelvariables")).ok()?;
    let line = variables.lines().find(|line| line.starts_with("CC = "))?;
    let compiler = line.rsplit(' ').next()?.rsplit(')').next()?;
    (!compiler.is_empty()).then(|| compiler.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job<'a>(folder: &'a Path, sources: &'a Files) -> Job<'a> {
        Job {
            release: "6.12.1",
            headers: folder,
            sources,
            own_files: BTreeSet::from(["efuse_main.c"]),
            folder,
            btf: false,
        }
    }

    #[test]
    fn messages_lead_to_the_files_to_edit() {
        let sources = Files::new();
        let lines = [
            "  CC [M]  /b/efuse_main.o",
            "In file included from /b/dev.c:9:",
            "/b/efuse_main.c:20:9: error: 'x' undeclared",
            "   20 |  return x;",
            "make[3]: *** [scripts/Makefile.build:229: /b/efuse_main.o] Error 1",
        ]
        .map(str::to_owned);
        assert_eq!(
            job(Path::new("/b"), &sources).readable(&lines),
            "In file included from /b/dev.c:9:\n\
             kernel/efuse/efuse_main.c:20:9: error: 'x' undeclared\n   20 |  return x;\n"
        );
    }

    #[test]
    fn the_hash_tells_kernels_and_sources_apart() {
        let one = Files::from([("a.c".to_owned(), b"1".to_vec())]);
        let two = Files::from([("a.c".to_owned(), b"2".to_vec())]);
        let hashes = BTreeSet::from([
            hash("r", "v", &one),
            hash("r", "v", &two),
            hash("r", "w", &one),
            hash("rv", "", &one),
        ]);
        assert_eq!(hashes.len(), 4);
        assert_eq!(hash("r", "v", &one), hash("r", "v", &one.clone()));
    }

    #[test]
    fn the_compiler_is_the_one_of_the_headers() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(compiler_of(folder.path()), None);
        fs::write(
            folder.path().join(".kernelvariables"),
            "override ARCH = x86\nCC = $(if $(X),$(CCACHE)) $(CROSS_COMPILE)gcc-12\n",
        )
        .unwrap();
        assert_eq!(compiler_of(folder.path()).as_deref(), Some("gcc-12"));
    }
}
