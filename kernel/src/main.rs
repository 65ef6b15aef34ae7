//! `kernel`: fetch a kernel, build the module.

use std::time::Instant;

fn main() -> anyhow::Result<()> {
    let started = Instant::now();
    let root = efuse_kernel::root::find(None)?;
    let artifacts = efuse_kernel::ensure(&root, &mut |line| eprintln!("{line}"))?;
    println!("{}", serde_json::to_string_pretty(&artifacts)?);
    eprintln!("{:?}", started.elapsed());
    Ok(())
}
