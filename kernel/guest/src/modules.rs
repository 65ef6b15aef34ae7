//! The few kernel modules that the guest needs, with what they depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::error::GuestError;
use crate::tree::Tree;

/// What the guest cannot do without, built in or as a module.
const REQUIRED: &[&str] = &[
    "brd",
    "configfs",
    "ext4",
    "fuse",
    "loop",
    "null_blk",
    "virtio_blk",
    "virtio_console",
    "virtio_pci",
];

/// What it takes along where the kernel has it as a module.
const OPTIONAL: &[&str] = &["crc32c_intel", "overlay", "ublk_drv", "virtio_rng"];

/// Names of modules are the same with `-` and `_`.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// `modules.dep`: path of each module, and of all that must be there before it.
struct Dependencies(BTreeMap<String, (String, Vec<String>)>);

impl Dependencies {
    fn parse(text: &str) -> Self {
        let entries = text.lines().filter_map(|line| {
            let (module, needs) = line.split_once(':')?;
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            Some((name_of(module), (module.to_owned(), needs)))
        });
        Self(entries.collect())
    }

    /// Adds the module and its closure to `wanted`; false if there is no such module.
    fn close(&self, module: &str, wanted: &mut BTreeSet<String>) -> bool {
        let Some((path, needs)) = self.0.get(module) else {
            return false;
        };
        if wanted.insert(path.clone()) {
            for need in needs {
                self.close(&name_of(need), wanted);
            }
        }
        true
    }
}

/// Adds the modules, decompressed, with a `modules.dep` that names only them.
///
/// They are decompressed here, once, because the guest would do so at every boot, slowly.
pub(crate) fn add(tree: &mut Tree, modules_dir: &Path, release: &str) -> Result<(), GuestError> {
    let read = |name: &str| {
        let path = modules_dir.join(name);
        fs::read_to_string(&path).map_err(GuestError::io("read", &path))
    };
    let dependencies = Dependencies::parse(&read("modules.dep")?);
    let builtin_list = read("modules.builtin")?;
    let builtin: BTreeSet<String> = builtin_list.lines().map(name_of).collect();

    let mut wanted = BTreeSet::new();
    for &module in REQUIRED {
        if !builtin.contains(module) && !dependencies.close(module, &mut wanted) {
            return Err(GuestError::MissingModule {
                module: module.to_owned(),
                modules_dir: modules_dir.to_owned(),
            });
        }
    }
    for module in OPTIONAL {
        dependencies.close(module, &mut wanted);
    }

    let in_guest = Path::new("/lib/modules").join(release);
    let mut list = String::new();
    for path in &wanted {
        let (_, needs) = &dependencies.0[&name_of(path)];
        let plain: Vec<_> = needs.iter().map(|need| uncompressed_name(need)).collect();
        let _ = writeln!(list, "{}: {}", uncompressed_name(path), plain.join(" "));
        tree.decompressed(
            &modules_dir.join(path),
            &in_guest.join(uncompressed_name(path)),
        )?;
    }
    tree.bytes(&in_guest.join("modules.dep"), 0o644, list.into_bytes())?;
    tree.bytes(
        &in_guest.join("modules.builtin"),
        0o644,
        builtin_list.into_bytes(),
    )
}

fn uncompressed_name(path: &str) -> &str {
    path.find(".ko").map_or(path, |at| &path[..at + 3])
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/fs/configfs/configfs.ko.xz:
kernel/drivers/block/null_blk/null_blk.ko.xz: kernel/fs/configfs/configfs.ko.xz
kernel/drivers/char/hw_random/virtio-rng.ko.xz:
kernel/a.ko: kernel/b-c.ko.gz
kernel/b-c.ko.gz: kernel/fs/configfs/configfs.ko.xz
";

    #[test]
    fn closure_follows_dependencies() {
        let dependencies = Dependencies::parse(DEP);
        let mut wanted = BTreeSet::new();
        assert!(dependencies.close("a", &mut wanted));
        assert_eq!(
            wanted.into_iter().collect::<Vec<_>>(),
            [
                "kernel/a.ko",
                "kernel/b-c.ko.gz",
                "kernel/fs/configfs/configfs.ko.xz"
            ]
        );
    }

    #[test]
    fn dashes_are_underscores_and_absent_is_absent() {
        let dependencies = Dependencies::parse(DEP);
        assert!(dependencies.close("virtio_rng", &mut BTreeSet::new()));
        assert!(!dependencies.close("virtio_net", &mut BTreeSet::new()));
    }

    #[test]
    fn names_without_compression() {
        assert_eq!(uncompressed_name("kernel/b-c.ko.gz"), "kernel/b-c.ko");
        assert_eq!(uncompressed_name("kernel/a.ko"), "kernel/a.ko");
    }
}
