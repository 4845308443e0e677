// SPDX-License-Identifier: GPL-2.0-or-later

//! The names that are left out of a tree, and the changes to the rest.

use std::path::PathBuf;
use std::sync::Arc;

use tesserafs_format::limits::{MTIME_MAX, MTIME_MIN};
use tesserafs_format::Timestamp;

use super::exclude::Exclude;
use super::owner::IdMap;
use super::ArchiveOptions;
use crate::error::Result;
use crate::file_contexts::FileContexts;
use crate::tree::Attributes;
use crate::xattr;

/// The changes to the attributes of every inode.
#[derive(Clone, Debug, Default)]
pub struct Override {
    /// The owner of everything.
    pub uid: Option<u32>,
    /// The group of everything.
    pub gid: Option<u32>,
    /// Owners that become others, in ACLs and capabilities too.
    pub uid_map: IdMap,
    /// Groups that become others, in ACLs too.
    pub gid_map: IdMap,
    /// The largest mtime, in seconds.
    pub mtime_max: Option<i64>,
    /// Whether an mtime that an image cannot hold becomes the nearest that it can.
    pub clamp_mtime: bool,
}

impl Override {
    /// Applies it.
    pub fn apply(&self, attributes: &mut Attributes) {
        attributes.uid = self.uid.unwrap_or_else(|| self.uid_map.map(attributes.uid));
        attributes.gid = self.gid.unwrap_or_else(|| self.gid_map.map(attributes.gid));
        if !self.uid_map.is_empty() || !self.gid_map.is_empty() {
            for (name, value) in &mut attributes.xattrs {
                xattr::map_owners(name, value, &self.uid_map, &self.gid_map);
            }
        }
        if let Some(max) = self.mtime_max {
            attributes.mtime = attributes.mtime.min(Timestamp { sec: max, nsec: 0 });
        }
        if self.clamp_mtime {
            let least = Timestamp { sec: MTIME_MIN, nsec: 0 };
            attributes.mtime = attributes.mtime.clamp(least, Timestamp { sec: MTIME_MAX, nsec: 999_999_999 });
        }
    }
}

/// How device nodes are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Devices {
    /// Refuse the tree, and list them.
    #[default]
    Refuse,
    /// Leave them out.
    Skip,
}

/// The files that are left out, and the changes to the others.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Paths relative to the root of the tree.
    pub exclude: Exclude,
    /// How device nodes are treated.
    pub devices: Devices,
    /// Whether a directory's tree ends where another filesystem is mounted.
    pub one_file_system: bool,
    /// Whether each name of a file becomes a file of its own.
    pub hard_dereference: bool,
    /// The SELinux labels of everything, where the source's own are not wanted.
    pub labels: Option<Arc<FileContexts>>,
    /// The changes to attributes.
    pub attributes: Override,
    /// Device and inode numbers of files that are the image itself.
    pub image: Vec<(u64, u64)>,
    /// Device and inode number of the directory that packs go to: it may lie in no tree that is built.
    pub pack_dir: Option<(u64, u64)>,
    /// How an archive becomes a tree.
    pub archive: ArchiveOptions,
    /// Whether the report names what is left out.
    pub verbose: bool,
}

/// Device nodes that were met; an error names all of them.
#[derive(Debug, Default)]
pub struct DeviceList(Vec<PathBuf>);

impl DeviceList {
    /// Notes a node.
    pub fn push(&mut self, path: PathBuf) {
        self.0.push(path);
    }

    /// The error, if there are any.
    pub fn refuse(self) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(crate::error::Error::Devices(self.0))
        }
    }
}
