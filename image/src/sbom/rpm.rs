// SPDX-License-Identifier: GPL-2.0-or-later

//! The packages of Fedora, SUSE and others: `rpmdb.sqlite`, a table with the header of each.
//!
//! A database is a program, too: its schema can have views, triggers and computed columns. So SQLite is asked for one column of one
//! plain table, with limits on lengths and on steps.

use std::io;

use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, MAIN_DB};

use super::header::Header;
use super::package::{Algorithm, Bytes, Event, Listed, Manager, Package};
use super::{lossy, Wrong, DATABASE_MAX};

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const SUMMARY: u32 = 1004;
const VENDOR: u32 = 1011;
const LICENSE: u32 = 1014;
const PACKAGER: u32 = 1015;
const URL: u32 = 1020;
const ARCH: u32 = 1022;
const FILE_STATES: u32 = 1029;
const FILE_MODES: u32 = 1030;
const FILE_DIGESTS: u32 = 1035;
const FILE_LINK_TOS: u32 = 1036;
const FILE_FLAGS: u32 = 1037;
const SOURCE_RPM: u32 = 1044;
const DIR_INDEXES: u32 = 1116;
const BASE_NAMES: u32 = 1117;
const DIR_NAMES: u32 = 1118;
const FILE_DIGEST_ALGORITHM: u32 = 5011;

const FILE_IS_CONFIG: u32 = 1;
const FILE_MAY_BE_MISSING: u32 = 1 << 3;
const FILE_IS_GHOST: u32 = 1 << 6;

/// Steps of SQLite's machine between two looks at the clock that is counted in them.
const STEPS: i32 = 1 << 16;

/// So many times [`STEPS`]: a plain read of the largest database takes less.
const ROUNDS_MAX: u32 = 1 << 12;

/// Hands `each` the packages of a database, which lies at `place`; before each its files, where they are `wanted`.
pub(super) fn packages(
    mut database: Vec<u8>,
    place: &[u8],
    wanted: bool,
    each: &mut dyn FnMut(Event),
) -> Result<(), Wrong> {
    // A database in memory can have no log: without one, both kinds of database are the same but for these bytes.
    if let Some(versions) = database.get_mut(18..20) {
        versions.fill(1);
    }
    let sql =
        |error: rusqlite::Error| Wrong::new("as an SQLite database".to_owned(), error.to_string(), "rpm's");
    let connection = open(&database).map_err(sql)?;
    drop(database);
    let table =
        "SELECT count(*) FROM sqlite_schema WHERE name = 'Packages' AND type = 'table' AND rootpage > 0";
    if connection.query_row(table, [], |row| row.get::<_, i64>(0)).map_err(sql)? != 1 {
        return Err(Wrong::new("its schema".to_owned(), "no plain table Packages", "one"));
    }
    let computed = "SELECT count(*) FROM pragma_table_xinfo('Packages') WHERE hidden > 0";
    if connection.query_row(computed, [], |row| row.get::<_, i64>(0)).map_err(sql)? != 0 {
        return Err(Wrong::new("its table Packages".to_owned(), "computed columns", "none"));
    }
    let mut query = connection.prepare("SELECT blob FROM Packages ORDER BY hnum").map_err(sql)?;
    let mut rows = query.query([]).map_err(sql)?;
    let mut number = 0_u64;
    while let Some(row) = rows.next().map_err(sql)? {
        number += 1;
        let at = format!("package {number}");
        let value = row.get_ref(0).map_err(sql)?;
        let blob = value.as_blob().map_err(|error| Wrong::new(at.clone(), error.to_string(), "a header"))?;
        let header = Header::parse(blob, &at)?;
        let package = package(&header, &at, place)?;
        // A key that packages are signed with, which is no package.
        if package.name == "gpg-pubkey" {
            continue;
        }
        if wanted {
            files(&header, &at, each)?;
        }
        each(Event::Package(Box::new(package)));
    }
    Ok(())
}

