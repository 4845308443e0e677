// SPDX-License-Identifier: GPL-2.0
//! The project's own programs, built by cargo for the use of the verbs.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};
use serde::Deserialize;

use crate::cache::sha256_of;
use crate::run;

/// The repository: the folder above this package.
pub(crate) fn repository() -> PathBuf {
    // As `cargo run` says it now: two clones that share a target folder share the program.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let package = package.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    package.parent().expect("the package lies in the repository").to_path_buf()
}

/// The target that a static guest program is built for.
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// The packages of the programs; each has one of its own name.
const PROGRAMS: [&str; 3] = ["mkfs-tesserafs", "fsck-tesserafs", "tesserafs"];

/// Names of tests that need all of these, and are soon compiled.
const PROGRAM_TESTS: [&str; 2] = ["cli", "broken"];

/// The running program: its path may lead to another by now, as `cargo test --workspace` builds this one, too.
const OWN: &str = "/proc/self/exe";

/// Cargo, in the repository.
pub(crate) fn cargo() -> Command {
    let mut command = run::command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository());
    command
}

/// Paths of the programs that cargo built.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    /// `mkfs-tesserafs`.
    pub(crate) mkfs: PathBuf,
    /// `fsck-tesserafs`.
    pub(crate) fsck: PathBuf,
    /// `tesserafs`, which mounts images without the driver, too.
    pub(crate) store: PathBuf,
}

impl Tools {
    /// Builds them in release mode, as users do.
    pub(crate) fn build() -> Result<Self> {
        Self::among(build(&PROGRAMS.map(|package| ["-p", package]).concat(), &[])?)
    }

    /// Builds them as `cargo test --workspace` does: for another choice of packages and tests cargo would choose other
    /// features of libraries, and compile nearly all of them once more.
    pub(crate) fn of_tests() -> Result<Self> {
        let some = PROGRAM_TESTS.iter().flat_map(|test| ["--test", *test]);
        let arguments: Vec<&str> = ["--workspace", "--no-run"].into_iter().chain(some).collect();
        Self::among(compile("test", cargo(), &arguments, &[])?)
    }

    fn among(built: Vec<PathBuf>) -> Result<Self> {
        let [mkfs, fsck, store] = PROGRAMS.map(|package| find(&built, package));
        Ok(Self { mkfs: mkfs?, fsck: fsck?, store: store? })
    }

    /// Identifies all programs that have a part in what the verbs make: these, and this one.
    pub(crate) fn digest(&self) -> Result<String> {
        [&self.mkfs, &self.fsck, &self.store, Path::new(OWN)].into_iter().map(sha256_of).collect()
    }

    /// Makes an image; returns mkfs's report.
    pub(crate) fn mkfs<S: AsRef<OsStr>>(
        &self,
        image: &Path,
        source: &Path,
        options: &[S],
    ) -> Result<MkfsReport> {
        let report = run::capture(
            run::command(&self.mkfs)
                .args(["--json", "--quiet", "--force"])
                .args(options)
                .arg(image)
                .arg(source),
        )?;
        serde_json::from_str(&report).with_context(|| format!("mkfs reported what is no report: {report}"))
    }

    /// Regions of an image, as the checker names them.
    pub(crate) fn regions(&self, image: &Path) -> Result<Vec<Region>> {
        #[derive(Deserialize)]
        struct Report {
            regions: Vec<Region>,
        }
        let report = run::capture(run::command(&self.fsck).args(["--json", "--metadata-only"]).arg(image))?;
        let report: Report = serde_json::from_str(&report)
            .with_context(|| format!("fsck reported what is no report: {report}"))?;
        Ok(report.regions)
    }
}

/// The part of mkfs's report that the tests need.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct MkfsReport {
    /// Identity of the image, as mkfs prints it: `sha256:` and hexadecimal digits.
    image_id: String,
}

impl MkfsReport {
    /// The hexadecimal digits of the image ID.
    pub(crate) fn image_id(&self) -> Result<&str> {
        self.image_id
            .strip_prefix("sha256:")
            .with_context(|| format!("mkfs reports the image ID {:?}", self.image_id))
    }
}

