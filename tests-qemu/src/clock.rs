// SPDX-License-Identifier: GPL-2.0
//! How long each part of a verb took, and how much came over the network meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The parts so far.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    received: u64,
    parts: Vec<(String, Duration)>,
}

impl Clock {
    pub(crate) fn start() -> Result<Self> {
        Ok(Self { start: Instant::now(), received: received()?, parts: Vec::new() })
    }

    /// Does a part.
    pub(crate) fn part<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = work();
        self.parts.push((name.to_owned(), start.elapsed()));
        result
    }

    /// A line for each part, and one for all.
    pub(crate) fn lines(&self) -> Result<Vec<String>> {
        let width = self.parts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let line = |name: &str, time| format!("{name:<width$}  {:>8}", shown(time));
        let mut lines: Vec<String> = self.parts.iter().map(|(name, time)| line(name, *time)).collect();
        lines.push(line("all", self.start.elapsed()));
        let bytes = received()?.saturating_sub(self.received);
        lines.push(format!("{} MB came over the network", bytes / 1_000_000));
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
    fn times_are_shown_as_people_say_them() {
        assert_eq!(shown(Duration::from_millis(59_900)), "59 s");
        assert_eq!(shown(Duration::from_secs(61)), "1 min 01 s");
    }
}
