// SPDX-License-Identifier: GPL-2.0

//! tesserafs: a read-only, verified filesystem for container images.
//!
//! This file is the table of contents: mounting, metadata, names, data, messages. A read of data
//! goes from `read` to `window`, `plan`, `fetch`, `pack`, `verify` and `decode`. `vfs` and `klib` wrap the kernel's C
//! interfaces and are, with `bindings`, the only modules in which `unsafe` compiles.

#![deny(unsafe_code)]

mod head;
mod mount;
mod options;
mod signature;

mod meta;

mod dir;
mod inode;
mod xattr;

mod chunk_cache;
mod decode;
mod fetch;
mod pack;
mod plan;
mod read;
mod share;
mod verify;
mod window;

mod error;
mod stats;

#[allow(unsafe_code)]
mod bindings;
#[allow(unsafe_code)]
mod klib;
#[allow(unsafe_code)]
mod vfs;

use kernel::prelude::*;

module! {
    type: Module,
    name: "tesserafs",
    authors: ["The tesserafs authors"],
    description: "tesserafs: read-only, verified images for containers",
    license: "GPL",
    alias: ["fs-tesserafs"],
}

/// The loaded module.
#[pin_data]
struct Module {
    #[pin]
    registration: vfs::Registration<mount::Tesserafs>,
}

impl kernel::InPlaceModule for Module {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            registration <- vfs::Registration::new(mount::Global::new()?),
        }? Error)
    }
}