/// One region of an image.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Region {
    /// superblock, pack, tree, map, hash or signature.
    pub(crate) name: String,
    /// First byte.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) length: u64,
}

/// Cargo, in the workspace of the fuzz targets: its configuration has the flags that they are built with.
pub(crate) fn fuzz_cargo() -> Command {
    let mut command = cargo();
    command.current_dir(repository().join("format/fuzz"));
    command
}

/// Builds the fuzz targets, and the program that makes their first inputs.
pub(crate) fn fuzz() -> Result<Vec<PathBuf>> {
    compile("build", fuzz_cargo(), &[], &[])
}

/// Builds the guest's init.
pub(crate) fn guest() -> Result<PathBuf> {
    static_program("tesserafs-guest")
}

/// Builds `tesserafs`, which mounts by FUSE, for the guest.
pub(crate) fn static_store() -> Result<PathBuf> {
    static_program("tesserafs")
}

/// Builds the program of a package, statically linked: the initramfs holds no C library for it.
fn static_program(package: &str) -> Result<PathBuf> {
    let built = build(
        &["-p", package, "--target", GUEST_TARGET],
        &[
            ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static"),
            ("OPENSSL_STATIC", "1"),
            // No debugger is in the guest.
            ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
        ],
    )?;
    find(&built, package)
}

/// Runs `cargo build --release` and returns the programs that it made.
fn build(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Vec<PathBuf>> {
    compile("build", cargo(), arguments, environment)
}

/// Runs `cargo build --release` with an environment that makes it a cross build.
pub(crate) fn build_for(
    target: &str,
    packages: &[&str],
    environment: &[(String, OsString)],
) -> Result<Vec<PathBuf>> {
    let mut cargo = cargo();
    cargo.envs(environment.iter().map(|(name, value)| (name, value)));
    let packages = packages.iter().flat_map(|package| ["-p", package]);
    let arguments: Vec<&str> = ["--target", target].into_iter().chain(packages).collect();
    compile("build", cargo, &arguments, &[])
}

/// Has cargo compile in release mode, and returns the programs.
fn compile(
    verb: &str,
    mut cargo: Command,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Result<Vec<PathBuf>> {
    let output = run::capture(
        cargo
            .args([verb, "--release", "--quiet"])
            .args(arguments)
            .arg("--message-format=json-render-diagnostics")
            .envs(environment.iter().copied()),
    )?;
    Ok(executables(&output))
}

/// The programs that cargo's messages name.
fn executables(messages: &str) -> Vec<PathBuf> {
    #[derive(Deserialize)]
    struct Artifact {
        executable: Option<PathBuf>,
    }
    messages.lines().filter_map(|line| serde_json::from_str::<Artifact>(line).ok()?.executable).collect()
}

/// The program of that name among those that were built.
pub(crate) fn find(built: &[PathBuf], name: &str) -> Result<PathBuf> {
    match built.iter().find(|path| path.file_name() == Some(OsStr::new(name))) {
        Some(path) => Ok(path.clone()),
        None => bail!("cargo built no {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where this test finds itself deleted.
    const DELETED: &str = "TESSERAFS_TEST_DELETED";

    #[test]
    fn a_program_that_was_replaced_knows_its_digest() {
        let expected = sha256_of(Path::new(OWN)).unwrap();
        if let Some(path) = std::env::var_os(DELETED) {
            std::fs::remove_file(path).unwrap();
            return println!("digest {}", sha256_of(Path::new(OWN)).unwrap());
        }
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy");
        std::fs::copy(OWN, &copy).unwrap();
        let mut again = run::command(&copy);
        again.args(["--exact", "--nocapture", "tools::tests::a_program_that_was_replaced_knows_its_digest"]);
        let said = run::capture(again.env(DELETED, &copy)).unwrap();
        assert!(said.contains(&format!("digest {expected}")), "{said}");
        assert!(!copy.exists());
    }

    #[test]
    fn programs_are_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","executable":null}
{"reason":"compiler-artifact","executable":"/t/release/mkfs-tesserafs"}
{"reason":"build-finished","success":true}"#;
        let built = executables(messages);
        assert!(find(&built, "mkfs-tesserafs").is_ok());
        assert!(find(&built, "fsck-tesserafs").is_err());
    }
}
