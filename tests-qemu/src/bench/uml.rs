// SPDX-License-Identifier: GPL-2.0
//! The kernel that reads: Linux as a user-mode program, with the filesystem linked into it.
//!
//! It runs at the speed of the processor, which an emulated machine does not. It loads no module of Rust,
//! so it has the driver built in.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::{key, log_of, Cache};
use crate::kernel::{self, Compilers, Toolchain};
use crate::{linked, run};

/// What the kernel needs on top of `tinyconfig`.
const FRAGMENT: &str = include_str!("../../kernel/uml.config");

/// A kernel that was built.
pub(super) struct Uml {
    /// The program.
    pub(super) program: PathBuf,
    /// Version of the kernel.
    pub(super) version: String,
}

/// Builds the kernel with the driver of this clone; the program is put into `folder`.
pub(super) fn build(cache: &Cache, toolchain: &Toolchain, folder: &Path) -> Result<Uml> {
    let linked = linked::source(cache)?;
    let version = linked.version.clone();
    let inputs =
        [linked.source.as_os_str().as_encoded_bytes(), toolchain.versions().as_bytes(), FRAGMENT.as_bytes()];
    let name = format!("uml/build-{version}-{}", key(&inputs));
    let make = |build: &Path| {
        let mut make = toolchain.make(&linked.source);
        make.arg(format!("O={}", build.display())).arg("ARCH=um");
        make
    };
    let build = cache.once(&name, |build| {
        run::say(format_args!("building Linux {version} as a user-mode program (5 to 8 minutes, once)"));
        let log = log_of(build);
        run::logged(make(build).arg("tinyconfig"), &log)?;
        kernel::configure(build, FRAGMENT, || run::logged(make(build).arg("olddefconfig"), &log))?;
        run::logged(make(build).arg("linux"), &log)
    })?;
    run::say("linking the filesystem into user-mode Linux");
    run::logged(make(&build).arg("linux"), &log_of(&build))?;
    let program = folder.join("linux");
    std::fs::copy(build.join("linux"), &program).context("the build made no user-mode Linux")?;
    Ok(Uml { program, version })
}
