// SPDX-License-Identifier: GPL-2.0
//! Counts the tests that passed and that failed, prints both, and says where the minutes went.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tesserafs_guest::message::Message;

use crate::advice;

/// The reports of one thread, and the tally of all.
#[derive(Debug)]
pub(crate) struct Report {
    filter: Option<String>,
    prefix: &'static str,
    /// When the last test of this thread ended.
    last: Instant,
    tally: Arc<Mutex<Tally>>,
}

/// The tally of a run.
#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    failures: Vec<String>,
    /// The time of each group: of its tests, and of what was made before each.
    times: Vec<(String, Duration)>,
}

impl Report {
    /// A tally of the tests whose names begin with `filter`.
    pub(crate) fn new(filter: Option<String>) -> Self {
        Self { filter, prefix: "", last: Instant::now(), tally: Arc::default() }
    }

    /// For another thread, which begins now.
    pub(crate) fn share(&self) -> Self {
        let (filter, tally) = (self.filter.clone(), self.tally.clone());
        Self { filter, prefix: self.prefix, last: Instant::now(), tally }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something whose tests have this prefix before their names; the code that asks and reports leaves
    /// it out.
    pub(crate) fn under<T>(&mut self, prefix: &'static str, work: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.prefix, prefix);
        let result = work(self);
        self.prefix = outer;
        result
    }

    /// The name of a test as the filter and the reader know it.
    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Whether a test of this name is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| self.full(name).starts_with(filter.as_str()))
    }

    /// Whether any test of a group is wanted: the filter may name several groups, one, or a test in it.
    pub(crate) fn wants_group(&self, group: &str) -> bool {
        let group = self.full(group);
        self.filter.as_ref().is_none_or(|filter| {
            group.starts_with(filter.as_str()) || filter.starts_with(&format!("{group}/"))
        })
    }

    /// The filter, for those that count tests themselves: nothing where it ends within the prefix.
    pub(crate) fn filter(&self) -> Option<&str> {
        self.filter.as_deref()?.strip_prefix(self.prefix)
    }

    /// Runs one test, if it is wanted.
    pub(crate) fn test(&mut self, name: &str, test: impl FnOnce() -> Result<String>) {
        if !self.wants(name) {
            return;
        }
        let start = Instant::now();
        let result = test();
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(note) => self.passed(name, seconds, &note),
            Err(error) => self.failed(name, &advice::told(&error)),
        }
    }

    /// Charges the time since the last test to the group of this one.
    fn charge(&mut self, name: &str) {
        let name = self.full(name);
        let in_group = name.strip_prefix(self.prefix).unwrap_or(&name);
        let group = format!("{}{}", self.prefix, in_group.split('/').next().unwrap_or_default());
        let now = Instant::now();
        let time = now - std::mem::replace(&mut self.last, now);
        let mut tally = self.tally();
        match tally.times.iter_mut().find(|(known, _)| *known == group) {
            Some((_, sum)) => *sum += time,
            None => tally.times.push((group, time)),
        }
    }

    /// Counts a success.
    pub(crate) fn passed(&mut self, name: &str, seconds: f64, note: &str) {
        self.charge(name);
        self.tally().passed += 1;
        println!("ok    {seconds:7.1} s  {}  {note}", self.full(name));
    }

    /// Counts the results that a machine reports of its tests.
    pub(crate) fn take(&mut self, message: &Message) {
        if let Message::Finished { name, error, note, seconds } = message {
            match error {
                None => self.passed(name, *seconds, note),
                Some(error) => self.failed(name, error),
            }
        }
    }

    /// Counts successes that another program has found.
    pub(crate) fn add_passed(&mut self, name: &str, count: usize) {
        self.charge(name);
        self.tally().passed += count;
        println!("ok               {}  {count} passed", self.full(name));
    }

    /// Counts a failure.
    pub(crate) fn failed(&mut self, name: &str, error: &str) {
        self.charge(name);
        let name = self.full(name);
        println!("FAIL             {name}\n      {}", error.replace('\n', "\n      "));
        self.tally().failures.push(name);
    }

    /// Prints the last lines of a run.
    pub(crate) fn finish(self) -> ExitCode {
        let Tally { passed, failures, times } = std::mem::take(&mut *self.tally());
        if times.len() > 1 {
            println!("Minutes of each group, with what was made for it; groups overlap:");
            for (group, time) in &times {
                println!("{:8.1}  {group}", time.as_secs_f64() / 60.0);
            }
        }
        for name in &failures {
            println!("failed: {name}");
        }
        if passed == 0 && failures.is_empty() {
            println!("no test has this name");
        }
        println!("{} passed, {} failed", passed, failures.len());
        if failures.is_empty() && passed > 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn time_is_charged_to_the_group_of_the_test_that_ends() {
        let mut report = Report::new(None);
        report.passed("source/format", 0.0, "");
        report.passed("source/lints", 0.0, "");
        report.under("stock/", |report| report.passed("stores/killed", 0.0, ""));
        report.failed("preparation", "none");
        let tally = report.tally();
        let groups: Vec<&str> = tally.times.iter().map(|(group, _)| group.as_str()).collect();
        assert_eq!(groups, ["source", "stock/stores", "preparation"]);
    }

    #[test]
    fn a_prefix_is_a_part_of_every_name() {
        let wants = |filter: &str, group: &str, test: &str| {
            Report::new(Some(filter.to_owned())).under("stock/", |report| {
                (report.wants_group(group), report.wants(test), report.filter().map(ToOwned::to_owned))
            })
        };
        assert_eq!(wants("compare", "compare", "compare/root"), (false, false, None));
        assert_eq!(wants("sto", "compare", "compare/root"), (true, true, None));
        let one = Some("compare/root".to_owned());
        assert_eq!(wants("stock/compare/root", "compare", "compare/root"), (true, true, one.clone()));
        assert_eq!(wants("stock/compare/root", "compare", "compare/other"), (true, false, one));
    }
}
