use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A page-aligned, zeroed block of memory of its own mapping. Pages cost memory once touched.
#[derive(Debug)]
pub struct AlignedBuffer {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is owned by this value alone and has no thread affinity.
unsafe impl Send for AlignedBuffer {}
// SAFETY: shared access is read-only, as for a slice.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// Maps `len` bytes; `len` must not be 0.
    pub fn new(len: usize) -> io::Result<AlignedBuffer> {
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no
        // existing memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(AlignedBuffer { start, len })
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is readable for `len` bytes as long as `self` lives, and zeroed or
        // written since, so initialised.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`, and nobody borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_page_aligned_zeroed_and_writable() {
        let mut buffer = AlignedBuffer::new(3 * 4096 + 1).expect("mmap");
        assert_eq!(buffer.as_ptr() as usize % 4096, 0);
        assert_eq!(buffer.len(), 3 * 4096 + 1);
        assert!(buffer.iter().all(|&byte| byte == 0));
        buffer[3 * 4096] = 7;
        assert_eq!(buffer[3 * 4096], 7);
    }
}
