//! Getting the distribution's kernel: download by apt, unpack what is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::{self, Selection};
use crate::cache::{self, Layout};
use crate::command;
use crate::error::KernelError;

/// Changed when what is unpacked, or where to, changes: an older cache is then unpacked anew (from
/// the packages kept, without the network).
const UNPACKED_FORMAT: &str = "1";

/// An unpacked kernel.
#[derive(Debug, Clone)]
pub struct Packages {
    /// Which kernel it is.
    pub selection: Selection,
    folder: PathBuf,
}

impl Packages {
    fn new(layout: &Layout, selection: Selection) -> Self {
        let folder = layout.kernel(&selection.version);
        Self { selection, folder }
    }

    /// `fs/fuse` of the distribution's source.
    #[must_use]
    pub fn fuse_source(&self) -> PathBuf {
        self.folder.join("source/fs/fuse")
    }

    /// The folder to build modules against.
    #[must_use]
    pub fn headers(&self) -> PathBuf {
        headers_in(&self.folder, &self.selection.release)
    }

    /// The compressed kernel image.
    #[must_use]
    pub fn vmlinuz(&self) -> PathBuf {
        self.boot("vmlinuz")
    }

    /// The kernel's configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.boot("config")
    }

    /// `lib/modules/<release>`.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.folder
            .join("image/lib/modules")
            .join(&self.selection.release)
    }

    /// Where the module is built.
    #[must_use]
    pub fn build(&self) -> PathBuf {
        self.folder.join("build")
    }

    /// Where the debug kernel is built: the whole source, its build and what comes of it.
    #[must_use]
    pub fn debug(&self) -> PathBuf {
        self.folder.join("debug")
    }

    /// Whether it was unpacked to the end, by this version of the tool.
    fn is_unpacked(&self) -> bool {
        fs::read_to_string(self.folder.join("format")).is_ok_and(|text| text == UNPACKED_FORMAT)
    }

    fn boot(&self, what: &str) -> PathBuf {
        self.folder
            .join("image/boot")
            .join(format!("{what}-{}", self.selection.release))
    }
}

fn headers_in(folder: &Path, release: &str) -> PathBuf {
    folder
        .join("headers/usr/src")
        .join(format!("linux-headers-{release}"))
}

/// The kernel in use, if one was fetched; reads the cache only.
#[must_use]
pub fn current(layout: &Layout) -> Option<Packages> {
    let packages = recorded(layout)?;
    packages.is_unpacked().then_some(packages)
}

fn recorded(layout: &Layout) -> Option<Packages> {
    let text = fs::read(layout.current()).ok()?;
    let selection = serde_json::from_slice(&text).ok()?;
    Some(Packages::new(layout, selection))
}

/// The kernel in use; fetches the newest if there is none yet. Needs the lock.
///
/// # Errors
/// When apt offers none, or it cannot be downloaded or unpacked.
pub fn ensure(layout: &Layout, progress: &mut dyn FnMut(&str)) -> Result<Packages, KernelError> {
    match recorded(layout) {
        Some(packages) if packages.is_unpacked() => Ok(packages),
        Some(packages) if have_all(layout, &packages.selection) => {
            fetch(layout, packages.selection, progress)
        }
        _ => fetch(layout, select(progress)?, progress),
    }
}

/// The newest kernel apt offers after its lists were renewed. Needs the lock.
///
/// # Errors
/// As [`ensure`].
pub fn update(layout: &Layout, progress: &mut dyn FnMut(&str)) -> Result<Packages, KernelError> {
    renew_lists(progress)?;
    let newest = apt::select()?;
    match current(layout) {
        Some(packages) if packages.selection == newest => {
            progress(&format!(
                "{} is the newest kernel in apt's lists",
                newest.release
            ));
            Ok(packages)
        }
        _ => fetch(layout, newest, progress),
    }
}

/// Chooses from apt's lists as they are; renews them if they hold no kernel, as on a machine (or
/// container) where they were never fetched or were removed to save space.
fn select(progress: &mut dyn FnMut(&str)) -> Result<Selection, KernelError> {
    match apt::select() {
        Err(KernelError::NoPackages { .. }) => {
            renew_lists(progress)?;
            apt::select()
        }
        result => result,
    }
}

/// A list that cannot be renewed (no network, no root, or one broken source of many) is told and
/// no error: the lists at hand may do.
fn renew_lists(progress: &mut dyn FnMut(&str)) -> Result<(), KernelError> {
    progress("renewing apt's package lists");
    let mut update = command::new(command::find("apt-get", "apt")?);
    update.args(["-q", "-o", "APT::Update::Error-Mode=any", "update"]);
    let mut complaint = None;
    let status = command::stream(&mut update, &mut |line| {
        note_complaint(line, &mut complaint);
    })?;
    if !status.success() {
        let detail = complaint.unwrap_or_else(|| status.to_string());
        progress(&format!(
            "not all of them could be renewed, going on with what there is: {detail}"
        ));
    }
    Ok(())
}

