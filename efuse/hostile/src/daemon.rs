//! The daemon of one round.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use efuse_abi::ring::{
    RING_ENTER, RING_HEAD, RING_SETUP, RING_WAIT, RING_WAIT_MS_SHIFT, RingEnter, RingHeader,
    RingLayout, RingSetup, RingSlot, SLOT_ASYNC, SLOT_DONE, SLOT_POLLED,
};
use efuse_abi::wire::{InHeader, InitIn, InitOut, OutHeader};
use rand::{Rng, RngExt as _};
use rustix::mount::MountFlags;
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::answer;
use crate::memory::Memory;
use crate::random;

/// Values that arithmetic goes wrong at.
const EDGES: [u32; 12] = [
    0,
    1,
    2,
    4,
    63,
    64,
    288,
    289,
    0x7fff_ffff,
    0x8000_0000,
    u32::MAX - 1,
    u32::MAX,
];

/// Mounts, answers INIT with rings of a random shape, and misbehaves until it is killed.
pub(crate) fn run(mountpoint: &Path, seed: u64) -> Result<()> {
    let mut dice = random(seed, 0);
    let device = mount(mountpoint)?;
    let memories = begin(&device, &mut dice)?;
    println!("ready");
    let channels = memories.len() as u64;
    thread::scope(|scope| {
        for (n, memory) in (0..).zip(&memories) {
            let device = &device;
            for worker in 0..2 {
                let dice = random(seed, 1 + worker * channels + n);
                scope.spawn(move || serve(device, n as u32, *memory, dice));
            }
            let dice = random(seed, 1000 + n);
            scope.spawn(move || scribble(*memory, dice));
            let dice = random(seed, 1500 + n);
            scope.spawn(move || tidy(*memory, dice));
        }
        let dice = random(seed, 2000);
        scope.spawn(|| write_nonsense(&device, dice));
    });
    Ok(())
}

fn mount(mountpoint: &Path) -> Result<File> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/efuse")
        .context("cannot open /dev/efuse (is efuse.ko loaded?)")?;
    let data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
        device.as_raw_fd()
    );
    let data = CString::new(data)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("hostile", mountpoint, "efuse", flags, Some(data.as_c_str()))
        .with_context(|| format!("cannot mount on {}", mountpoint.display()))?;
    Ok(device)
}

/// INIT, with whatever is on offer, and rings.
fn begin(device: &File, dice: &mut impl Rng) -> Result<Vec<Memory>> {
    let mut buffer = vec![0_u8; 1 << 16];
    let len = (&*device).read(&mut buffer).context("cannot read INIT")?;
    let (header, rest) = InHeader::read_from_prefix(&buffer[..len])
        .ok()
        .context("INIT is too short")?;
    let (init, _) = InitIn::read_from_prefix(rest)
        .ok()
        .context("INIT has no arguments")?;
    let mut setup = RingSetup {
        channels: dice.random_range(0..2),
        depth: 1 << dice.random_range(1..7),
        pages: dice.random_range(520..1100),
        poll_us: dice.random_range(0..200),
        ..RingSetup::default()
    };
    // SAFETY: the request reads and writes one RingSetup behind the pointer.
    if unsafe { libc::ioctl(device.as_raw_fd(), RING_SETUP, &mut setup) } < 0 {
        bail!("cannot make rings: {}", std::io::Error::last_os_error());
    }
    let layout = RingLayout::new(setup.depth, setup.pages);
    let memories: Vec<_> = (0..setup.channels)
        .map(|channel| Memory::map(device, channel, layout))
        .collect::<Result<_>>()?;
    let out = InitOut {
        major: init.major,
        minor: init.minor,
        max_readahead: init.max_readahead,
        // All but what changes the form of requests in ways that only a real daemon gains by.
        flags: init.flags & dice.random::<u32>(),
        max_background: dice.random_range(1..64),
        congestion_threshold: dice.random_range(1..64),
        max_write: 1 << dice.random_range(12..21),
        time_gran: 1,
        max_pages: 256,
        ..InitOut::default()
    };
    let reply = OutHeader {
        len: (size_of::<OutHeader>() + size_of::<InitOut>()) as u32,
        error: 0,
        unique: header.unique,
    };
    let message = [reply.as_bytes(), out.as_bytes()].concat();
    (&*device).write(&message).context("cannot answer INIT")?;
    Ok(memories)
}

