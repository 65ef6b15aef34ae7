//! Requests over io_uring (Linux 6.14 or newer): the kernel has a queue for each possible CPU, and an
//! entry in a queue is memory that a request is put into. One command gives a reply back and waits for
//! the next request, so a request costs the daemon one system call.
//!
//! INIT, FORGET, INTERRUPT and notifications still go through the device, which worker 0 reads.
//!
//! The layouts are those of `struct fuse_uring_req_header`, `fuse_uring_ent_in_out` and
//! `fuse_uring_cmd_req` in the kernel's `include/uapi/linux/fuse.h`.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::Arc;

use efuse_abi::wire::{InHeader, OutHeader};
use efuse_abi::{Errno, InitFlags, LARGEST_XATTR, MIN_READ_BUFFER, NotifyCode, Opcode};
use io_uring::{IoUring, cqueue, opcode, squeue, types::Fd};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

use crate::buffer::AlignedBuffer;
use crate::cpu::stay_on;
use crate::device::Device;
use crate::transport::{
    BackingFiles, Channel, Exchange, RawRequest, ReceiveError, Transport, TransportError,
};

const REGISTER: u32 = 1;
const COMMIT_AND_FETCH: u32 = 2;

/// Where `len` is in `struct io_uring_sqe`.
const SQE_LEN_AT: usize = 24;

/// Header area of an entry: the header of request or reply, the fixed arguments, what the ring says.
#[repr(C)]
struct Headers {
    in_out: [u8; 128],
    op_in: [u8; 128],
    flags: u64,
    commit_id: u64,
    payload_len: u32,
    padding: u32,
    reserved: u64,
}

/// What a command carries.
#[repr(C)]
struct Command {
    flags: u64,
    commit_id: u64,
    qid: u16,
    padding: [u8; 6],
}

const _: () = assert!(size_of::<Headers>() == 288 && size_of::<Command>() == 24);

/// FUSE over io_uring on `/dev/fuse`.
#[derive(Debug)]
pub struct Uring {
    device: Device,
    workers: usize,
    queues: usize,
    pin: bool,
}

impl Uring {
    /// Requests of a mount made with `device` go to `workers` channels beside the device's own; with
    /// fewer workers than possible CPUs some serve several queues. With `pin`, those that serve one
    /// stay on the CPU whose queue it is.
    ///
    /// # Errors
    /// The number of possible CPUs cannot be read.
    pub fn new(device: Device, workers: usize, pin: bool) -> io::Result<Uring> {
        const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
        let text = fs::read_to_string(POSSIBLE)?;
        let queues = last_cpu(&text)
            .map(|last| last + 1)
            .ok_or_else(|| io::Error::other(format!("{POSSIBLE} says {text:?}")))?;
        Ok(Uring {
            device,
            workers: workers.max(1),
            queues,
            pin,
        })
    }
}

/// The last CPU of a list like "0-3,8".
fn last_cpu(list: &str) -> Option<usize> {
    list.trim().rsplit([',', '-']).next()?.parse().ok()
}

/// The queues of worker `index` of `workers`: every queue has a worker, and every worker a queue.
fn queues_of(index: usize, workers: usize, queues: usize) -> Vec<u16> {
    let own: Vec<u16> = (0..queues)
        .filter(|queue| queue % workers == index)
        .map(|queue| queue as u16)
        .collect();
    if own.is_empty() {
        vec![(index % queues) as u16]
    } else {
        own
    }
}

impl Transport for Uring {
    fn channel(&self, worker: usize, max_write: usize) -> Result<Box<dyn Channel>, TransportError> {
        if worker == 0 {
            return self.device.channel(worker, max_write);
        }
        let queues = queues_of((worker - 1) % self.workers, self.workers, self.queues);
        if let (true, [queue]) = (self.pin, &queues[..]) {
            stay_on(usize::from(*queue));
        }
        UringChannel::new(self.device.file().as_raw_fd(), &queues, max_write)
            .map(|channel| Box::new(channel) as Box<dyn Channel>)
            .map_err(|source| TransportError {
                worker,
                what: format!("register with FUSE's io_uring queues {queues:?}"),
                source,
            })
    }

    fn notify(&self, code: NotifyCode, parts: &[&[u8]]) -> Result<(), Errno> {
        self.device.notify(code, parts)
    }

    fn backing(&self) -> Option<Arc<dyn BackingFiles>> {
        self.device.backing()
    }

    fn needs(&self) -> InitFlags {
        InitFlags::OVER_IO_URING
    }

    fn extra_workers(&self) -> usize {
        1
    }
}

/// Memory for one request at a time.
struct Entry {
    queue: u16,
    headers: AlignedBuffer,
    payload: AlignedBuffer,
    /// Both, as the kernel is told when the entry is registered.
    areas: Box<[libc::iovec; 2]>,
}

