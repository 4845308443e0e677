// SPDX-License-Identifier: GPL-2.0-or-later

//! Bytes that no file has are named, and nothing is changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fsck_tesserafs::{check, Options};
use mkfs_tesserafs::progress::Silent;
use mkfs_tesserafs::repair::{repair, RepairReport, RepairRequest};
use tesserafs_format::superblock::image_id;
use tesserafs_format::{Digest, Place, Rule};
use tesserafs_image::hash::{sha256, Sha2};
use tesserafs_image::{text, Cancel, Source};

use crate::damage::Random;
use crate::made::{made, superblock};
use crate::{mends, request, Bench};

/// Repairs a damaged image by these files, which do not suffice.
fn fails(bad: &[u8], from: &[&str], change: impl FnOnce(&mut RepairRequest)) -> (RepairReport, String) {
    let bench = Bench::new();
    let image = bench.damaged(bad);
    let from: Vec<&Path> = from.iter().map(Path::new).collect();
    let mut request = request(&image, &from);
    change(&mut request);
    let report = repair(&request, &Silent).expect("a report");
    assert!(!report.repaired);
    assert!(fs::read(&image).expect("an image") == bad, "changed");
    assert_eq!(bench.folder.path().read_dir().expect("files").count(), 1, "something is left behind");
    let failure = report.failure().expect("a failure");
    (report, failure)
}

/// Repairs a damaged image, and is refused.
fn refuses(bad: &[u8], from: &[&str], change: impl FnOnce(&mut RepairRequest)) -> String {
    let bench = Bench::new();
    let image = bench.damaged(bad);
    let from: Vec<&Path> = from.iter().map(Path::new).collect();
    let mut request = request(&image, &from);
    change(&mut request);
    let error = repair(&request, &Silent).expect_err("refused").to_string();
    assert!(fs::read(&image).expect("an image") == bad, "changed");
    assert_eq!(bench.folder.path().read_dir().expect("files").count(), 1, "something is left behind");
    error
}

fn id(image: &[u8]) -> Digest {
    image_id::<Sha2>(image.first_chunk().expect("a block"))
}

#[test]
fn files_are_named_as_fsck_names_them() {
    let good = made().read("unsigned.tess");
    let pack = 4096..superblock(&good).layout.tree_offset - 4096;
    let mut random = Random::new(40);
    for _ in 0..20 {
        let bench = Bench::new();
        let mut bad = good.clone();
        (0..3).for_each(|_| {
            random.change(&mut bad, &pack);
        });
        let (report, failure) = fails(&bad, &["key.pem"], |_| ());
        assert!(failure.contains("nothing was changed: no file has "), "{failure}");
        let source = Source::open(&bench.damaged(&bad)).expect("an image");
        let found = check(&source, &Options::default(), &tesserafs_image::Silent, &Cancel::default());
        let mut of_fsck = BTreeSet::new();
        for finding in found.findings.iter().filter(|finding| finding.rule == Rule::ChunkDigest) {
            let Place::Chunk(chunk) = finding.place else { panic!("{finding}") };
            let path = text::escape(finding.path.as_ref().expect("a path"));
            of_fsck.insert(chunk);
            let is_named =
                report.lost.files.iter().any(|file| file.path == path && file.chunks.contains(&chunk));
            assert!(is_named, "{path} is not named: {report:?}");
        }
        let named: BTreeSet<u32> = report.lost.files.iter().flat_map(|file| file.chunks.clone()).collect();
        assert_eq!(named, of_fsck);
        assert_eq!(report.lost.chunks, of_fsck.len() as u64);
    }
}

/// Ranges are those of the file: its other bytes can be had.
#[test]
fn ranges_are_those_of_the_file() {
    let good = made().read("unsigned.tess");
    let library = fs::read(made().at("root/usr/lib/library")).expect("a file");
    let mut bad = good.clone();
    // All chunks but those that Monday's image has; that has not these of the library.
    let end = superblock(&good).layout.tree_offset as usize;
    bad[4096..end].fill(0);
    let (report, _) = fails(&bad, &["monday.tess"], |_| ());
    let ranges: Vec<_> = report.lost.files.iter().filter(|file| file.path == "/usr/lib/library").collect();
    assert!(!ranges.is_empty(), "{report:?}");
    for at in (0..library.len() as u64).step_by(30_000) {
        let holds = |start: u64, len: u64| start <= at && at < start + len;
        assert!(ranges.iter().any(|file| holds(file.offset, file.bytes)), "byte {at}: {ranges:?}");
    }
    let lost: u64 = ranges.iter().map(|file| file.bytes).sum();
    assert!(lost < 60_000, "{lost}");
    assert!(!report.lost.files.iter().any(|file| file.path == "/usr/lib/same"), "{report:?}");
}

#[test]
fn many_files_are_counted_and_a_machine_gets_all() {
    let good = made().read("unsigned.tess");
    let mut bad = good.clone();
    let end = superblock(&good).layout.tree_offset as usize;
    bad[4096..end].fill(0);
    let (report, failure) = fails(&bad, &["key.pem"], |_| ());
    let text = report.to_text();
    let lines = text.lines().filter(|line| line.starts_with("not found: ")).count();
    assert_eq!(lines, 21, "{text}");
    assert!(text.contains("more like these"), "{text}");
    assert_eq!(report.lost.files.len(), 43);
    assert_eq!(report.to_json().matches("\"path\": \"/etc/").count(), 40);
    assert!(failure.contains(&format!("{} chunks", report.lost.chunks)), "{failure}");
}

