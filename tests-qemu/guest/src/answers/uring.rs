// SPDX-License-Identifier: GPL-2.0
//! One read by `io_uring`, and whether the kernel needed a worker for it.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{ensure, Context, Result};

use super::raw::answer;
use crate::mounts::{drop_caches, Mount};

/// Bytes of the mapping with both rings' heads, tails and entries: more than a ring of one takes.
const RINGS: usize = 4096;

/// `IORING_OFF_SQES`.
const ENTRIES: i64 = 0x1000_0000;

/// `IORING_OP_READ`.
const READ: u8 = 22;

/// A ring for one request at a time.
struct Ring {
    file: File,
    /// `struct io_uring_params`, as the kernel filled it in.
    params: [u32; 30],
    rings: *mut u8,
    entries: *mut u64,
}

impl Ring {
    fn new() -> Result<Self> {
        let mut params = [0_u32; 30];
        // SAFETY: The parameters have the 120 bytes that the call reads and writes.
        let fd = answer(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) })
            .context("failed to make a ring")?;
        // SAFETY: The call has just returned this descriptor, and nobody else owns it.
        let file = unsafe { File::from_raw_fd(fd as i32) };
        let map = |offset| -> Result<*mut u8> {
            let (rights, none) = (libc::PROT_READ | libc::PROT_WRITE, std::ptr::null_mut());
            // SAFETY: It goes where nothing is mapped.
            let address =
                unsafe { libc::mmap(none, RINGS, rights, libc::MAP_SHARED, file.as_raw_fd(), offset) };
            answer(address as i64).context("failed to map a ring")?;
            Ok(address.cast())
        };
        Ok(Self { rings: map(0)?, entries: map(ENTRIES)?.cast(), params, file })
    }

    /// A word of the rings, where the parameters say.
    fn word(&self, parameter: usize) -> &AtomicU32 {
        let offset = self.params[parameter] as usize;
        assert!(offset + 4 <= RINGS, "a ring has a word at {offset}");
        // SAFETY: The place is in the mapping, which is there as long as `self`, and aligned; the kernel writes it, too,
        // and atomically.
        unsafe { &*self.rings.add(offset).cast() }
    }

    /// Submits one read and does not wait for it; its result, if it is done then.
    fn read(&self, file: &File, buffer: &mut [u8]) -> Result<Option<i32>> {
        let entry: [u64; 8] = [
            u64::from(READ) | (file.as_raw_fd() as u64) << 32,
            0,
            buffer.as_mut_ptr() as u64,
            buffer.len() as u64,
            77,
            0,
            0,
            0,
        ];
        // SAFETY: The mapping has room for an entry, and the kernel reads none before it is told to.
        unsafe { self.entries.cast::<[u64; 8]>().write_volatile(entry) };
        // The offsets of the submission ring begin at word 10 (head, tail, mask, entries, flags, dropped, array), those of
        // the completion ring at word 20 (head, tail, mask, entries, overflow, cqes).
        let (tail, array, done, completions) = (self.word(11), self.word(16), self.word(21), self.params[25]);
        array.store(0, Ordering::Relaxed);
        tail.fetch_add(1, Ordering::Release);
        let before = done.load(Ordering::Acquire);
        let none = std::ptr::null::<u8>();
        let ring = self.file.as_raw_fd();
        // SAFETY: The entry names `buffer`, which the caller keeps until the read is over (see `test`).
        let submitted = answer(unsafe { libc::syscall(libc::SYS_io_uring_enter, ring, 1, 0, 0, none, 0) });
        ensure!(submitted.context("failed to submit")? == 1, "nothing was submitted");
        if done.load(Ordering::Acquire) == before {
            return Ok(None);
        }
        let place = completions as usize + 16 * (before as usize % 2) + 8;
        assert!(place + 4 <= RINGS, "a completion at {place}");
        // SAFETY: The place is in the mapping, aligned, and the kernel has written it, as the tail says.
        Ok(Some(unsafe { self.rings.add(place).cast::<i32>().read_volatile() }))
    }
}

/// Threads of this process that the kernel made for io_uring.
fn workers() -> Result<usize> {
    let tasks = std::fs::read_dir("/proc/self/task").context("failed to list threads")?;
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    Ok(names.filter(|name| name.starts_with("iou-wrk")).count())
}

/// A read of bytes in memory is done when the submission returns, by no other thread.
pub(super) fn test(mount: &Mount) -> Result<String> {
    let path = mount.path().join("large");
    drop_caches()?;
    let whole = std::fs::read(&path).context("failed to read")?;
    let ring = Ring::new()?;
    let file = File::open(&path).context("failed to open")?;
    // For good: a read that is not over when it should be may still write there.
    let buffer = Box::leak(vec![0; 65536].into_boxed_slice());
    let n = ring.read(&file, buffer)?;
    ensure!(n == Some(65536), "the read gave {n:?}");
    ensure!(buffer[..] == whole[..65536], "the bytes are wrong");
    let workers = workers()?;
    ensure!(workers == 0, "{workers} workers were needed");
    Ok(String::new())
}
