// SPDX-License-Identifier: GPL-2.0-or-later

//! The process that serves a mounted image.
//!
//! It is started by `tesserafs mount`, as a program of its own, since a process with threads cannot fork without unsafe code. The image
//! is its standard input: the file that the mounter has checked, whatever is at its path by now. On standard output it says that the
//! mount is there.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread;

use fuser::{Config, Session, SessionACL};
use tesserafs_format::Digest;
use tesserafs_image::serve::{Files, Tree};
use tesserafs_image::{text, Broken, Error, Source, VerifiedMetadata};

use crate::attach;
use crate::confine::confine;
use crate::fuse::{Server, Shown};
use crate::head::{self, Wanted};
use crate::log::{Log, Sink};

/// Blocks of verified metadata in memory: 10 MiB, which are the inodes of some 150,000 files.
const METADATA_BLOCKS: u64 = 2560;

/// Bytes of decoded chunks in memory.
const CHUNK_BYTES: usize = 24 << 20;

/// The message to the mounter: the mount is there.
pub(crate) const READY: &[u8] = b"mounted\n";

/// The order that the daemon carries out.
#[derive(Clone, Debug)]
pub struct Job {
    /// The path of the image, for messages and the list of mounts.
    pub image: PathBuf,
    /// The ID of the image, which the mounter has checked.
    pub id: Digest,
    /// Where it is mounted.
    pub dir: PathBuf,
    /// Where packs beside the embedded one are.
    pub pack_dir: PathBuf,
    /// Whether POSIX ACLs count.
    pub acl: bool,
    /// Whether others than the mounter may see the mount.
    pub allow_other: bool,
    /// Whether set-user-ID bits, devices and programs are of no effect.
    pub flags: Flags,
    /// Threads that serve requests.
    pub threads: usize,
    /// Whether it stays with the terminal that it was started from.
    pub foreground: bool,
}

/// Flags of a mount.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// Set-user-ID bits and file capabilities are of no effect.
    pub nosuid: bool,
    /// Devices cannot be opened.
    pub nodev: bool,
    /// Programs are not executed.
    pub noexec: bool,
}

/// Mounts the image that is the standard input, and serves it until it is unmounted.
pub fn run(job: &Job) -> Result<(), Broken> {
    // A daemon outlives the session of the terminal; and an interrupt there is for the mounter.
    let _ = rustix::process::setsid();
    let file = |what: &str, source: io::Error| Error::Io { what: what.to_owned(), source };
    let image =
        io::stdin().as_fd().try_clone_to_owned().map_err(|error| file("cannot open the image", error))?;
    let broken = |error| file("the connection to the kernel broke", error);
    // One image is served by the process, for as long as it lives.
    let source: &'static Source = Box::leak(Box::new(Source::from_file(File::from(image), &job.image)?));
    let wanted = Wanted { id: Some(job.id), signers: Vec::new() };
    let head = head::read(source, &wanted)?;
    let sb = Box::leak(Box::new(head.sb));
    let metadata: &'static VerifiedMetadata<'static> =
        Box::leak(Box::new(VerifiedMetadata::with_cache(source, sb, METADATA_BLOCKS)));
    let files: &'static Files<'static> =
        Box::leak(Box::new(Files::open(metadata, &job.pack_dir, CHUNK_BYTES)?));
    let tree = Tree::new(metadata);
    // A mount by the kernel driver proves as much: that there is a root.
    tree.inode(1)?;
    let sink = if job.foreground { Ok(Sink::Stderr) } else { Sink::syslog() };
    let sink = sink.map_err(|error| file("cannot open a socket for the log", error))?;
    let log = Log::new(sink, &text::path(&job.image), &job.id);
    let shown = Shown { acl: job.acl, trusted: is_initial_namespace() };
    let server = Server::new(tree, files, shown, log);
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| file("cannot open /dev/null", error))?;
    let connection = attach::mount(job)?;
    let acl = if job.allow_other { SessionACL::All } else { SessionACL::Owner };
    let session = Session::from_fd(server, connection, acl, config(job)).map_err(broken)?;
    // No directory of the host is kept from being unmounted.
    let _ = std::env::set_current_dir("/");
    confine()?;
    for number in 0..thread::available_parallelism().map_or(1, usize::from).saturating_sub(1).min(4) {
        // Without it readers decode by themselves.
        let _ = thread::Builder::new().name(format!("ahead-{number}")).spawn(|| files.work_ahead());
    }
    let mut out = io::stdout();
    let _ = out.write_all(READY).and_then(|()| out.flush());
    let _ = rustix::stdio::dup2_stdout(&null);
    if !job.foreground {
        let _ = rustix::stdio::dup2_stderr(&null);
    }
    let served = session.run();
    files.stop();
    match served {
        // A thread that reads a request while the mount ends gets this, and its neighbours end well.
        Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(()),
        served => Ok(served.map_err(broken)?),
    }
}

/// How requests are served.
fn config(job: &Job) -> Config {
    let mut config = Config::default();
    config.n_threads = Some(job.threads);
    config
}

/// Whether the process is in the initial user namespace: only there `trusted.*` is somebody's to see.
fn is_initial_namespace() -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else { return false };
    map.split_whitespace().eq(["0", "0", "4294967295"])
}
