// SPDX-License-Identifier: GPL-2.0-or-later

use mkfs_tesserafs::source::oci::Platform;
use serde_json::{json, Value};

use super::*;

fn blob(number: u8, len: u64) -> Blob {
    Blob { digest: Digest([number; 32]), len }
}

fn artifact() -> Artifact {
    let packs = vec![blob(1, 10), blob(2, 1 << 40)];
    Artifact {
        image_id: Digest([7; 32]),
        tree_id: Digest([8; 32]),
        packs,
        image: blob(3, 4096),
        compressed: None,
        config: blob(4, 2),
    }
}

fn with_compressed() -> Artifact {
    Artifact { compressed: Some(blob(5, 900)), ..artifact() }
}

fn changed(change: impl FnOnce(&mut Value)) -> Result<Document, String> {
    let mut manifest = serde_json::from_slice(&artifact().to_manifest()).expect("JSON");
    change(&mut manifest);
    Document::parse(manifest.to_string().as_bytes())
}

#[test]
fn what_is_made_is_read_as_what_it_was() {
    assert_eq!(Document::parse(&artifact().to_manifest()), Ok(Document::Image(artifact())));
    let one_file = Artifact { packs: Vec::new(), ..artifact() };
    assert_eq!(Document::parse(&one_file.to_manifest()), Ok(Document::Image(one_file)));
    assert_eq!(Document::parse(&with_compressed().to_manifest()), Ok(Document::Image(with_compressed())));
    let delta = Delta { from: Digest([1; 32]), to: Digest([2; 32]), bundle: blob(3, 5) };
    assert_eq!(Document::parse(&delta.to_manifest()), Ok(Document::Delta(delta)));
    assert_eq!(artifact().to_manifest(), artifact().to_manifest());
}

#[test]
fn an_index_has_ours_for_each_platform() {
    let arm: Platform = "linux/arm64/v8".parse().expect("a platform");
    let amd: Platform = "linux/amd64".parse().expect("a platform");
    let plain = Entry::plain(blob(1, 5), MediaType::ImageManifest.as_ref(), &arm);
    let ours = Entry::ours(blob(2, 6), &arm);
    let index = Index { entries: vec![plain.clone(), ours.clone()] };
    let Ok(Document::Index(read)) = Document::parse(&index.to_document()) else { panic!("no index") };
    assert_eq!(read.entries.len(), 2);
    assert_eq!(read.ours(&arm).map(|entry| entry.manifest), Some(ours.manifest));
    assert_eq!(read.ours(&amd), None);
    assert!(!read.entries[0].is_ours && read.entries[0].is_for(&arm));
    assert_eq!(read.entries[1].platform(), "linux/arm64/v8");
    // An index that was read is the same when it is written.
    assert_eq!(read.to_document(), index.to_document());
}

#[test]
fn an_index_keeps_what_it_has_for_other_platforms() {
    let arm: Platform = "linux/arm64".parse().expect("a platform");
    let amd: Platform = "linux/amd64".parse().expect("a platform");
    let plain = |number, platform| Entry::plain(blob(number, 5), MediaType::ImageManifest.as_ref(), platform);
    let older = Index {
        entries: vec![
            plain(1, &arm),
            plain(2, &amd),
            Entry::ours(blob(3, 5), &arm),
            Entry::ours(blob(4, 5), &amd),
        ],
    };
    let mut index = Index { entries: vec![Entry::ours(blob(5, 5), &amd)] };
    index.keep(older.clone());
    let digests: Vec<_> = index.entries.iter().map(|entry| entry.manifest.digest.0[0]).collect();
    assert_eq!(digests, [1, 2, 5, 3]);
    let mut index = Index { entries: vec![plain(6, &arm), Entry::ours(blob(7, 5), &arm)] };
    index.keep(older);
    let digests: Vec<_> = index.entries.iter().map(|entry| entry.manifest.digest.0[0]).collect();
    assert_eq!(digests, [6, 2, 7, 4]);
}

