// SPDX-License-Identifier: GPL-2.0
//! Broken images behind right digests, thousands of them: nothing but its own validation keeps the kernel
//! from harm.
//!
//! Each is mounted, and all of it is used; operations that fail must fail with an errno that the host
//! expects. The host reads the kernel's log to see that nothing worse happens.

use std::collections::{BTreeMap, HashSet};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use rustix::fs::{fadvise, Advice, SeekFrom};
use rustix::io::Errno;
use tesserafs_guest::plan::{Expected, Mutant, Mutants, Plan, MISSING, READ_WHOLE};

use crate::mounts::{drop_caches, on_disk, Mount};
use crate::signatures::trust;
use crate::suite::Suite;
use crate::sys::Mapping;

/// The list, on the data disk.
const LIST: &str = "mutants.bin";

pub(crate) const COPY: &str = "/tmp/mutant.tess";

/// The copy of bytes out of mapped files.
const SCRATCH: &str = "/tmp/mapped";

pub(crate) const TARGET: &str = "/mnt/mutant";

/// Files up to this size are mapped, too.
const MAP: u64 = 1 << 16;

/// Places of a larger file that are looked at.
const PLACES: usize = 16;

/// Inodes of one image that are looked at: more than the good one has.
const INODES: usize = 256;

/// Errors of xattrs that any image may cause: the kernel has rules of its own for values that an image calls
/// an ACL or a capability.
const XATTR_ERRORS: [Errno; 5] = [Errno::INVAL, Errno::OPNOTSUPP, Errno::NODATA, Errno::RANGE, Errno::TOOBIG];

/// Images that are reported, where more are wrong.
const TOLD: usize = 20;

/// Of those that were broken at random, every so many are tried.
pub(crate) fn tests(suite: &mut Suite, plan: &Plan, every: usize) {
    suite.test("broken-images", || broken_images(plan, every));
}

fn broken_images(plan: &Plan, every: usize) -> Result<String> {
    // Those that have a signature are vouched for.
    trust(plan)?;
    let mutants = load()?;
    let (random, named): (Vec<&Mutant>, Vec<&Mutant>) =
        mutants.list.iter().partition(|mutant| mutant.is_random());
    judge_all(&Kernel, &mutants.image, named.into_iter().chain(random.into_iter().step_by(every)))
}

/// The image that was broken, and what was made of it.
pub(crate) fn load() -> Result<Mutants> {
    Mutants::load(&on_disk(LIST))
}

/// A driver that mounts the broken images.
pub(crate) trait Driver {
    /// A mount of [`COPY`] at [`TARGET`].
    type Mounted;

    /// Whether data that was verified in an image that is unmounted can serve the next one.
    const KEEPS_DATA: bool;

    /// The errno of each read that fails, where the kernel passes on no other.
    const READS_FAIL_WITH: Option<i32>;

    /// Mounts [`COPY`], or says why that is refused: with an errno, if it tells one.
    fn mount(&self) -> Result<Result<Self::Mounted, Option<i32>>>;

    /// Unmounts it, and fails if what served it has come to harm.
    fn unmount(&self, mounted: Self::Mounted) -> Result<()>;
}

/// The kernel driver.
struct Kernel;

impl Driver for Kernel {
    type Mounted = Mount;

    const KEEPS_DATA: bool = true;
    const READS_FAIL_WITH: Option<i32> = None;

    fn mount(&self) -> Result<Result<Mount, Option<i32>>> {
        Ok(Mount::image(Path::new(COPY), Path::new(TARGET), "").map_err(|errno| Some(errno.raw_os_error())))
    }

    fn unmount(&self, mounted: Mount) -> Result<()> {
        mounted.unmount()
    }
}

/// Uses all images that differ from `image` so, and fails unless each gets the answers that it must get.
pub(crate) fn judge_all<'a>(
    driver: &impl Driver,
    image: &str,
    list: impl Iterator<Item = &'a Mutant>,
) -> Result<String> {
    let bench = Bench::new(&on_disk(image), driver)?;
    let sound = Expected { refusal: None, errors: Vec::new(), must_fail: false };
    bench.look(&sound).context("the good image")?;
    let (mut refused, mut failed, mut read) = (BTreeMap::<i32, usize>::new(), 0, 0);
    let (mut wrong, mut count) = (Vec::new(), 0);
    for mutant in list {
        count += 1;
        bench.apply(mutant)?;
        match bench.look(&mutant.expected) {
            Ok(Outcome::Refused(errno)) => *refused.entry(errno).or_default() += 1,
            Ok(Outcome::Failed) => failed += 1,
            Ok(Outcome::Read) => read += 1,
            Err(error) => wrong.push(format!("{}: {error:#}", mutant.name)),
        }
        bench.revert(mutant)?;
    }
    // The broken images have not changed how a good one is read.
    bench.look(&sound).context("the good image after the broken ones")?;
    if !wrong.is_empty() {
        let shown: Vec<&str> = wrong.iter().take(TOLD).map(String::as_str).collect();
        bail!("{} of {count}, of which:\n{}", wrong.len(), shown.join("\n"));
    }
    Ok(format!("{count} images: refused (by errno) {refused:?}, {failed} fail, {read} are read"))
}

