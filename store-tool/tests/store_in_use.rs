// SPDX-License-Identifier: GPL-2.0-or-later

//! Images of the store that are mounted: they are told from others, and nothing that they need goes.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use support::store::{blob, problems, pull, two, using, Made};
use support::{done, error, mount_type, refused, run, tesserafs, text, wait, TESSERAFS};
use tempfile::TempDir;
use tesserafs_store::store::{Places, Store, Wanted};

/// Tests in one process, one after the other: a mount namespace that one of them makes has the mounts of the others, too, and they stay in
/// use as long as it lives.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const ONE: &str = "registry.example/app:1";
const TWO: &str = "registry.example/app:2";

/// A store with two images, which share a pack.
fn store(folder: &Path) -> (Store, [Made; 2]) {
    let images = two(folder);
    let store = Store::create(&folder.join("store")).expect("a store");
    pull(&store, ONE, &images[0]).expect("an image");
    pull(&store, TWO, &images[1]).expect("an image");
    fs::create_dir(folder.join("mnt")).expect("a directory");
    (store, images)
}

/// Takes the names away.
fn forget(store: &Store) {
    fs::remove_dir_all(store.path().join("refs/registry.example")).expect("names");
}

fn is_there(store: &Store, made: &Made) -> bool {
    made.artifact.files().all(|file| blob(store, &file.digest).is_file())
}

/// A system where the driver has mounted nothing, and there are no processes.
fn places(folder: &Path) -> Places {
    let places = Places { driver: folder.join("sys"), processes: folder.join("proc") };
    for dir in [&places.driver, &places.processes] {
        fs::create_dir_all(dir).expect("a directory");
    }
    places
}

/// Removes what can go. The result is the list of reasons for others to stay.
fn sweep(store: &Store, places: &Places) -> Vec<String> {
    let collecting = store.try_collect(support::PATIENCE).expect("a lock").expect("the lock");
    let wanted = Wanted { places, unfinished: Duration::ZERO };
    collecting.sweep(&wanted).expect("garbage").kept.into_iter().map(|kept| kept.why).collect()
}

#[test]
fn what_the_driver_has_mounted_stays() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (store, [one, two]) = store(folder.path());
    let places = places(folder.path());
    forget(&store);
    let mount = places.driver.join("0:50");
    fs::create_dir(&mount).expect("a directory");
    fs::write(mount.join("image_id"), format!("{}\n", two.artifact.image_id)).expect("a file");
    // One that is mounted from elsewhere, and one that is just being unmounted.
    fs::create_dir(places.driver.join("0:51")).expect("a directory");
    fs::create_dir(places.driver.join("0:52")).expect("a directory");
    fs::write(places.driver.join("0:52/image_id"), format!("sha256:{}\n", "0".repeat(64))).expect("a file");
    assert_eq!(sweep(&store, &places), ["it is mounted"]);
    assert!(is_there(&store, &two) && !blob(&store, &one.artifact.image.digest).exists());
    // It can have a name again: its manifest is there.
    let manifest = support::store::digest(&two.artifact.to_manifest());
    using(&store).set_name(&support::store::reference(TWO), &manifest).expect("a name");
    assert_eq!(problems(&store), []);
    forget(&store);
    fs::remove_dir_all(&mount).expect("a directory");
    assert!(sweep(&store, &places).is_empty());
    assert_eq!(support::store::tree(store.path()), ["lock"]);
}

#[test]
fn where_the_driver_does_not_tell_all_images_stay() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (store, images) = store(folder.path());
    let places = places(folder.path());
    forget(&store);
    // Garbage all the same: no image needs it.
    let stray = store.path().join("blobs/sha256").join("1".repeat(64));
    fs::write(&stray, "stray").expect("a file");
    fs::create_dir(places.driver.join("0:50")).expect("a directory");
    for (bytes, expected) in [
        ("", "found , expected an image ID"),
        ("\u{1b}[m\n", "found \\033[m, expected an image ID"),
        ("12\n", "found 12, expected an image ID"),
    ] {
        fs::write(places.driver.join("0:50/image_id"), bytes).expect("a file");
        let kept = sweep(&store, &places);
        assert!(kept.len() == 2 && kept.iter().all(|why| why.ends_with(expected)), "{kept:?}");
        assert!(images.iter().all(|made| is_there(&store, made)) && !stray.exists());
    }
    fs::remove_file(places.driver.join("0:50/image_id")).expect("a file");
    fs::create_dir(places.driver.join("0:50/image_id")).expect("a directory");
    assert_eq!(sweep(&store, &places).len(), 2);
    fs::remove_dir_all(&places.driver).expect("a directory");
    fs::write(&places.driver, "").expect("a file");
    assert_eq!(sweep(&store, &places).len(), 2);
    assert!(images.iter().all(|made| is_there(&store, made)));
}

