//! A daemon whose files change elsewhere, which programs do not know. Who asks for what is true now,
//! or cannot go on with what was, is told by the daemon.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::thread;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::super::{Site, Trouble, fail};
use super::Odd;
use crate::error::AgentError;

const ROUNDS: u64 = 20;
/// How often a file is looked at before it changes, so that programs know it.
const LOOKS: usize = 4;
/// Somebody whom modes apply to.
const USER: libc::uid_t = 1000;
/// The first number of a node that the daemon does not begin with.
const NEW: u64 = 100;

pub(super) fn run(site: &Site<'_>) -> Result<String, Trouble> {
    // With the kernel's checks of permissions it keeps and uses attributes itself.
    for options in [&[][..], &["--default-permissions"]] {
        let odd = Odd::mount(site, "elsewhere", options)?;
        let programs = odd.attach("metadata")?;
        let looks = ROUNDS as usize * (LOOKS - 1);
        let of = |what: &'static str| {
            move |trouble: Trouble| trouble.of(&format!("{what}, {options:?}"))
        };
        odd.answering(looks, || synced(&odd))
            .map_err(of("AT_STATX_FORCE_SYNC"))?;
        odd.answering(looks, || replaced(&odd))
            .map_err(of("another file by a name"))?;
        if !options.is_empty() {
            odd.answering(looks, || {
                thread::scope(|scope| {
                    // Alone with its user.
                    let thread = scope.spawn(|| granted(&odd));
                    thread.join().expect("no panic in it")
                })
            })
            .map_err(of("access that is granted"))?;
        }
        drop(programs);
        odd.unmount()?;
    }
    Ok(format!(
        "{} changes elsewhere are seen where the daemon is to be asked",
        5 * ROUNDS
    ))
}

/// Tells the daemon what happens.
fn now(odd: &Odd, what: &str, n: u32, value: &str, time: u64) -> Result<(), Trouble> {
    let path = odd.root().join(format!("now-{what}-{n}-{value}-{time}"));
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => fail(format!("{}: {result:?}", path.display())),
    }
}

/// A size that is asked for with `AT_STATX_FORCE_SYNC` is the present one, and remains known.
fn synced(odd: &Odd) -> Result<(), Trouble> {
    let path = odd.file(0);
    let size = |flags| {
        let status = statx(CWD, &path, flags, StatxFlags::BASIC_STATS);
        status.map(|status| status.stx_size).map_err(|error| {
            let error = io::Error::from(error);
            Trouble::from(AgentError::io(&path, "statx")(error))
        })
    };
    for round in 0..ROUNDS {
        for _ in 0..LOOKS {
            size(AtFlags::empty())?;
        }
        let wanted = 1000 + round;
        now(odd, "size", 0, &wanted.to_string(), round)?;
        let seen = [
            size(AtFlags::STATX_FORCE_SYNC)?,
            size(AtFlags::empty())?,
            size(AtFlags::empty())?,
        ];
        if seen.iter().any(|&size| size != wanted) {
            return fail(format!("round {round}: sizes {seen:?}, not {wanted}"));
        }
    }
    Ok(())
}

/// A file that is another by now is opened, though programs know the one before.
fn replaced(odd: &Odd) -> Result<(), Trouble> {
    const SIZE: usize = 10;
    let path = odd.file(1);
    let io = |action: &'static str| AgentError::io(&path, action);
    now(odd, "size", 1, &SIZE.to_string(), 0)?;
    for round in 0..ROUNDS {
        for _ in 0..LOOKS {
            fs::metadata(&path).map_err(io("stat"))?;
        }
        let node = NEW + round;
        now(odd, "node", 1, &node.to_string(), round)?;
        let mut content = Vec::new();
        let mut file = File::open(&path).map_err(io("open"))?;
        file.read_to_end(&mut content).map_err(io("read"))?;
        let status = file.metadata().map_err(io("stat"))?;
        let by_name = fs::metadata(&path).map_err(io("stat"))?;
        if content != [node as u8; SIZE] || status.ino() != node || by_name.ino() != node {
            return fail(format!(
                "round {round}: nodes {} and {}, content {content:?} of node {node}",
                status.ino(),
                by_name.ino()
            ));
        }
    }
    Ok(())
}

/// A file that everybody may read by now is opened. Makes the thread somebody else.
fn granted(odd: &Odd) -> Result<(), Trouble> {
    // SAFETY: the call has no pointers. The raw one concerns this thread alone.
    let status = unsafe { libc::syscall(libc::SYS_setresuid, USER, USER, USER) };
    if status != 0 {
        return fail(format!("setresuid: {}", io::Error::last_os_error()));
    }
    let path = odd.file(2);
    for round in 0..ROUNDS {
        for _ in 0..LOOKS {
            match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                result => return fail(format!("round {round}: opening gives {result:?}")),
            }
        }
        now(odd, "mode", 2, "644", round)?;
        File::open(&path).map_err(AgentError::io(&path, "open"))?;
        // What is taken away is seen when somebody asks.
        now(odd, "mode", 2, "600", round)?;
        statx(CWD, &path, AtFlags::STATX_FORCE_SYNC, StatxFlags::MODE)
            .map_err(|e| Trouble::Fail(format!("statx: {e}")))?;
    }
    Ok(())
}
