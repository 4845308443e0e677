// SPDX-License-Identifier: GPL-2.0-or-later

//! The memory of a pull is what its documentation says.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use mkfs_tesserafs::encode::zstd_version;

use super::common::{chunk_digest, sha256, Draft};
use super::forged::Forged;
use super::registry::Wrong;
use super::support::{wait_for, TESSERAFS};
use super::{name_of, Place};

/// Bytes for each chunk, as the documentation of the module has it.
const BY_CHUNK: u64 = 128;

/// Bytes for everything else, in a program that was compiled for tests.
const REST: u64 = 64 << 20;

/// An image with so many chunks of 16 bytes, no two of them equal, and bytes that no chunk has before each 1000th. Images with different
/// seeds have the same chunks, but for one, in different packs.
fn image(chunks: u32, seed: u8) -> Forged {
    let mut draft = Draft::empty();
    draft.profile.zstd_version = zstd_version().into();
    draft.directory(1, 0, 2, 0);
    draft.plain_chunk(&[seed; 5000]);
    for number in 1..chunks {
        if number % 1000 == 0 {
            draft.pack.push(seed);
        }
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        draft.chunk(&bytes, 0, 16, sha256(&bytes));
        debug_assert_eq!(draft.chunk_digests.last(), Some(&chunk_digest(&bytes)));
    }
    Forged::of(draft)
}

/// The memory that a pull has taken at most when it asks for the pack: by then it knows all chunks, and has looked for them in the store.
fn peak(place: &Place, tag: &str, forged: &Forged) -> u64 {
    let artifact = forged.publish(place, tag);
    let pack = name_of(&artifact.packs[0].digest);
    place.registry.wrong("GET", &pack, 100, Wrong::Silent(Duration::from_secs(60)));
    place.registry.seen();
    let mut child = Command::new(TESSERAFS)
        .args(["pull", "--plain-http", "--authfile", "/dev/null", "--quiet", "--store"])
        .arg(place.path().join("store"))
        .arg(place.name(tag))
        .stdin(Stdio::null())
        .spawn()
        .expect("tesserafs");
    // Without optimization, and beside other tests, the chunks take some seconds.
    let is_asked = || place.registry.seen().iter().any(|seen| seen.target.contains(&pack));
    wait_for(Duration::from_secs(300), "the pack is asked for", is_asked);
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("a process");
    child.kill().expect("a process");
    child.wait().expect("a process");
    place.registry.right();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB"));
    line.and_then(|kib| kib.trim().parse::<u64>().ok()).expect("VmHWM") << 10
}

#[test]
fn memory_is_so_much_for_each_chunk() {
    for chunks in [1000, 200_000_u32] {
        let place = Place::new();
        let old = image(chunks, 1);
        let first = peak(&place, "old", &old);
        place.pull("old");
        let update = peak(&place, "new", &image(chunks, 2));
        eprintln!("{chunks} chunks: {first} bytes, and {update} where the store has the chunks");
        let most = REST + u64::from(chunks) * BY_CHUNK;
        assert!(first.max(update) <= most, "{chunks} chunks: {first} and {update} bytes, expected {most}");
    }
}
