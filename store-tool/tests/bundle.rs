// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs bundle` and `tesserafs apply`, as a user types them.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use mkfs_tesserafs::packs::SharedForm;
use tempfile::TempDir;
use tesserafs_format::{chunk_digest, Chunk, ChunkIndex, Codec, Image, SuperBlock};
use tesserafs_image::hash::{sha256, Sha2};
use tesserafs_image::{superblock, Source, VerifiedMetadata};

mod support;

use support::{build_with, done, refused, run, signer, TESSERAFS};

/// Bytes that no compressor makes shorter.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A folder with a tree in two versions, as `old.tess` and `new.tess` in one file, and `old` and `new` over packs.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    for name in ["root/usr/lib", "root/etc", "packs"] {
        fs::create_dir_all(path.join(name)).expect(name);
    }
    let mut library = noise(1, 3_000_000);
    let write = |name: &str, bytes: &[u8]| fs::write(path.join("root").join(name), bytes).expect(name);
    write("usr/lib/libfoo.so.1.2.3", &library);
    write("usr/lib/same", &noise(2, 500_000));
    write("usr/lib/gone", &noise(3, 100_000));
    write("usr/lib/shifted", &noise(4, 400_000));
    File::create(path.join("root/holes")).and_then(|file| file.set_len(1 << 30)).expect("a hole");
    for number in 0..200 {
        write(&format!("etc/{number}"), format!("setting {number}\n").repeat(20).as_bytes());
    }
    image(path, "old.tess", None);
    image(path, "old", Some(&[]));

    fs::remove_file(path.join("root/usr/lib/libfoo.so.1.2.3")).expect("removed");
    fs::remove_file(path.join("root/usr/lib/gone")).expect("removed");
    for at in (0..library.len()).step_by(10_000) {
        library[at] ^= 1;
    }
    write("usr/lib/libfoo.so.1.2.4", &library);
    write("usr/lib/shifted", &[b"in front of it", &noise(4, 400_000)[..]].concat());
    write("usr/lib/come", &noise(5, 150_000));
    for number in (0..200).step_by(50) {
        write(&format!("etc/{number}"), format!("another setting {number}\n").repeat(20).as_bytes());
    }
    image(path, "new.tess", None);
    image(path, "new", Some(&["old"]));
    folder
}

/// Builds an image in one file, or over packs with these parents.
fn image(folder: &Path, name: &str, parents: Option<&[&str]>) {
    build_with(folder, |config| {
        config.image = folder.join(name);
        config.shared = parents.map(|parents| SharedForm {
            dir: folder.join("packs"),
            parents: parents.iter().map(|parent| folder.join(parent)).collect(),
            rebase: false,
        });
    });
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join(name)).expect(name)
}

fn len(folder: &Path, name: &str) -> u64 {
    folder.join(name).metadata().expect(name).len()
}

#[test]
fn each_form_becomes_each_form_byte_for_byte() {
    let folder = folder();
    let folder = folder.path();
    for old in ["old.tess", "old"] {
        for new in ["new.tess", "new"] {
            // A host of its own, which has the old image and its packs.
            let host = folder.join("host");
            fs::create_dir(&host).expect("a folder");
            fs::copy(folder.join(old), host.join(old)).expect("copied");
            if old == "old" {
                let digest = pack_of(folder, old);
                fs::copy(folder.join("packs").join(&digest), host.join(&digest)).expect("copied");
            }
            for portable in [&[][..], &["--portable"]] {
                let bundle = [
                    &["bundle", "-q", "--packdir", "packs", "-f", "-o", "host/update"],
                    portable,
                    &[old, new],
                ];
                done(folder, &bundle.concat());
                done(&host, &["apply", "-q", "-f", old, "update", "made"]);
                assert!(read(&host, "made") == read(folder, new), "{old} to {new}, {portable:?}");
                for pack in host.read_dir().expect("files") {
                    let pack = pack.expect("a file").file_name();
                    if pack.len() == 64 {
                        let bytes = fs::read(host.join(&pack)).expect("a pack");
                        assert_eq!(sha256(&bytes).to_string(), pack.to_string_lossy());
                    }
                }
                // Nothing is missing: it can be read.
                done(&host, &["diff", "-q", "made", "made"]);
                if new == "new" {
                    done(&host, &["unpack", "-q", "-f", "whole", "made"]);
                    assert!(read(&host, "whole") == read(folder, "new.tess"));
                }
            }
            fs::remove_dir_all(&host).expect("removed");
        }
    }
}

