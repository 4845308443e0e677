// SPDX-License-Identifier: GPL-2.0-or-later

//! The file that becomes the image: without a name until it is complete, so that an unfinished image leaves
//! nothing behind.
//!
//! On a file system without unnamed files it has another name until then, which is removed on every error and
//! on signals that can be caught.

use std::env;
use std::fs::{self, File, Permissions};
use std::io::{self, IsTerminal, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fs::{linkat, open, AtFlags, Mode, OFlags, CWD};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use tempfile::{NamedTempFile, TempPath};
use tesserafs_image::signals::not_ignored;

use crate::error::{Error, Result};

/// The beginning of the name of an unfinished file.
const PREFIX: &str = ".mkfs-tesserafs-";

/// How far the program is, for [`remove_on_signal`].
#[derive(Debug)]
struct Unfinished {
    /// Files with a name that is not theirs.
    paths: Vec<PathBuf>,
    /// Something got its name.
    committed: bool,
}

static UNFINISHED: Mutex<Unfinished> = Mutex::new(Unfinished { paths: Vec::new(), committed: false });

fn unfinished() -> MutexGuard<'static, Unfinished> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An image, or another file, that is being written.
#[derive(Debug)]
pub struct Output {
    file: File,
    /// Its name until then, where it must have one.
    temporary: Option<TempPath>,
    target: PathBuf,
    force: bool,
    /// It is copied to standard output, and gets no name.
    to_stdout: bool,
}

/// Whether a path stands for standard output.
pub fn is_stdout(path: &Path) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path == Path::new(name))
}

/// Device and inode number of a file, if there is one.
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Output {
    /// Begins a file that will be `target`. An existing file is replaced only with `force`, and only at the
    /// end.
    pub fn create(target: &Path, force: bool) -> Result<Self> {
        if is_stdout(target) {
            return Self::for_stdout();
        }
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
        let file = unnamed(directory(&target));
        Self::begin(target, force, file)
    }

    /// Begins a file in `dir` that gets its name by [`commit_as`](Self::commit_as), and is nowhere looked for until then.
    pub fn create_in(dir: &Path) -> Result<Self> {
        // Its name in an error; nothing of that name is looked at.
        Self::begin(dir.join("new file"), true, unnamed(dir))
    }

    /// Begins a file that will be `target` with one that has no name, or one with a name where there is no such file.
    fn begin(target: PathBuf, force: bool, unnamed: Option<File>) -> Result<Self> {
        if let Some(file) = unnamed {
            return Ok(Self { file, temporary: None, target, force, to_stdout: false });
        }
        let dir = directory(&target);
        let mut unfinished = unfinished();
        let temporary = tempfile::Builder::new()
            .prefix(PREFIX)
            // The umask takes its part of it.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(dir)
            .map_err(Error::io("create a file in", dir))?;
        unfinished.paths.push(temporary.path().to_owned());
        drop(unfinished);
        let (file, temporary) = temporary.into_parts();
        Ok(Self { file, temporary: Some(temporary), target, force, to_stdout: false })
    }

    /// Begins a file that standard output gets when it is complete: its first block is the last one that is known.
    fn for_stdout() -> Result<Self> {
        let stdout = Path::new("standard output");
        if io::stdout().is_terminal() {
            let reason = "is a terminal, which an image is nothing for: name a file, or a pipe";
            return Err(Error::unsupported(stdout, reason));
        }
        let target = env::temp_dir().join("standard output");
        let dir = directory(&target);
        let file = tempfile::tempfile_in(dir).map_err(Error::io("create a file in", dir))?;
        Ok(Self { file, temporary: None, target, force: false, to_stdout: true })
    }

    /// The directory that the file will be in.
    pub fn directory(&self) -> &Path {
        directory(&self.target)
    }

    /// A handle to write with.
    pub fn file(&self) -> Result<File> {
        self.file.try_clone().map_err(Error::io("open", &self.target))
    }

    /// Device and inode numbers of the image, old and new: a tree that contains them must not swallow itself.
    pub fn identities(&self) -> Vec<(u64, u64)> {
        let stdout = self.to_stdout.then(|| identity(Path::new("/dev/stdout"))).flatten();
        let file = self.file.metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok();
        [file, identity(&self.target), stdout].into_iter().flatten().collect()
    }

    /// Gives the file another name than it was begun with, in the same directory. A file of that name is replaced.
    ///
    /// Its bytes are on the disk before. A crash can lose the name, and no crash leaves fewer bytes under it.
    pub fn commit_as(self, target: PathBuf) -> Result<()> {
        self.file.sync_data().map_err(Error::io("force to the disk", &target))?;
        Self { target, force: true, ..self }.commit()
    }

    /// Gives the file its name.
    ///
    /// An image is not forced to the disk first: its digests show what a crash has damaged, and it is built again.
    pub fn commit(self) -> Result<()> {
        let Self { mut file, temporary, target, force, to_stdout } = self;
        if to_stdout {
            let sent = file.seek(SeekFrom::Start(0)).and_then(|_| {
                let mut out = io::stdout().lock();
                io::copy(&mut file, &mut out)?;
                out.flush()
            });
            return sent.map_err(Error::io("write the image to", "standard output".as_ref()));
        }
        // A signal either finds the file unfinished, or waits until it has its name.
        let mut unfinished = unfinished();
        let named = match temporary {
            Some(temporary) => {
                unfinished.paths.retain(|path| *path != *temporary);
                rename(NamedTempFile::from_parts(file, temporary), &target, force)
            }
            None => match link(&file, &target) {
                Err(error) if force && error.kind() == io::ErrorKind::AlreadyExists => {
                    replace(&file, &target)
                }
                linked => linked,
            },
        };
        unfinished.committed |= named.is_ok();
        named.map_err(Error::io("rename the image to", &target))
    }
}

