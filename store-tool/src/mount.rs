// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs mount`: by the kernel driver or by FUSE.

mod fuse;

use std::io;
use std::path::{Path, PathBuf};

use tesserafs_image::signature::Certificate;
use tesserafs_image::superblock::Head;
use tesserafs_image::{text, Error, Source};

use crate::head::{self, Wanted};
use crate::kernel::{self, Refusal};
use crate::options::Options;
use crate::{chain, say};

/// The server of a mount.
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
    /// Its name in messages, where that is not its path.
    pub name: Option<String>,
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
    /// Whether to go no further than to look at the image and the directory.
    pub fake: bool,
}

impl Request {
    /// The image, as messages call it.
    fn shown(&self) -> String {
        self.name.clone().unwrap_or_else(|| text::path(&self.image))
    }
}

/// Mounts an image. The error names what cannot be mounted, and why.
pub fn run(request: &Request) -> Result<(), String> {
    let image = request.shown();
    let of_image = |error: &dyn std::error::Error| format!("{image}: {}", chain(error));
    let source = Source::open(&request.image).map_err(|error| chain(&error))?;
    let wanted = wanted(&request.options).map_err(|error| chain(&error))?;
    let head = head::read(&source, &wanted).map_err(|error| of_image(&error))?;
    let dir = request.dir.canonicalize().map_err(|error| format!("{}: {error}", text::path(&request.dir)))?;
    if !dir.is_dir() {
        return Err(format!("{}: not a directory", text::path(&request.dir)));
    }
    if request.fake {
        return Ok(());
    }
    match request.driver {
        Driver::Any => by_any(request, &source, &head, &dir),
        Driver::Fuse => fuse::run(request, &source, &head, &dir, None),
        Driver::Kernel => by_kernel(request, &head, &dir).map_err(|refusal| refused(request, &refusal)),
    }
}

fn wanted(options: &Options) -> Result<Wanted, Error> {
    let mut signers = Vec::new();
    for path in &options.certs {
        signers.extend(Certificate::read_pem(path)?);
    }
    Ok(Wanted { id: options.digest, signers })
}

/// By the kernel driver where it is loaded and permitted, else by FUSE, as the user wants it.
fn by_any(request: &Request, source: &Source, head: &Head, dir: &Path) -> Result<(), String> {
    let why = if request.foreground || request.threads.is_some() {
        "as only FUSE has a daemon".to_owned()
    } else if !kernel::is_loaded() {
        "the kernel driver is not loaded".to_owned()
    } else {
        match by_kernel(request, head, dir) {
            Ok(()) => return Ok(()),
            Err(refusal) if refusal.is_of_the_driver() => format!("the kernel driver: {}", refusal.reason),
            Err(refusal) => return Err(refused(request, &refusal)),
        }
    };
    fuse::run(request, source, head, dir, Some(&why))
}

fn by_kernel(request: &Request, head: &Head, dir: &Path) -> Result<(), Refusal> {
    let options = &request.options;
    // The image that was verified is mounted, even if another one lies at that path by now.
    let is_pinned = options.digest.is_some() || !options.certs.is_empty();
    let image = request.image.canonicalize().unwrap_or_else(|_| request.image.clone());
    let has_packs = head.sb.layout.packs.records() > 1;
    let pack_dir = has_packs.then(|| pack_dir(options, &image)).transpose().map_err(Refusal::of)?;
    kernel::mount(&image, dir, is_pinned.then_some(head.id), pack_dir.as_deref(), options)?;
    if !request.quiet {
        say(&format!("{}: mounted at {} by the kernel driver", request.shown(), text::path(dir)));
    }
    Ok(())
}

/// Where the packs of `image`, a path without symlinks, are.
fn pack_dir(options: &Options, image: &Path) -> io::Result<PathBuf> {
    match &options.pack_dir {
        // A relative one may begin with a hyphen, and nobody shall depend on the working directory.
        Some(dir) => std::path::absolute(dir),
        None => Ok(image.parent().map(PathBuf::from).unwrap_or_default()),
    }
}

fn refused(request: &Request, refusal: &Refusal) -> String {
    format!("{}: the kernel driver: {}", request.shown(), refusal.reason)
}
