// SPDX-License-Identifier: GPL-2.0-or-later

//! A database of rpm, with headers that are put together by hand.

use std::path::Path;

use rusqlite::Connection;

/// A value of a header.
pub(crate) enum Value<'a> {
    /// Type 6.
    Text(&'a str),
    /// Type 8.
    Texts(&'a [&'a str]),
    /// Type 4.
    Numbers(&'a [u32]),
    /// Type 3.
    Modes(&'a [u16]),
}

/// A header as the database has it.
pub(crate) fn header(values: &[(u32, Value<'_>)]) -> Vec<u8> {
    let (mut entries, mut store) = (Vec::new(), Vec::new());
    for (tag, value) in values {
        let (kind, align, count, bytes): (u32, usize, usize, Vec<u8>) = match value {
            Value::Text(text) => (6, 1, 1, [text.as_bytes(), b"\0"].concat()),
            Value::Texts(texts) => {
                (8, 1, texts.len(), texts.iter().flat_map(|text| [text.as_bytes(), b"\0"].concat()).collect())
            }
            Value::Numbers(numbers) => {
                (4, 4, numbers.len(), numbers.iter().flat_map(|number| number.to_be_bytes()).collect())
            }
            Value::Modes(modes) => {
                (3, 2, modes.len(), modes.iter().flat_map(|mode| mode.to_be_bytes()).collect())
            }
        };
        store.resize(store.len().next_multiple_of(align), 0);
        for number in [*tag, kind, store.len() as u32, count as u32] {
            entries.extend_from_slice(&number.to_be_bytes());
        }
        store.extend_from_slice(&bytes);
    }
    let counts = [values.len() as u32, store.len() as u32].map(u32::to_be_bytes).concat();
    [counts, entries, store].concat()
}

/// Writes a database of these headers, in the mode with a log beside it, as rpm has it.
pub(crate) fn database(path: &Path, headers: &[Vec<u8>]) {
    let database = Connection::open(path).expect("a database");
    database.pragma_update(None, "journal_mode", "WAL").expect("a log");
    database
        .execute_batch("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
        .expect("a table");
    for header in headers {
        database.execute("INSERT INTO Packages (blob) VALUES (?1)", [header]).expect("a package");
    }
    database.close().expect("closed");
}
