// SPDX-License-Identifier: GPL-2.0-or-later

//! The part that all verbs of the store have in common.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use tesserafs_image::{text, Cancel};

use crate::reference::Reference;
use crate::store::{Collecting, Image, Store, Using};
use crate::{chain, say};

/// Where the store is.
#[derive(Args, Debug, Default)]
pub(super) struct StoreArgs {
    /// The store [default: /var/lib/tesserafs for root, else $XDG_DATA_HOME/tesserafs]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

impl StoreArgs {
    /// Its directory.
    pub(super) fn dir(&self) -> Result<PathBuf, String> {
        match &self.store {
            Some(dir) => Ok(dir.clone()),
            None => Store::default_dir().map_err(|error| chain(&error)),
        }
    }

    /// Opens it; that there is none is an error.
    pub(super) fn open(&self) -> Result<Store, String> {
        let dir = self.dir()?;
        let found = Store::open(&dir).map_err(|error| chain(&error))?;
        found.ok_or_else(|| {
            format!("{}: found no store, expected one, as `tesserafs pull` makes it", text::path(&dir))
        })
    }
}

/// Begins to use the store.
pub(super) fn using(store: &Store) -> Result<Using<'_>, String> {
    let shown = text::path(store.path());
    let mut waits = || say(&format!("{shown}: another process removes files; waiting for it"));
    store.use_it(&Cancel::default(), &mut waits).map_err(|error| chain(&error))
}

/// Waits until nobody else uses the store.
pub(super) fn collecting(store: &Store) -> Result<Collecting<'_>, String> {
    let shown = text::path(store.path());
    let mut waits = || say(&format!("{shown}: other processes use the store; waiting for them"));
    store.collect(&Cancel::default(), &mut waits).map_err(|error| chain(&error))
}

/// The image of a store that has this name; that there is none is an error.
pub(super) fn image(store: &Store, reference: &Reference) -> Result<Image, String> {
    let found = store.image(reference).map_err(|error| chain(&error))?;
    found.ok_or_else(|| no_image(reference, store.path()))
}

/// The error that no image of a store has this name.
pub(super) fn no_image(reference: &Reference, store: &Path) -> String {
    let (reference, store) = (text::escape(reference.to_string().as_bytes()), text::path(store));
    format!("{reference}: no image in {store} has this name")
}

/// Writes on standard output. A reader that has read enough is nobody's error.
pub(super) fn print(what: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    match out.write_all(what.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// A document for programs.
pub(super) fn json(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}