/// The only pack of an image, by the report of the image's needs.
fn pack_of(folder: &Path, image: &str) -> String {
    image_with_nothing(folder);
    let output = run(folder, &["diff", "--stat", "--json", "nothing", image]);
    let text = String::from_utf8(output.stdout).expect("text");
    let at = text.find("\"packs\":[{\"digest\":\"").expect("a pack") + 20;
    text[at..at + 64].to_owned()
}

fn image_with_nothing(folder: &Path) {
    let empty = folder.join("empty");
    fs::create_dir_all(empty.join("root")).expect("a folder");
    build_with(&empty, |config| config.image = folder.join("nothing"));
}

#[test]
fn what_resembles_the_old_image_is_not_shipped() {
    let folder = folder();
    let folder = folder.path();
    done(folder, &["bundle", "-q", "-o", "update", "old.tess", "new.tess"]);
    done(folder, &["bundle", "-q", "--portable", "-o", "portable", "old.tess", "new.tess"]);
    // 150 kB have come, which nothing resembles; of the library 300 bytes are others, all over it.
    let (update, portable) = (len(folder, "update"), len(folder, "portable"));
    assert!(update > 150_000 && update < 175_000, "{update}");
    assert!(portable > 3_000_000, "{portable}");
    // Bytes that do not change are not shipped in any form.
    assert!(portable < len(folder, "new.tess") - 500_000, "{portable}");
    // Nothing is shipped of an image that a host has.
    done(folder, &["bundle", "-q", "-o", "nothing-new", "new.tess", "new.tess"]);
    assert!(len(folder, "nothing-new") < 4096, "{}", len(folder, "nothing-new"));
    let json = done(folder, &["bundle", "--json", "-f", "-o", "update", "old.tess", "new.tess"]);
    assert!(json.contains(&format!("\"bundle_bytes\": {update}")), "{json}");
}

