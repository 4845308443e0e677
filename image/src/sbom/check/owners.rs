// SPDX-License-Identifier: GPL-2.0-or-later

//! The files that packages own, by their lists.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::Ignored;
use crate::error::Error;
use crate::sbom::names::Finder;
use crate::sbom::package::{Bytes, Event, Listed, Package};
use crate::sbom::places::{self, Place};
use crate::sbom::{apk, cargo, dpkg, elf, inventory, npm, python, read_all, rpm};
use crate::sbom::{Files, ImageTree, Kind, Names, NodeIndex, DATABASE_MAX, METADATA_MAX};
use crate::text::escape;

/// A file that a database knows a digest or a target of.
pub(super) struct Expected {
    pub(super) node: NodeIndex,
    pub(super) bytes: Bytes,
    /// Its package, by number.
    pub(super) package: u32,
    pub(super) is_config: bool,
}

/// The files of all packages.
#[derive(Default)]
pub(super) struct Owners {
    /// The packages, for people.
    pub(super) packages: Vec<String>,
    /// By name: whether a package has it.
    pub(super) owned: Vec<bool>,
    /// By name: whether a package has made it, as a symlink of alternatives.
    pub(super) made: Vec<bool>,
    pub(super) expected: Vec<Expected>,
    /// Listed files that are not there, by package.
    pub(super) missing: BTreeMap<u32, BTreeSet<Vec<u8>>>,
    /// Listed files that are not there, and are ignored.
    pub(super) ignored: u64,
    pub(super) notes: Vec<String>,
}

/// Reads the lists of all packages of an image.
pub(super) fn read(tree: &ImageTree<'_>, ignored: &Ignored<'_>) -> Result<Owners, Error> {
    let names = tree.names();
    let mut owners = Owners::default();
    owners.owned.resize(names.count(), false);
    owners.made.resize(names.count(), false);
    let finder = Finder::new(names);
    let mut reading = Reading { tree, names, ignored, finder, owners, trees: Vec::new(), missing_bytes: 0 };
    let mut places = places::find(names);
    places.sort_by_cached_key(|(_, node)| names.path(*node));
    for (place, node) in places {
        reading.read(place, node)?;
    }
    reading.own_trees();
    Ok(reading.owners)
}

struct Reading<'a> {
    tree: &'a ImageTree<'a>,
    names: &'a Names,
    ignored: &'a Ignored<'a>,
    finder: Finder<'a>,
    owners: Owners,
    /// Directories of which a package has everything.
    trees: Vec<NodeIndex>,
    /// Bytes of the paths that are missing.
    missing_bytes: u64,
}

