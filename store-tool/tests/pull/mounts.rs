// SPDX-License-Identifier: GPL-2.0-or-later

//! Mounts by FUSE of images from the store of which only a part of a pack was needed: every file is read, and a chunk that is not there
//! is an error and never zeros.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{fallocate, FallocateFlags};
use rustix::mount::{unmount, UnmountFlags};

use super::support::store::problems;
use super::support::{self, error, mount_type, noise, text, TESSERAFS};
use super::{name_of, Made, Place};

/// Bytes of each file of the images.
const LEN: usize = 200_000;

/// The files that the first image has, and those that only the other one needs.
const FILES: [&str; 4] = ["a", "b", "c", "d"];
const NEEDED: usize = 2;

/// Mounts are made one after the other: `gc` looks at all of this machine.
pub(super) static ALONE: Mutex<()> = Mutex::new(());

/// The program in the folder of a place, with its store.
fn tesserafs(place: &Place, arguments: &[&str]) -> Output {
    let (verb, rest) = arguments.split_first().expect("a verb");
    let store = place.path().join("store");
    Command::new(TESSERAFS)
        .current_dir(place.path())
        .args([verb, "--store", text(&store)])
        .args(rest)
        .output()
        .expect("tesserafs")
}

fn done(place: &Place, arguments: &[&str]) -> String {
    let output = tesserafs(place, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    error(&output) + &String::from_utf8_lossy(&output.stdout)
}

/// A mount, which ends with the test.
pub(super) struct Mounted(PathBuf);

impl Mounted {
    pub(super) fn new(place: &Place, image: &str, options: &[&str]) -> Self {
        let mount = Self::try_new(place, image, options);
        mount.unwrap_or_else(|said| panic!("{image}: {said}"))
    }

    fn try_new(place: &Place, image: &str, options: &[&str]) -> Result<Self, String> {
        let dir = place.path().join("mnt");
        fs::create_dir_all(&dir).expect("a directory");
        let output = tesserafs(place, &[&["mount", "--fuse"], options, &[image, text(&dir)]].concat());
        match output.status.success() {
            true => Ok(Self(dir)),
            false => Err(error(&output)),
        }
    }

    pub(super) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(name))
    }

    /// All files are as they were built.
    fn reads(&self, names: &[&str]) {
        for (seed, name) in (1..).zip(FILES).filter(|(_, name)| names.contains(name)) {
            assert!(self.read(name).expect(name) == noise(seed, LEN), "{name}");
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
        support::wait("unmounted", || mount_type(&self.0).is_none());
    }
}

/// An image of four files in one pack, and one that needs two of them, which is in the store; `None` where this machine cannot mount.
fn prepared() -> Option<(Place, [Made; 2])> {
    drop(support::folder()?);
    let place = Place::new();
    // The daemon may have to come here as another user.
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let all: Vec<_> = FILES.into_iter().zip(1..).map(|(name, seed)| (name, seed, LEN)).collect();
    let base = place.image("base.tess", &all, &[]);
    let less = place.image("less.tess", &all[..NEEDED], &[&base]);
    assert_eq!(less.artifact.packs, base.artifact.packs);
    place.publish(&less, "less");
    place.publish(&base, "base");
    place.pull("less");
    assert!(place.store().blob(&less.artifact.packs[0].digest).expect("a store").is_none());
    Some((place, [base, less]))
}

/// The part of the pack that the store has.
fn part(place: &Place, image: &Made) -> PathBuf {
    let filling = place.path().join("store/filling").join(image.artifact.image_id.to_string());
    filling.join(image.artifact.packs[0].digest.to_string())
}

/// Frees some bytes of a file, which are zeros from then on.
fn punch(path: &Path, offset: u64, len: u64) {
    let file = File::options().write(true).open(path).expect("a pack");
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, flags, offset, len).expect("a hole");
}

#[test]
fn an_image_with_a_part_of_a_pack_is_mounted_and_stays() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((place, [base, less])) = prepared() else { return };
    let name = place.name("less");
    let mount = Mounted::new(&place, &name, &[]);
    mount.reads(&FILES[..NEEDED]);
    assert_eq!(fs::read_dir(&mount.0).expect("a directory").count(), NEEDED);
    drop(mount);

    // It has a name.
    done(&place, &["gc"]);
    assert!(part(&place, &less).exists());
    Mounted::new(&place, &name, &[]).reads(&FILES[..NEEDED]);
    assert_eq!(problems(&place.store()), []);

    // It has none, and is mounted.
    let mount = Mounted::new(&place, &name, &[]);
    done(&place, &["rm", &name]);
    let said = done(&place, &["gc"]);
    assert!(part(&place, &less).exists(), "{said}");
    mount.reads(&FILES[..NEEDED]);

    // All of the pack comes for another image meanwhile: this one goes on with its part.
    place.pull("base");
    mount.reads(&FILES[..NEEDED]);
    drop(mount);
    Mounted::new(&place, &place.name("base"), &[]).reads(&FILES);
    done(&place, &["gc"]);
    place.check("base", &base);
    // With the pack that is there, nothing has to come but the image.
    place.asked();
    place.pull("less");
    assert!(!place.asked().contains_key(&name_of(&less.artifact.packs[0].digest)));
    Mounted::new(&place, &name, &[]).reads(&FILES[..NEEDED]);
}

