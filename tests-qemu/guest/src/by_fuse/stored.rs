// SPDX-License-Identifier: GPL-2.0
//! Images of a store, mounted by their names: what is mounted stays, whoever serves it, until it is unmounted.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use sha2::{Digest as _, Sha256};
use tesserafs_guest::plan::Plan;

use super::driver::{expect_at, unmount};
use super::{said, PROGRAM};
use crate::compare::compare;
use crate::mounts::{drop_caches, on_disk};
use crate::suite::Suite;

/// The store, and the name of the image in it.
const STORE: &str = "/tmp/store";
const NAME: &str = "registry.example/team/app:1";

/// Where the image is mounted.
const TARGET: &str = "/mnt/by-program";

pub(super) fn tests(suite: &mut Suite, plan: &Plan) {
    for (name, driver, kind) in [("driver", "--kernel", "tesserafs"), ("fuse", "--fuse", "fuse.tesserafs")] {
        suite.test(&format!("{name}-mounts-from-a-store"), || mounted(plan, driver, kind));
    }
}

/// An image in a store, as a pull leaves it; its file.
fn store(plan: &Plan) -> Result<PathBuf> {
    let _ = fs::remove_dir_all(STORE);
    let at = |path: &str| Path::new(STORE).join(path);
    for dir in ["images/sha256", "filling", "refs/registry.example/team"] {
        fs::create_dir_all(at(dir)).with_context(|| format!("failed to create {dir}"))?;
    }
    let blobs = at("blobs/sha256");
    crate::packs::copies(plan, &blobs)?;
    let mut layers = Vec::new();
    for pack in [&plan.packed.base_pack, &plan.packed.next_pack] {
        let size = blobs.join(pack).metadata().context("failed to stat a pack")?.len();
        layers.push(layer("pack", pack, size));
    }
    let bytes = fs::read(on_disk(&plan.packed.next.image)).context("failed to read an image")?;
    let image = sha256(&bytes);
    layers.push(layer("image", &image, bytes.len() as u64));
    let image = blobs.join(image);
    fs::write(&image, bytes).context("failed to write an image")?;

    let document = |bytes: &[u8]| -> Result<String> {
        let digest = sha256(bytes);
        fs::write(at("images/sha256").join(&digest), bytes).context("failed to write a document")?;
        Ok(digest)
    };
    let config = br#"{"architecture":"amd64","os":"linux"}"#;
    let id = format!("sha256:{}", plan.packed.next.image_id);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &document(config)?, config.len() as u64),
        "layers": layers,
        "annotations": { "org.tesserafs.image.id": id, "org.tesserafs.tree.id": format!("sha256:{}", "0".repeat(64)) },
    });
    let manifest = document(manifest.to_string().as_bytes())?;
    symlink(format!("../../../images/sha256/{manifest}"), at("refs").join(NAME))
        .context("failed to name it")?;
    Ok(image)
}

fn layer(kind: &str, digest: &str, size: u64) -> Value {
    descriptor(&format!("application/vnd.oci.image.layer.tesserafs.{kind}.v1"), digest, size)
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A verb of the store, which succeeds.
fn verb(arguments: &[&str]) -> Result<String> {
    let output = Command::new(PROGRAM).args(arguments).args(["--store", STORE]).output();
    let output = output.with_context(|| format!("failed to start {PROGRAM}"))?;
    ensure!(output.status.success(), "{arguments:?}: {}: {}", output.status, said(&output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn mounted(plan: &Plan, driver: &str, expected: &str) -> Result<String> {
    let image = store(plan)?;
    drop_caches()?;
    let (kind, options, _) = expect_at(&[driver, "--store", STORE], Path::new(NAME))?;
    ensure!(kind == expected, "it is {kind}");
    let id = format!("digest=sha256:{}", plan.packed.next.image_id);
    ensure!(driver != "--kernel" || options.contains(&id), "no {id} in {options}");
    let note = compare(&plan.packed.next, Path::new(TARGET))?;
    let listed = verb(&["images", "--json"])?;
    ensure!(listed.contains(TARGET), "{TARGET} is not among the users of an image: {listed}");

    // Its name goes, and its files stay as long as it is mounted.
    verb(&["rm", NAME])?;
    let dry = verb(&["gc", "--dry-run"])?;
    verb(&["gc"])?;
    ensure!(image.exists(), "gc took a mounted image, after it said: {dry}");
    drop_caches()?;
    compare(&plan.packed.next, Path::new(TARGET))?;
    unmount()?;
    verb(&["gc"])?;
    ensure!(!image.exists(), "gc left an image that has no name and is not mounted");
    ensure!(fs::read_dir(Path::new(STORE).join("blobs/sha256"))?.next().is_none(), "gc left packs");
    fs::remove_dir_all(STORE).context("failed to remove the store")?;
    Ok(note)
}
