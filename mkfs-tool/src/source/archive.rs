// SPDX-License-Identifier: GPL-2.0-or-later

//! How an archive becomes a tree.

use std::path::PathBuf;

/// The source of the number of a user or group that an access control list of an archive names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum AclNames {
    /// The headers of the archive only: the image depends on nothing but the archive.
    #[default]
    Archive,
    /// This machine, for names that the headers do not have.
    Host,
}

/// How an archive becomes a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// How many names are taken off the start of each path.
    pub strip: usize,
    /// The directory that becomes the root.
    pub prefix: Option<PathBuf>,
    /// The source of numbers for names in access control lists.
    pub acl_names: AclNames,
}
