// SPDX-License-Identifier: GPL-2.0
//! Lays the image of the small tree on a filesystem.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context, Result};
use rustix::mount::MountFlags;
use tesserafs_guest::plan::Plan;

use super::nfs::Server;
use crate::fuse::{Pages, Served};
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::sys;
use crate::waits::SOON;

/// Where a filesystem is mounted.
pub(super) const STORE: &str = "/mnt/store";

/// The empty filesystems, in the order in which the host gives them.
const DISKS: [(&str, &str); 3] = [("xfs", "/dev/vdc"), ("ext4", "/dev/vdd"), ("btrfs", "/dev/vde")];

/// What the image lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A disk with this filesystem.
    Disk(&'static str),
    /// tmpfs.
    Memory,
    /// An overlay whose layers are on such a disk.
    Overlay(&'static str),
    /// FUSE.
    Served(Pages),
    /// NFS, from this machine.
    Network,
    /// A read-only filesystem that the host has made.
    Nest(&'static str),
}

impl Kind {
    /// Whether the kernel has that filesystem.
    pub(super) fn is_known(self) -> bool {
        let name = match self {
            Self::Disk(name) | Self::Overlay(name) => name,
            Self::Network => "nfsd",
            Self::Memory | Self::Served(_) | Self::Nest(_) => return true,
        };
        let types = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        types.split_whitespace().any(|known| known == name)
    }
}

/// The disk that has this filesystem.
pub(super) fn disk(kind: &str) -> Result<&'static Path> {
    let found = DISKS.iter().find(|(name, _)| *name == kind);
    found.map(|(_, path)| Path::new(*path)).with_context(|| format!("there is no disk with {kind}"))
}

/// Mounts a disk.
pub(super) fn mount_disk(kind: &str, device: &Path, flags: MountFlags) -> Result<Mount> {
    Mount::new(device, Path::new(STORE), kind, flags, "")
        .with_context(|| format!("failed to mount {kind} from {}", device.display()))
}

/// Copies the image of the small tree into a folder, and waits until it is on the disk.
pub(super) fn copy(plan: &Plan, folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    let copied = std::fs::copy(on_disk(&plan.small.image), &path)
        .and_then(|_| File::open(&path))
        .and_then(|file| file.sync_all());
    copied.with_context(|| format!("failed to copy the image to {}", path.display()))?;
    Ok(path)
}

/// Something that a store needs.
enum Part {
    Mount(Mount),
    Served(Served),
    Server(Server),
}

/// A filesystem with the image.
pub(super) struct Store {
    image: PathBuf,
    /// The later ones need the earlier ones.
    parts: Vec<Part>,
}

impl Store {
    /// Makes one, with nothing of the image in memory.
    pub(super) fn lay(plan: &Plan, kind: Kind) -> Result<Self> {
        let mut store = Self { image: PathBuf::new(), parts: Vec::new() };
        store.image = match kind {
            Kind::Disk(kind) => {
                let folder = store.disk(kind)?;
                copy(plan, &folder, "image.tess")?
            }
            Kind::Memory => {
                let mount =
                    Mount::new(Path::new("tmpfs"), Path::new(STORE), "tmpfs", MountFlags::empty(), "");
                let folder = store.mounted(mount.context("failed to mount a tmpfs")?);
                copy(plan, &folder, "image.tess")?
            }
            Kind::Overlay(kind) => {
                let folder = store.disk(kind)?;
                let lower = folder.join("lower");
                std::fs::create_dir_all(&lower).context("failed to make a folder")?;
                let overlay = Mount::overlay(&lower, &folder, Path::new("/mnt/overlay"), "")?;
                let folder = store.mounted(overlay);
                copy(plan, &folder, "image.tess")?
            }
            Kind::Served(pages) => {
                let bytes = std::fs::read(on_disk(&plan.small.image)).context("failed to read the image")?;
                let served = Served::with(bytes, pages)?;
                let image = served.file();
                store.parts.push(Part::Served(served));
                image
            }
            Kind::Network => {
                let folder = store.disk("ext4")?;
                copy(plan, &folder, "image.tess")?;
                store.parts.push(Part::Server(Server::start(&folder)?));
                let folder = store.mounted(Server::mount(Path::new("/mnt/nfs"))?);
                folder.join("image.tess")
            }
            Kind::Nest(kind) => store.nest(plan, kind)?.join(&plan.small.image),
        };
        drop_caches()?;
        Ok(store)
    }

    fn mounted(&mut self, mount: Mount) -> PathBuf {
        let folder = mount.path().to_path_buf();
        self.parts.push(Part::Mount(mount));
        folder
    }

    fn disk(&mut self, kind: &str) -> Result<PathBuf> {
        Ok(self.mounted(mount_disk(kind, disk(kind)?, MountFlags::empty())?))
    }

    fn nest(&mut self, plan: &Plan, kind: &str) -> Result<PathBuf> {
        let nest = plan.nests.iter().find(|nest| nest.kind == kind);
        let path = on_disk(&nest.with_context(|| format!("no {kind} holds an image"))?.file);
        let target = Path::new(STORE);
        let mount = if kind == "tesserafs" {
            Mount::image(&path, target, "").context("failed to mount the outer image")?
        } else {
            let file = File::open(&path).with_context(|| format!("failed to open {}", path.display()))?;
            let (device, _user) = sys::loop_device(&file).context("failed to make a loop device")?;
            Mount::new(&device, target, kind, MountFlags::RDONLY, "")
                .with_context(|| format!("failed to mount {kind}"))?
        };
        Ok(self.mounted(mount))
    }

    /// The image.
    pub(super) fn image(&self) -> &Path {
        &self.image
    }

    /// Unmounts everything; fails if somebody still uses it.
    pub(super) fn close(mut self) -> Result<()> {
        while let Some(part) = self.parts.pop() {
            match part {
                Part::Mount(mount) => mount.unmount()?,
                Part::Served(served) => served.unmount()?,
                Part::Server(server) => server.stop()?,
            }
        }
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        while let Some(part) = self.parts.pop() {
            drop(part);
        }
    }
}

/// Waits until a loop device has let go of its file, which it does a little later than its last user.
pub(super) fn until_free(device: &Path) -> Result<()> {
    let name = device.file_name().ok_or_else(|| anyhow!("a device without a name"))?;
    let file = Path::new("/sys/block").join(name).join("loop/backing_file");
    let begin = Instant::now();
    while file.exists() {
        ensure!(begin.elapsed() < SOON, "{} does not let go of its file", device.display());
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
