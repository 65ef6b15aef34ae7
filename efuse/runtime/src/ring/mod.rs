//! Ring channels of `/dev/efuse`: requests and replies in memory that is shared with the kernel.

mod bench;
mod channel;
mod memory;
#[cfg(test)]
mod words;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use efuse_abi::ring::{RING_BALANCE, RING_SETUP, RingLayout, RingSetup, ring_map_offset};
use efuse_abi::{Errno, NotifyCode};

use crate::device::Device;
use crate::transport::{BackingFiles, Channel, Exchange, ReceiveError, Transport, TransportError};
pub use bench::BenchChannel;
use channel::RingChannel;
use memory::Memory;

/// How rings are made. 0 stands for the kernel's choice, except for times.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Channels, at most one per processor; 0: one for each.
    pub channels: u32,
    /// Requests in a channel at once, a power of two.
    pub depth: u32,
    /// Pages of 4 KiB for arguments and data, in each channel.
    pub pages: u32,
    /// How long callers look for their reply before they sleep, in microseconds; 0: not at all.
    pub poll_us: u32,
    /// How long a worker looks for a request before it sleeps; not at all if it is kept on the
    /// processor of its callers, or there is no other.
    pub spin: Duration,
    /// Keep the workers of a channel on its processor, if there is a channel for each.
    pub pin: bool,
    /// Let requests go to channels of other processors if their own is busy.
    pub balance: bool,
}

impl Default for RingConfig {
    fn default() -> RingConfig {
        RingConfig {
            channels: 0,
            depth: 0,
            pages: 0,
            poll_us: 50,
            spin: Duration::from_micros(50),
            pin: false,
            balance: true,
        }
    }
}

/// The rings of a connection.
///
/// INIT is read from the device, the rings are made before it is answered, and everything after it
/// comes by them. Worker `n` serves channel `n` modulo their number.
#[derive(Debug)]
pub struct Rings {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    device: Device,
    config: RingConfig,
    channels: u32,
    made: OnceLock<Vec<Arc<Mapping>>>,
}

/// A channel's memory, unmapped when the last worker has ended.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    memory: Memory,
}

// SAFETY: the mapping has no thread affinity; `Memory` says how its contents are used.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `map`, and every user of it holds an Arc.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

impl Rings {
    /// Rings on a connection that is mounted and has not answered INIT.
    #[must_use]
    pub fn new(device: Device, config: RingConfig) -> Rings {
        // SAFETY: no pointers are involved.
        let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
        let cpus = u32::try_from(cpus).unwrap_or(1).max(1);
        let channels = match config.channels {
            0 => cpus,
            n => n.min(cpus),
        };
        let pin = config.pin && channels == cpus;
        // It would be in the way of those it waits for.
        let alone = std::thread::available_parallelism().is_ok_and(|n| n.get() == 1);
        Rings {
            inner: Arc::new(Inner {
                device,
                config: RingConfig {
                    pin,
                    spin: if pin || alone {
                        Duration::ZERO
                    } else {
                        config.spin
                    },
                    ..config
                },
                channels,
                made: OnceLock::new(),
            }),
        }
    }
}

impl Inner {
    fn make(&self) -> io::Result<()> {
        if self.made.get().is_some() {
            return Ok(());
        }
        let file = self.device.file();
        let mut setup = RingSetup {
            channels: self.channels,
            depth: self.config.depth,
            pages: self.config.pages,
            poll_us: self.config.poll_us,
            flags: if self.config.balance { RING_BALANCE } else { 0 },
            ..RingSetup::default()
        };
        // SAFETY: the request reads and writes one RingSetup behind the pointer.
        if unsafe { libc::ioctl(file.as_raw_fd(), RING_SETUP, &mut setup) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let layout = RingLayout::new(setup.depth, setup.pages);
        if layout.bytes != setup.bytes as usize {
            let text = format!(
                "the kernel's channels have {} bytes, not {}",
                setup.bytes, layout.bytes
            );
            return Err(io::Error::other(text));
        }
        let mappings = (0..setup.channels)
            .map(|index| map(file, index, layout).map(Arc::new))
            .collect::<io::Result<_>>()?;
        let _ = self.made.set(mappings);
        Ok(())
    }
}

fn map(file: &File, index: u32, layout: RingLayout) -> io::Result<Mapping> {
    // SAFETY: a mapping at an address of the kernel's choice touches no existing memory.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            layout.bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            ring_map_offset(index),
        )
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
    // SAFETY: mapped just now, for as long as the `Mapping` lives that owns the `Memory`.
    let memory = unsafe { Memory::new(base, layout) };
    Ok(Mapping {
        base,
        bytes: layout.bytes,
        memory,
    })
}

