//! Compiles the BPF programs.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "src/bpf/probes.bpf.c";
/// Older ones lose the high half of 64-bit enums.
const OLDEST: u32 = 16;

fn main() {
    println!("cargo::rerun-if-changed=src/bpf");
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let out = PathBuf::from(variable("OUT_DIR")).join("probes.bpf.o");
    // libbpf's own headers, of the version that loads the programs.
    let libbpf = variable("DEP_BPF_INCLUDE");
    let arch = variable("CARGO_CFG_TARGET_ARCH");
    let clang = clang().unwrap_or_else(|| {
        panic!("no clang {OLDEST} or newer, which compiles BPF; install it (apt install clang-{OLDEST})")
    });
    let status = Command::new(&clang)
        .args([
            "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror",
        ])
        .arg(format!("-I{libbpf}"))
        // Debian keeps asm/ by architecture, and clang does not look there for BPF.
        .arg(format!("-I/usr/include/{arch}-linux-gnu"))
        .args(["-c", SOURCE, "-o"])
        .arg(&out)
        .status();
    assert!(
        status.as_ref().is_ok_and(std::process::ExitStatus::success),
        "{clang} does not compile {SOURCE}: {status:?}"
    );
}

fn clang() -> Option<String> {
    let runs = |name: &String| {
        let output = Command::new(name).arg("-dumpversion").output().ok()?;
        let version = String::from_utf8(output.stdout).ok()?;
        let major: u32 = version.trim().split('.').next()?.parse().ok()?;
        (major >= OLDEST).then_some(())
    };
    (OLDEST..=30)
        .rev()
        .map(|n| format!("clang-{n}"))
        .chain(["clang".to_owned()])
        .find(|name| runs(name).is_some())
}