#[test]
fn broken_manifests_are_refused_by_name() {
    let cases: [(&str, Result<Document, String>); 16] = [
        ("schemaVersion", changed(|m| m["schemaVersion"] = 1.into())),
        ("at once", changed(|m| m["manifests"] = json!([]))),
        ("neither", changed(|m| m["layers"] = Value::Null)),
        ("layer 2 has the type", changed(|m| m["layers"][2]["mediaType"] = PACK.into())),
        ("layer 0 has the type", changed(|m| m["layers"][0]["mediaType"] = "a\u{1b}[m".into())),
        ("twice", changed(|m| m["layers"][1]["digest"] = m["layers"][0]["digest"].clone())),
        ("twice", changed(|m| m["layers"][1]["digest"] = m["layers"][2]["digest"].clone())),
        ("expected 4096 at least", changed(|m| m["layers"][2]["size"] = 4095.into())),
        ("which no file has", changed(|m| m["layers"][1]["size"] = u64::MAX.into())),
        ("longer than any file", changed(|m| m["layers"][1]["size"] = i64::MAX.into())),
        ("by sha256", changed(|m| m["layers"][1]["digest"] = format!("sha512:{}", "0".repeat(128)).into())),
        ("configuration has the type", changed(|m| m["config"]["mediaType"] = "application/json".into())),
        ("configuration has 4194305", changed(|m| m["config"]["size"] = (DOCUMENT_MAX + 1).into())),
        (
            "no annotation org.tesserafs.tree.id",
            changed(|m| m["annotations"] = json!({ IMAGE_ID: m["annotations"][IMAGE_ID] })),
        ),
        ("the annotation", changed(|m| m["annotations"][IMAGE_ID] = "sha256:\u{1b}".into())),
        ("not what is expected", changed(|m| m["layers"][0]["size"] = (-1).into())),
    ];
    for (said, document) in cases {
        let error = document.expect_err(said);
        assert!(error.contains(said) && text_is_plain(&error), "{said}: {error}");
    }
    let many = Artifact {
        packs: (0..1024).map(|number| Blob::of(&u32::to_le_bytes(number))).collect(),
        ..artifact()
    };
    assert!(Document::parse(&many.to_manifest()).expect_err("packs").contains("1024 packs"));
    assert!(Document::parse(&vec![b' '; 5 << 20]).expect_err("long").contains("5242880 bytes"));
    assert!(Document::parse("[".repeat(100_000).as_bytes()).is_err());
}

fn text_is_plain(text: &str) -> bool {
    tesserafs_image::text::is_plain(text) && !text.contains('\n')
}

#[test]
fn other_images_are_no_error() {
    let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
    let document = changed(|m| {
        m["layers"] = json!([{ "mediaType": layer, "digest": m["layers"][0]["digest"], "size": 1 }]);
    });
    assert_eq!(document, Ok(Document::Other { layer: Some(layer.into()) }));
}

#[test]
fn a_configuration_keeps_all_but_the_layers() {
    let platform = Platform::host();
    let original = json!({
        "os": "linux", "architecture": "arm64", "variant": "v8", "config": { "Env": ["A=b"], "Unknown": 1 },
        "rootfs": { "type": "layers", "diff_ids": ["sha256:old"] },
        "history": [{ "created_by": "x" }, { "created_by": "y", "empty_layer": true }],
    });
    let (made, named) =
        config::make(Some(original.to_string().as_bytes()), &artifact(), &platform).expect("made");
    assert_eq!(named.to_string(), "linux/arm64/v8");
    let made: Value = serde_json::from_slice(&made).expect("JSON");
    assert_eq!(made["config"], original["config"]);
    let diff_ids: Vec<_> = artifact().files().map(|layer| format!("sha256:{}", layer.digest)).collect();
    assert_eq!(made["rootfs"]["diff_ids"], json!(diff_ids));
    let history = made["history"].as_array().expect("a history");
    assert_eq!(history.iter().filter(|entry| entry["empty_layer"] != true).count(), diff_ids.len());

    let (minimal, named) = config::make(None, &artifact(), &platform).expect("made");
    assert_eq!(named, platform);
    assert_eq!(config::platform(&minimal), Ok(platform));
    for broken in ["", "[]", "{}", r#"{"os":"linux"}"#, r#"{"os":"a/b","architecture":"c/d"}"#] {
        assert!(config::platform(broken.as_bytes()).is_err(), "{broken}");
    }
}

#[test]
fn no_document_however_broken_is_more_than_an_error() {
    let platform = Platform::host();
    let index = Index { entries: vec![Entry::ours(blob(1, 5), &platform)] }.to_document();
    let delta = Delta { from: Digest([1; 32]), to: Digest([2; 32]), bundle: blob(3, 5) }.to_manifest();
    let mut random = 1_u32;
    let mut next = |below: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize % below
    };
    let letters = b"\"{}[]:,0x9-\\\x1b\xff";
    for document in [artifact().to_manifest(), index, delta] {
        for _ in 0..3000 {
            let mut broken = document.clone();
            for _ in 0..=next(3) {
                let at = next(broken.len());
                match next(3) {
                    0 => broken[at] = letters[next(letters.len())],
                    1 => drop(broken.remove(at)),
                    _ => broken.insert(at, letters[next(letters.len())]),
                }
            }
            match Document::parse(&broken) {
                Err(error) => assert!(text_is_plain(&error), "{error:?}"),
                // What is taken can be written, and is the same again.
                Ok(Document::Image(read)) => {
                    assert_eq!(Document::parse(&read.to_manifest()), Ok(Document::Image(read)));
                }
                Ok(Document::Index(read)) => {
                    assert!(read.entries.iter().all(|entry| text_is_plain(&entry.platform())));
                    let again = Document::parse(&read.to_document());
                    assert!(
                        matches!(again, Ok(Document::Index(again)) if again.entries.len() == read.entries.len())
                    );
                }
                Ok(_) => (),
            }
        }
    }
}
