// SPDX-License-Identifier: GPL-2.0-or-later

//! Where in a tree databases and metadata of packages are. Each directory has a class by its name and that of the one above: so no
//! path is put together but of what is found.

use super::{Kind, Names, NodeIndex};

/// A file that says something of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// dpkg's list of packages.
    DpkgStatus,
    /// The same of one package, as distroless images have it.
    DpkgPart,
    /// apk's list of packages and their files.
    Apk,
    /// rpm's database, as SQLite.
    Rpm,
    /// Changes of that which are not yet in it.
    RpmLog,
    /// A database of rpm in an older form.
    RpmOther,
    /// The metadata of a Python distribution.
    Python,
    /// That of a Node package.
    Npm,
    /// The crates that a Rust workspace is built from.
    CargoLock,
    /// A program, which may name the crates that it was built from.
    Program,
    /// The name of the system.
    OsRelease,
}

/// The class of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dir {
    Root,
    Etc,
    Usr,
    UsrShare,
    /// `lib`, or `usr/lib`.
    Lib,
    Sysimage,
    Apk,
    ApkDb,
    Var,
    VarLib,
    Dpkg,
    DpkgParts,
    Rpm,
    /// `site-packages` or `dist-packages`.
    Python,
    PythonInfo,
    NodeModules,
    /// A scope in `node_modules`.
    Scope,
    NodePackage,
    Other,
}

/// Bytes of a program at least: the header of an ELF file.
const PROGRAM_MIN: u64 = 64;

/// All such files.
pub(super) fn find(names: &Names) -> Vec<(Place, NodeIndex)> {
    let mut classes = Vec::with_capacity(names.count());
    classes.push(Dir::Root);
    let mut found = Vec::new();
    for node in names.all() {
        // Directories come before what is in them.
        let above = classes[names.parent(node).index()];
        let name = names.name(node);
        classes.push(match names.kind(node) {
            Kind::Directory => directory(above, name),
            _ => Dir::Other,
        });
        if let Kind::File(size) = names.kind(node) {
            let is_program = size >= PROGRAM_MIN
                && (names.mode(node) & 0o111 != 0 || name.windows(3).any(|part| part == b".so"));
            let place = file(above, name, size).or(is_program.then_some(Place::Program));
            found.extend(place.filter(|_| names.has_path(node)).map(|place| (place, node)));
        }
    }
    found
}

fn directory(above: Dir, name: &[u8]) -> Dir {
    match (above, name) {
        (_, b"site-packages" | b"dist-packages") => Dir::Python,
        (_, b"node_modules") => Dir::NodeModules,
        (Dir::Root, b"etc") => Dir::Etc,
        (Dir::Root, b"usr") => Dir::Usr,
        (Dir::Root, b"var") => Dir::Var,
        (Dir::Root | Dir::Usr, b"lib") => Dir::Lib,
        (Dir::Usr, b"share") => Dir::UsrShare,
        (Dir::Lib, b"apk") => Dir::Apk,
        (Dir::Apk, b"db") => Dir::ApkDb,
        (Dir::Lib, b"sysimage") => Dir::Sysimage,
        (Dir::Var, b"lib") => Dir::VarLib,
        (Dir::VarLib, b"dpkg") => Dir::Dpkg,
        (Dir::Dpkg, b"status.d") => Dir::DpkgParts,
        (Dir::VarLib | Dir::Sysimage | Dir::UsrShare, b"rpm") => Dir::Rpm,
        // Anywhere: `pip install --target` takes any directory.
        _ if name.ends_with(b".dist-info") || name.ends_with(b".egg-info") => Dir::PythonInfo,
        (Dir::NodeModules, [b'@', ..]) => Dir::Scope,
        // `.bin` and `.pnpm`, for example.
        (Dir::NodeModules, [b'.', ..]) => Dir::Other,
        (Dir::NodeModules | Dir::Scope, _) => Dir::NodePackage,
        _ => Dir::Other,
    }
}

fn file(above: Dir, name: &[u8], size: u64) -> Option<Place> {
    Some(match (above, name) {
        (Dir::Dpkg, b"status") => Place::DpkgStatus,
        (Dir::DpkgParts, _) if !name.ends_with(b".md5sums") => Place::DpkgPart,
        (Dir::ApkDb, b"installed") => Place::Apk,
        (Dir::Rpm, b"rpmdb.sqlite") => Place::Rpm,
        (Dir::Rpm, b"rpmdb.sqlite-wal") if size > 0 => Place::RpmLog,
        (Dir::Rpm, b"Packages" | b"Packages.db") => Place::RpmOther,
        (Dir::PythonInfo, b"METADATA" | b"PKG-INFO") => Place::Python,
        (Dir::Python, _) if name.ends_with(b".egg-info") => Place::Python,
        (Dir::NodePackage, b"package.json") => Place::Npm,
        (Dir::Etc | Dir::Lib, b"os-release") => Place::OsRelease,
        (_, b"Cargo.lock") => Place::CargoLock,
        _ => return None,
    })
}