// SAFETY: the addresses in `areas` are of the entry's own buffers.
unsafe impl Send for Entry {}

impl Entry {
    fn new(queue: u16, payload_len: usize) -> io::Result<Entry> {
        let mut headers = AlignedBuffer::new(size_of::<Headers>())?;
        let mut payload = AlignedBuffer::new(payload_len)?;
        let area = |start: &mut [u8]| libc::iovec {
            iov_base: start.as_mut_ptr().cast(),
            iov_len: start.len(),
        };
        let areas = Box::new([area(&mut headers), area(&mut payload)]);
        Ok(Entry {
            queue,
            headers,
            payload,
            areas,
        })
    }

    fn word(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.headers[at..at + 8].try_into().expect("eight bytes"))
    }

    fn payload_len(&self) -> usize {
        let at = offset_of!(Headers, payload_len);
        let len = u32::from_ne_bytes(self.headers[at..at + 4].try_into().expect("four bytes"));
        (len as usize).min(self.payload.len())
    }

    fn command(&self, op: u32, fd: RawFd, index: usize) -> squeue::Entry128 {
        let mut bytes = [0; 80];
        let register = op == REGISTER;
        if !register {
            let at = offset_of!(Command, commit_id);
            let id = self.word(offset_of!(Headers, commit_id));
            bytes[at..at + 8].copy_from_slice(&id.to_ne_bytes());
        }
        let at = offset_of!(Command, qid);
        bytes[at..at + 2].copy_from_slice(&self.queue.to_ne_bytes());
        let mut command = opcode::UringCmd80::new(Fd(fd), op)
            .cmd(bytes)
            .addr(register.then_some(self.areas.as_ptr() as u64))
            .build()
            .user_data(index as u64);
        if register {
            let len = (&raw mut command).cast::<u8>().wrapping_add(SQE_LEN_AT);
            // SAFETY: an entry is a `struct io_uring_sqe` of 128 bytes with a word `len` there,
            // which the crate has no way to set for this opcode.
            unsafe { len.cast::<u32>().write_unaligned(2) };
        }
        command
    }
}

struct UringChannel {
    ring: IoUring<squeue::Entry128, cqueue::Entry>,
    fd: RawFd,
    entries: Vec<Entry>,
    /// Entries that had a request when the channel was made.
    ready: VecDeque<usize>,
    /// The entry whose request was received last and has no reply yet.
    owed: Option<usize>,
    header: InHeader,
    /// Bytes of fixed arguments.
    fixed: usize,
    /// Arguments that came as payload, so that the entry's payload is free for the reply.
    arguments: Vec<u8>,
    /// Whether the payload is left in the entry, being the data of a WRITE.
    write: bool,
    /// Where replies put data that have none.
    spare: AlignedBuffer,
}

impl UringChannel {
    fn new(fd: RawFd, queues: &[u16], max_write: usize) -> io::Result<UringChannel> {
        let mut ring = IoUring::builder()
            .setup_coop_taskrun()
            .build(queues.len().next_power_of_two() as u32)?;
        let payload_len = max_write.max(MIN_READ_BUFFER).max(LARGEST_XATTR);
        let entries = queues
            .iter()
            .map(|queue| Entry::new(*queue, payload_len))
            .collect::<io::Result<Vec<_>>>()?;
        for (index, entry) in entries.iter().enumerate() {
            push(&mut ring, &entry.command(REGISTER, fd, index))?;
        }
        ring.submit()?;
        // What the kernel refuses is complete at once. A request may be there already, too.
        let mut ready = VecDeque::new();
        for done in ring.completion() {
            if done.result() < 0 {
                return Err(io::Error::from_raw_os_error(-done.result()));
            }
            ready.push_back(done.user_data() as usize);
        }
        Ok(UringChannel {
            ring,
            fd,
            entries,
            ready,
            owed: None,
            header: InHeader::new_zeroed(),
            fixed: 0,
            arguments: Vec::new(),
            write: false,
            spare: AlignedBuffer::new(max_write.max(LARGEST_XATTR))?,
        })
    }

    /// Takes in what the kernel put into an entry.
    fn take(&mut self, index: usize) -> Result<(), ReceiveError> {
        let entry = &self.entries[index];
        self.owed = Some(index);
        self.header = InHeader::read_from_prefix(&entry.headers)
            .map_err(|_| ReceiveError::Io(io::ErrorKind::InvalidData.into()))?
            .0;
        let payload = entry.payload_len();
        self.fixed = (self.header.len as usize)
            .saturating_sub(size_of::<InHeader>() + payload)
            .min(offset_of!(Headers, flags) - offset_of!(Headers, op_in));
        self.write = self.header.opcode == Opcode::Write as u32;
        self.arguments.clear();
        if !self.write {
            self.arguments.extend_from_slice(&entry.payload[..payload]);
        }
        Ok(())
    }

