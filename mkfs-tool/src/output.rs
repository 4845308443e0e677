// SPDX-License-Identifier: GPL-2.0

//! The file that becomes the image: under another name until it is complete, and gone if it never is.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// The unfinished image, for [`remove_on_signal`].
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

fn unfinished() -> MutexGuard<'static, Option<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An image that is being written.
#[derive(Debug)]
pub struct Output {
    temporary: NamedTempFile,
    target: PathBuf,
    force: bool,
}

impl Output {
    /// Begins an image that will be `target`. What is there already is replaced only with `force`, and only at the end.
    pub fn create(target: &Path, force: bool) -> Result<Self> {
        // Through a symlink, so that it is not the link that is replaced.
        let target = match fs::symlink_metadata(target) {
            Ok(metadata) if metadata.is_symlink() => {
                fs::canonicalize(target).map_err(Error::io("follow the link", target))?
            }
            _ => target.to_owned(),
        };
        match fs::metadata(&target) {
            Ok(metadata) if !metadata.is_file() => {
                return Err(Error::unsupported(
                    &target,
                    "exists and is no regular file; for a device, build a file and copy it there",
                ));
            }
            Ok(_) if !force => {
                return Err(Error::unsupported(&target, "exists; --force replaces it"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("stat", &target)(error)),
        }
        let dir = directory(&target);
        let mut slot = unfinished();
        let temporary = tempfile::Builder::new()
            .prefix(".mkfs-tesserafs-")
            // The umask takes its part of it.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(dir)
            .map_err(Error::io("create a file in", dir))?;
        *slot = Some(temporary.path().to_owned());
        drop(slot);
        Ok(Self { temporary, target, force })
    }

    /// The directory that the image will be in.
    pub fn directory(&self) -> &Path {
        directory(&self.target)
    }

    /// A handle to write with.
    pub fn file(&self) -> Result<File> {
        self.temporary.as_file().try_clone().map_err(Error::io("open", &self.target))
    }

    /// Device and inode numbers of the image, old and new: a tree that contains them must not swallow itself.
    pub fn identities(&self) -> Vec<(u64, u64)> {
        let files = [self.temporary.as_file().metadata(), fs::metadata(&self.target)];
        files.into_iter().flatten().map(|metadata| (metadata.dev(), metadata.ino())).collect()
    }

    /// Gives the image its name.
    ///
    /// It is not forced to the disk first: what a crash damages, the digests in the image show.
    pub fn commit(self) -> Result<()> {
        // A signal either finds the file unfinished, or waits until it has its name.
        let mut slot = unfinished();
        let persisted = if self.force {
            self.temporary.persist(&self.target)
        } else {
            self.temporary.persist_noclobber(&self.target)
        };
        *slot = None;
        match persisted {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::io("rename the image to", &self.target)(error.error)),
        }
    }
}

/// The directory that a file is in.
fn directory(file: &Path) -> &Path {
    match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// From here on SIGINT, SIGTERM and SIGHUP remove the unfinished image, before they end the process as ever.
pub fn remove_on_signal() -> io::Result<()> {
    // Caught, so that a file larger than the process may write is an error and not the end.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Held until the process ends, so that no unfinished image can get its name, or be begun, any more.
            let slot = unfinished();
            if let Some(path) = slot.as_deref() {
                let _ = fs::remove_file(path);
            }
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
            eprintln!("mkfs-tesserafs: interrupted by {name}; no image was written");
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    })?;
    Ok(())
}
