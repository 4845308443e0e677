// SPDX-License-Identifier: GPL-2.0

//! tesserafs: a read-only, verified filesystem for container images.
//!
//! This file is the table of contents. `vfs` and `klib` wrap the kernel's C interfaces and are, with
//! `bindings`, the only modules in which `unsafe` compiles.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod bindings;
#[allow(dead_code, unsafe_code)]
mod klib;
#[allow(dead_code, unsafe_code, unused_imports)]
mod vfs;

use kernel::prelude::*;

module! {
    type: Tesserafs,
    name: "tesserafs",
    authors: ["The tesserafs authors"],
    description: "tesserafs: read-only, verified images for containers",
    license: "GPL",
    alias: ["fs-tesserafs"],
}

/// The loaded module.
struct Tesserafs {
    _keyring: klib::keyring::Keyring,
}

impl kernel::Module for Tesserafs {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _keyring: klib::keyring::Keyring::new(c".tesserafs")?,
        })
    }
}
