// SPDX-License-Identifier: GPL-2.0
//! Servers and lines that fail, and clients that are killed.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use super::host::{said, sentence, Host, CONFIG_MAX};
use super::{Ground, Version};
use crate::http::Server;
use crate::proxy::{Fault, Plan, Proxy, Random, Rule, Speed};
use crate::run;

/// Pulls that run at once: they wait for servers most of the time.
const THREADS: u64 = 24;

/// Random plans, and fewer of them.
const PLANS: u64 = 200;
const PLANS_SHORT: u64 = 36;

/// Bytes that may be on their way when a connection ends, and are fetched again: connections times the part that each asks for.
const UNDER_WAY: u64 = 8 * (256 << 10);

/// An address at which nobody listens, and a server that takes connections and says nothing.
fn elsewhere(patience: Duration) -> Result<(SocketAddr, Server)> {
    let slow = Server::start(move |mut stream| {
        stream.set_read_timeout(Some(patience))?;
        // Until the client gives up, or this.
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    })?;
    // A port that was free just now.
    let dead = Server::start(|_| Ok(()))?.address();
    Ok((dead, slow))
}

/// Longer than a client waits for a server that says nothing; and so short that hundreds of pulls end in minutes.
const SILENCE: Duration = Duration::from_secs(90);
const SILENCE_SHORT: Duration = Duration::from_secs(2);

/// The outcome that a pull must have.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wanted {
    Success,
    Failure,
    Either,
}

/// Each fault at the first request, and at all.
pub(super) fn each(ground: &Ground) -> Result<String> {
    let (dead, slow) = elsewhere(if ground.is_short { SILENCE_SHORT } else { SILENCE })?;
    let other = format!("/v2/{}/blobs/sha256:{}", super::REPOSITORY, ground.images.other.new_packs[0].0);
    let second = Duration::from_secs(1);
    use Wanted::{Either, Failure, Success};
    let faults = [
        (Fault::Hang, Success, Failure),
        (Fault::Cut(0), Success, Failure),
        (Fault::Cut(300), Success, Either),
        (Fault::Truncate(300), Success, Either),
        (Fault::Flip(200), Success, Failure),
        (Fault::Whole, Success, Success),
        (Fault::Status(401, None), Either, Failure),
        (Fault::Status(403, None), Either, Failure),
        (Fault::Status(404, None), Either, Failure),
        (Fault::Status(429, Some(1)), Success, Failure),
        (Fault::Status(500, None), Success, Failure),
        (Fault::Status(503, Some(1)), Success, Failure),
        (Fault::Redirect(dead), Either, Failure),
        (Fault::Redirect(slow.address()), Either, Failure),
        (Fault::Endless, Success, Either),
        (Fault::WrongLength(7), Success, Either),
        (Fault::WrongLength(-7), Success, Either),
        (Fault::WrongLength(1 << 40), Success, Either),
        (Fault::WrongRange(3), Success, Either),
        (Fault::Other(other), Either, Failure),
        (Fault::Stall(second), Success, Success),
    ];
    let mut cases = Vec::new();
    for (fault, once, always) in faults {
        for (part, times, wanted) in [
            ("/blobs/sha256:", 1, once),
            ("/blobs/sha256:", u64::MAX, always),
            ("/manifests/", 1, Either),
            ("/manifests/", u64::MAX, Either),
        ] {
            cases.push((fault.clone(), part, times, wanted));
        }
    }
    let version = &ground.images.versions[1];
    let sentences = Mutex::new(Vec::new());
    in_threads(cases.len() as u64, |number| {
        let (fault, part, times, wanted) = cases[usize::try_from(number)?].clone();
        let proxy = Proxy::start(ground.registry.address(), Speed::default())?;
        let methods = if part == "/manifests/" { &["GET", "HEAD"][..] } else { &["GET"] };
        let what = format!("{fault:?}, {times} times, at {part}");
        proxy.follow(Plan::Rules(vec![Rule::new(part, fault).methods(methods).times(0, times)]));
        let host = ground.host()?;
        let is_pulled = attempt(&host, version, &proxy, ground).with_context(|| what.clone())?;
        match (&is_pulled, wanted) {
            (Ok(()), Wanted::Failure) => bail!("{what}: pulled"),
            (Err(sentence), Wanted::Success) => bail!("{what}: not pulled: {sentence}"),
            _ => {}
        }
        if let Err(sentence) = is_pulled {
            sentences.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{what}: {sentence}"));
        }
        let bytes = proxy.take().down;
        let all = version.all_bytes()?;
        ensure!(bytes <= 20 * all, "{what}: {bytes} bytes are taken, of an image of {all}");
        recover(&host, version, &proxy, ground).with_context(|| what)
    })?;
    let sentences = sentences.into_inner().unwrap_or_else(PoisonError::into_inner);
    if std::env::var_os("TESSERAFS_TEST_SENTENCES").is_some() {
        eprintln!("{}", sentences.join("\n"));
    }
    Ok(format!("{} pulls, {} failed with a sentence", cases.len(), sentences.len()))
}

