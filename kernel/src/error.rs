//! What can go wrong, each with the place and the way out.

use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate. Its text is complete: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The project's root was not found.
    #[error(
        "no eFUSE project found here or above (a folder with Cargo.toml and Justfile): \
         start inside the project, pass --root, or set EFUSE_ROOT"
    )]
    NoRoot,
    /// The path of the project holds characters that the kernel's build cannot handle.
    #[error(
        "the kernel's build cannot work below {}: the path holds a blank, a colon or another \
         character that make takes apart; move the project", path.display()
    )]
    UnusablePath {
        /// The offending path.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// A verb: read, write, create ...
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A program that is needed is not installed.
    #[error("{program} is needed and not installed: apt-get install {package}")]
    MissingProgram {
        /// The program.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program ended with an error.
    #[error("{command} failed ({status}){}", tail_of(output))]
    Command {
        /// The command line, as one would type it.
        command: String,
        /// How it ended.
        status: String,
        /// The last lines it printed.
        output: String,
    },
    /// apt offers no complete set of packages.
    #[error(
        "apt offers no {series} cloud kernel with source, headers, build tools and signed image \
         in one version ({detail}); on Debian 12 they come from bookworm-security, on other \
         releases from the archive or its backports: check the apt sources, then run apt-get update"
    )]
    NoPackages {
        /// The kernel series asked for.
        series: &'static str,
        /// What was found, and what is missing of it.
        detail: String,
    },
    /// The packages were found and cannot be downloaded.
    #[error(
        "apt cannot download kernel {release}: {detail}; check the network and apt's sources, \
         then try again"
    )]
    Download {
        /// The kernel.
        release: String,
        /// apt's first complaint.
        detail: String,
    },
    /// A package does not hold what it should.
    #[error("the package {package} holds no {what}: its layout is not one this tool knows")]
    PackageLayout {
        /// The package's file name.
        package: String,
        /// The file that is missing.
        what: String,
    },
    /// A patch file cannot be read as a patch.
    #[error("{patch}, line {line}: {what}")]
    BadPatch {
        /// The patch's file name.
        patch: String,
        /// The line in it, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A patch does not fit the source.
    #[error("{patch} does not apply: hunk {hunk} of {file} (expected near line {line}) {what}")]
    DoesNotApply {
        /// The patch's file name.
        patch: String,
        /// The hunk within that file, from 1.
        hunk: usize,
        /// The file it changes.
        file: String,
        /// The line at which it was expected.
        line: usize,
        /// What stood there instead.
        what: String,
    },
    /// One of our files would replace a file of `fs/fuse`.
    #[error(
        "kernel/efuse/{file} has the name of a file of fs/fuse: give ours another name, or \
         change theirs by a patch"
    )]
    NameClash {
        /// The name both have.
        file: String,
    },
    /// The module does not compile.
    #[error("efuse.ko does not build for {release}:\n{messages}{hint}")]
    Compile {
        /// The kernel it was built for.
        release: String,
        /// The compiler's messages, with paths of the files to edit.
        messages: String,
        /// What might be the reason, or empty.
        hint: String,
    },
    /// What a whole kernel's build needs is not installed.
    #[error("building a kernel needs what is not installed: apt-get install {packages}")]
    MissingPackages {
        /// The Debian packages, separated by blanks.
        packages: String,
    },
    /// Lines of the debug kernel's configuration did not come into effect.
    #[error(
        "these lines of kernel/debug.config are not in effect (a dependency of theirs is off, or \
         the kernel has no such option):\n{lines}"
    )]
    Configuration {
        /// The lines.
        lines: String,
    },
    /// The debug kernel does not compile.
    #[error("the debug kernel does not build:\n{messages}")]
    Kernel {
        /// What make and the compiler said.
        messages: String,
    },
    /// The given folder is no kernel tree the series fits.
    #[error("{} is no Linux {series} source tree: {why}", path.display(), series = crate::SERIES)]
    NotATree {
        /// The folder.
        path: PathBuf,
        /// What is missing or different.
        why: String,
    },
    /// The given folder does not hold the series as commits.
    #[error("cannot take the series from {}: {why}", path.display())]
    NotASeries {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// The running kernel cannot take the module.
    #[error("efuse.ko cannot be built for or loaded into the running kernel {release}: {why}")]
    Host {
        /// `uname -r`.
        release: String,
        /// The reason and the way out.
        why: String,
    },
}

impl KernelError {
    /// Wraps an I/O error with what was being done and to which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

fn tail_of(output: &str) -> String {
    if output.is_empty() {
        String::new()
    } else {
        format!(":\n{output}")
    }
}