#[test]
fn mounts_in_the_namespaces_of_others_are_seen() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (store, [one, two]) = store(folder.path());
    let places = places(folder.path());
    forget(&store);
    let line = |made: &Made, kind: &str| {
        format!("51 27 0:40 / /a\\040b ro - {kind} /other/path/{} ro\n", made.artifact.image.digest)
    };
    for (process, namespace, mounts) in [
        ("self", "mnt:[1]", line(&one, "ext4")),
        ("17", "mnt:[1]", line(&one, "tesserafs")),
        ("18", "mnt:[2]", line(&two, "fuse.tesserafs")),
    ] {
        let dir = places.processes.join(process);
        fs::create_dir_all(dir.join("ns")).expect("a directory");
        symlink(namespace, dir.join("ns/mnt")).expect("a link");
        fs::write(dir.join("mountinfo"), mounts).expect("a file");
    }
    // Process 17 sees what this one sees.
    assert_eq!(sweep(&store, &places), ["it is mounted at /a b (seen by process 18)"]);
    assert!(is_there(&store, &two) && !blob(&store, &one.artifact.image.digest).exists());
}

#[test]
fn an_image_file_that_is_locked_stays() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (store, [one, two]) = store(folder.path());
    let places = places(folder.path());
    let pin = {
        let using = using(&store);
        let image = using.image(&support::store::reference(TWO)).expect("an image").expect("an image");
        using.pin(&image).expect("a lock")
    };
    forget(&store);
    assert_eq!(sweep(&store, &places), ["it is mounted"]);
    assert!(is_there(&store, &two) && !blob(&store, &one.artifact.image.digest).exists());
    drop(pin);
    assert!(sweep(&store, &places).is_empty());
}

/// A folder with a store, and a directory to mount at, where this machine can mount by FUSE.
fn mountable() -> Option<(TempDir, Store, [Made; 2])> {
    let folder = support::folder()?;
    let (store, images) = store(folder.path());
    Some((folder, store, images))
}

#[test]
fn an_image_is_mounted_by_its_name() {
    let _alone = alone();
    let Some((folder, store, [one, two])) = mountable() else { return };
    let folder = folder.path();
    let said = error(&run(folder, &["mount", "--fuse", "--store", "store", TWO, "mnt"]));
    assert!(said.starts_with(&format!("tesserafs: {TWO}: mounted at ")), "{said}");
    assert!(fs::read(folder.join("mnt/more")).expect("a file") == support::noise(2, 120_000));
    let images = done(folder, &["images", "--store", "store"]);
    let mnt = folder.join("mnt").canonicalize().expect("a path");
    assert!(images.lines().nth(2).is_some_and(|line| line.ends_with(text(&mnt))), "{images}");
    let json: serde_json::Value =
        serde_json::from_str(&done(folder, &["images", "--json", "--store", "store"])).expect("JSON");
    assert_eq!((&json[0]["in_use"], &json[1]["in_use"]), (&false.into(), &true.into()), "{json}");

    // Its files stay without a name.
    let said = error(&run(folder, &["rm", "--store", "store", ONE, TWO]));
    assert!(
        said.contains(&format!("files stay until `tesserafs gc`: it is mounted at {}", mnt.display())),
        "{said}"
    );
    let said = done(folder, &["gc", "--store", "store"]);
    assert!(said.starts_with(&format!("kept image {}: it is mounted at ", two.artifact.image_id)), "{said}");
    assert!(is_there(&store, &two) && !blob(&store, &one.artifact.image.digest).exists());
    assert!(fs::read(folder.join("mnt/base")).expect("a file") == support::noise(1, 300_000));
    assert!(tesserafs(&["umount", text(&mnt)]).status.success());
    wait("the end of the daemon", || {
        done(folder, &["gc", "--store", "store"]);
        !blob(&store, &two.artifact.image.digest).exists()
    });
    assert_eq!(support::store::tree(store.path()), ["lock"]);
}