#[test]
fn a_pipe_serves_and_a_signature_comes_with_it() {
    let folder = folder();
    let folder = folder.path();
    build_with(folder, |config| {
        config.image = folder.join("signed.tess");
        config.signer = Some(signer(folder));
    });
    let bundle = run(folder, &["bundle", "old.tess", "signed.tess"]);
    assert!(bundle.status.success(), "{bundle:?}");
    let mut apply = Command::new(TESSERAFS)
        .current_dir(folder)
        .args(["apply", "-q", "old.tess", "-", "made.tess"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("tesserafs");
    apply.stdin.take().expect("a pipe").write_all(&bundle.stdout).expect("written");
    assert!(apply.wait().expect("a status").success());
    assert!(read(folder, "made.tess") == read(folder, "signed.tess"));
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let folder = folder();
    let folder = folder.path();
    done(folder, &["bundle", "-q", "-o", "update", "old.tess", "new.tess"]);
    let said = refused(folder, 1, &["apply", "new.tess", "update", "made.tess"]);
    assert!(said.contains("update: is for the image sha256:") && said.contains("in new.tess"), "{said}");
    let said = refused(folder, 1, &["apply", "old.tess", "old.tess", "made.tess"]);
    assert!(said.contains("old.tess at byte 0: this is no bundle"), "{said}");
    // Of another time.
    let mut other = read(folder, "update");
    other[16..20].copy_from_slice(&10_000_u32.to_le_bytes());
    let digest = sha256(&other[..88]);
    other[88..120].copy_from_slice(&digest.0);
    fs::write(folder.join("other"), other).expect("written");
    let said = refused(folder, 1, &["apply", "old.tess", "other", "made.tess"]);
    assert!(said.contains("needs libzstd 1.0.0, found ") && said.contains("--portable"), "{said}");
    let said = refused(folder, 1, &["apply", "old.tess", "update", "new.tess"]);
    assert!(said.contains("new.tess: exists; --force replaces it"), "{said}");
    assert!(!folder.join("made.tess").exists() && !folder.join("made.tess.partial").exists());
}

#[test]
fn a_run_that_was_cut_off_goes_on() {
    let folder = folder();
    let folder = folder.path();
    done(folder, &["bundle", "-q", "--portable", "-o", "update", "old.tess", "new.tess"]);
    let update = read(folder, "update");
    for cut in (0..update.len()).step_by(update.len() / 12) {
        fs::write(folder.join("cut"), &update[..cut]).expect("written");
        let said = refused(folder, 1, &["apply", "old.tess", "cut", "made.tess"]);
        assert!(said.contains("the bundle ends there"), "{cut} bytes: {said}");
        assert!(!folder.join("made.tess").exists());
    }
    // A changed byte anywhere is an error, too.
    for at in (0..update.len()).step_by(update.len() / 12) {
        let mut changed = update.clone();
        changed[at] ^= 0x10;
        fs::write(folder.join("cut"), &changed).expect("written");
        let said = refused(folder, 1, &["apply", "old.tess", "cut", "made.tess"]);
        assert!(said.contains("cut at byte ") || said.contains("cut: "), "{at}: {said}");
        assert!(!folder.join("made.tess").exists());
    }
    assert!(folder.join("made.tess.partial").exists());
    done(folder, &["apply", "-q", "old.tess", "update", "made.tess"]);
    assert!(read(folder, "made.tess") == read(folder, "new.tess"));
    assert!(!folder.join("made.tess.partial").exists());

    // A file of another image is no hindrance.
    fs::write(folder.join("made.tess.partial"), noise(9, 5_000_000)).expect("written");
    fs::remove_file(folder.join("made.tess")).expect("removed");
    let said = refused(folder, 1, &["apply", "old.tess", "update", "made.tess"]);
    assert!(said.contains("made.tess.partial: is in the way"), "{said}");
    assert_eq!(len(folder, "made.tess.partial"), 5_000_000);
    done(folder, &["apply", "-q", "--force", "old.tess", "update", "made.tess"]);
    assert!(read(folder, "made.tess") == read(folder, "new.tess"));
    // Nor is a byte of it taken that is not that of the new image, wherever it is.
    let new = read(folder, "new.tess");
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut partial = new.clone();
        change(&mut partial);
        fs::write(folder.join("made.tess.partial"), partial).expect("written");
        done(folder, &["apply", "-q", "--force", "old.tess", "update", "made.tess"]);
        assert!(read(folder, "made.tess") == new);
    };
    changed(&|partial| partial[100_000..200_000].fill(7));
    changed(&|partial| partial.extend(b"more"));
    changed(&|partial| partial.truncate(new.len() - 1));
    // All bytes that are zero: between tables, behind the pack.
    changed(&|partial| partial[4096..].iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = 1));
    // The inputs are no unfinished image.
    fs::rename(folder.join("old.tess"), folder.join("made.tess.partial")).expect("renamed");
    let said = refused(folder, 1, &["apply", "-f", "made.tess.partial", "update", "made.tess"]);
    assert!(said.contains("is to be read"), "{said}");
}

/// The chunks of an image in one file.
fn chunks(path: &Path) -> (SuperBlock, Vec<Chunk>) {
    let source = Source::open(path).expect("an image");
    let sb = superblock::read(&source).expect("a superblock");
    let metadata = VerifiedMetadata::new(&source, &sb);
    let image = Image::new(&sb, &metadata);
    let numbers = 0..sb.layout.chunks.records() as u32;
    let chunks = numbers.map(|number| image.chunk(ChunkIndex(number)).expect("a chunk")).collect();
    (sb, chunks)
}

#[test]
fn a_rest_that_seems_right_and_is_not_is_removed() {
    let folder = folder();
    let folder = folder.path();
    done(folder, &["bundle", "-q", "-o", "update", "old.tess", "new.tess"]);
    let (_, old) = chunks(&folder.join("old.tess"));
    let (sb, new) = chunks(&folder.join("new.tess"));
    // A lacking chunk that has another byte, and the digest of that.
    let is_lacking =
        |chunk: &&Chunk| chunk.codec == Codec::Plain && old.iter().all(|known| known.digest != chunk.digest);
    let chunk = new.iter().find(is_lacking).expect("a plain chunk");
    let mut partial = read(folder, "new.tess");
    let stored = 4096 + chunk.offset as usize..4096 + chunk.offset as usize + chunk.stored_len as usize;
    partial[stored.start] ^= 1;
    let digest = chunk_digest::<Sha2>(&partial[stored]);
    let at = sb.layout.chunk_digests.offset() as usize + 32 * chunk.index.0 as usize;
    partial[at..at + 32].copy_from_slice(&digest.0);
    fs::write(folder.join("made.tess.partial"), &partial).expect("written");
    // All chunks of its piece have the digests that stand there: nothing tells before the end.
    let said = refused(folder, 1, &["apply", "old.tess", "update", "made.tess"]);
    assert!(said.contains("digest") && said.contains("is removed: apply the bundle again"), "{said}");
    assert!(!folder.join("made.tess").exists() && !folder.join("made.tess.partial").exists());
    done(folder, &["apply", "-q", "old.tess", "update", "made.tess"]);
    assert!(read(folder, "made.tess") == read(folder, "new.tess"));
}

