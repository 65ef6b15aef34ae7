//! The series against the distribution's source, where one was fetched.

use std::path::Path;

use efuse_kernel::cache::{Files, Layout};
use efuse_kernel::fetch::{self, Packages};
use efuse_kernel::series::Series;

/// Composes the module's source, or says why it cannot.
fn composed(test: &str) -> Option<(Packages, Files)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let layout = Layout::new(root).unwrap();
    let Some(packages) = fetch::current(&layout) else {
        eprintln!("{test}: SKIPPED, no kernel was fetched (`kernel build` fetches one)");
        return None;
    };
    let series = Series::load(&layout.patches(), &layout.ours()).unwrap();
    let files = series.compose(&packages.fuse_source()).unwrap();
    Some((packages, files))
}

/// Everything that registers a name the whole kernel shares. A point release that adds such a
/// registration to fs/fuse is found here before it fails at insmod.
const REGISTRATIONS: [&str; 10] = [
    "MODULE_ALIAS_FS(\"",
    "MODULE_ALIAS(\"",
    "MODULE_ALIAS_MISCDEV(",
    "kmem_cache_create(\"",
    "kobject_create_and_add(\"",
    "register_sysctl(\"",
    "debugfs_create_dir(\"",
    "alloc_workqueue(\"",
    "TRACE_EVENT(",
    "#define TRACE_SYSTEM ",
];

#[test]
fn no_name_of_the_stock_fuse_is_registered() {
    let Some((_, files)) = composed("no_name_of_the_stock_fuse_is_registered") else {
        return;
    };
    let mut seen = 0;
    for (file, content) in &files {
        let text = String::from_utf8_lossy(content);
        for (number, line) in text.lines().enumerate() {
            let registered = REGISTRATIONS
                .iter()
                .find_map(|start| line.split_once(start).map(|(_, rest)| rest))
                .or_else(|| {
                    let (left, right) = line.split_once('=')?;
                    (left.trim() == ".name").then(|| right.trim().strip_prefix('"'))?
                });
            if let Some(name) = registered {
                assert!(name.starts_with("efuse"), "{file}:{}: {line}", number + 1);
                seen += 1;
            }
        }
    }
    // 3 file system types with an alias each, 1 device, 2 caches, 1 folder, 2 events, 1 system.
    assert!(seen >= 13, "only {seen} registrations found");
}

#[test]
fn what_belongs_to_the_stock_fuse_alone_is_left_out() {
    let Some((_, files)) = composed("what_belongs_to_the_stock_fuse_alone_is_left_out") else {
        return;
    };
    for name in ["dax.c", "cuse.c", "virtio_fs.c", "Makefile"] {
        assert!(!files.contains_key(name), "{name}");
    }
    let kbuild = String::from_utf8_lossy(&files["Kbuild"]);
    for (name, _) in files.iter().filter(|(name, _)| name.ends_with(".c")) {
        let object = name.replace(".c", ".o");
        assert!(
            kbuild.split_whitespace().any(|word| word == object),
            "{object} is not built"
        );
    }
}