#[test]
fn a_path_is_taken_for_a_path_and_a_name_for_a_name() {
    let _alone = alone();
    let Some((folder, _store, [one, two])) = mountable() else { return };
    let folder = folder.path();
    // A file of that name.
    fs::create_dir(folder.join("registry.example")).expect("a directory");
    fs::copy(&one.path, folder.join(TWO)).expect("a copy");
    done(folder, &["mount", "-q", "--fuse", "--store", "store", "--packdir", "packs", TWO, "mnt"]);
    assert!(!folder.join("mnt/more").exists() && folder.join("mnt/base").exists());
    assert!(run(folder, &["umount", "mnt"]).status.success());
    fs::remove_dir_all(folder.join("registry.example")).expect("a directory");
    let none = |image: &str| refused(folder, 1, &["mount", "--fuse", "--store", "store", image, "mnt"]);
    for path in ["./registry.example/app:2", "/registry.example/app:2", "../registry.example/app:2"] {
        assert!(none(path).ends_with("No such file or directory (os error 2)\n"), "{}", none(path));
    }
    let said = none("registry.example/app:3");
    assert!(said.contains("there is no such file, and registry.example/app:3: no image in"), "{said}");
    let said = none("No Image");
    assert!(said.contains("there is no such file, and No Image is not a reference"), "{said}");
    let said = refused(folder, 1, &["mount", "--store", "none", ONE, "mnt"]);
    assert!(said.contains("there is no such file, and none: found no store"), "{said}");
    let other = format!("sha256:{}", one.artifact.image_id);
    let said = refused(folder, 1, &["mount", "--store", "store", "--digest", &other, TWO, "mnt"]);
    let expected = format!("found image ID {}, expected {}\n", two.artifact.image_id, one.artifact.image_id);
    assert!(said.ends_with(&expected), "{said}");
    assert_eq!(mount_type(&folder.join("mnt")), None);
}

/// A process in a mount namespace of its own, which ends when its input does.
struct Namespace(Child);

impl Namespace {
    fn new(script: &str) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).stdin(Stdio::piped());
        Self(command.spawn().expect("unshare"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_mount_in_another_namespace_keeps_its_image() {
    let _alone = alone();
    let Some((folder, store, [_, two])) = mountable() else { return };
    let folder = folder.path();
    let mark = folder.join("mounted");
    let script = format!(
        "{TESSERAFS} mount -q --fuse --store {0}/store {TWO} {0}/mnt && touch {1} && read end; umount -l {0}/mnt",
        text(folder),
        text(&mark),
    );
    let namespace = Namespace::new(&script);
    wait("the mount", || mark.exists());
    assert_eq!(mount_type(&folder.join("mnt")), None, "it is seen here");
    forget(&store);
    // No process is seen that sees the mount, and the driver tells of nothing: the daemon's lock is all there is.
    let kept = sweep(&store, &places(folder));
    assert_eq!(kept, ["it is mounted"]);
    let said = done(folder, &["gc", "--store", "store"]);
    assert!(said.contains("(seen by process "), "{said}");
    assert!(is_there(&store, &two));
    drop(namespace);
    wait("the end of the mount", || sweep(&store, &places(folder)).is_empty());
    assert_eq!(support::store::tree(store.path()), ["lock"]);
}

/// A process that unmounts and ends when the test does.
struct Mounter(Child);

impl Drop for Mounter {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::TERM,
        );
        let _ = self.0.wait();
    }
}

#[test]
fn a_mount_in_the_foreground_keeps_nobody_from_collecting() {
    let _alone = alone();
    let Some((folder, store, [one, two])) = mountable() else { return };
    let folder = folder.path();
    let mounter = Command::new(TESSERAFS)
        .current_dir(folder)
        .args(["mount", "--fuse", "--foreground", "--store", "store", TWO, "mnt"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("tesserafs");
    let mut mounter = Mounter(mounter);
    wait("the mount", || folder.join("mnt/more").exists());
    let said = error(&run(folder, &["rm", "--store", "store", ONE, TWO]));
    assert!(!said.contains("another process uses the store"), "{said}");
    assert!(is_there(&store, &two) && !blob(&store, &one.artifact.image.digest).exists());
    assert!(run(folder, &["umount", "mnt"]).status.success());
    assert!(mounter.0.wait().expect("a status").success());
    done(folder, &["gc", "--store", "store"]);
    assert_eq!(support::store::tree(store.path()), ["lock"]);
}
