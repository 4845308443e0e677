// SPDX-License-Identifier: GPL-2.0
//! The words of the verbs on a machine that lacks something: one sentence with what to type, and nothing half done.

use std::path::Path;
use std::process::{Command, Output};

/// The verbs, with an empty cache.
fn xtask(cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.env("TESSERAFS_CACHE", cache).env_remove("KERNEL_RELEASE").env_remove("KERNEL_SRC");
    command
}

/// The last line of what a verb that failed said, which must be the sentence.
fn sentence(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("xtask: "), "{said}");
    last
}

/// Whether something in the cache counts as made.
fn made(cache: &Path) -> bool {
    cache.read_dir().unwrap().any(|entry| {
        let path = entry.unwrap().path();
        path.extension().is_some_and(|extension| extension == "done")
            || path.is_dir() && path.file_name().is_some_and(|name| name != "logs") && made(&path)
    })
}

#[test]
fn without_a_network_the_missing_network_is_named() {
    let may_unshare = Command::new("unshare").args(["--net", "true"]).output();
    if !may_unshare.is_ok_and(|output| output.status.success()) {
        eprintln!("not tried: only root has a network to leave out");
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let verbs: [&[&str]; 2] = [&["module", "--stock"], &["package", "--only", "modules"]];
    for verb in verbs {
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--"]).arg(env!("CARGO_BIN_EXE_xtask")).args(verb);
        unshare.env("TESSERAFS_CACHE", cache.path()).env_remove("KERNEL_RELEASE");
        // As apt does on a machine whose archive is on the network.
        unshare.env("TESSERAFS_DEBIAN_MIRROR", "http://deb.debian.org/debian");
        let said = sentence(&unshare.output().unwrap());
        assert!(said.contains("there is no network, or the server does not answer"), "{verb:?}: {said}");
        assert!(said.contains("TESSERAFS_DEBIAN_MIRROR=ADDRESS"), "{verb:?}: {said}");
        assert!(!made(cache.path()), "{verb:?} left something that counts as made");
    }
}

#[test]
fn a_kernel_without_rust_is_refused_before_anything_is_installed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let config = folder.path().join("include/config");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("auto.conf"), "CONFIG_MODULES=y\n").unwrap();
    let built = folder.path().join("out");
    for verb in ["module", "install"] {
        let mut xtask = xtask(&cache);
        xtask.args([verb, "--build"]).arg(folder.path());
        if verb == "install" {
            xtask.arg("--destdir").arg(&built);
        } else {
            xtask.arg("--output").arg(&built);
        }
        let said = sentence(&xtask.output().unwrap());
        assert!(said.contains("has no Rust: found no CONFIG_RUST=y"), "{verb}: {said}");
        assert!(said.contains("make LLVM=1 rustavailable"), "{verb}: {said}");
        assert!(!built.exists(), "{verb} left something");
    }
    let said = sentence(&xtask(&cache).args(["module", "--build", "/nowhere"]).output().unwrap());
    assert!(said.contains("there is no folder /nowhere"), "{said}");
}

#[test]
fn a_cache_that_cannot_be_made_is_named() {
    let said = sentence(&xtask(Path::new("/proc/no-cache")).args(["module", "--stock"]).output().unwrap());
    assert!(said.contains("failed to create the cache folder /proc/no-cache"), "{said}");
    assert!(said.contains("TESSERAFS_CACHE=DIR"), "{said}");
}
