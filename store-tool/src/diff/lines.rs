// SPDX-License-Identifier: GPL-2.0-or-later

//! A line for each difference: a letter as git has them, the path, and what differs.

use std::collections::BTreeMap;
use std::io::Write;

use tesserafs_format::{FileKind, Inode};
use tesserafs_image::diff::{Aspect, Difference};
use tesserafs_image::text;
use tesserafs_image::time::utc;
use tesserafs_image::unchecked::Unchecked;

use super::{cannot_write, shown, Kind, Paths, Stop};

/// Writes the line of a difference.
pub(super) fn line(
    a: &Unchecked<'_>,
    b: &Unchecked<'_>,
    difference: &Difference,
    paths: &Paths,
    out: &mut dyn Write,
) -> Result<(), Stop> {
    let Difference { before, after, aspects, .. } = difference;
    let letter = match Kind::of(difference) {
        Kind::Added => 'A',
        Kind::Removed => 'D',
        Kind::Changed => 'M',
        Kind::Renamed => 'R',
    };
    let mut text = format!("{letter}  ");
    if let Some(from) = &paths.from {
        text.push_str(&format!("{from} -> "));
    }
    text.push_str(&paths.path);
    if let (Some(before), Some(after)) = (before, after) {
        let parts: Result<Vec<_>, _> =
            aspects.iter().map(|aspect| how(a, b, before, after, *aspect)).collect();
        let parts = parts?;
        if !parts.is_empty() {
            text.push_str(&format!("  ({})", parts.join("; ")));
        }
    } else if let Some(inode) = before.as_ref().or(after.as_ref()) {
        text.push_str(&format!("  ({})", what(inode)));
    }
    writeln!(out, "{text}").map_err(cannot_write)
}

/// A file in a few words.
fn what(inode: &Inode) -> String {
    match inode.kind {
        FileKind::Regular { size, .. } => format!("file, {size} bytes"),
        _ => text::file_type(inode.kind.file_type()).to_owned(),
    }
}

/// How an aspect differs.
fn how(
    a: &Unchecked<'_>,
    b: &Unchecked<'_>,
    before: &Inode,
    after: &Inode,
    aspect: Aspect,
) -> Result<String, Stop> {
    let of = |inode: &Inode| match aspect {
        Aspect::Type => text::file_type(inode.kind.file_type()).to_owned(),
        Aspect::Mode => format!("{:04o}", inode.mode),
        Aspect::Owner => format!("{}:{}", inode.uid, inode.gid),
        Aspect::Time => utc(inode.mtime.sec, inode.mtime.nsec),
        _ => String::new(),
    };
    let name = aspect.name();
    Ok(match aspect {
        Aspect::Bytes => match (before.kind, after.kind) {
            (FileKind::Regular { size: old, .. }, FileKind::Regular { size: new, .. }) if old != new => {
                format!("{name} {old} -> {new}")
            }
            _ => format!("{name}, as many"),
        },
        Aspect::Target => format!("{name} {} -> {}", shown(&a.target(before)?), shown(&b.target(after)?)),
        Aspect::Xattrs => format!("{name} {}", xattrs(a, b, before, after)?),
        _ => format!("{name} {} -> {}", of(before), of(after)),
    })
}

/// The names of xattrs that came, went or changed.
fn xattrs(a: &Unchecked<'_>, b: &Unchecked<'_>, before: &Inode, after: &Inode) -> Result<String, Stop> {
    let old: BTreeMap<_, _> = a.xattrs(before)?.into_iter().collect();
    let new: BTreeMap<_, _> = b.xattrs(after)?.into_iter().collect();
    let mut names = Vec::new();
    for (name, value) in &old {
        match new.get(name) {
            None => names.push(format!("-{}", shown(name))),
            Some(other) if other != value => names.push(shown(name)),
            Some(_) => (),
        }
    }
    names.extend(new.keys().filter(|name| !old.contains_key(*name)).map(|name| format!("+{}", shown(name))));
    Ok(names.join(" "))
}
