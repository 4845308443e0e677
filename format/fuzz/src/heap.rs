// SPDX-License-Identifier: GPL-2.0-or-later

//! How much memory something takes: libFuzzer looks once a second, and sees only what was written to.

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Runs something, and proves that it took no more than `most` bytes at once. Only for one thing at a time.
pub fn bounded<T>(most: usize, run: impl FnOnce() -> T) -> T {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let value = run();
    let taken = HEAP.peak_usage().saturating_sub(before);
    assert!(taken <= most, "{taken} bytes of memory, {most} at most");
    value
}