    /// Puts a reply's header in place and hands the entry back. Goes to the kernel with the next wait.
    fn commit(&mut self, index: usize, header: OutHeader, payload: usize) -> io::Result<()> {
        let entry = &mut self.entries[index];
        entry.headers[..size_of::<OutHeader>()].copy_from_slice(header.as_bytes());
        let at = offset_of!(Headers, payload_len);
        entry.headers[at..at + 4].copy_from_slice(&(payload as u32).to_ne_bytes());
        let command = entry.command(COMMIT_AND_FETCH, self.fd, index);
        push(&mut self.ring, &command)
    }
}

fn push(
    ring: &mut IoUring<squeue::Entry128, cqueue::Entry>,
    command: &squeue::Entry128,
) -> io::Result<()> {
    // SAFETY: a command refers to memory of its entry, which lives as long as the ring; the kernel
    // lets go of it when the descriptor of the ring is closed.
    unsafe { ring.submission().push(command) }
        .map_err(|_| io::Error::other("the submission queue is full"))
}

impl Channel for UringChannel {
    fn receive(&mut self) -> Result<(), ReceiveError> {
        // No handler leaves a request here without a reply but one that broke.
        if let Some(index) = self.owed.take() {
            let header = OutHeader {
                len: size_of::<OutHeader>() as u32,
                error: Errno::EIO.wire(),
                unique: self.header.unique,
            };
            self.commit(index, header, 0).map_err(ReceiveError::Io)?;
        }
        loop {
            // Replies go to the kernel before anything else is done, or their callers would wait
            // for the next request's handler.
            let waiting = self.ready.is_empty() && self.ring.completion().is_empty();
            match self.ring.submit_and_wait(usize::from(waiting)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReceiveError::Io(error)),
            }
            if let Some(index) = self.ready.pop_front() {
                return self.take(index);
            }
            let done = self.ring.completion().next();
            if let Some(done) = done {
                match done.result() {
                    0.. => return self.take(done.user_data() as usize),
                    error => match Errno::from_raw(-error) {
                        Errno::ENOTCONN | Errno::ENODEV | Errno::ECONNABORTED => {
                            return Err(ReceiveError::Closed);
                        }
                        errno => return Err(ReceiveError::Io(errno.into())),
                    },
                }
            }
        }
    }

    fn exchange(&mut self) -> Exchange<'_> {
        let Some(index) = self.owed else {
            return Exchange {
                request: RawRequest::Whole(&[]),
                data: &mut self.spare,
            };
        };
        let entry = &mut self.entries[index];
        let at = offset_of!(Headers, op_in);
        let payload = entry.payload_len();
        let inline = &entry.headers[at..at + self.fixed];
        let (external, data) = if self.write {
            (&entry.payload[..payload], &mut *self.spare)
        } else {
            (&self.arguments[..], &mut *entry.payload)
        };
        Exchange {
            request: RawRequest::Parts {
                header: &self.header,
                inline,
                external,
            },
            data,
        }
    }

    fn reply(
        &mut self,
        unique: u64,
        result: Result<(), Errno>,
        head: &[u8],
        data: usize,
    ) -> Result<(), Errno> {
        let index = self.owed.take().ok_or(Errno::ENOENT)?;
        let (error, head, data) = match result {
            Ok(()) => (0, head, data),
            Err(errno) => (errno.wire(), &[][..], 0),
        };
        let payload = &mut self.entries[index].payload;
        let room = payload.len();
        if head.len() + data > room {
            self.owed = Some(index);
            return Err(Errno::EINVAL);
        }
        if self.write && data > 0 {
            payload[head.len()..head.len() + data].copy_from_slice(&self.spare[..data]);
        } else if !head.is_empty() {
            payload.copy_within(..data, head.len());
        }
        payload[..head.len()].copy_from_slice(head);
        let header = OutHeader {
            len: (size_of::<OutHeader>() + head.len() + data) as u32,
            error,
            unique,
        };
        Ok(self.commit(index, header, head.len() + data)?)
    }
}

#[cfg(test)]
mod tests {
    use super::{last_cpu, queues_of};

    #[test]
    fn the_last_possible_cpu() {
        assert_eq!(last_cpu("0-3\n"), Some(3));
        assert_eq!(last_cpu("0\n"), Some(0));
        assert_eq!(last_cpu("0-3,8-11"), Some(11));
        assert_eq!(last_cpu("\n"), None);
    }

    #[test]
    fn every_queue_has_a_worker_and_every_worker_a_queue() {
        for workers in 1..20 {
            for queues in 1..20 {
                let all: Vec<Vec<u16>> = (0..workers)
                    .map(|n| queues_of(n, workers, queues))
                    .collect();
                assert!(all.iter().all(|own| !own.is_empty()));
                for queue in 0..queues as u16 {
                    assert!(all.iter().flatten().any(|own| *own == queue));
                }
            }
        }
    }
}