/// The outcome of an image, as it was expected.
enum Outcome {
    Refused(i32),
    Failed,
    Read,
}

/// The good image, and the file that is broken and repaired in turn.
struct Bench<'a, D> {
    good: Vec<u8>,
    file: File,
    scratch: File,
    driver: &'a D,
}

impl<'a, D: Driver> Bench<'a, D> {
    fn new(image: &Path, driver: &'a D) -> Result<Self> {
        let good = std::fs::read(image).with_context(|| format!("failed to read {}", image.display()))?;
        std::fs::write(COPY, &good).context("failed to copy the image")?;
        let file = File::options().read(true).write(true).open(COPY).context("failed to open the copy")?;
        let scratch = File::create(SCRATCH).context("failed to make a scratch file")?;
        Ok(Self { good, file, scratch, driver })
    }

    fn apply(&self, mutant: &Mutant) -> Result<()> {
        self.file.set_len(mutant.length.into()).context("failed to change the length")?;
        for patch in &mutant.patches {
            self.file.write_all_at(&patch.bytes, patch.offset.into()).context("failed to patch the image")?;
        }
        // Chunks and pages are kept by digests that were verified: only wrong digests could be hidden by them.
        if mutant.cold && D::KEEPS_DATA {
            drop_caches()?;
        }
        Ok(())
    }

    /// Puts the bytes of the good image back.
    fn revert(&self, mutant: &Mutant) -> Result<()> {
        let length = self.good.len();
        self.file.set_len(length as u64).context("failed to change the length")?;
        // A copy that was cut has zeros there now.
        let cut = usize::try_from(mutant.length)?.min(length);
        let tail = [(cut, length)];
        let patched = mutant.patches.iter().map(|patch| {
            let start = patch.offset as usize;
            (start.min(length), (start + patch.bytes.len()).min(length))
        });
        for (start, end) in patched.chain(tail) {
            self.file
                .write_all_at(&self.good[start..end], start as u64)
                .context("failed to repair the image")?;
        }
        Ok(())
    }

    /// Mounts the copy, uses all of it, and compares the failures with those that are allowed.
    fn look(&self, expected: &Expected) -> Result<Outcome> {
        let mounted = match self.driver.mount()? {
            Ok(mounted) => mounted,
            Err(errno) => {
                let refusal = expected.refusal.context("the mount is refused")?;
                ensure!(
                    errno.is_none_or(|errno| errno == refusal),
                    "the mount is refused with {errno:?}, not {refusal}"
                );
                return Ok(Outcome::Refused(refusal));
            }
        };
        let mut walk = Walk { scratch: &self.scratch, seen: HashSet::new(), errors: Vec::new() };
        walk.all(Path::new(TARGET));
        let errors = walk.errors;
        self.driver.unmount(mounted)?;
        ensure!(expected.refusal.is_none(), "it is mounted, and not refused with {:?}", expected.refusal);
        for (what, errno) in &errors {
            let errno = errno.raw_os_error();
            let is_any = what.starts_with("read of ") && D::READS_FAIL_WITH == Some(errno);
            let is_right = is_any || expected.errors.contains(&errno);
            ensure!(is_right, "{what} fails with {errno}, not {:?}", expected.errors);
        }
        ensure!(
            !errors.is_empty() || !expected.must_fail,
            "nothing fails, not even with {:?}",
            expected.errors
        );
        Ok(if errors.is_empty() { Outcome::Read } else { Outcome::Failed })
    }
}

/// A use of everything in an image.
struct Walk<'a> {
    scratch: &'a File,
    /// Inodes that were looked at: a directory may have many names.
    seen: HashSet<u64>,
    errors: Vec<(String, Errno)>,
}