#[test]
fn blocks_of_metadata_are_named_by_their_tables() {
    let good = made().read("unsigned.tess");
    let layout = superblock(&good).layout;
    let mut bad = good.clone();
    bad[layout.names.offset() as usize] ^= 1;
    bad[layout.chunk_digests.offset() as usize] ^= 1;
    let (report, failure) = fails(&bad, &["monday.tess"], |_| ());
    assert!(failure.contains("no file has 2 blocks of metadata"), "{failure}");
    assert_eq!(report.lost.blocks.len(), 2);
    assert!(report.lost.blocks[0].tables.contains(&"names"), "{report:?}");
    assert!(report.lost.blocks[1].tables.contains(&"chunk digests"), "{report:?}");
    assert_eq!(report.lost.blocks[0].offset, layout.names.offset() / 4096 * 4096);
}

#[test]
fn without_an_id_damaged_first_bytes_are_refused() {
    let good = made().read("unsigned.tess");
    let id = id(&good);
    // A digest in them, which can be any; the digest of them; a count; the magic.
    for at in [0xe0, 0x210, 0x40, 0] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let said = refuses(&bad, &["tuesday.tess", "portable"], |_| ());
        assert!(
            said.contains("name it by --id sha256:HEX") && said.contains(&format!("sha256:{id}")),
            "{said}"
        );
        assert!(said.contains("damaged: the first 512 bytes"), "{said}");
        mends(&good, &bad, &["tuesday.tess"], |request| request.id = Some(id));
    }
    let mut bad = good.clone();
    bad[0xe0] ^= 3;
    let said = refuses(&bad, &["level.tess"], |request| request.id = Some(id));
    assert!(said.contains("no file of --from has the first 512 bytes of sha256:"), "{said}");
}

/// The first block is that of another image, and right in itself.
#[test]
fn first_bytes_of_another_image() {
    let good = made().read("unsigned.tess");
    let other = made().read("level.tess");
    let mut bad = good.clone();
    bad[..4096].copy_from_slice(&other[..4096]);
    let (_, failure) = fails(&bad, &["unsigned.tess"], |_| ());
    assert!(failure.contains("those of another image: name the right one by --id"), "{failure}");
    let said = refuses(&bad, &["unsigned.tess"], |request| request.id = Some(id(&good)));
    assert!(said.contains("its first 512 bytes are not damaged") && said.contains("--output"), "{said}");
    let bench = Bench::new();
    let mut request = request(&bench.damaged(&bad), &[Path::new("unsigned.tess")]);
    (request.id, request.output) = (Some(id(&good)), Some(bench.at("new")));
    assert!(repair(&request, &Silent).expect("a report").repaired);
    assert!(fs::read(bench.at("new")).expect("an image") == good);
}

#[test]
fn a_signature_that_no_file_has() {
    let good = made().read("tuesday.tess");
    let sb = superblock(&good);
    for at in [sb.layout.image_bytes as usize + 100, 0x230, 0x220] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let (report, failure) = fails(&bad, &["unsigned.tess"], |_| ());
        assert!(failure.contains("the signature (--drop-signature"), "{failure}");
        assert!(report.lost.signature && report.lost.blocks.is_empty() && report.lost.chunks == 0);
        // The image ID is the same without it.
        let unsigned = made().read("unsigned.tess");
        let report = mends(&unsigned, &bad, &["unsigned.tess"], |request| request.drop_signature = true);
        assert!(report.signature_dropped && report.to_text().contains("not signed"), "{report:?}");
    }
    // One that is there is not dropped.
    let mut bad = good.clone();
    bad[10_000] ^= 1;
    let report = mends(&good, &bad, &["unsigned.tess"], |request| request.drop_signature = true);
    assert!(!report.signature_dropped);
    // An unsigned image is not signed by a copy that is.
    let good = made().read("unsigned.tess");
    for at in [10_000, 0x220, 0x230, 0x300] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        mends(&good, &bad, &["tuesday.tess"], |_| ());
    }
}

/// An image whose chunks this program would compress otherwise: as if by another libzstd.
#[test]
fn chunks_that_are_compressed_otherwise() {
    let mut image = made().read("level.tess");
    image[0xd8] = 3;
    let mut bad = image.clone();
    let end = superblock(&image).layout.tree_offset as usize;
    // Of another libzstd, by what it says.
    image[0xdc] ^= 1;
    let digest = sha256(&image[..512]);
    image[0x200..0x220].copy_from_slice(&digest.0);
    bad[..4096].copy_from_slice(&image[..4096]);
    bad[4096..end].fill(0);
    let (report, failure) = fails(&bad, &["unsigned.tess"], |_| ());
    assert!(report.lost.otherwise_compressed > 0, "{report:?}");
    assert!(
        failure.contains("the image was made with libzstd ") && failure.contains("this program has"),
        "{failure}"
    );
    mends(&image, &bad, &["level.tess"], |_| ());
}