/// A pull that may fail; the sentence if it does.
fn attempt(
    host: &Host<'_>,
    version: &Version,
    proxy: &Proxy,
    ground: &Ground,
) -> Result<std::result::Result<(), String>> {
    let name = ground.name(proxy.address(), version);
    let output = host.try_pull(&name)?;
    if output.status.success() {
        host.compare(version, &name)?;
        return Ok(Ok(()));
    }
    Ok(Err(sentence(&output)?))
}

/// A pull without faults, which succeeds, and another one, which fetches no blob.
fn recover(host: &Host<'_>, version: &Version, proxy: &Proxy, ground: &Ground) -> Result<()> {
    let name = ground.name(proxy.address(), version);
    proxy.follow(Plan::Honest);
    proxy.take();
    host.pull(version, &name).context("without faults")?;
    let (bytes, all) = (proxy.take().bytes("GET", "/blobs/"), version.all_bytes()?);
    ensure!(bytes <= all + all / 20 + 4096, "{bytes} bytes without faults, of an image of {all}");
    host.pull(version, &name).context("again")?;
    let again = proxy.take().bytes("GET", "/blobs/");
    ensure!(again <= CONFIG_MAX, "{again} bytes of blobs are fetched again");
    Ok(())
}

/// Does something for each number, on several threads; the first failure ends it.
fn in_threads(count: u64, work: impl Fn(u64) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicU64::new(0);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                if let Err(error) = work(number) {
                    next.store(count, Ordering::Relaxed);
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            });
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Parts of a pack are asked for, and the server sends all of it each time.
pub(super) fn whole(ground: &Ground) -> Result<String> {
    let proxy = Proxy::start(ground.registry.address(), Speed::default())?;
    let version = &ground.images.versions[0];
    let (pack, len) = &version.new_packs[0];
    let host = ground.host()?;
    stopped(ground, &host, version, &proxy, pack, len / 3)?;
    proxy.follow(Plan::Rules(vec![Rule::blobs(Fault::Whole)]));
    host.pull(version, &ground.name(proxy.address(), version))?;
    let traffic = proxy.take();
    let bytes = traffic.bytes("GET", pack);
    ensure!(bytes <= len + UNDER_WAY, "{bytes} bytes of a pack of {len}");
    Ok(format!("{bytes} bytes of a pack of {len}, {} met", traffic.faults()))
}

/// A pull that gets so many bytes of a pack, and not one more.
fn stopped(
    ground: &Ground,
    host: &Host<'_>,
    version: &Version,
    proxy: &Proxy,
    pack: &str,
    bytes: u64,
) -> Result<()> {
    proxy.follow(Plan::Rules(vec![
        Rule::new(pack, Fault::Cut(bytes)).times(0, 1),
        Rule::new(pack, Fault::Hang).times(1, u64::MAX),
    ]));
    let pulled = attempt(host, version, proxy, ground)?;
    ensure!(pulled.is_err(), "it is pulled, without most of a pack");
    proxy.take();
    Ok(())
}

/// The part of a pack that is there stays there.
pub(super) fn goes_on(ground: &Ground) -> Result<String> {
    let version = &ground.images.versions[0];
    let (pack, len) = &version.new_packs[0];
    let mut notes = Vec::new();
    for part in [10, 50, 90] {
        let proxy = Proxy::start(ground.registry.address(), Speed::default())?;
        let host = ground.host()?;
        let had = len * part / 100;
        stopped(ground, &host, version, &proxy, pack, had)?;
        proxy.follow(Plan::Honest);
        // The name of the image has gone to another one meanwhile, and comes back.
        host.pull(&ground.images.other, &ground.name(proxy.address(), &ground.images.other))?;
        proxy.take();
        host.pull(version, &ground.name(proxy.address(), version))?;
        let bytes = proxy.take().bytes("GET", pack);
        // Chunks that were cut are fetched whole.
        let lacking = len - had;
        ensure!(bytes <= lacking + UNDER_WAY, "{bytes} bytes of a pack, of which {lacking} were lacking");
        notes.push(format!("{bytes} of {lacking}"));
    }
    Ok(format!("bytes that were fetched, of those that were lacking: {}", notes.join(", ")))
}

