// SPDX-License-Identifier: GPL-2.0-or-later

//! All packages of a tree.

use super::places::{self, Place};
use super::{apk, cargo, dpkg, elf, npm, python, read_all, rpm};
use super::{Files, Names, NodeIndex, OsRelease, Package, Wrong, DATABASE_MAX, METADATA_MAX};
use crate::error::Error;
use crate::text::escape;

use super::package::Event;

/// The packages of a tree, and what it calls itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The system.
    pub os: Option<OsRelease>,
    /// The packages, sorted.
    pub packages: Vec<Package>,
    /// Databases that could not be read, or are not there, in sentences.
    pub notes: Vec<String>,
}

/// Reads the packages of a tree.
///
/// A database of a system that is not as it should be is an error, as all that follows it would be missing; metadata of one package
/// that is not, a note: trees have such files for tests.
pub fn inventory<F: Files>(names: &Names, files: &F) -> Result<Inventory, F::Error> {
    let mut places = places::find(names);
    // The order of a source is not that of an image.
    places.sort_by_cached_key(|(_, node)| names.path(*node));
    let mut reading = Reading { names, files, found: Inventory::default() };
    for (place, node) in places {
        reading.read(place, node)?;
    }
    let mut found = reading.found;
    found.packages.sort();
    found.packages.dedup();
    if found.packages.is_empty() {
        found
            .notes
            .push("there is no package database that is known, and no metadata of packages".to_owned());
    }
    Ok(found)
}

struct Reading<'a, F> {
    names: &'a Names,
    files: &'a F,
    found: Inventory,
}

impl<F: Files> Reading<'_, F> {
    fn read(&mut self, place: Place, node: NodeIndex) -> Result<(), F::Error> {
        let path = self.names.path(node);
        let packages = &mut self.found.packages;
        let mut add = |event| match event {
            Event::Package(package) => packages.push(*package),
            Event::File(_) => (),
        };
        match place {
            Place::DpkgStatus | Place::DpkgPart => {
                let text = self.all(node, DATABASE_MAX)?;
                let mut add = |entry: dpkg::Entry| {
                    if entry.is_installed {
                        self.found.packages.push(entry.package);
                    }
                };
                dpkg::status(&text, &path, &mut add).map_err(|wrong| wrong.in_file(&path))?;
            }
            Place::Apk => {
                let text = read_all(self.names, self.files, node, DATABASE_MAX)?;
                apk::installed(&text, &path, false, &mut add).map_err(|wrong| wrong.in_file(&path))?;
            }
            Place::Rpm => {
                let bytes = read_all(self.names, self.files, node, DATABASE_MAX)?;
                rpm::packages(bytes, &path, false, &mut add).map_err(|wrong| wrong.in_file(&path))?;
            }
            Place::RpmLog => return Err(rpm_log(self.names, node).into()),
            Place::RpmOther => self.note(&path, "is a database of rpm in an older form, which is not read"),
            Place::Python => self.one(node, &path, python::metadata)?,
            Place::Npm => self.one(node, &path, npm::package)?,
            Place::CargoLock => {
                if let Some(text) = self.metadata(node, &path)? {
                    self.many(&path, cargo::locked(&text, &path));
                }
            }
            Place::Program => {
                let ino = self.names.ino(node);
                let section = elf::section(cargo::SECTION, self.names.size(node), |range, buf| {
                    self.files.read(ino, range, buf)
                })?;
                if let Some(section) = section {
                    self.many(&path, cargo::audited(&section, &path));
                }
            }
            Place::OsRelease => {
                // etc/os-release comes first, and counts.
                if self.found.os.is_none() {
                    if let Some(text) = self.metadata(node, &path)? {
                        self.found.os = Some(OsRelease::parse(&text, &path));
                    }
                }
            }
        }
        Ok(())
    }

    fn all(&self, node: NodeIndex, limit: u64) -> Result<Vec<u8>, F::Error> {
        read_all(self.names, self.files, node, limit)
    }

    /// The bytes of a file about one package; a note where it is too long.
    fn metadata(&mut self, node: NodeIndex, path: &[u8]) -> Result<Option<Vec<u8>>, F::Error> {
        let size = self.names.size(node);
        if size > METADATA_MAX {
            self.note(
                path,
                &format!("has {size} bytes, and is not read: metadata of a package has 8 MiB at most"),
            );
            return Ok(None);
        }
        self.all(node, METADATA_MAX).map(Some)
    }

    fn one(
        &mut self,
        node: NodeIndex,
        path: &[u8],
        parse: fn(&[u8], &[u8]) -> Result<Package, Wrong>,
    ) -> Result<(), F::Error> {
        if let Some(text) = self.metadata(node, path)? {
            self.many(path, parse(&text, path).map(|package| vec![package]));
        }
        Ok(())
    }

    fn many(&mut self, path: &[u8], parsed: Result<Vec<Package>, Wrong>) {
        match parsed {
            Ok(packages) => self.found.packages.extend(packages),
            Err(wrong) => self.note(path, &format!("is not read: {}", wrong.text())),
        }
    }

    fn note(&mut self, path: &[u8], what: &str) {
        self.found.notes.push(format!("{} {what}", escape(path)));
    }
}

/// The error of changes that are not in the database yet: without them it says what was true before.
pub(super) fn rpm_log(names: &Names, node: NodeIndex) -> Error {
    let path = escape(&names.path(node));
    Error::Refused(format!(
        "{path}: found {} bytes of changes beside the database, expected none; `rpm --rebuilddb` in the tree takes them in",
        names.size(node)
    ))
}
