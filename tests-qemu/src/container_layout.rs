// SPDX-License-Identifier: GPL-2.0
//! An ordinary container image of one layer, as an OCI layout: for programs that know no other images.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{json, Value};

use crate::cache::sha256_of;
use crate::run;

/// The name of the image in the layout.
pub(crate) const NAME: &str = "latest";

/// Makes the layout in `folder`, which is not there, of a tree; the layer is an archive that nothing compresses.
pub(crate) fn make(folder: &Path, tree: &Path) -> Result<()> {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).with_context(|| format!("failed to create {}", blobs.display()))?;
    let layer = folder.join("layer.tar");
    let mut tar = run::command("tar");
    tar.args(["--sort=name", "--numeric-owner", "-C"]).arg(tree).arg("-cf").arg(&layer).arg(".");
    run::quiet(&mut tar)?;
    let layer = add(&blobs, &layer, "application/vnd.oci.image.layer.v1.tar")?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let document = |value: &Value, media_type: &str| -> Result<Value> {
        let path = folder.join("document");
        std::fs::write(&path, value.to_string()).context("failed to write a document")?;
        add(&blobs, &path, media_type)
    };
    let config = document(&config, "application/vnd.oci.image.config.v1+json")?;
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer] });
    let mut manifest = document(&manifest, media_type)?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": NAME });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    let write = |name: &str, value: Value| {
        std::fs::write(folder.join(name), value.to_string())
            .with_context(|| format!("failed to write {name}"))
    };
    write("index.json", index)?;
    write("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }))
}

/// Moves a file among the blobs; its descriptor.
fn add(blobs: &Path, file: &Path, media_type: &str) -> Result<Value> {
    let digest = sha256_of(file)?;
    let size = file.metadata().context("failed to stat a blob")?.len();
    std::fs::rename(file, blobs.join(&digest)).context("failed to move a blob")?;
    Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size }))
}
