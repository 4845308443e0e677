// SPDX-License-Identifier: GPL-2.0-or-later

//! A writer of container images, for tests: layers in, and out what the programs of the field keep them in.

#![allow(dead_code, reason = "each program uses a part")]

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{json, Value};
use sha2::{Digest, Sha256};

use crate::archive::Archive;

/// How a layer is compressed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Packed {
    Plain,
    Gzip,
    Zstd,
    /// In frames, with skippable ones between and behind them.
    Chunked,
}

impl Packed {
    pub(crate) fn pack(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => bytes.to_vec(),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Self::Zstd => zstd::encode_all(bytes, 1).unwrap(),
            Self::Chunked => {
                let skippable = |text: &[u8]| {
                    [&[0x50, 0x2a, 0x4d, 0x18], &(text.len() as u32).to_le_bytes()[..], text].concat()
                };
                let mut packed = Vec::new();
                for part in bytes.chunks(1000) {
                    packed.extend(zstd::encode_all(part, 1).unwrap());
                    packed.extend(skippable(b"between"));
                }
                packed.extend(skippable(b"a manifest"));
                packed
            }
        }
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A container image.
#[derive(Clone)]
pub(crate) struct Container {
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) packed: Packed,
    pub(crate) architecture: &'static str,
}

impl Container {
    pub(crate) fn new(layers: &[&Archive]) -> Self {
        let layers = layers.iter().map(|layer| layer.end()).collect();
        Self { layers, packed: Packed::Gzip, architecture: "amd64" }
    }

    /// The configuration.
    pub(crate) fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
        json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": { "Entrypoint": ["/bin/app"], "Env": ["A=b"], "Volumes": null },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        })
        .to_string()
        .into()
    }

    /// The layers as they are kept.
    pub(crate) fn blobs(&self) -> Vec<Vec<u8>> {
        self.layers.iter().map(|layer| self.packed.pack(layer)).collect()
    }

    /// The manifest.
    pub(crate) fn manifest(&self) -> Vec<u8> {
        let descriptor = |kind: &str, bytes: &[u8]| {
            let kind = format!("application/vnd.oci.image.{kind}");
            json!({ "mediaType": kind, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len() })
        };
        let layers: Vec<_> = self.blobs().iter().map(|blob| descriptor("layer.v1.tar+gzip", blob)).collect();
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &self.config()),
            "layers": layers,
        })
        .to_string()
        .into()
    }

    fn all_blobs(&self) -> Vec<Vec<u8>> {
        [vec![self.config(), self.manifest()], self.blobs()].concat()
    }

    /// The descriptor of the manifest, with more in it.
    pub(crate) fn described(&self, more: &Value) -> Value {
        let manifest = self.manifest();
        let mut descriptor = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{}", sha256(&manifest)),
            "size": manifest.len(),
        });
        for (key, value) in more.as_object().expect("an object") {
            descriptor[key] = value.clone();
        }
        descriptor
    }

    /// Writes it as an OCI image layout, named `latest`.
    pub(crate) fn layout(&self, dir: &Path) {
        let name = json!({ "annotations": { "org.opencontainers.image.ref.name": "latest" } });
        layout(dir, &[(self, self.described(&name))]);
    }

    /// The files of what `docker save` writes.
    pub(crate) fn saved(&self) -> Archive {
        let config = self.config();
        let mut archive = Archive::default();
        let config_name = format!("{}.json", sha256(&config));
        archive.file(&config_name, &config);
        let mut names = Vec::new();
        for (number, blob) in self.blobs().iter().enumerate() {
            let name = format!("{number}/layer.tar");
            archive.dir(&number.to_string());
            // Equal layers are there once.
            match self.blobs()[..number].iter().position(|other| other == blob) {
                Some(other) => archive.link(b'2', &name, &format!("../{other}/layer.tar")),
                None => archive.file(&name, blob),
            };
            names.push(name);
        }
        let manifest = json!([{ "Config": config_name, "RepoTags": ["app:latest"], "Layers": names }]);
        archive.file("manifest.json", manifest.to_string().as_bytes());
        archive
    }

    /// Writes it as `skopeo copy … dir:` does.
    pub(crate) fn directory(&self, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("version"), "Directory Transport Version: 1.1\n").unwrap();
        fs::write(dir.join("manifest.json"), self.manifest()).unwrap();
        for blob in [vec![self.config()], self.blobs()].concat() {
            fs::write(dir.join(sha256(&blob)), blob).unwrap();
        }
    }
}

/// Writes images, with their descriptors, as one OCI image layout.
pub(crate) fn layout(dir: &Path, images: &[(&Container, Value)]) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    for blob in images.iter().flat_map(|(image, _)| image.all_blobs()) {
        fs::write(blobs.join(sha256(&blob)), blob).unwrap();
    }
    let manifests: Vec<_> = images.iter().map(|(_, descriptor)| descriptor).collect();
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
}

/// A directory as an archive.
pub(crate) fn archived(dir: &Path) -> Archive {
    fn add(archive: &mut Archive, dir: &Path, at: &str) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{at}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                add(archive.dir(&name), &entry.path(), &format!("{name}/"));
            } else {
                archive.file(&name, &fs::read(entry.path()).unwrap());
            }
        }
    }
    let mut archive = Archive::default();
    add(&mut archive, dir, "");
    archive
}