/// A server with too many clients says when to come back.
pub(super) fn retry_after(ground: &Ground) -> Result<String> {
    let proxy = Proxy::start(ground.registry.address(), Speed::default())?;
    let host = ground.host()?;
    let version = &ground.images.versions[0];
    proxy.follow(Plan::Rules(vec![Rule::blobs(Fault::Status(429, Some(2))).times(0, 1)]));
    let begin = Instant::now();
    host.pull(version, &ground.name(proxy.address(), version))?;
    let seconds = begin.elapsed().as_secs_f64();
    ensure!(seconds >= 2.0, "it came back after {seconds} s");
    let met = proxy.take().requests.iter().filter(|seen| seen.status == Some(429)).count();
    ensure!(met == 1, "{met} times 429");
    Ok(format!("{seconds:.1} s"))
}

/// Seeded plans: success with the right bytes, or one sentence; then success.
pub(super) fn random(ground: &Ground) -> Result<String> {
    let (dead, slow) = elsewhere(SILENCE_SHORT)?;
    let count = if ground.is_short { PLANS_SHORT } else { PLANS };
    let others: Vec<String> = ground
        .images
        .versions
        .iter()
        .flat_map(|version| &version.new_packs)
        .map(|(digest, _)| format!("/v2/{}/blobs/sha256:{digest}", super::REPOSITORY))
        .collect();
    let (pulled, faults) = (AtomicU64::new(0), AtomicU64::new(0));
    in_threads(count, |seed| {
        let proxy = Proxy::start(ground.registry.address(), Speed::default())?;
        // With six, a pull that fails waits half a minute first.
        let host = ground.host()?.with(&[&"--tries", &"3"]);
        let plan = Random::new(seed, others.clone(), slow.address(), dead);
        proxy.follow(Plan::Random(Box::new(plan)));
        let check = || -> Result<()> {
            // With a version in the store, and without.
            for version in &ground.images.series()[..2] {
                if attempt(&host, version, &proxy, ground)?.is_ok() {
                    pulled.fetch_add(1, Ordering::Relaxed);
                }
                faults.fetch_add(proxy.take().faults() as u64, Ordering::Relaxed);
            }
            recover(&host, &ground.images.versions[1], &proxy, ground)
        };
        check().with_context(|| format!("seed {seed}"))
    })?;
    let [pulled, faults] = [&pulled, &faults].map(|count| count.load(Ordering::Relaxed));
    ensure!(faults > count, "{faults} faults met {count} plans");
    Ok(format!("{pulled} of {} pulls past {faults} faults", count * 2))
}

/// A pull is killed again and again, and gets on.
pub(super) fn killed(ground: &Ground) -> Result<String> {
    let version = &ground.images.versions[2];
    let (kills, rounds) = (AtomicU64::new(0), if ground.is_short { 6 } else { 36 });
    let most = AtomicU64::new(0);
    in_threads(rounds, |seed| {
        // All takes some two seconds.
        let speed = Speed { delay: Duration::from_millis(2), bits_per_second: Some(24_000_000) };
        let proxy = Proxy::start(ground.registry.address(), speed)?;
        let host = ground.host()?;
        let name = ground.name(proxy.address(), version);
        let mut numbers = fastrand::Rng::with_seed(seed);
        let mut own = 0;
        loop {
            let mut command = host.pull_command(&name);
            let mut child =
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            // At the beginning, too.
            let time = if numbers.u8(0..4) == 0 { 5..150 } else { 150..1500 };
            std::thread::sleep(Duration::from_millis(numbers.u64(time)));
            child.kill().context("failed to kill a pull")?;
            let status = child.wait().context("failed to wait")?;
            host.sound().with_context(|| format!("seed {seed}, killed {own} times"))?;
            if status.success() {
                break;
            }
            ensure!(status.code().is_none(), "seed {seed}: it ended with {status}, killed {own} times");
            own += 1;
            ensure!(own < 200, "seed {seed}: it does not get on");
        }
        host.compare(version, &name)?;
        let (bytes, all) = (proxy.take().bytes("GET", "/blobs/"), version.all_bytes()?);
        // Each time half of what is under way is lost, and the image file, which is small, may be fetched again.
        let allowed = all + own * (UNDER_WAY / 2 + version.len()?);
        ensure!(bytes <= allowed, "seed {seed}: {bytes} bytes, killed {own} times, of an image of {all}");
        most.fetch_max(bytes * 100 / all, Ordering::Relaxed);
        kills.fetch_add(own, Ordering::Relaxed);
        Ok(())
    })?;
    let [kills, most] = [&kills, &most].map(|count| count.load(Ordering::Relaxed));
    ensure!(kills >= rounds, "{kills} kills only");
    Ok(format!("{kills} times; at most {most} % of the image are fetched in all"))
}

