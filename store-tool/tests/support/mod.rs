// SPDX-License-Identifier: GPL-2.0-or-later

//! Images, and mounts of them that are gone when the test is.

#![allow(dead_code, reason = "each test uses some of it")]

pub(crate) mod store;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use mkfs_tesserafs::config::{default_profile, Config, SourcePath};
use mkfs_tesserafs::sign::Signer;
use rustix::mount::{unmount, UnmountFlags};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use seccompiler::{apply_filter, BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use tempfile::TempDir;

/// The program.
pub(crate) const TESSERAFS: &str = env!("CARGO_BIN_EXE_tesserafs");

/// How long a test waits for something that takes no time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A folder for an image, its source and its mount; `None` where this machine cannot mount with FUSE, which is said.
pub(crate) fn folder() -> Option<TempDir> {
    let refusal = if !rustix::process::geteuid().is_root() {
        "not root".to_owned()
    } else {
        match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
            Ok(_) => {
                let folder = tempfile::tempdir().expect("a folder");
                // Others come here, too.
                fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
                return Some(folder);
            }
            Err(error) => format!("/dev/fuse: {error}"),
        }
    };
    eprintln!("SKIPPED: this machine cannot mount with FUSE: {refusal}");
    None
}

/// Builds the image of the folder `root` beside it.
pub(crate) fn build(folder: &Path) -> PathBuf {
    build_with(folder, |_| ())
}

/// The same, with another configuration.
pub(crate) fn build_with(folder: &Path, change: impl FnOnce(&mut Config)) -> PathBuf {
    let image = folder.join("image.tess");
    let mut config = Config {
        image: image.clone(),
        source: SourcePath::Directory(folder.join("root")),
        filter: Default::default(),
        profile: default_profile(3),
        threads: std::num::NonZeroUsize::MIN,
        annotations: Default::default(),
        signer: None,
        signed_data: None,
        sbom: false,
        shared: None,
        force: true,
        dry_run: false,
    };
    change(&mut config);
    mkfs_tesserafs::build(&config, &mkfs_tesserafs::progress::Silent).expect("an image");
    image
}

/// Runs the program in a folder.
pub(crate) fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(TESSERAFS).current_dir(folder).args(arguments).output().expect("tesserafs")
}

/// The words that it prints.
pub(crate) fn done(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Its error, where it does nothing and ends with this status.
pub(crate) fn refused(folder: &Path, status: i32, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    said
}

/// A mount by FUSE in the foreground.
pub(crate) struct Mount {
    /// Where it is.
    pub(crate) dir: PathBuf,
    /// The process that was started.
    pub(crate) process: Child,
    log: PathBuf,
}

impl Mount {
    /// Mounts `image` with these arguments at the folder `mnt` beside it.
    pub(crate) fn new(image: &Path, arguments: &[&str]) -> Self {
        let folder = image.parent().expect("a folder");
        let (dir, log) = (folder.join("mnt"), folder.join("log"));
        fs::create_dir_all(&dir).expect("a directory");
        let process = Command::new(TESSERAFS)
            .args(["mount", "--fuse", "--foreground"])
            .args(arguments)
            .args([image, &dir])
            .stderr(File::create(&log).expect("a log"))
            .spawn()
            .expect("tesserafs");
        let mut mount = Self { dir, process, log };
        let is_there = || mount_type(&mount.dir).is_some();
        let until = Instant::now() + PATIENCE;
        while !is_there() && mount.process.try_wait().expect("a process").is_none() {
            assert!(Instant::now() < until, "not mounted: {}", mount.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(is_there(), "not mounted: {}", mount.log());
        // The line comes when requests are served.
        while !mount.log().contains("mounted at") {
            assert!(Instant::now() < until, "not served: {}", mount.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        mount
    }

    /// The lines that the daemon has reported.
    pub(crate) fn log(&self) -> String {
        let mut text = String::new();
        File::open(&self.log).and_then(|mut log| log.read_to_string(&mut text)).expect("a log");
        text
    }

    /// The lines of the log about failures.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.log().lines().filter(|line| line.contains("sha256:")).map(str::to_owned).collect()
    }

    /// A file or directory of the mount.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The process that serves the image.
    pub(crate) fn daemon(&self) -> i32 {
        let children = format!("/proc/{0}/task/{0}/children", self.process.id());
        let children = fs::read_to_string(children).expect("children");
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a daemon")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = unmount(&self.dir, UnmountFlags::DETACH);
        let _ = self.process.wait();
    }
}

/// The type of the filesystem that is mounted at `dir` itself.
pub(crate) fn mount_type(dir: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let dir = dir.to_str().expect("UTF-8");
    let found = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(dir))?;
    found.split(" - ").nth(1)?.split(' ').next().map(str::to_owned)
}

/// Does something as a user who is not root: in a thread of its own, as these system calls change one thread only.
pub(crate) fn as_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let user = scope.spawn(|| {
            let (uid, gid) = (Uid::from_raw(1234), Gid::from_raw(1234));
            set_thread_groups(&[]).expect("groups");
            set_thread_res_gid(gid, gid, gid).expect("a group");
            set_thread_res_uid(uid, uid, uid).expect("a user");
            work()
        });
        user.join().expect("a thread")
    })
}