/// A store of a user, who mounts by fusermount3.
#[test]
fn users_mount_an_image_with_a_part_of_a_pack() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((place, [_, less])) = prepared() else { return };
    let (folder, name) = (text(place.path()), place.name("less"));
    fs::create_dir(place.path().join("mnt")).expect("a directory");
    fs::rename(place.path().join("store"), place.path().join("tesserafs")).expect("a store");
    let owned =
        Command::new("chown").args(["-R", "65534:65534"]).arg(place.path().join("tesserafs")).status();
    assert!(owned.expect("chown").success());
    let script = format!(
        "export XDG_DATA_HOME={folder} && {TESSERAFS} mount {name} {folder}/mnt && cat {folder}/mnt/a {folder}/mnt/b && \
         {TESSERAFS} gc && cat {folder}/mnt/b && {TESSERAFS} umount {folder}/mnt"
    );
    let Some(output) = support::user_script(place.path(), &script) else { return };
    assert!(output.status.success(), "{}", error(&output));
    let [a, b] = [1, 2].map(|seed| noise(seed, LEN));
    assert!(output.stdout.starts_with(&[&*a, &b].concat()) && output.stdout.ends_with(&b));
    assert!(
        fs::metadata(place.path().join("tesserafs/filling").join(less.artifact.image_id.to_string())).is_ok()
    );
}

#[test]
fn a_chunk_that_is_not_there_is_an_error_and_no_zeros() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((place, [base, less])) = prepared() else { return };
    let refused = |read: io::Result<Vec<u8>>| {
        let error = read.expect_err("a chunk that is not there");
        let is_expected = [libc::EIO, libc::EBADMSG].contains(&error.raw_os_error().expect("a number"));
        assert!(is_expected, "{error}");
    };
    // Another image claims chunks that this one has not needed: in its part of the pack they are holes.
    let part = part(&place, &less);
    let mount =
        Mounted::new(&place, text(&base.path), &["--packdir", text(part.parent().expect("a folder"))]);
    mount.reads(&FILES[..NEEDED]);
    FILES[NEEDED..].iter().for_each(|name| refused(mount.read(name)));
    drop(mount);

    // The disk loses some of the part, behind the first chunk, which is looked at when the image is mounted.
    let name = place.name("less");
    let len = fs::metadata(&part).expect("a pack").len();
    let mut good = vec![0; len as usize];
    File::open(&part).and_then(|file| file.read_exact_at(&mut good, 0)).expect("a pack");
    let end = good.iter().rposition(|byte| *byte != 0).expect("bytes") as u64;
    let hole = end / 2 / 4096 * 4096;
    punch(&part, hole, end - hole);
    let mount = Mounted::new(&place, &name, &[]);
    let read: Vec<_> = FILES[..NEEDED].iter().map(|name| mount.read(name)).collect();
    assert!(read.iter().any(io::Result::is_err));
    for (seed, read) in (1..).zip(read) {
        match read {
            Ok(bytes) => assert!(bytes == noise(seed, LEN)),
            failed => refused(failed),
        }
    }
    drop(mount);
    assert!(problems(&place.store()).iter().any(|problem| problem.is_error));
    assert_eq!(tesserafs(&place, &["fsck"]).status.code(), Some(1));

    // All of it: the image is not even mounted.
    punch(&part, 0, len);
    let said = Mounted::try_new(&place, &name, &[]).map(drop).expect_err("no chunk");
    assert!(said.contains("chunk-digest @ chunk 0") && said.contains("not mounted"), "{said}");

    // The next pull brings what was lost, and no more.
    place.asked();
    let report = place.pull("less");
    assert!(report.fetched_bytes > 0 && report.fetched_bytes < len * 6 / 10, "{report:?}");
    assert_eq!(problems(&place.store()), []);
    Mounted::new(&place, &name, &[]).reads(&FILES[..NEEDED]);
}