#[test]
fn a_chunk_that_the_old_image_has_only_in_a_pack_of_both_is_not_shipped() {
    let folder = folder();
    let folder = folder.path();
    // The pack of `new` has `usr/lib/come`, of which this image knows nothing.
    fs::rename(folder.join("root/usr/lib/come"), folder.join("come")).expect("renamed");
    image(folder, "without", Some(&["new"]));
    fs::rename(folder.join("come"), folder.join("root/usr/lib/come")).expect("renamed");
    fs::write(folder.join("root/etc/0"), "one more\n").expect("written");
    image(folder, "again", Some(&["new"]));
    done(folder, &["bundle", "-q", "--packdir", "packs", "-o", "update", "without", "again"]);
    assert!(len(folder, "update") < 20_000, "{}", len(folder, "update"));
    done(folder, &["apply", "-q", "--packdir", "packs", "without", "update", "made"]);
    assert!(read(folder, "made") == read(folder, "again"));
}

#[test]
fn packs_of_both_images_must_be_where_the_new_one_looks_for_them() {
    let folder = folder();
    let folder = folder.path();
    // A pack as small as that of this file takes in no other.
    fs::write(folder.join("root/etc/0"), "one more\n").expect("written");
    image(folder, "third", Some(&["new"]));
    done(folder, &["bundle", "-q", "--packdir", "packs", "-o", "update", "new", "third"]);
    let elsewhere = folder.join("elsewhere");
    fs::create_dir(&elsewhere).expect("a folder");
    for pack in folder.join("packs").read_dir().expect("packs") {
        let pack = pack.expect("a pack");
        fs::copy(pack.path(), folder.join(pack.file_name())).expect("copied");
    }
    let said = refused(folder, 1, &["apply", "new", "update", "elsewhere/third"]);
    assert!(said.contains("is a pack of both images, and not there"), "{said}");
    done(folder, &["apply", "-q", "--packdir", "packs", "new", "update", "elsewhere/third"]);
    assert!(read(folder, "elsewhere/third") == read(folder, "third"));
}

#[test]
fn an_image_with_bytes_that_nothing_proves_is_refused() {
    let folder = folder();
    let folder = folder.path();
    let mut longer = read(folder, "new.tess");
    longer.push(0);
    fs::write(folder.join("longer.tess"), &longer).expect("written");
    let said = refused(folder, 1, &["bundle", "-o", "update", "old.tess", "longer.tess"]);
    assert!(said.contains(&format!(
        "longer.tess: has {} bytes, expected {}",
        longer.len(),
        longer.len() - 1
    )));
    let tree = u64::from_le_bytes(longer[0x28..0x30].try_into().expect("eight bytes")) as usize;
    longer.pop();
    longer[tree - 1] = 1;
    fs::write(folder.join("longer.tess"), &longer).expect("written");
    let said = refused(folder, 1, &["bundle", "-o", "update", "old.tess", "longer.tess"]);
    assert!(said.contains("other bytes than zeros"), "{said}");
    assert!(!folder.join("update").exists());
}

#[test]
fn a_damaged_old_image_is_named() {
    let folder = folder();
    let folder = folder.path();
    done(folder, &["bundle", "-q", "-o", "update", "old.tess", "new.tess"]);
    let mut old = read(folder, "old.tess");
    old[4096 + 1_000_000] ^= 1;
    fs::write(folder.join("old.tess"), old).expect("written");
    let said = refused(folder, 1, &["apply", "old.tess", "update", "made.tess"]);
    assert!(said.contains("old.tess: error: chunk-digest @ chunk "), "{said}");
    assert!(!folder.join("made.tess").exists());
}