/// The output of a script that a user runs, for whom programs in `bin` come first; none where users cannot mount.
pub(crate) fn user_script(folder: &Path, script: &str) -> Option<Output> {
    if !Path::new("/usr/bin/fusermount3").exists() {
        eprintln!("SKIPPED: no fusermount3 (package fuse3)");
        return None;
    }
    // fusermount3 wants a user with a name: nobody.
    std::os::unix::fs::chown(folder.join("mnt"), Some(65534), Some(65534)).expect("an owner");
    // The device may be root's alone here; on a system with users it is everybody's.
    let script = format!(
        "mknod {folder}/fuse c 10 229 && chmod 666 {folder}/fuse && mount --bind {folder}/fuse /dev/fuse && \
         PATH={folder}/bin:$PATH setpriv --reuid=65534 --regid=65534 --clear-groups sh -c '{script}'",
        folder = folder.display(),
    );
    Some(Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().expect("unshare"))
}

/// The bytes of a test: neither zeros nor compressible to nothing.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Letters, so that zstd has something to do.
        b'a' + (state % 23) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Runs the program.
pub(crate) fn tesserafs(arguments: &[&str]) -> Output {
    Command::new(TESSERAFS).args(arguments).output().expect("tesserafs")
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The words of a program on standard error.
pub(crate) fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder with an image, and a directory to mount at.
pub(crate) fn prepared() -> Option<tempfile::TempDir> {
    let folder = folder()?;
    fs::create_dir_all(folder.path().join("root/dir")).expect("a directory");
    fs::create_dir(folder.path().join("mnt")).expect("a directory");
    fs::write(folder.path().join("root/file"), "bytes\n").expect("a file");
    build(folder.path());
    Some(folder)
}

/// Waits until `is_so`.
pub(crate) fn wait(what: &str, is_so: impl Fn() -> bool) {
    wait_for(PATIENCE, what, is_so);
}

/// The same for something that takes its time.
pub(crate) fn wait_for(patience: Duration, what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + patience;
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A signer with a key of its own.
pub(crate) fn signer(folder: &Path) -> Signer {
    let (key, certificate) = (folder.join("key.pem"), folder.join("signer.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=signer", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{made:?}");
    Signer::new(&key, &certificate, None).expect("a signer")
}

/// A thread whose disk takes nothing for good.
pub(crate) fn without_disk<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    without(&[libc::SYS_fsync, libc::SYS_fdatasync], libc::EIO, work)
}

/// A thread, with the processes that it starts, whose filesystems take no room in advance.
pub(crate) fn without_fallocate<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    without(&[libc::SYS_fallocate], libc::EOPNOTSUPP, work)
}

/// A thread in which these system calls fail.
fn without<T: Send>(calls: &[i64], errno: i32, work: impl FnOnce() -> T + Send) -> T {
    let rules = calls.iter().map(|number| (*number, Vec::new()));
    let fails = SeccompAction::Errno(errno.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture");
    let filter = SeccompFilter::new(rules.collect::<BTreeMap<_, _>>(), SeccompAction::Allow, fails, arch)
        .expect("a filter");
    let filter: BpfProgram = filter.try_into().expect("a filter");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            apply_filter(&filter).expect("a thread with a filter");
            work()
        });
        thread.join().expect("a thread")
    })
}