impl Walk<'_> {
    fn all(&mut self, root: &Path) {
        let mut folders = Vec::new();
        self.visit(root, &mut folders);
        while let Some(folder) = folders.pop() {
            let mut names = Vec::new();
            // Whether the listing is complete: if it is not, a name that was not listed may be there.
            let mut is_listed = false;
            match std::fs::read_dir(&folder) {
                Err(error) => self.fail("opening", &folder, &error),
                Ok(entries) => {
                    is_listed = true;
                    for entry in entries {
                        match entry {
                            Ok(entry) => names.push(entry.path()),
                            Err(error) => {
                                self.fail("readdir", &folder, &error);
                                is_listed = false;
                                break;
                            }
                        }
                    }
                }
            }
            for name in MISSING {
                let path = folder.join(std::ffi::OsStr::from_bytes(name));
                match std::fs::symlink_metadata(&path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
                    Err(error) => self.fail("lookup", &path, &error),
                    Ok(_) if is_listed && !names.contains(&path) => {
                        self.errors.push((format!("lookup of {}", path.display()), Errno::EXIST));
                    }
                    Ok(_) => (),
                }
            }
            for path in names {
                if self.seen.len() < INODES {
                    self.visit(&path, &mut folders);
                }
            }
        }
    }

    fn fail(&mut self, what: &str, path: &Path, error: &std::io::Error) {
        // An error without a number is no answer of the kernel, and expected of no image.
        let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
        self.errors.push((format!("{what} of {}", path.display()), errno));
    }

    /// Looks at the file of a name; directories are for later.
    fn visit(&mut self, path: &Path, folders: &mut Vec<PathBuf>) {
        let facts = match std::fs::symlink_metadata(path) {
            Ok(facts) => facts,
            Err(error) => return self.fail("lookup", path, &error),
        };
        if !self.seen.insert(facts.ino()) {
            return;
        }
        if let Err(errno) = xattrs(path) {
            if !XATTR_ERRORS.contains(&errno) {
                self.errors.push((format!("xattrs of {}", path.display()), errno));
            }
        }
        let kind = facts.file_type();
        if kind.is_dir() {
            folders.push(path.to_path_buf());
        } else if kind.is_symlink() {
            if let Err(error) = std::fs::read_link(path) {
                self.fail("readlink", path, &error);
            }
        } else if kind.is_file() {
            if let Err(error) = self.read(path, facts.size()) {
                self.fail("read", path, &error);
            }
        }
    }

    /// Reads a file: a page of it here and there, then all of it if it is not long, then through a mapping.
    fn read(&self, path: &Path, size: u64) -> std::io::Result<()> {
        let mut file = File::open(path)?;
        let mut page = [0; 4096];
        // Without readahead: the beginning of a chunk is enough for the first page.
        let _ = fadvise(&file, 0, None, Advice::Random);
        let first = file.read_at(&mut page, 0).map(drop);
        let places = places(&file, size).and_then(|places| {
            places.into_iter().try_for_each(|place| file.read_at(&mut page[..1], place).map(drop))
        });
        let _ = fadvise(&file, 0, None, Advice::Normal);
        // The search for places has moved the file's position.
        file.rewind()?;
        let whole = if size <= READ_WHOLE { file.read_to_end(&mut Vec::new()).map(drop) } else { Ok(()) };
        let mapped = if size <= MAP && size > 0 { self.map(&file, size) } else { Ok(()) };
        let result = first.and(places).and(whole);
        match mapped {
            // For a page that cannot be read the error is EFAULT: the reads have shown which error it was.
            Err(error) if error.raw_os_error() == Some(Errno::FAULT.raw_os_error()) && result.is_err() => {
                result
            }
            mapped => result.and(mapped),
        }
    }

    /// Has the kernel read the mapping: for it, a page that cannot be had is an error and not a signal.
    fn map(&self, file: &File, size: u64) -> std::io::Result<()> {
        let length = usize::try_from(size).map_err(std::io::Error::other)?;
        let mapping = Mapping::new(file, length)?;
        self.scratch.write_all_at(mapping.bytes(), 0)
    }
}

/// A few places of a file: its end, and where data and holes begin.
fn places(file: &File, size: u64) -> std::io::Result<Vec<u64>> {
    let Some(last) = size.checked_sub(1) else { return Ok(Vec::new()) };
    let mut places = vec![last];
    let mut at = 0;
    while places.len() < PLACES {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        places.push(data);
        at = rustix::fs::seek(file, SeekFrom::Hole(data))?;
        places.push(at.saturating_sub(1));
        if at >= size {
            break;
        }
    }
    Ok(places)
}

/// Lists the xattrs of a name, and gets each.
fn xattrs(path: &Path) -> Result<(), Errno> {
    let mut names = vec![0_u8; 65536];
    let length = rustix::fs::llistxattr(path, &mut names[..])?;
    let mut value = vec![0_u8; 65536];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        match rustix::fs::lgetxattr(path, name.as_c_str(), &mut value[..]) {
            Err(errno) if !XATTR_ERRORS.contains(&errno) => return Err(errno),
            _ => (),
        }
    }
    Ok(())
}