/// Uploads, cut at each kind of request.
pub(super) fn upload(ground: &Ground) -> Result<String> {
    let version = &ground.images.versions[0];
    let (_, len) = version.new_packs[0];
    let mut notes = Vec::new();
    let cases: [(&[&'static str], u64, Fault); 8] = [
        (&["POST"], 0, Fault::Hang),
        (&["PATCH", "PUT"], 0, Fault::Hang),
        (&["PATCH", "PUT"], 1, Fault::CutRequest(1000)),
        (&["PATCH", "PUT"], 0, Fault::CutRequest(len / 2)),
        (&["PATCH", "PUT"], 2, Fault::Status(503, Some(1))),
        (&["PATCH", "PUT"], 1, Fault::Cut(0)),
        (&["PUT"], 0, Fault::Hang),
        (&["HEAD"], 0, Fault::Status(500, None)),
    ];
    for (number, (methods, after, fault)) in cases.into_iter().enumerate() {
        let proxy = Proxy::start(ground.registry.address(), Speed::default())?;
        let what = format!("{fault:?} at {methods:?} {after}");
        let part = format!("/tests/upload-{number}/");
        proxy.follow(Plan::Rules(vec![Rule::new(&part, fault).methods(methods).times(after, 1)]));
        let name = format!("{}/tests/upload-{number}:x", proxy.address());
        ground.host()?.push(version, &name).with_context(|| what.clone())?;
        let traffic = proxy.take();
        ensure!(traffic.faults() == 1, "{what}: {} faults", traffic.faults());
        let all = len + version.len()?;
        ensure!(traffic.up <= 2 * all + 64 * 1024, "{what}: {} bytes are sent of {all}", traffic.up);
        notes.push(traffic.up);
        proxy.follow(Plan::Honest);
        ground.host()?.pull(version, &name).context(what)?;
    }
    Ok(format!("bytes that were sent: {notes:?}"))
}

/// The disk of the store has no room.
pub(super) fn full_disk(ground: &Ground) -> Result<String> {
    let [first, second] = [&ground.images.other, &ground.images.versions[0]];
    let needed = [first, second].map(|version| version.all_bytes());
    let [first_bytes, second_bytes] = needed;
    // Room for one of them, and some more.
    let disk = Disk::mount(&ground.scratch.join("disk"), first_bytes? + second_bytes? / 2)?;
    let store = disk.0.join("store");
    let host = ground.host()?.at(&store);
    let [first_name, second_name] =
        [first, second].map(|version| ground.name(ground.registry.address(), version));
    host.pull(first, &first_name)?;
    let output = host.try_pull(&second_name)?;
    ensure!(!output.status.success(), "it is pulled: {}", said(&output));
    let sentence = sentence(&output)?;
    ensure!(host.names()?.len() == 1, "{:?}", host.names()?);
    host.compare(first, &first_name)?;
    // The files that it began go, and without the first image there is room.
    run::quiet(host.in_store("rm").arg(&first_name)).context("rm")?;
    run::quiet(&mut host.in_store("gc")).context("gc")?;
    host.pull(second, &second_name)?;
    Ok(sentence)
}

/// A small disk in memory.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(folder: &std::path::Path, bytes: u64) -> Result<Self> {
        std::fs::create_dir_all(folder).context("failed to create a folder")?;
        let size = format!("size={bytes}");
        run::quiet(run::command("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder))?;
        Ok(Self(folder.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run::quiet(run::command("umount").arg(&self.0));
    }
}
