// SPDX-License-Identifier: GPL-2.0
//! The kernel's NFS server and client, on one machine, without any of the programs around them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::MountFlags;

use crate::mounts::Mount;
use crate::sys;

/// The latest time there is.
const FOR_EVER: u32 = 0x7fff_ffff;

/// `insecure`, `no_subtree_check`, `fsid=0`: root stays root, and the folder is the root of what is served.
const FLAGS: u32 = 0x2 | 0x400 | 0x2000;

/// What the server asks programs, and is told before it asks.
const CACHES: [&str; 3] = ["auth.unix.ip", "nfsd.export", "nfsd.fh"];

/// The server, with one folder.
pub(super) struct Server {
    control: Option<Mount>,
}

fn write(path: PathBuf, text: &str) -> Result<()> {
    std::fs::write(&path, text).with_context(|| format!("failed to write {text:?} to {}", path.display()))
}

impl Server {
    /// Serves a folder.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        sys::loopback().context("failed to switch the loopback interface on")?;
        let target = Path::new("/proc/fs/nfsd");
        let control = Mount::new(Path::new("nfsd"), target, "nfsd", MountFlags::empty(), "")
            .context("failed to mount the server's control files")?;
        let set = |name: &str, text: &str| write(target.join(name), text);
        // As short as they can be: files are opened when the time of grace is over.
        set("nfsv4gracetime", "10\n")?;
        set("nfsv4leasetime", "10\n")?;
        set("versions", "-3 +4 +4.1 +4.2\n")?;
        set("portlist", "tcp 2049\n")?;
        let server = Self { control: Some(control) };
        set("threads", "4\n")?;
        let folder = folder.display();
        let [clients, exports, handles] = CACHES;
        tell(clients, &format!("nfsd 127.0.0.1 {FOR_EVER} all"))?;
        tell(exports, &format!("all {folder} {FOR_EVER} {FLAGS} 65534 65534 0"))?;
        tell(handles, &format!("all 1 \\x00000000 {FOR_EVER} {folder}"))?;
        Ok(server)
    }

    /// Mounts what is served.
    pub(super) fn mount(target: &Path) -> Result<Mount> {
        let options = "vers=4.2,addr=127.0.0.1,clientaddr=127.0.0.1,sec=sys";
        Mount::new(Path::new("127.0.0.1:/"), target, "nfs4", MountFlags::empty(), options)
            .context("failed to mount what is served")
    }

    /// Ends the server, which forgets the folder.
    pub(super) fn stop(mut self) -> Result<()> {
        end()?;
        match self.control.take() {
            Some(control) => control.unmount(),
            None => Ok(()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.control.is_some() && end().is_err() {
            eprintln!("init: the NFS server does not end");
        }
    }
}

fn tell(cache: &str, line: &str) -> Result<()> {
    write(Path::new("/proc/net/rpc").join(cache).join("channel"), &format!("{line}\n"))
}

fn end() -> Result<()> {
    write(PathBuf::from("/proc/fs/nfsd/threads"), "0\n")?;
    for cache in CACHES {
        write(Path::new("/proc/net/rpc").join(cache).join("flush"), "1\n")?;
    }
    Ok(())
}
