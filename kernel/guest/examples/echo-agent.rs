//! The agent of this crate's tests: speaks the protocol, measures nothing, and brings its guest
//! down in every way that the outside must notice.
//!
//! `Probe` is answered with the same names. The name of a `Check` says what to do.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitCode};
use std::time::Duration;

use efuse_model::environment::{Accelerator, Environment, Place};
use efuse_model::protocol::{FromAgent, PROTOCOL, ToAgent};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [verb, flag, port] = arguments.as_slice() else {
        eprintln!("usage: echo-agent agent --port PATH");
        return ExitCode::from(2);
    };
    if verb != "agent" || flag != "--port" {
        eprintln!("usage: echo-agent agent --port PATH");
        return ExitCode::from(2);
    }
    match serve(port) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("echo-agent: {port}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(port: &str) -> io::Result<ExitCode> {
    let mut writer = OpenOptions::new().read(true).write(true).open(port)?;
    let reader = BufReader::new(writer.try_clone()?);
    say(&mut writer, &ready()?)?;
    for line in reader.lines() {
        let answer = match serde_json::from_str(&line?)? {
            ToAgent::Probe { seq, systems } => FromAgent::Availability {
                seq,
                systems: systems.into_iter().map(|system| (system, None)).collect(),
            },
            ToAgent::Check { check, seq, .. } if check == "exit" => {
                return Ok(ExitCode::from(u8::try_from(seq).unwrap_or(u8::MAX)));
            }
            ToAgent::Check { check, seq, .. } => {
                let result = act(&check, &mut writer);
                FromAgent::Checked {
                    seq,
                    failure: result.as_ref().err().map(ToString::to_string),
                    detail: result.unwrap_or_default(),
                    skipped: None,
                }
            }
            ToAgent::Run { .. } => FromAgent::Log {
                text: "this agent measures nothing".to_owned(),
            },
            ToAgent::Shutdown => return Ok(ExitCode::SUCCESS),
        };
        say(&mut writer, &answer)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn say(writer: &mut File, message: &FromAgent) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writer.write_all(&line)
}

fn ready() -> io::Result<FromAgent> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let environment = Environment {
        place: Place::Vm,
        accelerator: Accelerator::Tcg,
        clock: Default::default(),
        kernel: release.trim().to_owned(),
        cpu: String::new(),
        cpus: 0,
        memory_bytes: 0,
        cmdline: fs::read_to_string("/proc/cmdline")?,
        governor: String::new(),
        mitigations: Default::default(),
        config: Default::default(),
        versions: Default::default(),
        artifacts: Default::default(),
        revision: String::new(),
    };
    Ok(FromAgent::Ready {
        protocol: PROTOCOL,
        environment: Box::new(environment),
    })
}

fn act(what: &str, writer: &mut File) -> io::Result<String> {
    match what.split_once(' ') {
        Some(("sh", script)) => return shell(script),
        Some(("flood", count)) => {
            let count: usize = count.parse().map_err(io::Error::other)?;
            for n in 0..count {
                let text = format!("{n} {}", "x".repeat(100_000));
                say(writer, &FromAgent::Log { text })?;
            }
            return Ok(String::new());
        }
        _ => {}
    }
    match what {
        "panic" => fs::write("/proc/sysrq-trigger", "c")?,
        "kmsg-warning" => {
            // No program can make a sound kernel warn; this takes the same way to the console.
            fs::write(
                "/dev/kmsg",
                "<4>WARNING: CPU: 0 PID: 1 at fs/fuse/dev.c:1 efuse_test+0x1/0x2 [efuse]",
            )?;
            fs::write("/dev/kmsg", "<4>---[ end trace 0000000000000000 ]---")?;
        }
        "hung-task" => return hung_task(),
        "rubbish" => writer.write_all(b"this is not JSON\n")?,
        "sleep" => std::thread::sleep(Duration::from_secs(3600)),
        other => return Err(io::Error::other(format!("what is {other:?}?"))),
    }
    Ok(String::new())
}

/// A write to a frozen file system waits where no signal reaches it.
fn hung_task() -> io::Result<String> {
    shell(
        "echo 2 >/proc/sys/kernel/hung_task_timeout_secs && modprobe brd rd_nr=1 rd_size=16384 \
         && mkfs.ext4 -q /dev/ram0 && mount -t ext4 /dev/ram0 /mnt && fsfreeze --freeze /mnt \
         && { touch /mnt/x >/dev/null 2>&1 & }",
    )
}

fn shell(script: &str) -> io::Result<String> {
    let output = Command::new("sh").args(["-c", script]).output()?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() {
        Ok(text)
    } else {
        Err(io::Error::other(format!("{}: {text}", output.status)))
    }
}
