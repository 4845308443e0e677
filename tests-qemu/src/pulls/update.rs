// SPDX-License-Identifier: GPL-2.0
//! Bytes that a host has are not fetched again, and bytes that a registry has are not sent again.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::host::{said, CONFIG_MAX};
use super::{Ground, REPOSITORY};
use crate::proxy::{Proxy, Speed};
use crate::rootfs::noise;
use crate::run;

/// From each version to the next one.
pub(super) fn chunks(ground: &Ground) -> Result<String> {
    let proxy = Proxy::start(ground.registry.address(), Speed::default())?;
    let host = ground.host()?;
    let mut notes = Vec::new();
    for version in ground.images.series() {
        proxy.take();
        host.pull(version, &ground.name(proxy.address(), version))?;
        let traffic = proxy.take();
        let bytes = traffic.bytes("GET", "/blobs/");
        let new = version.len()? + version.new_packs.iter().map(|(_, bytes)| bytes).sum::<u64>();
        ensure!(bytes <= new + CONFIG_MAX, "{}: {bytes} bytes of blobs, expected {new}", version.name);
        notes.push(format!("{bytes} bytes in {} requests", traffic.requests.len()));
    }
    // The name again: nothing but documents is asked for.
    let last = ground.images.series().last().context("no version")?;
    host.pull(last, &ground.name(proxy.address(), last))?;
    let again = proxy.take().bytes("GET", "/blobs/");
    ensure!(again <= CONFIG_MAX, "{again} bytes of blobs are fetched again");
    Ok(notes.join("; "))
}

pub(super) fn delta(ground: &Ground) -> Result<String> {
    let proxy = Proxy::start(ground.registry.address(), Speed::default())?;
    let [old, new] = [&ground.images.versions[0], &ground.images.versions[1]];
    let name = |tag: &str| format!("{}/tests/delta:{tag}", proxy.address());
    let pusher = ground.host()?;
    pusher.push(old, &name("old"))?;
    pusher.push(new, &name("new"))?;
    let mut bytes = Vec::new();
    for with_delta in [false, true] {
        if with_delta {
            let mut push = pusher.push_command(new, &name("new"))?;
            run::quiet(push.arg("--delta-from").arg(&old.image)).context("a delta is not pushed")?;
        }
        let host = ground.host()?;
        host.pull(old, &name("old"))?;
        proxy.take();
        host.pull(new, &name("new"))?;
        bytes.push(proxy.take().bytes("GET", "/blobs/"));
        // Nobody who has nothing takes a delta.
        let fresh = ground.host()?;
        fresh.pull(new, &name("new"))?;
        let fetched = proxy.take().bytes("GET", "/blobs/");
        let all = new.all_bytes()?;
        ensure!(fetched <= all + CONFIG_MAX, "{fetched} bytes for a host with nothing, expected {all}");
    }
    ensure!(bytes[1] < bytes[0], "{} bytes with a delta, {} without", bytes[1], bytes[0]);
    Ok(format!("{} bytes with a delta, {} without", bytes[1], bytes[0]))
}

pub(super) fn push_again(ground: &Ground) -> Result<String> {
    let proxy = Proxy::start(ground.registry.address(), Speed::default())?;
    let host = ground.host()?;
    let mut notes = Vec::new();
    for version in ground.images.series() {
        let name = format!("{}/tests/again:{}", proxy.address(), version.name);
        proxy.take();
        host.push(version, &name)?;
        let first = proxy.take();
        let new = version.len()? + version.new_packs.iter().map(|(_, bytes)| bytes).sum::<u64>();
        // Heads, and the documents, beside the blobs.
        let most = new + new / 50 + 64 * 1024;
        ensure!(first.up <= most, "{}: {} bytes are sent for {new}", version.name, first.up);
        host.push(version, &name)?;
        let second = proxy.take();
        let sent = second.requests.iter().filter(|seen| matches!(&*seen.method, "POST" | "PATCH")).count();
        ensure!(sent == 0, "{}: {sent} uploads of what is there", version.name);
        notes.push(format!("{} bytes for {new}, then {}", first.up, second.up));
        host.pull(version, &name)?;
        proxy.take();
    }
    Ok(notes.join("; "))
}

