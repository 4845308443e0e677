// SPDX-License-Identifier: GPL-2.0-or-later

//! The marks that overlayfs reads in a layer: directories that hide what lower layers have in them, and whiteouts that hide nothing.

use crate::tree::Xattrs;

/// The xattrs by which overlayfs recognises an opaque directory: without and with its option `userxattr`.
pub(crate) const OPAQUE: [&[u8]; 2] = [b"trusted.overlay.opaque", b"user.overlay.opaque"];
/// The value of these.
pub(crate) const OPAQUE_VALUE: &[u8] = b"y";
/// The xattrs that say under which path the lower layers have a directory that was renamed.
const REDIRECT: [&[u8]; 2] = [b"trusted.overlay.redirect", b"user.overlay.redirect"];

/// Whether an xattr is one of overlayfs's own.
pub(crate) fn is_own(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Whether a directory with these xattrs is opaque itself.
pub(super) fn is_opaque(xattrs: &Xattrs) -> bool {
    xattrs.iter().any(|(name, value)| OPAQUE.contains(&&name[..]) && value == OPAQUE_VALUE)
}

/// Whether whiteouts in a directory with these xattrs hide nothing; `above` says that of the directory that names it.
///
/// A path from the root leads out of an opaque directory: what lower layers have there is not hidden by it.
pub(super) fn hides_all(xattrs: &Xattrs, above: bool) -> bool {
    let leads_out =
        |(name, value): &(Vec<u8>, Vec<u8>)| REDIRECT.contains(&&name[..]) && value.starts_with(b"/");
    is_opaque(xattrs) || above && !xattrs.iter().any(leads_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattrs(all: &[(&str, &str)]) -> Xattrs {
        all.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn a_directory_is_opaque_by_itself_or_below_another_one() {
        let plain = xattrs(&[("user.a", "y"), ("trusted.overlay.origin", "y")]);
        assert_eq!([hides_all(&plain, false), hides_all(&plain, true)], [false, true]);
        for name in ["trusted.overlay.opaque", "user.overlay.opaque"] {
            assert!(hides_all(&xattrs(&[(name, "y")]), false));
            // "x" says that there are whiteouts of another kind in it.
            for value in ["x", "n", "", "yes"] {
                assert!(!hides_all(&xattrs(&[(name, value)]), false), "{name}={value}");
            }
        }
    }

    #[test]
    fn a_redirect_from_the_root_leads_out_of_an_opaque_directory() {
        for name in ["trusted.overlay.redirect", "user.overlay.redirect"] {
            assert!(!hides_all(&xattrs(&[(name, "/elsewhere")]), true));
            assert!(hides_all(&xattrs(&[(name, "sibling")]), true));
            assert!(hides_all(&xattrs(&[(name, "/elsewhere"), ("trusted.overlay.opaque", "y")]), true));
        }
    }
}