fn open(database: &[u8]) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_in_memory_with_flags(flags)?;
    connection.deserialize_read_exact(MAIN_DB, io::Cursor::new(database), database.len(), true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, DATABASE_MAX as i32)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    let mut rounds = 0;
    connection.progress_handler(
        STEPS,
        Some(move || {
            rounds += 1;
            rounds > ROUNDS_MAX
        }),
    )?;
    Ok(connection)
}

fn package(header: &Header<'_>, at: &str, place: &[u8]) -> Result<Package, Wrong> {
    let text = |tag| header.text(tag).map(lossy).filter(|text| !text.is_empty() && text != "(none)");
    let lacks = |what: &str| Wrong::new(at.to_owned(), format!("no {what}"), "one");
    let name = text(NAME).ok_or_else(|| lacks("name"))?;
    let version = text(VERSION).ok_or_else(|| lacks("version"))?;
    let version = match text(RELEASE) {
        Some(release) => format!("{version}-{release}"),
        None => version,
    };
    let mut package = Package::new(Manager::Rpm, name, version, place);
    package.arch = text(ARCH);
    package.epoch = header.numbers(EPOCH).next();
    package.source = text(SOURCE_RPM);
    package.license = text(LICENSE);
    package.supplier = text(VENDOR).or_else(|| text(PACKAGER));
    package.description = text(SUMMARY);
    package.homepage = text(URL);
    Ok(package)
}

/// Hands `each` the files that the lists of a header name.
fn files(header: &Header<'_>, at: &str, each: &mut dyn FnMut(Event)) -> Result<(), Wrong> {
    let dirs: Vec<&[u8]> = header.texts(DIR_NAMES).collect();
    let algorithm = header.numbers(FILE_DIGEST_ALGORITHM).next().unwrap_or(1);
    let mut modes = header.numbers(FILE_MODES);
    let mut flags = header.numbers(FILE_FLAGS);
    let mut digests = header.texts(FILE_DIGESTS);
    let mut targets = header.texts(FILE_LINK_TOS);
    let mut dir_indexes = header.numbers(DIR_INDEXES);
    let states = header.states(FILE_STATES);
    for (number, name) in header.texts(BASE_NAMES).enumerate() {
        let wrong = |what: &str| Wrong::new(format!("{at}, file {}", number + 1), what, "one for each file");
        let dir = dir_indexes.next().and_then(|index| dirs.get(index as usize));
        let dir = dir.ok_or_else(|| wrong("no directory"))?;
        let mode = modes.next().ok_or_else(|| wrong("no mode"))?;
        let flags = flags.next().unwrap_or(0);
        let (digest, target) = (digests.next().unwrap_or_default(), targets.next().unwrap_or_default());
        let bytes = match mode & 0o170_000 {
            0o100_000 => file_bytes(digest, algorithm).ok_or_else(|| wrong("no digest of that algorithm"))?,
            0o120_000 => Bytes::Target(target.into()),
            _ => Bytes::Unknown,
        };
        let is_not_installed = states.get(number).is_some_and(|state| *state != 0);
        let is_ghost = flags & FILE_IS_GHOST != 0;
        let mut listed = Listed::new([dir, name].concat(), if is_ghost { Bytes::Unknown } else { bytes });
        listed.is_config = flags & FILE_IS_CONFIG != 0;
        listed.may_be_missing = is_not_installed || flags & (FILE_IS_GHOST | FILE_MAY_BE_MISSING) != 0;
        each(Event::File(listed));
    }
    Ok(())
}

/// The digest of a regular file; none of an empty text.
fn file_bytes(digest: &[u8], algorithm: u32) -> Option<Bytes> {
    if digest.is_empty() {
        return Some(Bytes::Unknown);
    }
    let algorithm = match algorithm {
        1 => Algorithm::Md5,
        2 => Algorithm::Sha1,
        8 => Algorithm::Sha256,
        9 => Algorithm::Sha384,
        10 => Algorithm::Sha512,
        _ => return Some(Bytes::Unknown),
    };
    Bytes::hex(algorithm, digest)
}
