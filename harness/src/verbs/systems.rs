//! `eval systems`.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use efuse_model::device::Device;
use efuse_model::environment::Place;
use serde::Serialize;

use super::{Context, Status};
use crate::cli::{GuestOptions, PlaceName, PlaceOptions};
use crate::interrupt::{exit_status, signal_name};
use crate::places::{self, GuestShape};
use crate::progress::Steps;
use crate::session::{Opening, SessionError};
use crate::table::Table;

/// List the systems under test and whether they can run here.
#[derive(Debug, Args)]
pub struct Systems {
    /// Only this place.
    #[arg(long, value_enum)]
    place: Option<PlaceName>,
    /// Boot a guest and ask there; without it, only what can be told from outside.
    #[arg(long)]
    boot: bool,
    #[command(flatten)]
    guest: GuestOptions,
}

#[derive(Serialize)]
struct Entry {
    id: String,
    title: String,
    /// `None` where it was not asked; inside, why it cannot run.
    host: Option<Obstacle>,
    vm: Option<Obstacle>,
}

#[derive(Serialize)]
struct Obstacle {
    available: bool,
    reason: Option<String>,
    /// Whether the guest itself was asked.
    probed: bool,
}

impl Obstacle {
    fn new(reason: Option<String>, probed: bool) -> Self {
        Self {
            available: reason.is_none(),
            reason,
            probed,
        }
    }

    fn text(entry: Option<&Self>) -> String {
        match entry {
            None => String::new(),
            Some(Self {
                reason: Some(reason),
                ..
            }) => reason.clone(),
            Some(Self { probed: true, .. }) => "available".to_owned(),
            Some(_) => "available, as far as can be told without --boot".to_owned(),
        }
    }
}

/// Lists.
///
/// # Errors
/// If a description is wrong, or the guest does not boot.
pub fn run(context: &Context, verb: &Systems) -> Result<Status> {
    places::build_controls(context)?;
    let catalogue = context.catalogue()?;
    let wanted = |place| verb.place.is_none_or(|p| Place::from(p) == place);
    let names: Vec<String> = catalogue.names().into_iter().map(str::to_owned).collect();
    let mut in_guest = None;
    if verb.boot {
        if !wanted(Place::Vm) {
            bail!("--boot asks a guest; leave --place host away");
        }
        // The probe needs no device to speak of.
        let device = Device::Brd {
            size_bytes: 64 << 20,
        };
        let options = PlaceOptions {
            place: PlaceName::Vm,
            guest: verb.guest.clone(),
        };
        let shape = GuestShape::new(&options, &device)?;
        let mut opener =
            places::opener(context, &catalogue, Place::Vm, &shape, &device, &names, &[])?;
        let steps = Steps::new();
        let opening = Opening {
            console: context.root.join("target/eval/systems-console.log"),
            time_limit: Duration::from_secs(300),
        };
        if let Some(parent) = opening.console.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let probed = opener
            .open(&opening, &mut |step| steps.step(step))
            .and_then(|mut session| {
                let probed = session.probe(&names)?;
                session.shutdown()?;
                Ok(probed)
            });
        match probed {
            Ok(probed) => in_guest = Some(probed),
            Err(SessionError::Interrupted(signal)) => {
                drop(steps);
                eprintln!("eval: {}", signal_name(signal));
                return Ok(exit_status(signal));
            }
            Err(e) => bail!("{e}"),
        }
    }
    let entries: Vec<Entry> = catalogue
        .registry
        .iter()
        .map(|system| {
            let id = system.id();
            let vm = || match &in_guest {
                Some(probed) => {
                    let answer = probed.iter().find(|(name, _)| name == id);
                    Obstacle::new(
                        answer.map_or_else(
                            || Some("the agent does not know it".to_owned()),
                            |(_, reason)| reason.clone(),
                        ),
                        true,
                    )
                }
                None => Obstacle::new(catalogue.known_obstacle(id, Place::Vm), false),
            };
            let host = || Obstacle::new(catalogue.known_obstacle(id, Place::Host), true);
            Entry {
                id: id.to_owned(),
                title: system.title().to_owned(),
                host: wanted(Place::Host).then(host),
                vm: wanted(Place::Vm).then(vm),
            }
        })
        .collect();
    context.print(&entries, || {
        let mut table = Table::new(&["system", "title", "place", "here"]);
        for entry in &entries {
            for (place, obstacle) in [("vm", &entry.vm), ("host", &entry.host)] {
                if obstacle.is_some() {
                    table.row([
                        entry.id.clone(),
                        entry.title.clone(),
                        place.to_owned(),
                        Obstacle::text(obstacle.as_ref()),
                    ]);
                }
            }
        }
        table.render()
    })?;
    Ok(0)
}
