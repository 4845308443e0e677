// SPDX-License-Identifier: GPL-2.0-or-later

//! Images that are damaged, foreign, or another one's: an error and a line of the log, and never a wrong byte.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mkfs_tesserafs::packs::SharedForm;
use support::{build, build_with, folder, noise, Mount, TESSERAFS};
use tesserafs_format::{Image, Ino, PackIndex};
use tesserafs_image::{superblock, Source, VerifiedMetadata};

fn error_of<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<i32> {
    result.expect_err("an error").raw_os_error()
}

const EIO: Option<i32> = Some(5);
const EBADMSG: Option<i32> = Some(74);

/// A folder with a tree of files that have chunks of their own, and its image.
fn prepared() -> Option<(tempfile::TempDir, PathBuf)> {
    let folder = folder()?;
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("dir")).expect("a directory");
    for n in 0..4 {
        fs::write(root.join(format!("dir/{n}")), noise(n, 300_000)).expect("a file");
    }
    let image = build(folder.path());
    Some((folder, image))
}

/// Flips a bit of the byte at `offset`.
fn flip(image: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(image).expect("an image");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    file.write_all_at(&[byte[0] ^ 4], offset).expect("a byte");
}

fn tesserafs(arguments: &[&str], image: &Path) -> Output {
    let dir = image.with_file_name("mnt");
    fs::create_dir_all(&dir).expect("a directory");
    Command::new(TESSERAFS)
        .args(["mount", "--fuse"])
        .args(arguments)
        .args([image, &dir])
        .output()
        .expect("tesserafs")
}

fn refusal(arguments: &[&str], image: &Path) -> String {
    let output = tesserafs(arguments, image);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(support::mount_type(&image.with_file_name("mnt")), None, "{text}");
    text
}

#[test]
fn a_flipped_bit_of_data_is_an_error_of_its_chunk_only() {
    let Some((folder, image)) = prepared() else { return };
    // The first chunk is the beginning of the first file.
    flip(&image, 4096 + 100);
    let mount = Mount::new(&image, &[]);
    assert_eq!(error_of(fs::read(mount.path("dir/0"))), EBADMSG);
    for n in 1..4 {
        assert_eq!(fs::read(mount.path(&format!("dir/{n}"))).expect("a file"), noise(n, 300_000));
    }
    for _ in 0..20 {
        assert_eq!(error_of(fs::read(mount.path("dir/0"))), EBADMSG);
    }
    let lines = mount.failures();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let start = format!("tesserafs: {}: sha256:", image.display());
    assert!(lines[0].starts_with(&start), "{lines:?}");
    assert!(lines[0].contains(": chunk-digest @ chunk 0: found "), "{lines:?}");
    // The store recovers, and so does the file.
    flip(&image, 4096 + 100);
    assert_eq!(fs::read(mount.path("dir/0")).expect("a file"), noise(0, 300_000));
    drop(folder);
}

#[test]
fn a_flipped_bit_of_metadata_is_an_error_where_it_is_met() {
    let Some((_folder, image)) = prepared() else { return };
    let source = Source::open(&image).expect("an image");
    let head = superblock::read_head(&source).expect("a superblock");
    let root = Mount::new(&image, &[]);
    assert_eq!(fs::read_dir(&root.dir).expect("a directory").count(), 1);
    drop(root);
    // The names are in a block without the inodes, if there are enough of these; here all is in one.
    flip(&image, head.sb.layout.names.offset());
    let said = refusal(&[], &image);
    assert!(said.contains("hash-block @ metadata block 0: found"), "{said}");
    flip(&image, head.sb.layout.names.offset());

    // Blocks behind the first: those of a directory with many names.
    let root = image.with_file_name("root");
    for n in 0..2000 {
        fs::write(root.join(format!("file-with-a-long-name-{n:04}")), "").expect("a file");
    }
    let image = build(image.parent().expect("a folder"));
    let source = Source::open(&image).expect("an image");
    let head = superblock::read_head(&source).expect("a superblock");
    let names = head.sb.layout.names;
    assert!(names.end() - names.offset() > 52_000);
    flip(&image, names.offset() + 46_000);
    let mount = Mount::new(&image, &[]);
    // Entries before it can be had, by name and in order.
    assert!(mount.path("dir/3").exists() && mount.path("file-with-a-long-name-0001").exists());
    assert_eq!(error_of(mount.path("file-with-a-long-name-1780").metadata()), EBADMSG);
    let listed: Vec<_> = fs::read_dir(&mount.dir).expect("a directory").collect();
    assert!(listed.len() > 1000);
    assert!(listed.iter().any(|entry| entry.as_ref().is_err_and(|error| error.raw_os_error() == EBADMSG)));
    let lines = mount.failures();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("hash-block @ metadata block"), "{lines:?}");
}

