// SPDX-License-Identifier: GPL-2.0
//! How long each part of a verb took, and what came over the network meanwhile.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{anyhow, Context, Result};

/// How often the network is looked at.
const SAMPLE: Duration = Duration::from_millis(200);

/// So many bytes in a sample are more than what machines always tell each other.
const TRAFFIC: u64 = 20_000;

/// The parts so far.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    parts: Mutex<Vec<(String, Duration)>>,
    network: JoinHandle<Result<Network>>,
    /// The network is watched as long as this lives.
    watched: Sender<()>,
}

/// The traffic of the network.
#[derive(Debug, Default, PartialEq, Eq)]
struct Network {
    bytes: u64,
    /// The time in which something came.
    time: Duration,
}

impl Network {
    /// A sample of so many bytes.
    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        if bytes >= TRAFFIC {
            self.time += SAMPLE;
        }
    }
}

impl Clock {
    pub(crate) fn start() -> Result<Self> {
        let (watched, end) = mpsc::channel();
        let mut before = received()?;
        let network = std::thread::spawn(move || {
            let mut network = Network::default();
            loop {
                let goes_on = end.recv_timeout(SAMPLE) == Err(RecvTimeoutError::Timeout);
                let now = received()?;
                network.add(now.saturating_sub(before));
                before = now;
                if !goes_on {
                    return Ok(network);
                }
            }
        });
        Ok(Self { start: Instant::now(), parts: Mutex::default(), network, watched })
    }

    /// Does a part.
    pub(crate) fn part<T>(&self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = work();
        let part = (name.to_owned(), start.elapsed());
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).push(part);
        result
    }

    /// The time since the start.
    pub(crate) fn elapsed(&self) -> String {
        shown(self.start.elapsed())
    }

    /// A line for each part, in the order in which they ended, and for all.
    pub(crate) fn stop(self) -> Result<Vec<String>> {
        let all = self.start.elapsed();
        let parts = self.parts.into_inner().unwrap_or_else(PoisonError::into_inner);
        let width = parts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let line = |name: &str, time| format!("{name:<width$}  {:>8}", shown(time));
        let mut lines: Vec<String> = parts.iter().map(|(name, time)| line(name, *time)).collect();
        lines.push(line("all", all));
        drop(self.watched);
        let Network { bytes, time } = self.network.join().map_err(|_| anyhow!("the clock panicked"))??;
        lines.push(format!("{} MB came over the network, in {}", bytes / 1_000_000, shown(time)));
        Ok(lines)
    }
}

/// Minutes and seconds.
fn shown(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds / 60 {
        0 => format!("{seconds} s"),
        minutes => format!("{minutes} min {:02} s", seconds % 60),
    }
}

/// Bytes that the machine has received, by whatever program, since its start.
fn received() -> Result<u64> {
    let table = std::fs::read_to_string("/proc/net/dev").context("failed to read /proc/net/dev")?;
    Ok(sum(&table))
}

/// Of a table of network devices: bytes that came from other machines.
fn sum(table: &str) -> u64 {
    let devices = table.lines().filter_map(|line| line.split_once(':'));
    let others = devices.filter(|(name, _)| name.trim() != "lo");
    others.filter_map(|(_, numbers)| numbers.split_whitespace().next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_says_to_itself_did_not_come_over_the_network() {
        let table = "Inter-|   Receive                |  Transmit\n face |bytes    packets errs |bytes\n\
                     \x20   lo: 1000 10 0 0 0 0 0 0 1000 10\n  eth0:  200 2 0 0 0 0 0 0 7 1\n  eth1: 30 1 0 0 0 0 0 0 7 1\n";
        assert_eq!(sum(table), 230);
    }

    #[test]
    fn only_what_comes_takes_time() {
        let mut network = Network::default();
        for bytes in [TRAFFIC, 0, 100, TRAFFIC + 1] {
            network.add(bytes);
        }
        assert_eq!(network, Network { bytes: 2 * TRAFFIC + 101, time: 2 * SAMPLE });
    }

    #[test]
    fn times_are_shown_as_people_say_them() {
        assert_eq!(shown(Duration::from_millis(59_900)), "59 s");
        assert_eq!(shown(Duration::from_secs(61)), "1 min 01 s");
    }
}
