//! A daemon that decides by supplementary groups: names, nodes, attributes, everything.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;

use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rustix::fs::{Access, access, lgetxattr, llistxattr};

use super::super::{Site, Trouble, fail};
use super::Odd;

/// Groups of the callers, which `efuse-odd` counts from 3000 on.
const SETS: [&[u32]; 7] = [
    &[],
    &[3000],
    &[3001],
    &[3000, 3001, 3002],
    &[3003, 3004, 3005, 3006, 3007, 3008, 3009, 3010, 3011],
    &[3001, 3004, 3007, 3010],
    // The same with one that the daemon does not care about.
    &[3001, 3004, 3007, 3010, 4000],
];
/// Those that fill the maps before the others look.
const FILLERS: [usize; 2] = [0, 4];
/// Sets that see the same as the one before.
const LIKE_THE_ONE_BEFORE: usize = 6;
const NAMES: usize = 12;
const THREADS: usize = 4;
/// Names that each thread looks at with changing groups.
const LOOKS: usize = 150;

pub(super) fn run(site: &Site<'_>) -> Result<String, Trouble> {
    let odd = Odd::mount(site, "groups", &[])?;
    let root = odd.root();
    // On a thread whose groups are nobody else's.
    let without = thread::scope(|scope| {
        let views = scope.spawn(|| {
            let views = SETS.iter().map(|set| view(root, set));
            views.collect::<Result<Vec<_>, _>>()
        });
        views.join().expect("no panic in it")
    })?;
    for (n, pair) in without.windows(2).enumerate() {
        if (pair[0] == pair[1]) != (n + 1 == LIKE_THE_ONE_BEFORE) {
            return fail(format!(
                "callers of {:?} and {:?} see {:?} and {:?} without programs",
                SETS[n],
                SETS[n + 1],
                pair[0],
                pair[1]
            ));
        }
    }
    for first in FILLERS {
        let filler = SETS[first];
        let programs = odd.attach("metadata")?;
        thread::scope(|scope| {
            let one_by_one = || -> Result<(), Trouble> {
                view(root, filler)?;
                for (set, wanted) in SETS
                    .iter()
                    .zip(&without)
                    .cycle()
                    .skip(first)
                    .take(SETS.len() + 1)
                {
                    same(set, wanted, &view(root, set)?)?;
                }
                Ok(())
            };
            odd.answering(SETS.len(), || {
                scope.spawn(one_by_one).join().expect("no panic in it")
            })
        })?;
        drop(programs);
    }
    let programs = odd.attach("metadata")?;
    let seed: u64 = rand::random();
    let before = odd.answered()?;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let mut dice = ChaCha8Rng::seed_from_u64(seed);
                dice.set_stream(thread as u64);
                let without = &without;
                scope.spawn(move || alternate(root, without, dice))
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no panic in it"))
    })?;
    let answered = odd.answered()? - before;
    if answered < (THREADS * LOOKS) as u64 {
        return fail(format!(
            "programs answered {answered} requests of {} looks only",
            THREADS * LOOKS
        ));
    }
    drop(programs);
    odd.unmount()?;
    Ok(format!(
        "callers of {} sets of groups see {NAMES} names as without programs, one by one and in \
         {THREADS} threads that alternate, seed {seed} ({answered} requests answered)",
        SETS.len()
    ))
}

/// Looks at names with groups that change each time.
fn alternate(root: &Path, without: &[Vec<String>], mut dice: ChaCha8Rng) -> Result<(), Trouble> {
    let mut order: Vec<usize> = (0..SETS.len()).collect();
    for look in 0..LOOKS {
        if look % SETS.len() == 0 {
            order.shuffle(&mut dice);
        }
        let set = order[look % SETS.len()];
        let n = dice.random_range(0..NAMES);
        become_member(SETS[set]).map_err(|e| Trouble::Fail(format!("setgroups: {e}")))?;
        let seen = one(&root.join(format!("n{n}")));
        same(SETS[set], &without[set][n..=n], std::slice::from_ref(&seen))?;
    }
    Ok(())
}

fn same(set: &[u32], without: &[String], with: &[String]) -> Result<(), Trouble> {
    match without.iter().zip(with).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(n) => fail(format!(
            "a member of {set:?} sees {:?} with programs, not {:?}",
            with[n], without[n]
        )),
    }
}

/// What a caller in these groups sees: a line for each name, and a list.
fn view(root: &Path, set: &[u32]) -> Result<Vec<String>, Trouble> {
    become_member(set).map_err(|e| Trouble::Fail(format!("setgroups: {e}")))?;
    let mut lines: Vec<String> = (0..NAMES)
        .map(|n| one(&root.join(format!("n{n}"))))
        .collect();
    let names = fs::read_dir(root).and_then(|items| {
        items
            .map(|item| item.map(|item| item.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()
    });
    lines.push(format!("{names:?}"));
    Ok(lines)
}

fn one(path: &Path) -> String {
    let status = fs::symlink_metadata(path)
        .map(|m| (m.ino(), m.mode(), m.size()))
        .map_err(|e| e.raw_os_error());
    let mut buffer = [0; 64];
    let value = lgetxattr(path, "user.groups", &mut buffer).map(|n| text(&buffer[..n]));
    let names = llistxattr(path, &mut buffer).map(|n| text(&buffer[..n]));
    let target = fs::read_link(path).map_err(|e| e.raw_os_error());
    // Of a symbolic link, whatever it leads to.
    let may = access(path, Access::WRITE_OK);
    format!("{status:?} {value:?} {names:?} {target:?} {may:?}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Gives the calling thread, and no other, these supplementary groups.
fn become_member(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the list has as many elements as are announced. The raw call concerns this thread
    // alone; the C library's would change all of the process.
    let status = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