/// Keeps apt's first error line.
fn note_complaint(line: &str, complaint: &mut Option<String>) {
    if let Some(text) = line.strip_prefix("E: ") {
        complaint.get_or_insert_with(|| text.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}

fn fetch(
    layout: &Layout,
    selection: Selection,
    progress: &mut dyn FnMut(&str),
) -> Result<Packages, KernelError> {
    progress(&format!(
        "kernel {} ({})",
        selection.release, selection.version
    ));
    let packages = Packages::new(layout, selection);
    if !packages.is_unpacked() {
        let debs = download(layout, &packages.selection, progress)?;
        unpack(&packages, &debs, progress)?;
    }
    let text = serde_json::to_vec_pretty(&packages.selection).expect("a record of strings is JSON");
    cache::write_atomically(&layout.current(), &text)?;
    Ok(packages)
}

fn have_all(layout: &Layout, selection: &Selection) -> bool {
    selection
        .packages()
        .iter()
        .all(|name| find_deb(&layout.deb(), name, &selection.version).is_some())
}

/// The package files, in the order of [`Selection::packages`].
fn download(
    layout: &Layout,
    selection: &Selection,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<PathBuf>, KernelError> {
    let folder = layout.deb();
    fs::create_dir_all(&folder).map_err(KernelError::io("create", &folder))?;
    let missing: Vec<&str> = selection
        .packages()
        .into_iter()
        .filter(|name| find_deb(&folder, name, &selection.version).is_none())
        .collect();
    if !missing.is_empty() && apt_download(&folder, selection, &missing, progress).is_err() {
        // The usual reason is that the lists are old and the archive has moved on. The version
        // then may be gone altogether; the error of the second attempt says so.
        progress("the download failed; trying again with new package lists");
        renew_lists(progress)?;
        apt_download(&folder, selection, &missing, progress)?;
    }
    selection
        .packages()
        .into_iter()
        .map(|name| {
            find_deb(&folder, name, &selection.version).ok_or_else(|| KernelError::PackageLayout {
                package: name.to_owned(),
                what: format!(
                    "file of version {} in {}",
                    selection.version,
                    folder.display()
                ),
            })
        })
        .collect()
}

/// Downloads into a folder of its own first: apt writes under the final name from the start, and
/// an interrupted download must not pass for a package.
fn apt_download(
    folder: &Path,
    selection: &Selection,
    names: &[&str],
    progress: &mut dyn FnMut(&str),
) -> Result<(), KernelError> {
    let incoming = folder.join("incoming");
    fs::create_dir_all(&incoming).map_err(KernelError::io("create", &incoming))?;
    let mut command = command::new(command::find("apt-get", "apt")?);
    command
        .current_dir(&incoming)
        .args(["-q", "-o", "Acquire::Retries=3"])
        // The folder belongs to whoever builds; apt's own unprivileged user cannot write there,
        // and would only say so in a warning.
        .args(["-o", "APT::Sandbox::User=root"])
        .arg("download")
        .args(
            names
                .iter()
                .map(|name| format!("{name}={}", selection.version)),
        );
    let mut complaint = None;
    let status = command::stream(&mut command, &mut |line| {
        if let Some((package, size)) = announced(line, names) {
            progress(&format!("downloading {package} ({size})"));
        }
        note_complaint(line, &mut complaint);
    })?;
    if !status.success() {
        return Err(KernelError::Download {
            release: selection.release.clone(),
            detail: complaint.unwrap_or_else(|| status.to_string()),
        });
    }
    for name in names {
        let Some(deb) = find_deb(&incoming, name, &selection.version) else {
            continue;
        };
        let place = folder.join(deb.file_name().unwrap_or_default());
        fs::rename(&deb, &place).map_err(KernelError::io("move", &deb))?;
    }
    cache::remove_tree(&incoming)
}

/// Package and size in a line of apt-get such as
/// `Get:4 http://deb.debian.org/debian-security bookworm-security/main amd64 linux-source-6.12 all 6.12.117-1 [153 MB]`.
fn announced<'a>(line: &'a str, names: &[&str]) -> Option<(&'a str, &'a str)> {
    let mut words = line.split_whitespace();
    words.next().filter(|word| word.starts_with("Get:"))?;
    let package = words.find(|word| names.contains(word))?;
    let (_, size) = line.rsplit_once('[')?;
    Some((package, size.strip_suffix(']')?))
}

/// apt writes a colon of an epoch as `%3a`; kernel packages have none.
fn find_deb(folder: &Path, name: &str, version: &str) -> Option<PathBuf> {
    let prefix = format!("{name}_{version}_");
    fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".deb"))
        })
}

