// SPDX-License-Identifier: GPL-2.0-or-later

//! A JSON object a line for each file; `fsck-tool/JSON.md` says what the fields mean.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use tesserafs_format::limits::PLAIN_DIGEST_MAX;
use tesserafs_format::{FileKind, Inode};
use tesserafs_image::{text, visit, Context, Error};

use super::{digest, Format};
use crate::print::cannot_write;

/// Version of the fields: it changes when one changes its meaning or goes, not when one comes.
const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
struct Line {
    version: u32,
    path: String,
    #[serde(rename = "type")]
    kind: &'static str,
    ino: u32,
    mode: String,
    nlink: u32,
    uid: u32,
    gid: u32,
    mtime: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sparse_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Time {
    sec: i64,
    nsec: u32,
}

/// A JSON object a line.
pub(super) struct Json;

impl Format for Json {
    fn file(
        &mut self,
        context: &Context<'_>,
        inode: &Inode,
        path: &[u8],
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let mut line = Line {
            version: VERSION,
            path: text::escape(path),
            kind: text::file_type(inode.kind.file_type()),
            ino: inode.ino.get(),
            mode: format!("{:04o}", inode.mode),
            nlink: inode.nlink,
            uid: inode.uid,
            gid: inode.gid,
            mtime: Time { sec: inode.mtime.sec, nsec: inode.mtime.nsec },
            size: None,
            sha256: None,
            sparse_digest: None,
            target: None,
            xattrs: BTreeMap::new(),
        };
        match inode.kind {
            FileKind::Regular { size, .. } => {
                line.size = Some(size);
                let digest = Some(digest(context, inode)?);
                *(if size > PLAIN_DIGEST_MAX { &mut line.sparse_digest } else { &mut line.sha256 }) = digest;
            }
            FileKind::Symlink { .. } => line.target = Some(text::escape(&visit::target(context, inode)?)),
            _ => (),
        }
        visit::xattrs(context, inode, |name, value| {
            line.xattrs.insert(text::escape(name), text::escape(value));
            Ok(())
        })?;
        serde_json::to_writer(&mut *out, &line).map_err(io::Error::from).map_err(cannot_write)?;
        writeln!(out).map_err(cannot_write)
    }
}