impl Transport for Rings {
    fn channel(&self, worker: usize, max_write: usize) -> Result<Box<dyn Channel>, TransportError> {
        if self.inner.made.get().is_some() {
            Ok(Box::new(self.inner.channel(worker, worker, None)?))
        } else {
            Ok(Box::new(FirstChannel {
                inner: Arc::clone(&self.inner),
                device: Some(self.inner.device.channel(worker, max_write)?),
                ring: None,
                worker,
            }))
        }
    }

    fn workers_at_least(&self) -> usize {
        self.inner.channels as usize
    }

    fn lanes(&self) -> usize {
        self.inner.made.get().map_or(0, Vec::len)
    }

    fn untaken(&self, lane: usize) -> bool {
        let made = self.inner.made.get();
        made.is_some_and(|made| made[lane].memory.has_work())
    }

    fn extra_channel(
        &self,
        lane: usize,
        worker: usize,
        patience: Duration,
    ) -> Result<Box<dyn Channel>, TransportError> {
        let channel = self.inner.channel(worker, lane, Some(patience))?;
        Ok(Box::new(channel))
    }

    fn notify(&self, code: NotifyCode, parts: &[&[u8]]) -> Result<(), Errno> {
        self.inner.device.notify(code, parts)
    }

    fn backing(&self) -> Option<Arc<dyn BackingFiles>> {
        self.inner.device.backing()
    }
}

impl Inner {
    /// An end of channel `index` modulo their number.
    fn channel(
        &self,
        worker: usize,
        index: usize,
        patience: Option<Duration>,
    ) -> Result<RingChannel, TransportError> {
        let error = |what: &str, source| TransportError {
            worker,
            what: what.to_owned(),
            source,
        };
        let mappings = self
            .made
            .get()
            .ok_or_else(|| error("find the rings", io::ErrorKind::NotFound.into()))?;
        let index = index % mappings.len();
        let file = self
            .device
            .clone_descriptor()
            .map_err(|source| error("clone the descriptor", source))?;
        Ok(RingChannel::new(
            Arc::clone(&mappings[index]),
            file,
            index as u32,
            self.config.pin.then_some(index),
            self.config.spin,
            patience,
        ))
    }
}

/// The first worker's: the device until INIT is answered, then a ring.
struct FirstChannel {
    inner: Arc<Inner>,
    device: Option<Box<dyn Channel>>,
    ring: Option<RingChannel>,
    worker: usize,
}

impl FirstChannel {
    fn now(&mut self) -> Option<&mut dyn Channel> {
        match (&mut self.ring, &mut self.device) {
            (Some(ring), _) => Some(ring),
            (None, Some(device)) => Some(&mut **device),
            (None, None) => None,
        }
    }
}

impl Channel for FirstChannel {
    fn receive(&mut self) -> Result<(), ReceiveError> {
        self.now().ok_or(ReceiveError::Closed)?.receive()
    }

    fn exchange(&mut self) -> Exchange<'_> {
        match self.now() {
            Some(channel) => channel.exchange(),
            None => Exchange {
                request: crate::RawRequest::Whole(&[]),
                data: &mut [],
            },
        }
    }

    fn reply(
        &mut self,
        unique: u64,
        result: Result<(), Errno>,
        head: &[u8],
        data: usize,
    ) -> Result<(), Errno> {
        if let Some(ring) = &mut self.ring {
            return ring.reply(unique, result, head, data);
        }
        if result.is_ok() {
            self.inner.make()?;
            let ring = self.inner.channel(self.worker, self.worker, None);
            self.ring = Some(ring.map_err(|error| Errno::from(error.source))?);
        }
        let device = self.device.as_mut().ok_or(Errno::ENODEV)?;
        device.reply(unique, result, head, data)?;
        if self.ring.is_some() {
            self.device = None;
        }
        Ok(())
    }
}