/// The whole source of a fetched kernel, in `into`; fetches the package again if it is gone. Needs
/// the lock.
///
/// # Errors
/// When the package cannot be had or unpacked.
pub fn whole_source(
    layout: &Layout,
    packages: &Packages,
    into: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<(), KernelError> {
    if into.is_dir() {
        return Ok(());
    }
    let debs = download(layout, &packages.selection, progress)?;
    let source = &debs[0];
    progress("unpacking the whole kernel source (1.7 GB)");
    let partial = into.with_extension("partial");
    cache::remove_tree(&partial)?;
    untar_source(source, &partial, &[])?;
    if !partial.join("scripts/kconfig/Makefile").is_file() {
        return Err(layout_error(source, "scripts/kconfig/Makefile"));
    }
    fs::rename(&partial, into).map_err(KernelError::io("rename", &partial))
}

/// Unpacks into a folder that gets its final name when all is in it.
fn unpack(
    packages: &Packages,
    debs: &[PathBuf],
    progress: &mut dyn FnMut(&str),
) -> Result<(), KernelError> {
    let release = &packages.selection.release;
    let mut partial = packages.folder.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    cache::remove_tree(&partial)?;
    let [source, image, headers, common, kbuild] = debs else {
        unreachable!("a selection has five packages");
    };
    progress("unpacking headers and build tools");
    for deb in [headers, common, kbuild] {
        unpack_deb(deb, &partial.join("headers"))?;
    }
    mend_headers(&headers_in(&partial, release), headers)?;
    progress("unpacking the kernel image and its modules");
    unpack_image(image, &partial.join("image"), release)?;
    progress("unpacking fs/fuse from the kernel source");
    unpack_source(source, &partial.join("source"))?;
    cache::write_atomically(&partial.join("format"), UNPACKED_FORMAT.as_bytes())?;
    cache::remove_tree(&packages.folder)?;
    fs::rename(&partial, &packages.folder).map_err(KernelError::io("rename", &partial))
}

fn unpack_deb(deb: &Path, into: &Path) -> Result<(), KernelError> {
    fs::create_dir_all(into).map_err(KernelError::io("create", into))?;
    let mut dpkg = command::new(command::find("dpkg-deb", "dpkg")?);
    command::output(dpkg.arg("-x").args([deb, into])).map(|_| ())
}

/// The headers' Makefile includes the common one by an absolute path below /usr/src, which holds
/// only for an installed package. The folders are neighbours, so a relative path does too.
fn mend_headers(folder: &Path, deb: &Path) -> Result<(), KernelError> {
    let path = folder.join("Makefile");
    let text = fs::read_to_string(&path).map_err(|_| layout_error(deb, "Makefile"))?;
    let mended: String = text
        .lines()
        .map(|line| match line.strip_prefix("include /usr/src/") {
            Some(rest) => {
                format!("include $(dir $(abspath $(lastword $(MAKEFILE_LIST))))../{rest}\n")
            }
            None => format!("{line}\n"),
        })
        .collect();
    cache::write_atomically(&path, mended.as_bytes())?;
    if !folder.join("vmlinux").is_file() {
        return Err(layout_error(deb, "vmlinux with the kernel's BTF"));
    }
    Ok(())
}

fn unpack_image(deb: &Path, into: &Path, release: &str) -> Result<(), KernelError> {
    unpack_deb(deb, into)?;
    // Since the merge of /lib into /usr the modules may come below either.
    if !into.join("lib").exists() && into.join("usr/lib").is_dir() {
        let link = into.join("lib");
        std::os::unix::fs::symlink("usr/lib", &link).map_err(KernelError::io("link", &link))?;
    }
    for what in [
        format!("boot/vmlinuz-{release}"),
        format!("boot/config-{release}"),
        format!("lib/modules/{release}/modules.order"),
    ] {
        if !into.join(&what).exists() {
            return Err(layout_error(deb, &what));
        }
    }
    let mut depmod = command::new(command::find("depmod", "kmod")?);
    command::output(depmod.arg("-b").arg(into).arg(release)).map(|_| ())
}

/// Of 1.7 GB of source, `fs/fuse`, the protocol's header and the top Makefile.
fn unpack_source(deb: &Path, into: &Path) -> Result<(), KernelError> {
    let some = [
        "--wildcards",
        "linux-source-*/fs/fuse/*",
        "linux-source-*/include/uapi/linux/fuse.h",
        "--no-wildcards-match-slash",
        "linux-source-*/Makefile",
    ];
    untar_source(deb, into, &some)?;
    for what in [
        "fs/fuse/dev.c",
        "fs/fuse/Makefile",
        "include/uapi/linux/fuse.h",
        "Makefile",
    ] {
        if !into.join(what).is_file() {
            return Err(layout_error(deb, what));
        }
    }
    Ok(())
}

/// Unpacks the archive inside the source package, or of it what `members` tell tar.
fn untar_source(deb: &Path, into: &Path, members: &[&str]) -> Result<(), KernelError> {
    fs::create_dir_all(into).map_err(KernelError::io("create", into))?;
    let (dpkg, tar) = (
        command::find("dpkg-deb", "dpkg")?,
        command::find("tar", "tar")?,
    );
    command::find("xz", "xz-utils")?;
    // A shell, because these are four programs in a pipeline of which each can fail.
    let script = r#"set -o pipefail
        dpkg=$0 tar=$1 deb=$2 into=$3
        shift 3
        "$dpkg" --fsys-tarfile "$deb" |
        "$tar" -xO --wildcards './usr/src/linux-source-*.tar.xz' |
        xz -T0 -dc |
        "$tar" -x -C "$into" --strip-components=1 --no-same-owner "$@""#;
    let mut pipeline: Command = command::new(command::find("bash", "bash")?);
    pipeline
        .args(["-c", script])
        .args([dpkg.as_path(), tar.as_path(), deb, into])
        .args(members);
    command::output(&mut pipeline).map(drop)
}

fn layout_error(deb: &Path, what: &str) -> KernelError {
    KernelError::PackageLayout {
        package: deb
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection() -> Selection {
        apt::choose(include_str!("../tests/madison-bookworm.txt"), "amd64").unwrap()
    }

    #[test]
    fn downloads_are_announced_with_their_size() {
        let names = ["linux-source-6.12"];
        let line = "Get:4 http://deb.debian.org/debian-security bookworm-security/main amd64 \
                    linux-source-6.12 all 6.12.117-1~deb12u1 [153 MB]";
        assert_eq!(
            announced(line, &names),
            Some(("linux-source-6.12", "153 MB"))
        );
        assert_eq!(announced("Fetched 204 MB in 1s (165 MB/s)", &names), None);
        assert_eq!(announced("Reading package lists...", &names), None);
    }

    #[test]
    fn of_apts_complaints_the_first_is_kept() {
        let mut complaint = None;
        for line in [
            "Err:1 http://x",
            "E: Failed to fetch  http://x   404",
            "E: Second",
        ] {
            note_complaint(line, &mut complaint);
        }
        assert_eq!(complaint.as_deref(), Some("Failed to fetch http://x 404"));
    }

    #[test]
    fn only_a_complete_unpacking_of_this_format_counts() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path()).unwrap();
        assert!(current(&layout).is_none());
        let packages = Packages::new(&layout, selection());
        let record = serde_json::to_vec(&packages.selection).unwrap();
        cache::write_atomically(&layout.current(), &record).unwrap();
        fs::create_dir_all(packages.fuse_source()).unwrap();
        assert!(current(&layout).is_none());
        fs::write(packages.folder.join("format"), "0").unwrap();
        assert!(current(&layout).is_none());
        fs::write(packages.folder.join("format"), UNPACKED_FORMAT).unwrap();
        let found = current(&layout).unwrap();
        assert_eq!(found.selection, packages.selection);
        assert!(
            found
                .fuse_source()
                .starts_with(root.path().canonicalize().unwrap())
        );
    }

    #[test]
    fn a_package_is_found_by_name_and_version() {
        let folder = tempfile::tempdir().unwrap();
        let deb = folder
            .path()
            .join("linux-source-6.12_6.12.117-1~deb12u1_all.deb");
        fs::write(&deb, "").unwrap();
        let find = |name, version| find_deb(folder.path(), name, version);
        assert_eq!(find("linux-source-6.12", "6.12.117-1~deb12u1"), Some(deb));
        assert_eq!(find("linux-source-6.12", "6.12.117-1"), None);
        assert_eq!(find("linux-source-6.1", "6.12.117-1~deb12u1"), None);
    }

    #[test]
    fn the_headers_makefile_finds_its_neighbour_wherever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let makefile = folder.path().join("Makefile");
        fs::write(
            &makefile,
            "include /usr/src/linux-headers-6.12-common/Makefile\n",
        )
        .unwrap();
        let deb = Path::new("/x/headers.deb");
        let error = mend_headers(folder.path(), deb).unwrap_err().to_string();
        assert!(error.contains("headers.deb holds no vmlinux"), "{error}");
        fs::write(folder.path().join("vmlinux"), "").unwrap();
        mend_headers(folder.path(), deb).unwrap();
        assert_eq!(
            fs::read_to_string(&makefile).unwrap(),
            "include $(dir $(abspath $(lastword $(MAKEFILE_LIST))))../linux-headers-6.12-common/Makefile\n"
        );
    }
}
