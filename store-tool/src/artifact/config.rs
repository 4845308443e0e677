// SPDX-License-Identifier: GPL-2.0-or-later

//! Configurations: what a runtime starts, and for which machine.

use mkfs_tesserafs::source::oci::Platform;
use serde_json::{json, Map, Value};
use tesserafs_image::text;

use super::Artifact;

/// Makes the configuration of an image: `original`, where the image has one, with the layers of this image in the place of those
/// that it was built from; a minimal one where it has none.
///
/// `artifact.config` is of no account. The second part is the platform that the configuration names.
pub fn make(
    original: Option<&[u8]>,
    artifact: &Artifact,
    platform: &Platform,
) -> Result<(Vec<u8>, Platform), String> {
    let mut config = match original {
        Some(original) => read(original)?,
        None => minimal(platform),
    };
    let platform = platform_of(&config)?;
    let diff_ids: Vec<_> = artifact.files().map(|layer| format!("sha256:{}", layer.digest)).collect();
    // Each entry of a history that is not marked as empty stands for a layer.
    if let Some(Value::Array(history)) = config.get_mut("history") {
        for entry in history.iter_mut().filter_map(Value::as_object_mut) {
            entry.insert("empty_layer".into(), true.into());
        }
        history.extend(diff_ids.iter().map(|_| json!({ "created_by": "tesserafs push" })));
    }
    config.insert("rootfs".into(), json!({ "type": "layers", "diff_ids": diff_ids }));
    Ok((Value::Object(config).to_string().into_bytes(), platform))
}

/// The platform that a configuration is for.
pub fn platform(config: &[u8]) -> Result<Platform, String> {
    platform_of(&read(config)?)
}

fn minimal(platform: &Platform) -> Map<String, Value> {
    let mut config = Map::from_iter([
        ("os".to_owned(), Value::from(platform.os())),
        ("architecture".to_owned(), platform.architecture().into()),
        ("config".to_owned(), json!({})),
    ]);
    if let Some(variant) = platform.variant() {
        config.insert("variant".into(), variant.into());
    }
    config
}

fn read(config: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(config) {
        Ok(Value::Object(config)) => Ok(config),
        Ok(_) => Err("the configuration is no object of JSON".into()),
        Err(error) => {
            Err(format!("the configuration is no JSON: {}", text::escape(error.to_string().as_bytes())))
        }
    }
}

fn platform_of(config: &Map<String, Value>) -> Result<Platform, String> {
    let field = |key: &str| config.get(key).and_then(Value::as_str).filter(|value| !value.is_empty());
    let wanted =
        |key: &str| field(key).ok_or_else(|| format!("the configuration does not say for which {key} it is"));
    let mut name = format!("{}/{}", wanted("os")?, wanted("architecture")?);
    if let Some(variant) = field("variant") {
        name.push('/');
        name.push_str(variant);
    }
    name.parse().map_err(|_| {
        format!("the configuration is for {}, which is no platform", text::escape(name.as_bytes()))
    })
}