/// Twenty processes of one host.
pub(super) fn at_once(ground: &Ground) -> Result<String> {
    let speed = Speed { delay: Duration::from_millis(5), bits_per_second: Some(200_000_000) };
    let proxy = Proxy::start(ground.registry.address(), speed)?;
    let host = ground.host()?;
    let version = &ground.images.versions[2];
    let name = ground.name(proxy.address(), version);
    let pulls: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| run::output_within(&mut host.pull_command(&name), super::host::LIMIT)))
            .collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    for pull in pulls {
        let output = pull.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        ensure!(output.status.success(), "{}", said(&output));
    }
    host.sound()?;
    host.compare(version, &name)?;
    let traffic = proxy.take();
    let (bytes, all) = (traffic.bytes("GET", "/blobs/"), version.all_bytes()?);
    // Each of them may look at config and image before it waits.
    let most = all + 20 * (CONFIG_MAX + version.len()?);
    ensure!(bytes <= most, "{bytes} bytes of blobs, expected {all}");
    for (digest, len) in ground.images.series().iter().flat_map(|version| &version.new_packs) {
        let bytes = traffic.bytes("GET", digest);
        ensure!(bytes <= *len, "{bytes} bytes of a pack of {len}");
    }
    Ok(format!("{bytes} bytes, {all} for one, {} requests", traffic.requests.len()))
}

/// An image that is larger than the memory that a pull may take: megabytes.
const LARGE_PIECES: u64 = 400;
const PIECE: usize = 1_000_000;

/// Bytes of memory that a pull may take, whatever the image.
const MEMORY_MAX: u64 = 128 << 20;

pub(super) fn memory(ground: &Ground) -> Result<String> {
    let folder = ground.scratch.join("memory");
    let (tree, packs, image) = (folder.join("tree"), folder.join("packs"), folder.join("image.tess"));
    for folder in [&tree, &packs] {
        std::fs::create_dir_all(folder).context("failed to create a folder")?;
    }
    let mut file = std::fs::File::create(tree.join("file")).context("failed to create a file")?;
    for seed in 0..LARGE_PIECES {
        file.write_all(&noise(seed, PIECE)).context("failed to write a file")?;
    }
    let mut mkfs = run::command(&ground.tools.mkfs);
    run::quiet(mkfs.args(["--quiet", "--packdir"]).arg(&packs).arg(&image).arg(&tree))?;
    let version = super::Version { image, ..ground.images.other.clone() };
    let name = format!("{}/{REPOSITORY}:large", ground.registry.address());
    let host = ground.host()?;
    let push = peak(&mut host.push_command(&version, &name)?)?;
    let pull = peak(&mut host.pull_command(&name))?;
    host.sound()?;
    remove(&folder)?;
    ensure!(push <= MEMORY_MAX && pull <= MEMORY_MAX, "push takes {push} bytes of memory, pull {pull}");
    Ok(format!(
        "push {} MB, pull {} MB, of an image of {} MB",
        push / 1_000_000,
        pull / 1_000_000,
        LARGE_PIECES
    ))
}

/// Memory that a program takes at most. The figure of wait4(2) begins with the memory of the process that started the program, which
/// other tests have filled.
fn peak(command: &mut Command) -> Result<u64> {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("failed to start")?;
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let status = loop {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) << 10);
        if let Some(status) = child.try_wait().context("failed to wait")? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    ensure!(status.success() && peak > 0, "{}: {status}, with {peak} bytes", run::shown(command));
    Ok(peak)
}

fn remove(folder: &Path) -> Result<()> {
    std::fs::remove_dir_all(folder).with_context(|| format!("failed to remove {}", folder.display()))
}
