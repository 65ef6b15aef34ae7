//! `efuse selftest`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use efuse_bpf::Dev;
use efuse_bpf::hostile::{self, Case};

/// Check that the kernel refuses programs that overstep their bounds. Nothing is attached.
///
/// Exits with 1 if a program is taken that must not be, or refused for another reason.
#[derive(Debug, Args)]
pub(crate) struct Selftest {
    /// A mount point of type efuse.
    mount: PathBuf,
}

const fn case(set: &'static str, refusal: &'static str) -> Case {
    Case { set, refusal }
}

/// What each program does is in `src/bpf/hostile.bpf.c`; the words are the kernel's.
const CASES: &[Case] = &[
    case("write_node", "only cookie can be written"),
    case("write_seq", "only cookie can be written"),
    case("write_half", "only cookie can be written"),
    case("write_behind", "only cookie can be written"),
    case("read_behind", "beyond struct efuse_ctx"),
    case(
        "write_task",
        "only struct efuse_ctx and efuse_io can be written",
    ),
    case("reply_long", "invalid"),
    case("reply_unbounded", "unbounded memory access"),
    case("read_unbounded", "unbounded memory access"),
    case("dirent_small", "invalid"),
    case("forged_stack", "must point to"),
    case("forged_map", "must point to"),
    case("forged_null", ""),
    case("moved_ctx", ""),
    case("endless", "infinite loop"),
    case("sleeping", ""),
    case("user_memory", "cannot use helper bpf_copy_from_user"),
    case("signal", "cannot use helper bpf_send_signal"),
    case("kfunc_in_socket", "is not allowed"),
    case("kfunc_in_trace", "is not allowed"),
    case("kfunc_in_syscall", "is not allowed"),
    case("other_type", "is not allowed"),
];

pub(crate) fn run(verb: &Selftest) -> Result<()> {
    let dev = Dev::of_mount(&verb.mount)?;
    if let Err(log) = hostile::load("fair", dev)? {
        bail!("a program that does nothing wrong is refused:{log}");
    }
    let mut wrong = 0;
    for case in CASES {
        match hostile::load(case.set, dev)? {
            Err(log) if log.contains(case.refusal) => println!("refused  {}", case.set),
            Err(log) => {
                wrong += 1;
                println!("REFUSED for another reason  {}:{log}", case.set);
            }
            Ok(()) => {
                wrong += 1;
                println!("TAKEN  {}", case.set);
            }
        }
    }
    if wrong > 0 {
        bail!(
            "{wrong} of {} programs were not refused as they must be",
            CASES.len()
        );
    }
    println!("{} programs refused", CASES.len());
    Ok(())
}