/// Where words of the memory are.
impl Memory {
    fn slot(&self, slot: u32, field: usize) -> usize {
        let slot = (slot % self.layout.depth) as usize;
        self.layout.slots + slot * size_of::<RingSlot>() + field
    }

    fn ring(&self, ring: usize, cursor: u32) -> usize {
        ring + 4 * (cursor % self.layout.depth) as usize
    }

    fn complete(&self, value: u32) {
        let tail = self.word(std::mem::offset_of!(RingHeader, complete_tail));
        let cursor = tail.fetch_add(1, Ordering::AcqRel);
        self.set(self.ring(self.layout.complete, cursor), value);
    }
}

fn enter(device: &File, channel: u32, flags: u32) {
    let enter = RingEnter { channel, flags };
    // SAFETY: the request reads one RingEnter behind the pointer.
    if unsafe { libc::ioctl(device.as_raw_fd(), RING_ENTER, &enter) } < 0 {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Takes requests and answers them, more or less.
fn serve(device: &File, channel: u32, memory: Memory, mut dice: impl Rng) {
    let tail = std::mem::offset_of!(RingHeader, pending_tail);
    let head = std::mem::offset_of!(RingHeader, pending_head);
    loop {
        let at = memory.get(head);
        let there = memory.get(tail).wrapping_sub(at);
        if there == 0 || there > memory.layout.depth {
            // The heads of the rings were scribbled over, or there is nothing.
            for (tail, head) in [
                (tail, head),
                (
                    std::mem::offset_of!(RingHeader, intr_tail),
                    std::mem::offset_of!(RingHeader, intr_head),
                ),
                (
                    std::mem::offset_of!(RingHeader, forget_tail),
                    std::mem::offset_of!(RingHeader, forget_head),
                ),
            ] {
                memory.set(head, memory.get(tail));
            }
            let flags = match dice.random_range(0..8) {
                0 => dice.random(),
                1..3 => RING_WAIT,
                3 => RING_WAIT | dice.random_range(0..40) << RING_WAIT_MS_SHIFT,
                _ => 0,
            };
            enter(device, channel, flags);
            if flags & RING_WAIT == 0 {
                thread::sleep(Duration::from_micros(dice.random_range(0..300)));
            }
            continue;
        }
        let slot = memory.get(memory.ring(memory.layout.pending, at));
        memory.set(head, at.wrapping_add(1));
        reply(memory, slot, &mut dice);
        if dice.random_ratio(1, 2) {
            enter(device, channel, 0);
        }
    }
}

/// Answers requests that were lost in the confusion, so that callers come to further ones.
fn tidy(memory: Memory, mut dice: impl Rng) {
    loop {
        for slot in 0..memory.layout.depth {
            let status = memory.get(memory.slot(slot, 0));
            if (SLOT_POLLED..=SLOT_ASYNC).contains(&status) && dice.random_ratio(1, 4) {
                reply(memory, slot, &mut dice);
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn reply(memory: Memory, slot: u32, dice: &mut impl Rng) {
    let field = |offset| memory.slot(slot, offset);
    let request = std::mem::offset_of!(RingSlot, header);
    let opcode = memory.get(field(request + std::mem::offset_of!(InHeader, opcode)));
    let nodeid = memory.get(field(request + std::mem::offset_of!(InHeader, nodeid)));
    let room = memory.get(field(std::mem::offset_of!(RingSlot, out_size)));
    let mut reply = answer::of(opcode, u64::from(nodeid), room.min(1 << 21), dice);
    reply.head.truncate(RING_HEAD);
    memory.put(field(std::mem::offset_of!(RingSlot, head)), &reply.head);
    let mut size = reply.head.len() as u32;
    if dice.random_ratio(1, 8) {
        match dice.random_range(0..4) {
            0 => reply.error = wrong(dice) as i32,
            1 => size = wrong(dice),
            2 => reply.data = wrong(dice),
            _ => (size, reply.data) = (wrong(dice), room.wrapping_add(1)),
        }
    }
    if reply.data != 0 && dice.random_ratio(1, 4) {
        let page = memory.get(field(std::mem::offset_of!(RingSlot, out_page))) as usize;
        for n in 0..16 {
            memory.set(memory.layout.pool + 4096 * page + 4 * n, wrong(dice));
        }
    }
    memory.set(
        field(std::mem::offset_of!(RingSlot, error)),
        reply.error as u32,
    );
    memory.set(field(std::mem::offset_of!(RingSlot, head_size)), size);
    memory.set(field(std::mem::offset_of!(RingSlot, data_size)), reply.data);
    let other = dice.random::<u32>() % memory.layout.depth;
    match dice.random_range(0..40) {
        // Handed over, but not done.
        0 => memory.complete(slot.wrapping_add(1)),
        // Done, but nobody is told.
        1 => memory.set(field(0), SLOT_DONE),
        // Somebody else's.
        2 => memory.set(memory.slot(other, 0), SLOT_DONE),
        3 => memory.complete(other + 1),
        // No slot's.
        4 => memory.complete(wrong(dice)),
        way => {
            let status = memory.word(field(0)).swap(SLOT_DONE, Ordering::AcqRel);
            if status != SLOT_POLLED || way == 5 {
                memory.complete(slot.wrapping_add(1));
            }
            if way == 6 {
                memory.complete(slot.wrapping_add(1));
            }
            if way == 7 {
                memory.set(field(0), wrong(dice));
            }
        }
    }
}

fn wrong(dice: &mut impl Rng) -> u32 {
    match dice.random_range(0..4) {
        0 => dice.random(),
        1 => dice.random_range(0..5000),
        _ => EDGES[dice.random_range(0..EDGES.len())],
    }
}

/// Overwrites words at random, with pauses in which requests get somewhere.
fn scribble(memory: Memory, mut dice: impl Rng) {
    loop {
        let wild = Duration::from_millis(dice.random_range(0..60));
        let begun = Instant::now();
        while begun.elapsed() < wild {
            let at = match dice.random_range(0..8) {
                0..3 => dice.random_range(0..size_of::<RingHeader>()),
                3 => memory.layout.pending + dice.random_range(0..4 * memory.layout.depth) as usize,
                4 => {
                    memory.layout.complete + dice.random_range(0..4 * memory.layout.depth) as usize
                }
                5 | 6 => memory.slot(dice.random(), dice.random_range(0..size_of::<RingSlot>())),
                _ => dice.random_range(0..memory.layout.bytes),
            };
            memory.set(at, wrong(&mut dice));
            thread::sleep(Duration::from_micros(dice.random_range(0..500)));
        }
        thread::sleep(Duration::from_millis(dice.random_range(0..100)));
    }
}

/// Messages by `write()`: notifications and replies to nobody knows what.
fn write_nonsense(device: &File, mut dice: impl Rng) {
    loop {
        let mut payload = vec![0_u8; dice.random_range(0..200)];
        for word in payload.chunks_mut(8) {
            let value = if dice.random() {
                dice.random_range(0..40)
            } else {
                dice.random::<u64>()
            };
            word.copy_from_slice(&value.to_ne_bytes()[..word.len()]);
        }
        let header = OutHeader {
            len: (size_of::<OutHeader>() + payload.len()) as u32,
            error: if dice.random() {
                dice.random_range(0..10)
            } else {
                -(wrong(&mut dice) as i32 % 600)
            },
            unique: if dice.random() {
                0
            } else {
                dice.random_range(0..1000)
            },
        };
        let message = [header.as_bytes(), &payload].concat();
        // Nearly all of them are refused.
        let _ = (&*device).write(&message);
        thread::sleep(Duration::from_micros(dice.random_range(0..4000)));
    }
}
