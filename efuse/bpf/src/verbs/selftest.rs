//! `efuse selftest`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use efuse_bpf::hostile::{self, Case};
use efuse_bpf::{Dev, Policy, Tunables};

/// Check that the kernel refuses programs that overstep their bounds, and to attach what somebody
/// else has loaded. Nothing is attached.
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
    let policy = Policy::load("metadata", dev, &Tunables::default())?;
    drop_sys_admin().context("cannot give CAP_SYS_ADMIN up")?;
    match policy.attach() {
        Err(error) if error.to_string().contains("not permitted") => {
            println!("refused  attaching without CAP_SYS_ADMIN");
        }
        Err(error) => {
            bail!("attaching without CAP_SYS_ADMIN is refused for another reason: {error}")
        }
        Ok(_) => bail!("programs are attached without CAP_SYS_ADMIN"),
    }
    println!("{} programs refused", CASES.len());
    Ok(())
}

/// For the rest of this process.
fn drop_sys_admin() -> std::io::Result<()> {
    // linux/capability.h; libc has neither.
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_SYS_ADMIN: u32 = 21;
    const WORDS: usize = 3;

    let header = [VERSION_3, 0];
    // Twice effective, permitted, inheritable: the lower and the upper half.
    let mut data = [0u32; 2 * WORDS];
    // SAFETY: the kernel reads the header and writes the two structures that version 3 has.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) };
    if got != 0 {
        return Err(std::io::Error::last_os_error());
    }
    for word in &mut data[..WORDS] {
        *word &= !(1 << CAP_SYS_ADMIN);
    }
    // SAFETY: the kernel reads both.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    if set != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
