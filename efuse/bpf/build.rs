//! Compiles the programs of `src/bpf`. clang 16 is the oldest that keeps both halves of 64-bit
//! enums in BTF.

use std::env;
use std::path::Path;

use libbpf_cargo::SkeletonBuilder;

const FOLDER: &str = "src/bpf";
/// Compiled so that they stay right.
const EXAMPLES: &str = "examples";
const CLANG: &str = "clang-16";
/// Folder and name of each source.
const POLICIES: &[(&str, &str)] = &[
    (FOLDER, "balance"),
    (FOLDER, "balance-least"),
    (FOLDER, "balance-two"),
    (FOLDER, "cache"),
    (FOLDER, "extfuse"),
    (FOLDER, "hostile"),
    (FOLDER, "metadata"),
    (FOLDER, "passthrough"),
    (FOLDER, "prelim"),
    (EXAMPLES, "hide"),
];

fn main() {
    println!("cargo:rerun-if-changed={FOLDER}");
    println!("cargo:rerun-if-changed={EXAMPLES}");
    println!("cargo:rerun-if-env-changed=EFUSE_CLANG");
    let clang = env::var("EFUSE_CLANG").unwrap_or_else(|_| CLANG.to_owned());
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    for (folder, policy) in POLICIES {
        let source = format!("{folder}/{policy}.bpf.c");
        SkeletonBuilder::new()
            .source(&source)
            .obj(Path::new(&out).join(format!("{policy}.bpf.o")))
            .clang(&clang)
            // Debian keeps asm/types.h in a folder for the architecture.
            .clang_args([
                "-Wall".to_owned(),
                "-Werror".to_owned(),
                "-mcpu=v3".to_owned(),
                format!("-I{FOLDER}"),
                format!("-I/usr/include/{arch}-linux-gnu"),
            ])
            .build()
            .unwrap_or_else(|error| panic!("cannot compile {source} with {clang}: {error:#}"));
    }
}
