//! A channel's memory as words, each of which anybody may change at any time.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};
use efuse_abi::ring::{RingLayout, ring_map_offset};

/// The memory of one channel, mapped until the process ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    words: &'static [AtomicU32],
    pub(crate) layout: RingLayout,
}

impl Memory {
    /// Maps a channel of the device.
    pub(crate) fn map(device: &File, channel: u32, layout: RingLayout) -> Result<Memory> {
        // SAFETY: a mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                layout.bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                device.as_raw_fd(),
                ring_map_offset(channel),
            )
        };
        if base == libc::MAP_FAILED {
            bail!(
                "cannot map channel {channel}: {}",
                std::io::Error::last_os_error()
            );
        }
        // SAFETY: mapped just now for so many bytes, aligned to a page, never unmapped, and only
        // ever accessed as these atomic words.
        let words = unsafe { std::slice::from_raw_parts(base.cast(), layout.bytes / 4) };
        Ok(Memory { words, layout })
    }

    /// The word at this many bytes from the start, which wraps at the end.
    pub(crate) fn word(&self, at: usize) -> &'static AtomicU32 {
        &self.words[at / 4 % self.words.len()]
    }

    pub(crate) fn get(&self, at: usize) -> u32 {
        self.word(at).load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, at: usize, value: u32) {
        self.word(at).store(value, Ordering::Release);
    }

    /// Copies bytes to a place, whole words of them.
    pub(crate) fn put(&self, at: usize, bytes: &[u8]) {
        for (n, chunk) in bytes.chunks(4).enumerate() {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            self.set(at + 4 * n, u32::from_ne_bytes(word));
        }
    }
}
