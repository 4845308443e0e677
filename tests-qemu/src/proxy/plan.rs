// SPDX-License-Identifier: GPL-2.0
//! Which requests a fault meets: by rules, or at random from a seed.

use std::net::SocketAddr;
use std::time::Duration;

use super::Fault;
use crate::http::Request;

/// The plan by which the proxy treats requests.
#[derive(Debug, Default)]
pub(crate) enum Plan {
    /// Nothing.
    #[default]
    Honest,
    /// The first rule that meets a request.
    Rules(Vec<Rule>),
    /// Faults at random.
    Random(Box<Random>),
}

/// A fault, and the requests that it meets.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// Methods, or any if there is none.
    methods: Vec<&'static str>,
    /// What the path, with its query, must have in it.
    part: String,
    /// So many of those requests pass before.
    after: u64,
    /// So many are met then.
    times: u64,
    fault: Fault,
    seen: u64,
}

impl Rule {
    /// Each GET of a blob.
    pub(crate) fn blobs(fault: Fault) -> Self {
        Self::new("/blobs/sha256:", fault)
    }

    /// Each GET of a path that has this in it.
    pub(crate) fn new(part: impl Into<String>, fault: Fault) -> Self {
        let methods = vec!["GET"];
        Self { methods, part: part.into(), after: 0, times: u64::MAX, fault, seen: 0 }
    }

    /// The requests of these methods.
    pub(crate) fn methods(self, methods: &[&'static str]) -> Self {
        Self { methods: methods.to_vec(), ..self }
    }

    /// So many of them, after so many others.
    pub(crate) fn times(self, after: u64, times: u64) -> Self {
        Self { after, times, ..self }
    }

    fn meets(&mut self, request: &Request) -> bool {
        let is_one = (self.methods.is_empty() || self.methods.contains(&&*request.method))
            && request.target.contains(&self.part);
        if !is_one {
            return false;
        }
        self.seen += 1;
        self.seen > self.after && self.seen - self.after <= self.times
    }
}

/// Faults at random: a seed repeats the plan, as far as the client repeats the order of its requests.
#[derive(Debug)]
pub(crate) struct Random {
    numbers: fastrand::Rng,
    /// Of how many requests one is met, on average.
    one_of: u32,
    /// Paths of other blobs of the repository.
    others: Vec<String>,
    /// A server that answers nothing, and an address where there is none.
    slow: SocketAddr,
    dead: SocketAddr,
}

/// How seldom, and how often, a plan's faults are.
const ONE_OF: std::ops::Range<u32> = 2..20;

impl Random {
    /// A plan; `others` are targets of blobs that are not the wanted ones.
    pub(crate) fn new(seed: u64, others: Vec<String>, slow: SocketAddr, dead: SocketAddr) -> Self {
        let mut numbers = fastrand::Rng::with_seed(seed);
        let one_of = numbers.u32(ONE_OF);
        Self { numbers, one_of, others, slow, dead }
    }

    /// What happens to the next request.
    fn next(&mut self, request: &Request) -> Option<Fault> {
        if !matches!(&*request.method, "GET" | "HEAD") || self.numbers.u32(0..self.one_of) > 0 {
            return None;
        }
        // Most of them near the beginning, where heads and tables are.
        let mut place = || {
            let bits = self.numbers.u32(0..22);
            self.numbers.u64(0..=1 << bits)
        };
        let place = place();
        let numbers = &mut self.numbers;
        Some(match numbers.u32(0..15) {
            0 => Fault::Hang,
            1 | 2 => Fault::Cut(place),
            3 => Fault::Truncate(place),
            4 | 5 => Fault::Flip(place),
            6 => Fault::Whole,
            7 => Fault::Status([401, 403, 404, 416][numbers.usize(0..4)], None),
            8 => Fault::Status([429, 503][numbers.usize(0..2)], Some(numbers.u32(0..2))),
            9 => Fault::Status([500, 502, 503][numbers.usize(0..3)], None),
            10 => Fault::Redirect(if numbers.bool() { self.slow } else { self.dead }),
            11 => Fault::Endless,
            12 => {
                let by = i64::try_from(place).unwrap_or(i64::MAX);
                Fault::WrongLength(if numbers.bool() { by } else { -by })
            }
            13 => Fault::WrongRange(place + 1),
            _ if self.others.is_empty() => Fault::Stall(Duration::from_millis(500)),
            _ => Fault::Other(self.others[numbers.usize(0..self.others.len())].clone()),
        })
    }
}

impl Plan {
    /// What happens to the next request.
    pub(super) fn next(&mut self, request: &Request) -> Option<Fault> {
        match self {
            Self::Honest => None,
            // Each rule counts for itself.
            Self::Rules(rules) => {
                let met: Vec<bool> = rules.iter_mut().map(|rule| rule.meets(request)).collect();
                let first = met.iter().position(|met| *met)?;
                Some(rules[first].fault.clone())
            }
            Self::Random(random) => random.next(request),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Fields;

    fn get(target: &str) -> Request {
        Request { method: "GET".to_owned(), target: target.to_owned(), fields: Fields::default() }
    }

    #[test]
    fn rules_count_their_own_requests() {
        let ranged = get("/v2/a/blobs/sha256:1?ranged");
        let mut plan = Plan::Rules(vec![
            Rule::blobs(Fault::Cut(1)).times(1, 2),
            Rule::new("?ranged", Fault::Whole),
            Rule::new("/manifests/", Fault::Hang).methods(&["HEAD"]),
        ]);
        let plain = get("/v2/a/blobs/sha256:1");
        let found: Vec<_> = [&plain, &ranged, &plain, &plain, &ranged, &get("/v2/a/manifests/x")]
            .into_iter()
            .map(|request| plan.next(request))
            .collect();
        let cut = Some(Fault::Cut(1));
        assert_eq!(found, [None, cut.clone(), cut, None, Some(Fault::Whole), None]);
        let head = Request { method: "HEAD".to_owned(), ..get("/v2/a/manifests/x") };
        assert_eq!(plan.next(&head), Some(Fault::Hang));
    }

    #[test]
    fn a_seed_repeats_its_plan_and_all_plans_have_all_faults() {
        let at = SocketAddr::from(([127, 0, 0, 1], 1));
        let plan = |seed| Plan::Random(Box::new(Random::new(seed, vec!["/other".to_owned()], at, at)));
        let faults = |seed| {
            let mut plan = plan(seed);
            (0..200).map(|_| plan.next(&get("/blobs/sha256:1"))).collect::<Vec<_>>()
        };
        assert_eq!(faults(3), faults(3));
        assert_ne!(faults(3), faults(4));
        let all: Vec<Fault> = (0..20).flat_map(faults).flatten().collect();
        let kinds: std::collections::HashSet<_> = all.iter().map(std::mem::discriminant).collect();
        assert_eq!(kinds.len(), 11, "{all:?}");
        let put = Request { method: "PUT".to_owned(), ..get("/x") };
        assert!((0..200).all(|seed| plan(seed).next(&put).is_none()));
    }
}
