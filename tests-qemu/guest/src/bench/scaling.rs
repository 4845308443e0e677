// SPDX-License-Identifier: GPL-2.0
//! Readers of one large file, with one processor and with two: how much the driver does in parallel for a
//! single one, and how much many of them keep each other waiting.
//!
//! The second processor is switched off and on again, so that other work of the host meets both cases.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use tesserafs_guest::reading::{Scaling, IMAGE, ONE_CPU, TWO_CPUS};
use xxhash_rust::xxh3::xxh3_64;

use super::measures::{read_whole, BUFFER};
use super::{report, Work};
use crate::boot;
use crate::mounts::{drop_caches, Mount};

const SWITCH: &str = "/sys/devices/system/cpu/cpu1/online";

/// How long a processor that has come or gone is given.
const SETTLE: Duration = Duration::from_millis(300);

/// Readers at once, of small parts at random places, and how many parts there are in all.
const READERS: [usize; 2] = [2, 64];
const PARTS: usize = 256;

/// Bytes of a part.
const PART: usize = 4096;

/// The work of two threads that share nothing.
const COMPUTING: &str = "two threads that compute";

/// How much faster the two threads are with a second processor that nobody else uses, at least.
const WORTH: f64 = 1.7;

/// Runs in which others used it are made up for, up to this many runs for each that is wanted.
const TRIES: usize = 3;

/// They are reported under names of their own.
const BUSY: &str = ", while others used the host";

/// Bytes that each computing thread looks at, and how often.
const COMPUTED: (usize, usize) = (1 << 20, 100);

pub(super) fn run(plan: &Scaling) -> Result<()> {
    boot::load()?;
    // Not on an emulated disk, whose emulation would want a processor of the host for itself.
    let (packed, image) = (Path::new("/").join(IMAGE), Path::new("/tmp").join(IMAGE));
    std::fs::copy(&packed, &image).context("failed to put the image into a tmpfs")?;
    std::fs::remove_file(&packed).context("failed to remove the first copy of the image")?;
    let mount = Mount::image(&image, Path::new("/mnt/bench"), "").context("failed to mount the image")?;
    // The host's memory of this machine is touched, and its code translated, before anything counts.
    measured(plan, mount.path(), 0)?;
    let mut good = 0;
    for run in 1..=plan.runs * TRIES {
        let samples = measured(plan, mount.path(), run)?;
        let suffix = if undisturbed(&samples) { "" } else { BUSY };
        for sample in samples {
            let measure = format!("{}{suffix}", sample.measure);
            report(&measure, sample.system, run, sample.seconds, sample.work)?;
        }
        good += usize::from(suffix.is_empty());
        if good == plan.runs {
            break;
        }
    }
    set_online("1")?;
    mount.unmount()
}

/// Something that took its time.
struct Timed {
    measure: String,
    system: &'static str,
    seconds: f64,
    work: Work,
}

/// Measures everything once with each number of processors.
fn measured(plan: &Scaling, root: &Path, run: usize) -> Result<Vec<Timed>> {
    let mut order = [(ONE_CPU, "0"), (TWO_CPUS, "1")];
    if run % 2 == 0 {
        order.reverse();
    }
    let mut samples = Vec::new();
    let mut buffer = vec![0; BUFFER];
    for (system, switch) in order {
        set_online(switch)?;
        std::thread::sleep(SETTLE);
        for (measure, file) in &plan.files {
            drop_caches()?;
            let start = Instant::now();
            let bytes = read_whole(&root.join(file), &mut buffer)?;
            let seconds = start.elapsed().as_secs_f64();
            let work = Work { count: 1, bytes, ..Work::default() };
            samples.push(Timed { measure: measure.clone(), system, seconds, work });
        }
        if let Some((_, file)) = plan.files.first() {
            for readers in READERS {
                drop_caches()?;
                let start = Instant::now();
                let work = read_at_random(&root.join(file), readers)?;
                let seconds = start.elapsed().as_secs_f64();
                let measure = format!("random 4 KiB of one large file, {readers} readers");
                samples.push(Timed { measure, system, seconds, work });
            }
        }
        let start = Instant::now();
        let work = compute()?;
        let seconds = start.elapsed().as_secs_f64();
        samples.push(Timed { measure: COMPUTING.to_owned(), system, seconds, work });
    }
    Ok(samples)
}

/// Threads read small parts of a file, always the same ones.
fn read_at_random(path: &Path, readers: usize) -> Result<Work> {
    let file = File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    let pages = file.metadata().context("failed to look at a file")?.len() / PART as u64;
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..readers)
            .map(|reader| {
                let file = &file;
                scope.spawn(move || -> Result<()> {
                    let mut random = fastrand::Rng::with_seed(reader as u64);
                    let mut part = [0; PART];
                    for _ in 0..PARTS / readers {
                        let at = random.u64(0..pages) * PART as u64;
                        file.read_exact_at(&mut part, at).context("failed to read")?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a reader does not panic"))
    })?;
    Ok(Work { count: PARTS as u64, bytes: (PARTS * PART) as u64, ..Work::default() })
}

/// Whether the host had a second processor to give: judged by the computing threads, never by the readers.
fn undisturbed(samples: &[Timed]) -> bool {
    let of = |system| {
        let sample = samples.iter().find(|sample| sample.measure == COMPUTING && sample.system == system);
        sample.map(|sample| sample.seconds)
    };
    matches!((of(ONE_CPU), of(TWO_CPUS)), (Some(one), Some(two)) if one >= WORTH * two)
}

/// Switches the second processor.
fn set_online(switch: &str) -> Result<()> {
    let now = std::fs::read_to_string(SWITCH).context("the machine has no second processor to switch")?;
    if now.trim() != switch {
        std::fs::write(SWITCH, switch).context("the second processor does not switch")?;
    }
    Ok(())
}

/// The work of two threads that have nothing to wait for: it shows how much two processors give, at most.
fn compute() -> Result<Work> {
    let (length, times) = COMPUTED;
    let one = |seed: u8| {
        let bytes = vec![seed; length];
        (0..times).fold(0, |sum: u64, _| sum.wrapping_add(xxh3_64(std::hint::black_box(&bytes))))
    };
    let sums = std::thread::scope(|scope| {
        let threads = [scope.spawn(|| one(1)), scope.spawn(|| one(2))];
        threads.map(|thread| thread.join().expect("a computing thread does not panic"))
    });
    ensure!(sums[0] != sums[1], "two different buffers have one checksum");
    Ok(Work { count: 2, bytes: (2 * length * times) as u64, ..Work::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_judged_by_what_computed() {
        let timed = |measure: &str, system, seconds| Timed {
            measure: measure.to_owned(),
            system,
            seconds,
            work: Work::default(),
        };
        let run = |two| {
            let read = [timed("read", ONE_CPU, 1.0), timed("read", TWO_CPUS, 1.0)];
            read.into_iter().chain([timed(COMPUTING, ONE_CPU, 1.0), timed(COMPUTING, TWO_CPUS, two)])
        };
        assert!(undisturbed(&run(0.5).collect::<Vec<_>>()));
        assert!(!undisturbed(&run(0.9).collect::<Vec<_>>()));
        assert!(!undisturbed(&[]));
    }
}
