// SPDX-License-Identifier: GPL-2.0-or-later

//! The names by which a layer says what disappears of the layers below it (OCI image specification, "Representing Changes").

use tesserafs_format::limits::NAME_MAX;

use super::header::Parsed;
use crate::error::{path_of, Shown};

/// The prefix by which OCI marks a name that is to disappear.
const WHITEOUT: &[u8] = b".wh.";
/// The entry by which OCI marks a directory whose lower contents are to disappear.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The prefix of the names of AUFS's own files.
const AUFS: &[u8] = b".wh..wh.";

/// The names of lower layers that disappear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark<'a> {
    /// All that is in the directory of the mark.
    All,
    /// This name in the directory of the mark.
    Name(&'a [u8]),
}

impl<'a> Mark<'a> {
    /// The mark that a name is; nothing for a name like any other.
    pub(super) fn of(name: &'a [u8]) -> Parsed<Option<Self>> {
        if name == OPAQUE {
            return Ok(Some(Mark::All));
        }
        let Some(hidden) = name.strip_prefix(WHITEOUT).filter(|_| !is_aufs(name)) else { return Ok(None) };
        if hidden.is_empty() {
            return Err("an OCI whiteout without a name".into());
        }
        if matches!(hidden, b"." | b"..") || hidden.len() > NAME_MAX {
            return Err(format!("an OCI whiteout of {}, which is no name", Shown(path_of(hidden))));
        }
        Ok(Some(Mark::Name(hidden)))
    }
}

/// Whether a name is a mark, good or not, below which nothing can be.
pub(super) fn is_mark(name: &[u8]) -> bool {
    name == OPAQUE || name.starts_with(WHITEOUT) && !is_aufs(name)
}

/// Whether a name is one of AUFS's own files, which are no part of a tree.
pub(super) fn is_aufs(name: &[u8]) -> bool {
    name.starts_with(AUFS)
}
