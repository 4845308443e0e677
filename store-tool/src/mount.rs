// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs mount`: by the kernel driver or by FUSE.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::process::geteuid;
use tesserafs_image::signature::Certificate;
use tesserafs_image::superblock::Head;
use tesserafs_image::{text, Error, Source};

use crate::daemon::READY;
use crate::head::{self, Wanted};
use crate::options::Options;
use crate::{chain, say};

/// Threads that serve requests, at most, unless somebody asks for more: each has memory of its own.
const THREADS: usize = 8;

/// What serves a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The kernel driver where it is loaded and permitted, else FUSE.
    Any,
    /// FUSE.
    Fuse,
    /// The kernel driver.
    Kernel,
}

/// A mount that is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The image.
    pub image: PathBuf,
    /// Where it is to be mounted.
    pub dir: PathBuf,
    /// By what.
    pub driver: Driver,
    /// How.
    pub options: Options,
    /// Whether to stay until it is unmounted.
    pub foreground: bool,
    /// Threads that serve requests.
    pub threads: Option<usize>,
    /// Whether nothing is said of a success.
    pub quiet: bool,
}

/// Mounts an image. The error names what cannot be mounted, and why.
pub fn run(request: &Request) -> Result<(), String> {
    let image = text::path(&request.image);
    let of_image = |error: &dyn std::error::Error| format!("{image}: {}", chain(error));
    let source = Source::open(&request.image).map_err(|error| chain(&error))?;
    let wanted = wanted(&request.options).map_err(|error| chain(&error))?;
    let head = head::read(&source, &wanted).map_err(|error| of_image(&error))?;
    let dir = request.dir.canonicalize().map_err(|error| format!("{}: {error}", text::path(&request.dir)))?;
    if !dir.is_dir() {
        return Err(format!("{}: not a directory", text::path(&request.dir)));
    }
    by_fuse(request, &source, &head, &dir)
}

fn wanted(options: &Options) -> Result<Wanted, Error> {
    let mut signers = Vec::new();
    for path in &options.certs {
        signers.extend(Certificate::read_pem(path)?);
    }
    Ok(Wanted { id: options.digest, signers })
}

/// Starts the daemon, and waits until it has mounted the image.
fn by_fuse(request: &Request, source: &Source, head: &Head, dir: &Path) -> Result<(), String> {
    let mut daemon =
        start(request, source, head, dir).map_err(|error| format!("cannot start the daemon: {error}"))?;
    let mut said = Vec::new();
    if let Some(mut out) = daemon.stdout.take() {
        let mut buffer = [0; READY.len()];
        while said.len() < READY.len() {
            match out.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(len) => said.extend_from_slice(&buffer[..len]),
            }
        }
    }
    if said != READY {
        // It has said why.
        let status = daemon.wait().map_err(|error| error.to_string())?;
        return Err(format!("{}: not mounted: the daemon ended with {status}", text::path(&request.image)));
    }
    if !request.quiet {
        say(&format!("{}: mounted at {} by FUSE", text::path(&request.image), text::path(dir)));
    }
    if request.foreground {
        let status = daemon.wait().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("{}: the daemon ended with {status}", text::path(&request.image)));
        }
    }
    Ok(())
}

fn start(request: &Request, source: &Source, head: &Head, dir: &Path) -> std::io::Result<Child> {
    let options = &request.options;
    let image = request.image.canonicalize()?;
    let pack_dir = match &options.pack_dir {
        Some(dir) => dir.clone(),
        None => image.parent().map(PathBuf::from).unwrap_or_default(),
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = request.threads.unwrap_or(processors.saturating_add(1).min(THREADS));
    let is_root = geteuid().is_root();
    let mut command = Command::new("/proc/self/exe");
    command.arg("serve");
    let with_value: [(&str, OsString); 5] = [
        ("--image", image.into()),
        ("--dir", dir.into()),
        ("--digest", head.id.to_string().into()),
        ("--packdir", pack_dir.into()),
        ("--threads", threads.to_string().into()),
    ];
    for (name, value) in with_value {
        command.arg(name).arg(value);
    }
    for (name, is_set) in [
        ("--noacl", options.acl == Some(false)),
        // Everybody sees a mount by the kernel driver.
        ("--allow-other", options.allow_other || is_root),
        // fusermount3 grants users neither, whatever they ask for.
        ("--nosuid", options.nosuid || !is_root),
        ("--nodev", options.nodev || !is_root),
        ("--noexec", options.noexec),
        ("--foreground", request.foreground),
    ] {
        if is_set {
            command.arg(name);
        }
    }
    let image = source.file().try_clone()?;
    command.stdin(image).stdout(Stdio::piped()).spawn()
}