#[test]
fn a_truncated_image_gives_eio_and_a_vanished_one_is_read_on() {
    let Some((_folder, image)) = prepared() else { return };
    let mount = Mount::new(&image, &[]);
    assert_eq!(fs::read(mount.path("dir/0")).expect("a file"), noise(0, 300_000));
    let file = File::options().write(true).open(&image).expect("an image");
    let len = file.metadata().expect("a length").len();
    file.set_len(5000).expect("a shorter file");
    let error = error_of(fs::read(mount.path("dir/3")));
    assert_eq!(error, EIO, "{}", mount.log());
    let lines = mount.failures();
    assert!(lines.iter().any(|line| line.contains("the file ends there")), "{lines:?}");
    drop(mount);
    assert!(refusal(&[], &image).contains(&format!("file-length @ byte 5000: found 5000, expected {len}")));

    let image = build(image.parent().expect("a folder"));
    let mount = Mount::new(&image, &[]);
    fs::remove_file(&image).expect("an image");
    assert_eq!(fs::read(mount.path("dir/3")).expect("a file"), noise(3, 300_000));
}

#[test]
fn another_file_under_the_name_of_a_pack_is_refused() {
    let Some((folder, _)) = prepared() else { return };
    let image = build_with(folder.path(), |config| {
        config.shared = Some(SharedForm { dir: folder.path().to_owned(), ..SharedForm::default() });
    });
    let is_pack = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 64);
    let mut names = folder.path().read_dir().expect("a folder").map(|entry| entry.expect("an entry").path());
    let pack = names.find(is_pack).expect("a pack");
    let bytes = fs::read(&pack).expect("a pack");
    fs::write(&pack, &bytes[1..]).expect("a pack");
    let said = refusal(&[], &image);
    let lengths = format!("found {}, expected {}", bytes.len() - 1, bytes.len());
    assert!(said.contains(&format!("{}: pack-digest @ pack 1: {lengths}", pack.display())), "{said}");
    fs::write(&pack, vec![0; bytes.len()]).expect("a pack");
    let said = refusal(&[], &image);
    assert!(said.contains(&format!("{}: chunk-digest @ chunk 0: found ", pack.display())), "{said}");
    fs::write(&pack, &bytes).expect("a pack");
    let mount = Mount::new(&image, &[]);
    assert_eq!(fs::read(mount.path("dir/0")).expect("a file"), noise(0, 300_000));
}

#[test]
fn what_is_no_image_is_refused() {
    let Some(folder) = folder() else { return };
    let image = folder.path().join("image.tess");
    fs::write(&image, "short").expect("a file");
    assert!(refusal(&[], &image).contains("file-length @ byte 5: found 5, expected 4096"));
    fs::write(&image, noise(1, 100_000)).expect("a file");
    assert!(refusal(&[], &image).contains("magic @ superblock byte 0"));
    fs::remove_file(&image).expect("a file");
    assert!(refusal(&[], &image).contains("No such file or directory"));
    fs::create_dir(&image).expect("a directory");
    assert!(refusal(&[], &image).contains("neither a regular file nor a block device"));
}