impl Reading<'_> {
    fn read(&mut self, place: Place, node: NodeIndex) -> Result<(), Error> {
        let path = self.names.path(node);
        match place {
            Place::DpkgStatus => self.dpkg(node, &path),
            Place::DpkgPart => self.dpkg_part(node, &path),
            Place::Apk => {
                let text = read_all(self.names, self.tree, node, DATABASE_MAX)?;
                self.events(&path, |each| apk::installed(&text, &path, true, each))
            }
            Place::Rpm => {
                let bytes = read_all(self.names, self.tree, node, DATABASE_MAX)?;
                self.events(&path, |each| rpm::packages(bytes, &path, true, each))
            }
            Place::RpmLog => Err(inventory::rpm_log(self.names, node)),
            Place::RpmOther => {
                self.note(&path, "is a database of rpm in an older form, which is not read");
                Ok(())
            }
            Place::Python => self.python(node, &path),
            Place::Npm => {
                let Some(text) = self.metadata(node)? else { return Ok(()) };
                if let Ok(package) = npm::package(&text, &path) {
                    self.package(&package);
                    self.trees.push(self.names.parent(node));
                }
                Ok(())
            }
            Place::Program => {
                let ino = self.names.ino(node);
                let read = |range, buf: &mut Vec<u8>| self.tree.read(ino, range, buf);
                if elf::section(cargo::SECTION, self.names.size(node), read)?.is_some() {
                    self.owners.owned[node.index()] = true;
                }
                Ok(())
            }
            Place::CargoLock | Place::OsRelease => Ok(()),
        }
    }

    /// Reads a database that has files before their package.
    fn events(
        &mut self,
        path: &[u8],
        read: impl FnOnce(&mut dyn FnMut(Event)) -> Result<(), crate::sbom::Wrong>,
    ) -> Result<(), Error> {
        let mut failed = None;
        let result = read(&mut |event| match event {
            Event::Package(package) => {
                self.package(&package);
            }
            // The number that the package gets next.
            Event::File(listed) => {
                let number = self.owners.packages.len() as u32;
                if failed.is_none() {
                    failed = self.claim(number, &listed).err();
                }
            }
        });
        result.map_err(|wrong| wrong.in_file(path))?;
        failed.map_or(Ok(()), Err)
    }

    fn package(&mut self, package: &Package) -> u32 {
        self.owners.packages.push(package.shown());
        self.owners.packages.len() as u32 - 1
    }

    /// Gives a file to a package.
    fn claim(&mut self, package: u32, listed: &Listed) -> Result<(), Error> {
        let found = self.finder.find(&listed.path);
        self.give(package, listed, found, &listed.path)
    }

    fn give(
        &mut self,
        package: u32,
        listed: &Listed,
        found: Option<NodeIndex>,
        path: &[u8],
    ) -> Result<(), Error> {
        let Some(node) = found else {
            if listed.may_be_missing {
                return Ok(());
            }
            return self.miss(package, path);
        };
        self.owners.owned[node.index()] = true;
        let is_compared = listed.bytes != Bytes::Unknown && !self.ignored.has(node);
        if is_compared {
            let bytes = listed.bytes.clone();
            self.owners.expected.push(Expected { node, bytes, package, is_config: listed.is_config });
        }
        Ok(())
    }

    fn miss(&mut self, package: u32, path: &[u8]) -> Result<(), Error> {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        if self.ignored.has_path(path) {
            self.owners.ignored += 1;
            return Ok(());
        }
        self.missing_bytes += path.len() as u64;
        if self.missing_bytes > DATABASE_MAX {
            let refusal = "the package databases name more than 256 MiB of paths that are not in the image";
            return Err(Error::Refused(refusal.to_owned()));
        }
        self.owners.missing.entry(package).or_default().insert(path.to_vec());
        Ok(())
    }

    fn dpkg(&mut self, node: NodeIndex, path: &[u8]) -> Result<(), Error> {
        let dpkg = self.names.parent(node);
        let text = read_all(self.names, self.tree, node, DATABASE_MAX)?;
        let mut entries = Vec::new();
        dpkg::status(&text, path, |entry| entries.push(entry)).map_err(|wrong| wrong.in_file(path))?;
        drop(text);
        let diverted = self.diversions(dpkg)?;
        self.alternatives(dpkg)?;
        let info = self.names.child(dpkg, b"info");
        for entry in entries {
            let number = self.package(&entry.package);
            let name = &entry.package.name;
            let arch = entry.package.arch.as_deref().filter(|_| entry.is_multi_arch);
            let long = arch.map(|arch| format!("{name}:{arch}"));
            let file = |kind: &str| {
                let names = [long.as_ref(), Some(name)].into_iter().flatten();
                names.filter_map(|name| self.names.child(info?, format!("{name}.{kind}").as_bytes())).next()
            };
            let (list, sums) = (file("list"), file("md5sums"));
            let mut known: HashMap<Vec<u8>, Listed> = HashMap::new();
            if let Some(sums) = sums {
                known.extend(
                    self.sums(sums)?.into_iter().map(|listed| (relative(&listed.path).to_vec(), listed)),
                );
            }
            let conffiles = entry.conffiles.into_iter();
            known.extend(conffiles.map(|listed| (relative(&listed.path).to_vec(), listed)));
            let Some(list) = list else {
                if entry.is_installed {
                    let what = format!(
                        "says that {} is installed, of which there is no list of files",
                        entry.package.shown()
                    );
                    self.note(path, &what);
                }
                continue;
            };
            let text = read_all(self.names, self.tree, list, DATABASE_MAX)?;
            self.dpkg_list(number, name, &text, known, &diverted, entry.is_installed)?;
        }
        Ok(())
    }

    fn dpkg_list(
        &mut self,
        number: u32,
        name: &str,
        text: &[u8],
        mut known: HashMap<Vec<u8>, Listed>,
        diverted: &HashMap<Vec<u8>, dpkg::Diversion>,
        is_installed: bool,
    ) -> Result<(), Error> {
        let mut paths = dpkg::list(text).map(relative).peekable();
        while let Some(path) = paths.next() {
            let unknown = || Listed::new(path.to_vec(), Bytes::Unknown);
            let mut listed = known.remove(path).unwrap_or_else(unknown);
            // Of a package that is gone the list has what may have stayed; and a directory is missing with what is in it.
            let is_above =
                |next: &&[u8]| next.strip_prefix(path).is_some_and(|rest| rest.first() == Some(&b'/'));
            listed.may_be_missing |= !is_installed || paths.peek().is_some_and(is_above);
            let diversion = diverted.get(path).filter(|diversion| diversion.by != name.as_bytes());
            if let Some(diversion) = diversion {
                listed.path = relative(&diversion.to).to_vec();
            }
            self.claim(number, &listed)?;
        }
        // Of no list, but with a digest: the package has it all the same.
        let mut others: Vec<Listed> = known.into_values().collect();
        others.sort_by(|a, b| a.path.cmp(&b.path));
        for mut listed in others {
            listed.may_be_missing = true;
            self.claim(number, &listed)?;
        }
        Ok(())
    }

    fn dpkg_part(&mut self, node: NodeIndex, path: &[u8]) -> Result<(), Error> {
        let text = read_all(self.names, self.tree, node, DATABASE_MAX)?;
        let mut entries = Vec::new();
        dpkg::status(&text, path, |entry| entries.push(entry)).map_err(|wrong| wrong.in_file(path))?;
        let sums = [self.names.name(node), b".md5sums"].concat();
        let sums = self.names.child(self.names.parent(node), &sums);
        let mut last = None;
        for entry in entries {
            last = Some(self.package(&entry.package));
        }
        if let (Some(number), Some(sums)) = (last, sums) {
            for listed in self.sums(sums)? {
                self.claim(number, &listed)?;
            }
        }
        Ok(())
    }

    fn sums(&self, node: NodeIndex) -> Result<Vec<Listed>, Error> {
        let text = read_all(self.names, self.tree, node, DATABASE_MAX)?;
        dpkg::md5sums(&text).map_err(|wrong| wrong.in_file(&self.names.path(node)))
    }

    fn diversions(&self, dpkg: NodeIndex) -> Result<HashMap<Vec<u8>, dpkg::Diversion>, Error> {
        let Some(node) = self.names.child(dpkg, b"diversions") else { return Ok(HashMap::new()) };
        let text = read_all(self.names, self.tree, node, DATABASE_MAX)?;
        let all = dpkg::diversions(&text).map_err(|wrong| wrong.in_file(&self.names.path(node)))?;
        Ok(all.into_iter().map(|diversion| (relative(&diversion.from).to_vec(), diversion)).collect())
    }

    /// Notes the symlinks that update-alternatives has made.
    fn alternatives(&mut self, dpkg: NodeIndex) -> Result<(), Error> {
        let Some(dir) = self.names.child(dpkg, b"alternatives") else { return Ok(()) };
        for node in self.names.all() {
            if self.names.parent(node) != dir || !matches!(self.names.kind(node), Kind::File(_)) {
                continue;
            }
            let Some(text) = self.metadata(node)? else { continue };
            for link in dpkg::alternatives(self.names.name(node), &text) {
                if let Some(link) = self.names.find(&link) {
                    self.owners.made[link.index()] = self.names.kind(link) == Kind::Symlink;
                }
            }
        }
        Ok(())
    }

    fn python(&mut self, node: NodeIndex, path: &[u8]) -> Result<(), Error> {
        let Some(text) = self.metadata(node)? else { return Ok(()) };
        // The document's note says why it is none.
        let Ok(package) = python::metadata(&text, path) else { return Ok(()) };
        let info = self.names.parent(node);
        let Some(record) = self.names.child(info, b"RECORD") else { return Ok(()) };
        let number = self.package(&package);
        let text = read_all(self.names, self.tree, record, DATABASE_MAX)?;
        let record_path = self.names.path(record);
        let base = self.names.parent(info);
        let base_path = self.names.path(base);
        for listed in python::record(&text).map_err(|wrong| wrong.in_file(&record_path))? {
            let found = self.names.find_at(base, &listed.path);
            let path = match listed.path.first() {
                Some(b'/') => listed.path.clone(),
                _ => plain(&base_path, &listed.path),
            };
            self.give(number, &listed, found, &path)?;
        }
        Ok(())
    }

    /// The bytes of a file about one package, unless they are too many.
    fn metadata(&self, node: NodeIndex) -> Result<Option<Vec<u8>>, Error> {
        if self.names.size(node) > METADATA_MAX {
            return Ok(None);
        }
        read_all(self.names, self.tree, node, METADATA_MAX).map(Some)
    }

    /// Gives everything in some directories to their packages.
    fn own_trees(&mut self) {
        if self.trees.is_empty() {
            return;
        }
        let trees: HashSet<NodeIndex> = self.trees.drain(..).collect();
        let mut is_in = vec![false; self.names.count()];
        for node in self.names.all() {
            let above = is_in[self.names.parent(node).index()];
            is_in[node.index()] = above || trees.contains(&node);
            self.owners.owned[node.index()] |= above;
        }
    }

    fn note(&mut self, path: &[u8], what: &str) {
        self.owners.notes.push(format!("{} {what}", escape(path)));
    }
}

fn relative(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"/").unwrap_or(path)
}

/// A path from a directory, without `..` in it.
fn plain(dir: &[u8], path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = dir.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => (),
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join(&b'/')
}
