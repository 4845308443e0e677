// SPDX-License-Identifier: GPL-2.0-or-later

//! A JSON object a line. Paths, targets, names and values are text as everywhere: bytes that are none are `\ooo`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use tesserafs_format::limits::PLAIN_DIGEST_MAX;
use tesserafs_format::{FileKind, Inode};
use tesserafs_image::diff::{Difference, Needs};
use tesserafs_image::text;
use tesserafs_image::unchecked::Unchecked;

use super::{cannot_write, shown, Counts, Kind, Paths, Stop};

/// Version of the fields: it changes when one changes its meaning or goes, not when one comes.
const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
struct Line<'a> {
    version: u32,
    change: &'static str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    what: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<File>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<File>,
}

/// A file, with the fields of `fsck.tesserafs --list=json`.
#[derive(Debug, Serialize)]
struct File {
    #[serde(rename = "type")]
    kind: &'static str,
    mode: String,
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

#[derive(Debug, Serialize)]
struct Stat {
    version: u32,
    added: u64,
    removed: u64,
    changed: u64,
    renamed: u64,
    needs: Lacking,
}

#[derive(Debug, Serialize)]
struct Lacking {
    chunks: u64,
    chunk_bytes: u64,
    packs: Vec<Pack>,
    metadata_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Pack {
    digest: String,
    bytes: u64,
}

/// Writes the object of a difference.
pub(super) fn line(
    a: &Unchecked<'_>,
    b: &Unchecked<'_>,
    difference: &Difference,
    paths: &Paths,
    out: &mut dyn Write,
) -> Result<(), Stop> {
    let file = |side: &Unchecked<'_>, inode: &Option<Inode>| {
        inode.as_ref().map(|inode| file(side, inode)).transpose()
    };
    let line = Line {
        version: VERSION,
        change: Kind::of(difference).name(),
        path: &paths.path,
        from: paths.from.as_deref(),
        what: difference.aspects.iter().map(|aspect| aspect.name()).collect(),
        before: file(a, &difference.before)?,
        after: file(b, &difference.after)?,
    };
    write(&line, out)
}

/// Writes how many differences there are, and what the second image needs.
pub(super) fn stat(counts: Counts, needs: &Needs, out: &mut dyn Write) -> Result<(), Stop> {
    let Counts { added, removed, changed, renamed } = counts;
    let packs = needs
        .packs
        .iter()
        .map(|(digest, bytes)| Pack { digest: digest.to_string(), bytes: *bytes })
        .collect();
    let Needs { chunks, chunk_bytes, metadata_bytes, .. } = *needs;
    let needs = Lacking { chunks, chunk_bytes, packs, metadata_bytes };
    write(&Stat { version: VERSION, added, removed, changed, renamed, needs }, out)
}

fn write(value: &impl Serialize, out: &mut dyn Write) -> Result<(), Stop> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from).map_err(cannot_write)?;
    writeln!(out).map_err(cannot_write)
}

fn file(side: &Unchecked<'_>, inode: &Inode) -> Result<File, Stop> {
    let mut file = File {
        kind: text::file_type(inode.kind.file_type()),
        mode: format!("{:04o}", inode.mode),
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
        FileKind::Regular { size, content } => {
            file.size = Some(size);
            if let Some(content) = content {
                let digest = Some(side.of(side.image.content_digest(content))?.to_string());
                *(if size > PLAIN_DIGEST_MAX { &mut file.sparse_digest } else { &mut file.sha256 }) = digest;
            }
        }
        FileKind::Symlink { .. } => file.target = Some(shown(&side.target(inode)?)),
        _ => (),
    }
    for (name, value) in side.xattrs(inode)? {
        file.xattrs.insert(shown(&name), shown(&value));
    }
    Ok(file)
}