#[test]
fn another_image_than_the_pinned_one_is_refused() {
    let Some((_folder, image)) = prepared() else { return };
    let source = Source::open(&image).expect("an image");
    let id = superblock::read_head(&source).expect("a superblock").id.to_string();
    let other = "0".repeat(64);
    let said = refusal(&["--digest", &other], &image);
    assert!(
        said.contains(&format!(
            "image-id @ superblock byte 0: found {}, expected 0000000000000000",
            &id[..16]
        )),
        "{said}"
    );
    assert!(refusal(&["-o", &format!("digest=sha256:{other}")], &image).contains("image-id"));
    // It is refused for its ID even if nothing behind the superblock can be read.
    flip(&image, superblock::read_head(&source).expect("a superblock").sb.layout.tree_offset);
    assert!(refusal(&["--digest", &other], &image).contains("image-id"));
    assert!(refusal(&["--digest", &id], &image).contains("hash-block"));
    flip(&image, superblock::read_head(&source).expect("a superblock").sb.layout.tree_offset);
    let mount = Mount::new(&image, &["--digest", &format!("sha256:{id}")]);
    assert!(mount.path("dir/0").exists());
}

#[test]
fn a_signer_can_be_asked_for() {
    let Some((folder, image)) = prepared() else { return };
    for name in ["one", "other"] {
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "1",
            ])
            .args([
                "-subj",
                &format!("/CN={name}"),
                "-keyout",
                &format!("{name}.key"),
                "-out",
                &format!("{name}.pem"),
            ])
            .current_dir(&folder)
            .output()
            .expect("openssl");
        assert!(made.status.success(), "{made:?}");
    }
    let pem = |name: &str| folder.path().join(format!("{name}.pem")).to_str().expect("UTF-8").to_owned();
    assert!(refusal(&["--cert", &pem("one")], &image).contains("found no signature"));
    let key = folder.path().join("one.key");
    let image = build_with(folder.path(), |config| {
        config.signer =
            Some(mkfs_tesserafs::sign::Signer::new(&key, Path::new(&pem("one")), None).expect("a signer"));
    });
    let said = refusal(&["--cert", &pem("other")], &image);
    assert!(
        said.contains("signature @ byte") && said.contains("found a signature by an unknown signer"),
        "{said}"
    );
    for arguments in [
        vec!["--cert", &pem("other"), "--cert", &pem("one")],
        vec!["-o", &format!("cert={}", pem("one"))],
        vec![],
    ] {
        let mount = Mount::new(&image, &arguments);
        assert!(mount.path("dir/0").exists());
    }
    // A damaged signature is refused whoever is asked for, as by the kernel.
    let source = Source::open(&image).expect("an image");
    flip(&image, superblock::read_head(&source).expect("a superblock").sb.layout.image_bytes + 20);
    assert!(refusal(&[], &image).contains("signature-digest @ byte"));
}

#[test]
fn no_bit_that_flips_gives_a_wrong_byte() {
    let Some((_folder, image)) = prepared() else { return };
    let len = fs::metadata(&image).expect("an image").len();
    let mut state = 12345_u64;
    for round in 0..40 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // All of the superblock and the metadata, and some of the data.
        let offset = if round % 2 == 0 { (state >> 20) % len } else { len - 1 - (state >> 20) % 12_288 };
        flip(&image, offset);
        let output = tesserafs(&["-q"], &image);
        let dir = image.with_file_name("mnt");
        if output.status.success() {
            for n in 0..4 {
                match fs::read(dir.join(format!("dir/{n}"))) {
                    Ok(bytes) => assert!(bytes == noise(n, 300_000), "byte {offset}"),
                    Err(error) => assert!(
                        [EBADMSG, Some(117)].contains(&error.raw_os_error()),
                        "byte {offset}: {error}"
                    ),
                }
            }
            rustix::mount::unmount(&dir, rustix::mount::UnmountFlags::empty()).expect("umount");
        } else {
            assert_eq!(output.status.code(), Some(1), "byte {offset}: {output:?}");
        }
        flip(&image, offset);
    }
    // All was put back.
    let source = Source::open(&image).expect("an image");
    let head = superblock::read_head(&source).expect("a superblock");
    let metadata = VerifiedMetadata::new(&source, &head.sb);
    let records = Image::new(&head.sb, &metadata);
    assert!(records.inode(Ino::ROOT).is_ok() && records.pack(PackIndex(0)).is_ok());
}
