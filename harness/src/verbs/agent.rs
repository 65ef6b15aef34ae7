//! `eval agent`: the inside, started by the guest's init.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use efuse_agent::{Agent, AgentOptions};

use super::Status;

/// Answer requests on a virtio-serial port (started in the guest).
#[derive(Debug, Args)]
pub struct Serve {
    /// The port's device.
    #[arg(long)]
    port: PathBuf,
}

/// Serves until the outside says to stop.
///
/// # Errors
/// If the port cannot be opened or the connection breaks.
pub fn run(verb: &Serve) -> Result<Status> {
    let (reader, writer) = efuse_agent::open_port(&verb.port)?;
    let agent = Agent::new(AgentOptions::guest())?;
    agent.serve(reader, writer)?;
    Ok(0)
}
