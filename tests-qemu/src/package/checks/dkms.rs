// SPDX-License-Identifier: GPL-2.0
//! The sentences that tell why the driver is not built from source.

use anyhow::{bail, ensure, Context, Result};

use crate::{run, tools};

/// A kernel folder for which the driver cannot be built, and what is said of it.
struct Unfit {
    release: &'static str,
    /// Files: name, text.
    files: &'static [(&'static str, &'static str)],
    rustc: &'static str,
    says: &'static str,
}

const WITH_RUST: (&str, &str) =
    (".config", "CONFIG_RUST=y\nCONFIG_RUSTC_VERSION_TEXT=\"rustc 1.85.1 (4eb161250)\"\n");
const METADATA: (&str, &str) = ("rust/libkernel.rmeta", "");

/// A release that the driver is for.
const RELEASE: &str = "7.3.0";

const UNFIT: [Unfit; 6] = [
    Unfit { release: RELEASE, files: &[], rustc: "true", says: "install linux-headers-7.3.0" },
    Unfit {
        release: RELEASE,
        files: &[(".config", "# CONFIG_RUST is not set\n"), METADATA],
        rustc: "true",
        says: "has no Rust (CONFIG_RUST)",
    },
    Unfit { release: "7.2.12+deb13-amd64", files: &[WITH_RUST, METADATA], rustc: "true", says: "older than Linux 7.3, which" },
    Unfit { release: RELEASE, files: &[WITH_RUST], rustc: "true", says: "install tesserafs-modules-7.3.0" },
    Unfit {
        release: RELEASE,
        files: &[WITH_RUST, METADATA],
        rustc: "echo rustc 1.90.0",
        says: "rustc on this machine is rustc 1.90.0 --version, and the kernel was built by rustc 1.85.1 (4eb161250)",
    },
    Unfit { release: RELEASE, files: &[WITH_RUST, METADATA], rustc: "false", says: "there is no rustc on this machine" },
];

pub(super) fn says_why_not() -> Result<String> {
    let check = tools::repository().join("packaging/dkms/check");
    let said =
        |release: &str, files: &[(&str, &str)], rustc: &str, bindgen: &str| -> Result<(bool, String)> {
            let folder = tempfile::tempdir().context("failed to make a scratch folder")?;
            for (name, text) in files {
                crate::package::write(&folder.path().join(name), text.as_bytes(), 0o644)?;
            }
            let mut command = run::command("sh");
            command.arg(&check).arg(release).arg(folder.path()).env("RUSTC", rustc).env("BINDGEN", bindgen);
            let output = run::output(&mut command)?;
            Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).trim().to_owned()))
        };
    for unfit in &UNFIT {
        let (fits, said) = said(unfit.release, unfit.files, unfit.rustc, "true")?;
        if fits || !said.contains(unfit.says) || said.lines().count() != 1 {
            bail!("of {} with {:?} it says {said:?}, not {:?}", unfit.release, unfit.files, unfit.says);
        }
    }
    // `echo` prints its arguments: the version, and the option that asks for it.
    let exact = (".config", "CONFIG_RUST=y\nCONFIG_RUSTC_VERSION_TEXT=\"rustc --version\"\n");
    let files = [exact, METADATA];
    let (fits, nothing) = said(RELEASE, &files, "echo rustc", "true")?;
    ensure!(fits && nothing.is_empty(), "it refuses a kernel that fits: {nothing}");
    let (fits, nothing) = said(RELEASE, &files, "echo rustc", "false")?;
    ensure!(!fits && nothing.contains("install the package bindgen"), "without bindgen it says {nothing:?}");
    Ok(format!("{} reasons", UNFIT.len() + 1))
}
