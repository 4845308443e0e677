// SPDX-License-Identifier: GPL-2.0-or-later

//! Xattrs that setxattr(2) refuses: an image that holds them is not clean, and is extracted without them.

use std::io::Write;

use fsck_tesserafs::parallel::Cancel;
use fsck_tesserafs::progress::Silent;
use fsck_tesserafs::{check, Options, Report, Severity, Source};
use tesserafs_format::Rule;

mod bench;
#[path = "../../format/tests/common/mod.rs"]
mod common;

use bench::{text, Bench};
use common::{inode, Draft, DraftInode, CAPABILITY};

/// A set of one xattr.
type Xattr = (&'static [u8], &'static [u8]);

/// An ACL of owner, group and others.
const ACL: [u8; 28] =
    *b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff";

const REGULAR: u8 = 1;
const SYMLINK: u8 = 3;
const TYPES: [u8; 6] = [REGULAR, 2, SYMLINK, 4, 5, 6];

/// A root with one file of that type in it, `f`, which has the xattrs.
fn image(file_type: u8, xattrs: &[Xattr]) -> Draft {
    let mut draft = Draft::empty();
    let set = draft.xattr_set(xattrs);
    draft.directory(1, 1, if file_type == 2 { 3 } else { 2 }, 0);
    match file_type {
        2 => draft.directory(1, 0, 2, set),
        SYMLINK => {
            draft.symlink(b"target");
            draft.inodes[1].xattrs = set.into();
        }
        _ => drop(draft.inode(DraftInode { file_type, xattrs: set.into(), ..inode(1) })),
    }
    draft.dirent(b"f", 2, file_type);
    draft.seal();
    draft
}

fn report(draft: &Draft) -> Report {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(&draft.image()).expect("written");
    let source = Source::open(file.path()).expect("opened");
    check(&source, &Options { threads: 1, ..Options::default() }, &Silent, &Cancel::default())
}

#[test]
fn what_a_type_of_file_cannot_have_is_found_with_its_name() {
    let cases: [(Xattr, &[u8]); 9] = [
        ((b"user.a", b"1"), &[SYMLINK, 4, 5, 6]),
        ((b"trusted.a", b"1"), &[]),
        ((b"security.a", b"1"), &[]),
        ((b"security.capability", &CAPABILITY), &[]),
        ((b"security.capability", b"nonsense"), &TYPES),
        ((b"system.posix_acl_access", &ACL), &[SYMLINK]),
        ((b"system.posix_acl_access", b""), &TYPES),
        ((b"system.posix_acl_default", &ACL), &[REGULAR, SYMLINK, 4, 5, 6]),
        ((b"system.posix_acl_default", b"\x02\0\0\0"), &TYPES),
    ];
    for ((name, value), refusing) in cases {
        for file_type in TYPES {
            // Between others: the one that is wrong is found.
            let report = report(&image(file_type, &[(b"security.SMACK64", b"_"), (name, value)]));
            let shown = String::from_utf8_lossy(name);
            if !refusing.contains(&file_type) {
                assert!(report.is_clean(), "{shown} of type {file_type}: {:?}", report.findings);
                continue;
            }
            let [finding] = &report.findings[..] else { panic!("{shown} of type {file_type}: {report:?}") };
            assert_eq!(
                (finding.rule, finding.severity, finding.place.to_string()),
                (Rule::XattrSettable, Severity::Error, "ino 2".to_owned()),
                "{shown} of type {file_type}"
            );
            assert_eq!(finding.found, shown.as_ref().into());
            assert_eq!(finding.path.as_deref(), Some(&b"/f"[..]));
            assert_eq!(report.exit_code().value(), 4);
        }
    }
}

#[test]
fn a_set_that_a_hundred_thousand_files_share_is_looked_through_once() {
    let mut draft = Draft::empty();
    let names: Vec<String> = (0..2000).map(|n| format!("user.{n:04}")).collect();
    let all: Vec<(&[u8], &[u8])> = names.iter().map(|name| (name.as_bytes(), &b"value"[..])).collect();
    let set = draft.xattr_set(&all);
    let count = 100_000_u32;
    draft.directory(1, count.into(), 2, 0);
    for n in 0..count {
        draft.dirent(format!("{n:06}").as_bytes(), n + 2, 4);
    }
    let fifo = DraftInode { file_type: 4, xattrs: set.into(), ..inode(1) };
    draft.inodes.resize(count as usize + 1, fifo);
    draft.seal();
    let start = std::time::Instant::now();
    let report = report(&draft);
    assert_eq!(report.totals.iter().collect::<Vec<_>>(), [(&Rule::XattrSettable, &u64::from(count))]);
    assert_eq!(report.findings.len(), fsck_tesserafs::finding::KEPT_PER_RULE);
    // 200 million names.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn the_rest_of_the_tree_is_served() {
    let bench = Bench::new(&image(SYMLINK, &[(b"user.a", b"1")]).image());
    let out = bench.path("out");
    let extracted = bench.run(["--extract", out.to_str().expect("text")]);
    let said = text(&extracted.stderr);
    // Errors in the image, and not all restored.
    assert_eq!(extracted.status.code(), Some(4 | 64), "{said}");
    assert!(text(&extracted.stdout).contains("xattr-settable @ ino 2 (/f): found user.a"), "{said}");
    assert!(said.contains("not restored: xattr user.a of /f: ") && !said.contains("not complete"), "{said}");
    assert!(out.join("f").is_symlink());
    let listed = bench.run(["--list"]);
    assert_eq!((listed.status.code(), text(&listed.stdout).lines().count()), (Some(4), 2));
    assert!(text(&listed.stderr).contains("xattr-settable"));
    // A reader that takes less of the list than there is does not make the image clean.
    assert_eq!(bench.run_unread(&["--list"]).status.code(), Some(4));
    let archived = bench.run(["--tar"]);
    assert_eq!((archived.status.code(), archived.stdout.is_empty()), (Some(4), false));
    // Nothing is served where another rule is broken, too.
    let mut draft = image(SYMLINK, &[(b"user.a", b"1")]);
    draft.inodes[1].nlink = 2.into();
    let bench = Bench::new(&draft.image());
    let listed = bench.run(["--list"]);
    assert_eq!((listed.status.code(), listed.stdout.is_empty()), (Some(4), true));
}
