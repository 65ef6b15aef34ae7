//! What the benchmark of rings calls, and nobody else: a channel on ordinary memory.

use std::hint::black_box;
use std::io;
use std::ptr::NonNull;

use efuse_abi::ring::RingLayout;
use efuse_abi::wire::ForgetOne;

use super::memory::Memory;
use crate::buffer::AlignedBuffer;

/// A channel without a kernel.
#[derive(Debug)]
pub struct BenchChannel {
    memory: Memory,
    buffer: AlignedBuffer,
}

impl BenchChannel {
    /// All of its memory is zero.
    pub fn new(layout: RingLayout) -> io::Result<BenchChannel> {
        let mut buffer = AlignedBuffer::new(layout.bytes)?;
        let base = NonNull::new(buffer.as_mut_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: page aligned and as long as the layout; the buffer is kept beside it.
        let memory = unsafe { Memory::new(base, layout) };
        Ok(BenchChannel { memory, buffer })
    }

    /// Where the kernel's side writes.
    pub fn base(&self) -> *mut u8 {
        self.buffer.as_ptr().cast_mut()
    }

    /// Takes a request, looks at its arguments and answers it with a head of 16 bytes. Whether there
    /// was one, and whether the kernel had to be entered.
    pub fn serve(&self) -> Option<bool> {
        let taken = self.memory.take_request()?;
        // SAFETY: taken just now, and nothing of it is borrowed any more when it is answered.
        unsafe {
            let (inline, _, _) = self.memory.parts(&taken);
            black_box(inline);
            Some(self.memory.answer(taken.slot, 0, &[0; 16], 0))
        }
    }

    /// Whether there is anything to take.
    pub fn has_work(&self) -> bool {
        self.memory.has_work()
    }

    /// Takes FORGETs, up to so many.
    pub fn take_forgets(&self, into: &mut Vec<ForgetOne>, max: u32) -> bool {
        self.memory.take_forgets(into, max).is_some()
    }
}
