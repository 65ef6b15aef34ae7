//! A daemon that lists names with attributes, of which the kernel cannot keep each: it says at once that
//! it has forgotten them, with rings as without.

use std::fs;

use rustix::fs::getxattr;

use super::super::{Site, Trouble, fail};
use super::Odd;
use crate::error::AgentError;
use crate::sys::{self, Drop as Caches};

const FILES: usize = 12;
const ROUNDS: usize = 5;

pub(super) fn run(site: &Site<'_>) -> Result<String, Trouble> {
    for options in [&[][..], &["--ring"]] {
        let odd = Odd::mount(site, "plus", options)?;
        let programs = odd.attach("metadata")?;
        for round in 0..ROUNDS {
            let items = fs::read_dir(odd.root()).map_err(AgentError::io(odd.root(), "list"))?;
            if items.count() != FILES {
                return fail(format!("{options:?}, round {round}: names are missing"));
            }
            for n in 0..FILES {
                let path = odd.root().join(format!("f{n}"));
                fs::metadata(&path).map_err(AgentError::io(&path, "stat"))?;
            }
        }
        let mut known = String::new();
        // FORGETs are nobody's to wait for.
        for time in 0..200 {
            sys::drop_caches(Caches::All)?;
            known = lookups(&odd, time)?;
            if known.is_empty() {
                break;
            }
            site.limit.check()?;
        }
        if !known.is_empty() {
            return fail(format!(
                "{options:?}: the kernel never takes back lookups (node:number): {known}"
            ));
        }
        drop(programs);
        odd.unmount()?;
    }
    Ok(format!(
        "{FILES} names were listed with attributes {ROUNDS} times, half of them to be forgotten at once"
    ))
}

/// Those that the daemon thinks the kernel has. The name is another each time, or programs would
/// answer with what was.
fn lookups(odd: &Odd, time: u32) -> Result<String, Trouble> {
    let mut value = [0; 256];
    let len = getxattr(odd.root(), format!("user.known{time}"), &mut value)
        .map_err(|e| Trouble::Fail(format!("user.known: {e}")))?;
    Ok(String::from_utf8_lossy(&value[..len]).into_owned())
}