/// A file in `dir` that has no name, and can be given one.
fn unnamed(dir: &Path) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    // The umask applies. After an error a file with a name is tried: it fails in the same way, unless the
    // file system only lacks files without names.
    let file = open(dir, flags, Mode::from_raw_mode(0o666)).ok()?;
    Path::new("/proc/self/fd").is_dir().then(|| file.into())
}

/// Gives a file without a name the name `path`, which must not exist.
fn link(file: &File, path: &Path) -> io::Result<()> {
    let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, descriptor, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

/// Gives a file without a name the name of an existing file: by another name first, as a link replaces
/// nothing.
///
/// SIGKILL between the two leaves all of the image, under the other name.
fn replace(file: &File, target: &Path) -> io::Result<()> {
    let directory = directory(target);
    let linked = tempfile::Builder::new().prefix(PREFIX).make_in(directory, |path| link(file, path))?;
    rename(linked, target, true)
}

fn rename<F>(temporary: NamedTempFile<F>, target: &Path, force: bool) -> io::Result<()> {
    let temporary = temporary.into_temp_path();
    let renamed = if force { temporary.persist(target) } else { temporary.persist_noclobber(target) };
    renamed.map_err(|error| error.error)
}

/// The directory that a file is in.
fn directory(file: &Path) -> &Path {
    match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// From here on SIGINT, SIGTERM and SIGHUP, unless they are ignored, remove the unfinished image, before they end the process as ever.
pub fn remove_on_signal() -> io::Result<()> {
    // Caught, so that a file larger than the process may write is an error and not the end.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    let mut signals = Signals::new(not_ignored([SIGINT, SIGTERM, SIGHUP]))?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let abandoned = abandon();
            let what =
                if abandoned.0.committed { "what was written is complete" } else { "no image was written" };
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
            // Where nobody reads it any more, the signal is to end the process all the same: `eprintln` would panic.
            let _ = writeln!(io::stderr(), "{}: interrupted by {name}; {what}", crate::PROGRAM);
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

/// No file of this process gets its name, or is begun, any more, as long as this lives.
#[derive(Debug)]
pub struct Abandoned(MutexGuard<'static, Unfinished>);

/// Removes the unfinished files of this process, which is about to end.
pub fn abandon() -> Abandoned {
    let unfinished = unfinished();
    for path in &unfinished.paths {
        let _ = fs::remove_file(path);
    }
    Abandoned(unfinished)
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

    use super::*;

    /// Killed at any moment, it leaves nothing but the image.
    #[test]
    fn what_replaces_nothing_has_one_name_only() {
        let dir = tempfile::tempdir().unwrap();
        let watch = inotify::init(CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, dir.path(), WatchFlags::CREATE | WatchFlags::MOVE).unwrap();
        let target = dir.path().join("image");
        let Some(file) = unnamed(dir.path()) else { return };
        Output::begin(target, true, Some(file)).unwrap().commit().unwrap();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(watch, &mut buffer);
        let mut names = Vec::new();
        while let Ok(event) = events.next() {
            names.push(event.file_name().unwrap().to_owned());
        }
        assert_eq!(names, [c"image".to_owned()]);
    }

    #[test]
    fn with_a_name_or_without_one_a_file_is_there_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("image");
        let names = || fs::read_dir(dir.path()).unwrap().count();
        for unnamed in [|_: &Path| None, unnamed] {
            let begin = |force, bytes: &[u8]| {
                let output = Output::begin(target.clone(), force, unnamed(dir.path())).unwrap();
                output.file().unwrap().write_all(bytes).unwrap();
                output
            };
            drop(begin(false, b"never finished"));
            assert_eq!(names(), 0);
            begin(false, b"first").commit().unwrap();
            assert!(begin(false, b"second").commit().is_err());
            assert_eq!((fs::read(&target).unwrap(), names()), (b"first".to_vec(), 1));
            begin(true, b"third").commit().unwrap();
            assert_eq!((fs::read(&target).unwrap(), names()), (b"third".to_vec(), 1));
            fs::remove_file(&target).unwrap();
            begin(true, b"fourth").commit().unwrap();
            assert_eq!((fs::read(&target).unwrap(), names()), (b"fourth".to_vec(), 1));
            // The mode of a file that any program creates: 0666 less the umask.
            let other = File::create(dir.path().join("other")).unwrap().metadata().unwrap().mode();
            assert_eq!(fs::metadata(&target).unwrap().mode(), other);
            fs::remove_file(dir.path().join("other")).unwrap();
            fs::remove_file(&target).unwrap();
        }
    }
}
