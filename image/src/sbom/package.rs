// SPDX-License-Identifier: GPL-2.0-or-later

//! A package, whatever manager has put it there.

/// The program that manages a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Manager {
    /// Of Alpine.
    Apk,
    /// Of Rust.
    Cargo,
    /// Of Debian.
    Deb,
    /// Of Node.
    Npm,
    /// Of Python.
    PyPi,
    /// Of Fedora, SUSE and others.
    Rpm,
}

impl Manager {
    /// The type in a package URL.
    pub const fn name(self) -> &'static str {
        match self {
            Manager::Apk => "apk",
            Manager::Cargo => "cargo",
            Manager::Deb => "deb",
            Manager::Npm => "npm",
            Manager::PyPi => "pypi",
            Manager::Rpm => "rpm",
        }
    }

    /// Whether its packages are those of a distribution.
    pub const fn is_of_system(self) -> bool {
        matches!(self, Manager::Apk | Manager::Deb | Manager::Rpm)
    }
}

/// A digest of the archive that a package came in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hash {
    /// SHA-256, in hexadecimal digits.
    Sha256(String),
}

/// A package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// The manager whose database has it.
    pub manager: Manager,
    /// The scope of a Node package.
    pub scope: Option<String>,
    /// The name.
    pub name: String,
    /// The version, with the release where the manager has one.
    pub version: String,
    /// The architecture.
    pub arch: Option<String>,
    /// The epoch of an rpm.
    pub epoch: Option<u32>,
    /// The package, or file, of the sources, where the database names it.
    pub source: Option<String>,
    /// The licence, in the words of the database.
    pub license: Option<String>,
    /// The maintainer or vendor.
    pub supplier: Option<String>,
    /// One line about it.
    pub description: Option<String>,
    /// Its page.
    pub homepage: Option<String>,
    /// Digest of its archive.
    pub hash: Option<Hash>,
    /// The file that says that it is there, as a path from the root.
    pub place: Vec<u8>,
}

impl Package {
    /// A package of which only these are known.
    pub(super) fn new(manager: Manager, name: String, version: String, place: &[u8]) -> Self {
        Self {
            manager,
            scope: None,
            name,
            version,
            arch: None,
            epoch: None,
            source: None,
            license: None,
            supplier: None,
            description: None,
            homepage: None,
            hash: None,
            place: place.to_vec(),
        }
    }

    /// The manager, name and version, for people.
    pub fn shown(&self) -> String {
        let scope = self.scope.as_ref().map(|scope| format!("{scope}/")).unwrap_or_default();
        crate::text::escape(
            format!("{} {scope}{} {}", self.manager.name(), self.name, self.version).as_bytes(),
        )
    }
}

/// How a digest is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Algorithm {
    Md5,
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    /// Bytes of a digest.
    pub(super) const fn len(self) -> usize {
        match self {
            Algorithm::Md5 => 16,
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
            Algorithm::Sha384 => 48,
            Algorithm::Sha512 => 64,
        }
    }
}

/// The bytes of a file of a package, by a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bytes {
    /// The database does not say, or by a digest that nobody here can compute.
    Unknown,
    /// Those with this digest; of a symlink its target.
    Digest(Algorithm, Box<[u8]>),
    /// It is a symlink to this.
    Target(Box<[u8]>),
}

impl Bytes {
    /// Those with this digest, unless that is too long or too short.
    pub(super) fn digest(algorithm: Algorithm, digest: Vec<u8>) -> Option<Self> {
        (digest.len() == algorithm.len()).then(|| Bytes::Digest(algorithm, digest.into()))
    }

    /// The same in hexadecimal digits.
    pub(super) fn hex(algorithm: Algorithm, text: &[u8]) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let pairs = text.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return None;
        }
        let digest: Option<Vec<u8>> =
            pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
        Self::digest(algorithm, digest?)
    }
}

/// A file in the list of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// From the root.
    pub(super) path: Vec<u8>,
    pub(super) bytes: Bytes,
    /// The administrator may change it.
    pub(super) is_config: bool,
    /// It need not be there.
    pub(super) may_be_missing: bool,
}

impl Listed {
    pub(super) fn new(path: Vec<u8>, bytes: Bytes) -> Self {
        Self { path, bytes, is_config: false, may_be_missing: false }
    }
}

/// A part of a database that has packages with their files, as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A file of the package that comes next.
    File(Listed),
    /// A package.
    Package(Box<Package>),
}
