//! Loading and unloading of `efuse.ko` beside the stock FUSE.

use std::ffi::CString;
use std::fs::{self, File};
use std::path::Path;

use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module};

use super::{Site, Trouble, fail};
use crate::error::AgentError;

const MODULE: &str = "/lib/efuse.ko";
const DEVICE: &str = "/dev/efuse";
/// A system on stock FUSE that stays mounted meanwhile.
const STOCK: &str = "fuse";

pub(super) fn run(site: &mut Site<'_>) -> Result<String, Trouble> {
    if !Path::new(MODULE).exists() {
        return Err(Trouble::Skip(format!(
            "{MODULE} is not there; the check runs in the VM"
        )));
    }
    if let Some(reason) = site
        .agent
        .registry()
        .availability(STOCK, site.agent.options().place)
    {
        return Err(Trouble::Skip(format!(
            "{STOCK} is needed beside it: {reason}"
        )));
    }
    match unload() {
        Err(Errno::EAGAIN | Errno::EBUSY) => {}
        other => {
            return fail(format!(
                "unloading while efuse is mounted gives {other:?}, not EAGAIN"
            ));
        }
    }
    let path = site.root.join("before");
    fs::write(&path, "still works")
        .map_err(AgentError::io(&path, "write after the refused unload"))?;
    site.unmount()?;
    let stock_point = site.agent.folder().join("stock");
    let mut stock = site.mount_at(STOCK, &stock_point)?;
    let reloaded = reload(&stock_point);
    let alive = stock.alive();
    let unmounted = stock.unmount();
    reloaded?;
    alive?;
    unmounted?;
    site.mount()?;
    let path = site.root.join("before");
    let text = fs::read(&path).map_err(AgentError::io(&path, "read after the reload"))?;
    if text != b"still works" {
        return fail("the file has another content after the reload");
    }
    Ok("unload refused while mounted; unloaded and loaded beside stock FUSE; mounted again".into())
}

fn unload() -> nix::Result<()> {
    delete_module(c"efuse", DeleteModuleFlags::O_NONBLOCK)
}

/// Two rounds: leftovers of the first would be met in the second.
fn reload(stock: &Path) -> Result<(), Trouble> {
    for round in 0..2 {
        unload().map_err(AgentError::errno("efuse", "unload the module"))?;
        if Path::new(DEVICE).exists() {
            return fail(format!("{DEVICE} is still there without the module"));
        }
        let path = stock.join(format!("round{round}"));
        let written = fs::write(&path, "x").and_then(|()| fs::read(&path));
        let file = File::open(MODULE).map_err(AgentError::io(MODULE, "open"))?;
        let none = CString::default();
        finit_module(&file, &none, ModuleInitFlags::empty())
            .map_err(AgentError::errno(MODULE, "load the module"))?;
        match written {
            Ok(bytes) if bytes == b"x" => {}
            other => {
                return fail(format!("stock FUSE without our module: {other:?}"));
            }
        }
        crate::sys::wait_for_node(Path::new(DEVICE))?;
    }
    Ok(())
}
