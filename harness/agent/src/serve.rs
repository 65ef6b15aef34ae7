//! The agent's side of the protocol.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use efuse_model::attempt::Phase;
use efuse_model::protocol::{FromAgent, PROTOCOL, ToAgent};

use crate::agent::Agent;
use crate::checks;
use crate::error::{AgentError, Result};
use crate::sys;

/// A virtio-serial port. Reading from it gives nothing while the outside is not
/// connected: that is no end of input here.
#[derive(Debug)]
pub struct Port(File);

impl Read for Port {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Ok(0) if !buffer.is_empty() => thread::sleep(Duration::from_millis(20)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

/// Opens a port, waiting for its node.
///
/// # Errors
/// If it does not appear or is in use.
pub fn open_port(path: &Path) -> Result<(BufReader<Port>, File)> {
    sys::wait_for_node(path)?;
    let open = || OpenOptions::new().read(true).write(true).open(path);
    let file = open().map_err(AgentError::io(path, "open the port"))?;
    let writer = file
        .try_clone()
        .map_err(AgentError::io(path, "duplicate the port"))?;
    Ok((BufReader::new(Port(file)), writer))
}

impl Agent {
    /// Says [`FromAgent::Ready`] and answers requests, in order, until
    /// [`ToAgent::Shutdown`] or the end of input.
    ///
    /// # Errors
    /// If the connection breaks or the other side sends something else than requests.
    pub fn serve(&self, reader: impl BufRead, mut writer: impl Write) -> Result<()> {
        send(
            &mut writer,
            &FromAgent::Ready {
                protocol: PROTOCOL,
                environment: Box::new(self.environment()),
            },
        )?;
        for line in reader.split(b'\n') {
            let line = line.map_err(AgentError::io("agent port", "read a request"))?;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let request: ToAgent = serde_json::from_slice(&line).map_err(|e| {
                let text = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
                AgentError::Protocol(format!("not a request ({e}): {text}"))
            })?;
            if matches!(request, ToAgent::Shutdown) {
                return Ok(());
            }
            self.answer(request, &mut writer)?;
        }
        Ok(())
    }

    fn answer(&self, request: ToAgent, writer: &mut impl Write) -> Result<()> {
        match request {
            ToAgent::Probe { seq, systems } => send(
                writer,
                &FromAgent::Availability {
                    seq,
                    systems: self.probe(&systems),
                },
            ),
            ToAgent::Run {
                seq,
                cell,
                probes,
                timeout_ms,
            } => {
                // A broken connection is met again, and reported, by the final answer.
                let mut on_phase = |phase: Phase| {
                    let _ = send(writer, &FromAgent::Phase { seq, phase });
                };
                let timeout = Duration::from_millis(timeout_ms);
                let result = self.run_cell(&cell, probes, timeout, &mut on_phase);
                send(
                    writer,
                    &FromAgent::Finished {
                        seq,
                        outcome: result.outcome,
                        command: result.command,
                        raw: result.raw,
                    },
                )
            }
            ToAgent::Check {
                seq,
                check,
                system,
                effort,
                timeout_ms,
            } => {
                let limit = Duration::from_millis(timeout_ms);
                let result = checks::run(self, &check, &system, effort, limit);
                send(
                    writer,
                    &FromAgent::Checked {
                        seq,
                        failure: result.failure,
                        detail: result.detail,
                        skipped: result.skipped,
                    },
                )
            }
            ToAgent::Shutdown => Ok(()),
        }
    }
}

fn send(writer: &mut impl Write, message: &FromAgent) -> Result<()> {
    let mut line = serde_json::to_vec(message)
        .map_err(|e| AgentError::Protocol(format!("cannot write an answer: {e}")))?;
    line.push(b'\n');
    writer
        .write_all(&line)
        .and_then(|()| writer.flush())
        .map_err(AgentError::io("agent port", "write an answer"))
}
