//! Boots a guest with the echo agent and tells how long each step took.
//!
//! `boot PROJECT_ROOT WORK_DIR [auto|kvm|tcg]`; with `--hold` as last argument it says the number
//! of QEMU's process when the agent is ready, and stays until it is killed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use efuse_guest::{AccelRequest, Guest, GuestSpec};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let hold = arguments.last().is_some_and(|last| last == "--hold");
    if hold {
        arguments.pop();
    }
    let [root, work_dir, rest @ ..] = arguments.as_slice() else {
        return Err("usage: boot PROJECT_ROOT WORK_DIR [auto|kvm|tcg] [--hold]".into());
    };
    let accel = match rest.first().map(String::as_str) {
        None | Some("auto") => AccelRequest::Auto,
        Some("kvm") => AccelRequest::Kvm,
        Some("tcg") => AccelRequest::Tcg,
        Some(other) => return Err(format!("unknown accelerator {other}").into()),
    };
    let mut progress = |line: &str| eprintln!("{line}");
    let artifacts = efuse_kernel::ensure(root.as_ref(), &mut progress)?;
    let agent = std::env::current_exe()?.with_file_name("echo-agent");
    let work_dir = PathBuf::from(work_dir);
    std::fs::create_dir_all(&work_dir)?;
    let spec = GuestSpec::new(artifacts, agent, work_dir.join("console.log"), &work_dir)
        .accel(accel)
        .time_limit(Duration::from_secs(3600));

    let begun = Instant::now();
    let guest = Guest::start(&spec, &mut progress)?;
    println!(
        "QEMU runs (pid {}, {}) after {:.2} s",
        guest.pid().unwrap_or_default(),
        guest.accelerator(),
        begun.elapsed().as_secs_f64()
    );
    guest.recv(Duration::from_secs(60))?;
    println!("ready after {:.2} s", begun.elapsed().as_secs_f64());
    if hold {
        loop {
            std::thread::park();
        }
    }
    let begun = Instant::now();
    guest.shutdown()?;
    println!("shut down in {:.2} s", begun.elapsed().as_secs_f64());
    Ok(())
}
