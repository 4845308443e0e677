// SPDX-License-Identifier: GPL-2.0
//! The line that the proxy pretends to be: a delay for each request, and one bandwidth for all connections.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Delay and bandwidth of a line.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Speed {
    /// Before each request goes on.
    pub(crate) delay: Duration,
    /// Of each direction, for all connections together; nothing for no limit.
    pub(crate) bits_per_second: Option<u64>,
}

/// How much may be sent at once after a silence.
const BURST: Duration = Duration::from_millis(5);

/// The line.
#[derive(Debug)]
pub(super) struct Link {
    speed: Speed,
    down: Bucket,
    up: Bucket,
}

/// When one direction is free again.
#[derive(Debug)]
struct Bucket(Mutex<Instant>);

impl Link {
    pub(super) fn new(speed: Speed) -> Self {
        let bucket = || Bucket(Mutex::new(Instant::now()));
        Self { speed, down: bucket(), up: bucket() }
    }

    /// Waits as a request does.
    pub(super) fn delay(&self) {
        std::thread::sleep(self.speed.delay);
    }

    /// Waits until so many bytes have passed to the client.
    pub(super) fn down(&self, bytes: usize) {
        self.down.pass(bytes, self.speed.bits_per_second);
    }

    /// Waits until so many bytes have passed to the registry.
    pub(super) fn up(&self, bytes: usize) {
        self.up.pass(bytes, self.speed.bits_per_second);
    }
}

impl Bucket {
    fn pass(&self, bytes: usize, bits_per_second: Option<u64>) {
        let Some(rate) = bits_per_second else { return };
        let time = Duration::from_secs_f64(bytes as f64 * 8.0 / rate as f64);
        let until = {
            let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            *free = (*free).max(now.checked_sub(BURST).unwrap_or(now)) + time;
            *free
        };
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_share_the_bandwidth() {
        let link = Link::new(Speed { delay: Duration::ZERO, bits_per_second: Some(8_000_000) });
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10).for_each(|_| link.down(5_000)));
            }
        });
        let seconds = begin.elapsed().as_secs_f64();
        // 200 kB at 1 MB/s, without the burst.
        assert!((0.19..0.6).contains(&seconds), "{seconds}");
        let begin = Instant::now();
        Link::new(Speed::default()).down(1 << 30);
        assert!(begin.elapsed() < Duration::from_millis(100));
    }
}
