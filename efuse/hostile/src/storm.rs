//! Rounds of daemon and callers.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rand::RngExt as _;
use rustix::mount::UnmountFlags;

use crate::random;

/// Until this long after the daemon's death everything has to have ended.
const PATIENCE: Duration = Duration::from_secs(20);
/// A round goes on for so many calls to end, at most that long: a slow kernel (emulated, with
/// KASAN) would otherwise see daemons come and go and little else.
const CALLS: u64 = 40;
const EXTENSION: Duration = Duration::from_secs(6);

/// A child that dies with its owner.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A mount that is taken away with its owner.
struct Mounted<'p>(&'p Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0, UnmountFlags::DETACH);
    }
}

/// Storms.
pub(crate) fn run(mountpoint: &Path, seconds: u64, seed: u64) -> Result<()> {
    println!("seed {seed}");
    let begun = Instant::now();
    let wanted = Duration::from_secs(seconds);
    let (mut rounds, mut calls, mut worst) = (0, 0, Duration::ZERO);
    // By chance no caller may get anywhere for some rounds.
    while rounds == 0 || begun.elapsed() < wanted || calls == 0 && begun.elapsed() < 4 * wanted {
        let (ended, took) = round(mountpoint, seed.wrapping_add(rounds))
            .with_context(|| format!("round {rounds} (seed {seed})"))?;
        calls += ended;
        worst = worst.max(took);
        rounds += 1;
    }
    println!(
        "{rounds} hostile daemons, seed {seed}: {calls} calls ended while they ran, all others \
         {} ms after at most",
        worst.as_millis()
    );
    if calls == 0 {
        bail!("no call ever ended: nothing was tried");
    }
    Ok(())
}

/// How many calls ended, and how long after the kill the last one did.
fn round(mountpoint: &Path, seed: u64) -> Result<(u64, Duration)> {
    let mut dice = random(seed, 5000);
    let (mut daemon, mut said) = start("daemon", mountpoint, seed)?;
    // Declared later, dropped earlier: unmounted before the daemon is killed if anything fails.
    let mounted = Mounted(mountpoint);
    let mut line = String::new();
    said.read_line(&mut line)?;
    if line != "ready\n" {
        bail!("the hostile daemon does not start");
    }
    let (mut load, said) = start("load", mountpoint, seed)?;
    let calls = Arc::new(Mutex::new(0));
    let reader = {
        let calls = Arc::clone(&calls);
        thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                *calls.lock().expect("no panic in it") = line.parse().unwrap_or(0);
            }
        })
    };
    thread::sleep(Duration::from_millis(dice.random_range(500..2500)));
    let (enough, extended) = (dice.random_range(0..CALLS), Instant::now());
    while *calls.lock().expect("no panic in it") < enough && extended.elapsed() < EXTENSION {
        thread::sleep(Duration::from_millis(20));
    }
    if dice.random() {
        // Callers are killed one by one while the daemon lives and may never answer.
        load.0.kill()?;
        thread::sleep(Duration::from_millis(dice.random_range(0..200)));
    }
    daemon.0.kill()?;
    let killed = Instant::now();
    load.0.kill()?;
    for (child, whose) in [(&mut load.0, "callers"), (&mut daemon.0, "daemon")] {
        while child.try_wait()?.is_none() {
            if killed.elapsed() > PATIENCE {
                bail!(
                    "the {whose} do not end {} s after the kill",
                    PATIENCE.as_secs()
                );
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
    let took = killed.elapsed();
    drop(mounted);
    let _ = reader.join();
    let calls = *calls.lock().expect("no panic in it");
    Ok((calls, took))
}

fn start(verb: &str, mountpoint: &Path, seed: u64) -> Result<(Owned, BufReader<ChildStdout>)> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(verb)
        .arg(mountpoint)
        .arg(format!("--seed={seed}"))
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start the {verb}"))?;
    let said = child.stdout.take().context("no output")?;
    Ok((Owned(child), BufReader::new(said)))
}
