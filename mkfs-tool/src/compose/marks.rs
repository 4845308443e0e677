// SPDX-License-Identifier: GPL-2.0-or-later

//! The marks of overlayfs in the xattrs of a layer: what they say, and what is left of them.

use crate::source::overlay::{OPAQUE, OPAQUE_VALUE};
use crate::tree::Xattrs;

/// The beginnings of the names of marks: without and with the mount option `userxattr`.
const PREFIXES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// Behind that, the beginning of the names of marks that are those of an overlay *in* the layer.
const ESCAPE: &[u8] = b"overlay.";

/// Says in a directory that there may be whiteouts in it that are files.
const FILES_VALUE: &[u8] = b"x";

/// The meaning of the marks of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// The xattrs by which a directory is opaque.
    pub(super) opaque: Vec<&'static [u8]>,
    /// Of a directory: files in it may be whiteouts.
    pub(super) has_files: bool,
    /// Of a file: it is a whiteout, in such a directory.
    pub(super) is_whiteout: bool,
    /// A mark that says that a file, or what is in it, is elsewhere.
    pub(super) elsewhere: Option<String>,
}

/// Reads the marks of a file.
pub(super) fn read(xattrs: &Xattrs) -> Marks {
    let mut marks = Marks::default();
    for (name, value) in xattrs {
        let Some(mark) = mark(name) else { continue };
        match mark {
            b"opaque" if value == OPAQUE_VALUE => {
                marks.opaque.extend(OPAQUE.into_iter().filter(|opaque| *opaque == &name[..]));
            }
            b"opaque" if value == FILES_VALUE => marks.has_files = true,
            b"whiteout" => marks.is_whiteout = true,
            b"redirect" | b"metacopy" => {
                marks.elsewhere = Some(String::from_utf8_lossy(name).into_owned());
            }
            _ => (),
        }
    }
    marks
}

/// The xattrs without marks; those of an overlay in the layer get the names that overlayfs shows, unless the result is a layer.
pub(super) fn without(xattrs: Xattrs, partial: bool) -> Xattrs {
    let kept = xattrs.into_iter().filter_map(|(name, value)| {
        let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(*prefix)) else {
            return Some((name, value));
        };
        let inner = rest.strip_prefix(ESCAPE)?;
        if partial {
            return Some((name.clone(), value));
        }
        let prefix = &name[..name.len() - rest.len()];
        Some(([prefix, inner].concat(), value))
    });
    kept.collect()
}

/// The name of a mark of this layer, without its beginning.
fn mark(name: &[u8]) -> Option<&[u8]> {
    let rest = PREFIXES.iter().find_map(|prefix| name.strip_prefix(*prefix))?;
    (!rest.starts_with(ESCAPE)).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattrs(all: &[(&str, &str)]) -> Xattrs {
        all.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn marks_are_read_and_go() {
        let all = xattrs(&[
            ("security.selinux", "label"),
            ("trusted.overlay.opaque", "y"),
            ("trusted.overlay.origin", "handle"),
            ("trusted.overlay.overlay.opaque", "y"),
            ("user.overlay.opaque", "y"),
            ("user.overlayed", "1"),
        ]);
        let marks = read(&all);
        assert_eq!(marks.opaque, [&b"trusted.overlay.opaque"[..], b"user.overlay.opaque"]);
        assert!(marks.elsewhere.is_none() && !marks.has_files);
        let shown = [("security.selinux", "label"), ("trusted.overlay.opaque", "y"), ("user.overlayed", "1")];
        assert_eq!(without(all.clone(), false), xattrs(&shown));
        let kept =
            [("security.selinux", "label"), ("trusted.overlay.overlay.opaque", "y"), ("user.overlayed", "1")];
        assert_eq!(without(all, true), xattrs(&kept));
    }

    #[test]
    fn an_escaped_mark_is_none() {
        assert_eq!(
            read(&xattrs(&[
                ("trusted.overlay.overlay.redirect", "/a"),
                ("user.overlay.overlay.opaque", "y")
            ])),
            Marks::default()
        );
        assert_eq!(
            read(&xattrs(&[("user.overlay.redirect", "/a")])).elsewhere.unwrap(),
            "user.overlay.redirect"
        );
        assert!(read(&xattrs(&[("trusted.overlay.opaque", "x")])).has_files);
        assert!(read(&xattrs(&[("trusted.overlay.whiteout", "y")])).is_whiteout);
    }
}
