// SPDX-License-Identifier: GPL-2.0-or-later

//! Images to a registry.

#[path = "support/registry/mod.rs"]
mod registry;
mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mkfs_tesserafs::packs::SharedForm;
use mkfs_tesserafs::source::oci::Platform;
use rustix::process::{kill_process, Pid, Signal};
use serde_json::{json, Value};
use tempfile::TempDir;
use tesserafs_format::Digest;
use tesserafs_image::Cancel;
use tesserafs_store::artifact::compressed::decompress;
use tesserafs_store::artifact::{Artifact, Blob, Delta, Document, Index};

use self::registry::{digest, Access, Registry, Wrong};
use self::support::{build_with, error, noise, wait, TESSERAFS};

/// A folder with a source, and a registry.
struct Place {
    folder: TempDir,
    registry: Registry,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for dir in ["root", "packs", "tmp"] {
            fs::create_dir(folder.path().join(dir)).expect("a directory");
        }
        for (seed, name) in (1..).zip(["a", "b", "c"]) {
            fs::write(folder.path().join("root").join(name), noise(seed, 400_000)).expect("a file");
        }
        Self { folder, registry: Registry::new() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// An image in the shared form, of the parents that are named.
    fn shared(&self, name: &str, parents: &[&str], annotations: &[(&str, &str)]) -> PathBuf {
        let path = self.path().join(name);
        build_with(self.path(), |config| {
            config.image.clone_from(&path);
            config.annotations = annotations
                .iter()
                .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect();
            config.shared = Some(SharedForm {
                dir: self.path().join("packs"),
                parents: parents.iter().map(|parent| self.path().join(parent)).collect(),
                rebase: false,
            });
        });
        path
    }

    /// `HOST/team/app:TAG`.
    fn reference(&self, tag: &str) -> String {
        format!("{}/team/app:{tag}", self.registry.host())
    }

    fn push(&self, arguments: &[&str]) -> Output {
        Command::new(TESSERAFS)
            .current_dir(self.path())
            .env("TMPDIR", self.path().join("tmp"))
            .env("REGISTRY_AUTH_FILE", "/dev/null")
            .args(["push", "--plain-http"])
            .args(arguments)
            .output()
            .expect("tesserafs")
    }

    /// The report of a push.
    fn pushed(&self, arguments: &[&str]) -> Value {
        let output = self.push(&[&["--json"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("a report")
    }

    /// The error of a push that does nothing.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.push(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        error(&output)
    }

    fn index(&self, tag: &str) -> Index {
        let bytes = self.registry.manifest("team/app", tag).expect("an index");
        let Ok(Document::Index(index)) = Document::parse(&bytes) else { panic!("no index") };
        // A client need not ask for manifests of ours.
        for entry in index.entries.iter().filter(|entry| entry.is_ours) {
            let name = format!("sha256:{}", entry.manifest.digest);
            assert_eq!(entry.embedded(), self.registry.manifest("team/app", &name));
        }
        index
    }

    fn artifact(&self, name: &str) -> Artifact {
        let bytes = self.registry.manifest("team/app", name).expect("a manifest");
        let Ok(Document::Image(artifact)) = Document::parse(&bytes) else { panic!("no image") };
        artifact
    }

    fn blob(&self, blob: &Blob) -> Vec<u8> {
        let bytes = self.registry.blob("team/app", &format!("sha256:{}", blob.digest)).expect("a blob");
        assert_eq!(bytes.len() as u64, blob.len);
        bytes
    }

    /// The image file, which comes compressed where it is an image in packs.
    fn image_file(&self, artifact: &Artifact) -> Vec<u8> {
        let sent = self.blob(&artifact.image_blob());
        assert_eq!(artifact.compressed.is_some(), !artifact.packs.is_empty());
        if artifact.compressed.is_none() {
            return sent;
        }
        let path = self.path().join("sent");
        fs::write(&path, sent).expect("a file");
        let mut file = Vec::new();
        let give = |_, bytes: &[u8]| {
            file.extend_from_slice(bytes);
            Ok(())
        };
        decompress(&path, artifact.image.len, &Cancel::default(), give).expect("frames");
        assert_eq!(Blob::of(&file), artifact.image);
        file
    }

    /// The registry has all files of the image.
    fn has_all(&self, artifact: &Artifact) {
        artifact.packs.iter().for_each(|pack| drop(self.blob(pack)));
        self.image_file(artifact);
    }

    fn has_no_name(&self) -> bool {
        self.registry.manifest("team/app", "v1").is_none()
            && self.registry.manifest("team/app", "v1-tesserafs").is_none()
    }
}

fn id_in(report: &Value) -> Digest {
    let id = report["image_id"].as_str().and_then(|id| id.strip_prefix("sha256:")).expect("an ID");
    Digest::from_hex(id.as_bytes()).expect("an ID")
}

#[test]
fn an_image_is_its_packs_and_its_file_and_the_next_one_what_is_new() {
    let place = Place::new();
    let monday = place.shared("monday.tess", &[], &[]);
    let report = place.pushed(&["--packdir", "packs", "monday.tess", &place.reference("monday")]);
    assert_eq!(report["present_bytes"], 0);

    let artifact = place.artifact("monday-tesserafs");
    assert_eq!(place.image_file(&artifact), fs::read(&monday).expect("the image"));
    let [pack] = artifact.packs[..] else { panic!("{:?}", artifact.packs) };
    assert_eq!(
        place.blob(&pack),
        fs::read(place.path().join(format!("packs/{}", pack.digest))).expect("a pack")
    );
    assert_eq!(artifact.image_id, id_in(&report));
    let config: Value = serde_json::from_slice(&place.blob(&artifact.config)).expect("a configuration");
    let diff_ids = [format!("sha256:{}", pack.digest), format!("sha256:{}", artifact.image.digest)];
    assert_eq!(config["rootfs"]["diff_ids"], json!(diff_ids));

    // The index has the same manifest.
    let index = place.index("monday");
    let entry = index.ours(&Platform::host()).expect("an image for this machine");
    assert_eq!(index.entries.len(), 1);
    assert_eq!(place.artifact(&format!("sha256:{}", entry.manifest.digest)), artifact);
    assert_eq!(report["manifest"], format!("sha256:{}", entry.manifest.digest));

    place.registry.seen();
    let again = place.pushed(&["--packdir", "packs", "monday.tess", &place.reference("monday")]);
    assert_eq!(
        (&again["uploaded_bytes"], &again["manifest"], &again["index"]),
        (&json!(0), &report["manifest"], &report["index"])
    );
    assert!(place.registry.targets().iter().all(|target| !target.starts_with("POST")));

    fs::write(place.path().join("root/b"), noise(9, 50_000)).expect("a file");
    place.shared("tuesday.tess", &["monday.tess"], &[]);
    let report = place.pushed(&["--packdir", "packs", "tuesday.tess", &place.reference("tuesday")]);
    assert_eq!(report["present_bytes"], pack.len);
    let artifact = place.artifact("tuesday-tesserafs");
    assert_eq!(artifact.packs.len(), 2);
    place.has_all(&artifact);
}

#[test]
fn an_image_in_one_file_is_one_blob() {
    let place = Place::new();
    let image = build_with(place.path(), |_| ());
    place.pushed(&["image.tess", &place.reference("v1")]);
    let artifact = place.artifact("v1-tesserafs");
    assert!(artifact.packs.is_empty());
    assert_eq!(place.blob(&artifact.image), fs::read(image).expect("the image"));
}

#[test]
fn blobs_come_from_another_repository() {
    let place = Place::new();
    place.shared("v1.tess", &[], &[]);
    place.registry.access(Access::Token { user: None, uses: 1000, expires_in: None });
    place.pushed(&["--packdir", "packs", "v1.tess", &format!("{}/other:v1", place.registry.host())]);
    let report = place.pushed(&["--packdir", "packs", "--mount", "other", "v1.tess", &place.reference("v1")]);
    assert_eq!((&report["uploaded_bytes"], &report["mounted_bytes"]), (&json!(0), &report["bytes"]));
    place.has_all(&place.artifact("v1-tesserafs"));
}

#[test]
fn a_configuration_that_the_image_has_is_kept() {
    let place = Place::new();
    let config = r#"{"os":"linux","architecture":"s390x","config":{"Entrypoint":["/a"],"New":1},"rootfs":{"type":"layers","diff_ids":[]}}"#;
    place.shared("v1.tess", &[], &[("org.opencontainers.image.config", config)]);
    place.pushed(&["--packdir", "packs", "v1.tess", &place.reference("v1")]);
    let artifact = place.artifact("v1-tesserafs");
    let made: Value = serde_json::from_slice(&place.blob(&artifact.config)).expect("a configuration");
    assert_eq!(made["config"], json!({ "Entrypoint": ["/a"], "New": 1 }));
    let platform: Platform = "linux/s390x".parse().expect("a platform");
    assert!(place.index("v1").ours(&platform).is_some());

    place.shared("v2.tess", &[], &[("org.opencontainers.image.config", "{}")]);
    let said = place.refused(&["--packdir", "packs", "v2.tess", &place.reference("v2")]);
    assert!(said.contains("v2.tess: the configuration does not say for which os it is"), "{said}");
}

#[test]
fn an_index_can_have_an_image_for_each_platform() {
    let place = Place::new();
    build_with(place.path(), |_| ());
    let reference = place.reference("v1");
    place.pushed(&["--platform", "linux/arm64", "--add", "image.tess", &reference]);
    place.pushed(&["--platform", "linux/s390x", "--add", "image.tess", &reference]);
    let platforms = || place.index("v1").entries.iter().map(|entry| entry.platform()).collect::<Vec<_>>();
    assert_eq!(platforms(), ["linux/s390x", "linux/arm64"]);
    place.pushed(&["--platform", "linux/s390x", "image.tess", &reference]);
    assert_eq!(platforms(), ["linux/s390x"]);
    let error = place.refused(&["--add", "image.tess", &place.reference("v1-tesserafs")]);
    assert!(error.contains("has no index of that name"), "{error}");
    assert!(place.registry.manifest("team/app", "v1-tesserafs-tesserafs").is_none());
}

/// An OCI image layout with an ordinary image of one layer; its manifest.
fn layout(folder: &Path) -> Vec<u8> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a directory");
    let put = |bytes: &[u8]| {
        fs::write(blobs.join(&digest(bytes)[7..]), bytes).expect("a blob");
        json!({ "digest": digest(bytes), "size": bytes.len() })
    };
    let with_type = |mut descriptor: Value, media_type: &str| {
        descriptor["mediaType"] = media_type.into();
        descriptor
    };
    let layer = with_type(put(b"a layer"), "application/vnd.oci.image.layer.v1.tar");
    let config = br#"{"os":"linux","architecture":"arm64","variant":"v8","rootfs":{"type":"layers","diff_ids":["sha256:x"]}}"#;
    let config = with_type(put(config), "application/vnd.oci.image.config.v1+json");
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] }).to_string();
    let named = with_type(put(manifest.as_bytes()), "application/vnd.oci.image.manifest.v1+json");
    let mut named = named;
    named["annotations"] = json!({ "org.opencontainers.image.ref.name": "plain" });
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
    fs::write(folder.join("index.json"), json!({ "schemaVersion": 2, "manifests": [named] }).to_string())
        .expect("an index");
    manifest.into_bytes()
}

#[test]
fn an_ordinary_image_comes_first() {
    let place = Place::new();
    place.shared("v1.tess", &[], &[]);
    let manifest = layout(&place.path().join("layout"));
    for with in ["oci:layout", "oci:layout:plain"] {
        place.pushed(&["--packdir", "packs", "--with", with, "v1.tess", &place.reference("v1")]);
        let index = place.index("v1");
        let [plain, ours] = &index.entries[..] else { panic!("{index:?}") };
        assert!(!plain.is_ours && ours.is_ours);
        assert_eq!(plain.platform(), "linux/arm64/v8");
        assert_eq!(
            place.registry.manifest("team/app", &format!("sha256:{}", plain.manifest.digest)),
            Some(manifest.clone())
        );
        assert_eq!(place.registry.blob("team/app", &digest(b"a layer")).as_deref(), Some(&b"a layer"[..]));
    }
    // That index, in a layout again: all of it is copied, and ours is replaced.
    let blobs = place.path().join("layout/blobs/sha256");
    let index = place.registry.manifest("team/app", "v1").expect("an index");
    fs::write(blobs.join(&digest(&index)[7..]), &index).expect("a blob");
    let named = json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest(&index), "size": index.len() });
    fs::write(
        place.path().join("layout/index.json"),
        json!({ "schemaVersion": 2, "manifests": [named] }).to_string(),
    )
    .expect("an index");
    place.pushed(&["--packdir", "packs", "--with", "oci:layout", "v1.tess", &place.reference("v2")]);
    assert_eq!(place.registry.manifest("team/app", "v2"), Some(index));

    for (with, said) in [
        ("oci:layout:other", "found no single image other"),
        ("oci:nowhere", "cannot read nowhere/index.json"),
    ] {
        let error = place.refused(&["--packdir", "packs", "--with", with, "v1.tess", &place.reference("v3")]);
        assert!(error.contains(said), "{error}");
    }
    let layer = blobs.join(&digest(b"a layer")[7..]);
    fs::write(&layer, b"a liar!").expect("a blob");
    place.registry.remove_blob("team/app", &digest(b"a layer"));
    let error =
        place.refused(&["--packdir", "packs", "--with", "oci:layout", "v1.tess", &place.reference("v3")]);
    assert!(error.contains("found status 400"), "{error}");
    assert!(place.registry.manifest("team/app", "v3").is_none());
}

#[test]
fn a_bundle_is_found_by_the_pair_of_images() {
    let place = Place::new();
    place.shared("monday.tess", &[], &[]);
    let monday = id_in(&place.pushed(&["--packdir", "packs", "monday.tess", &place.reference("monday")]));
    fs::write(place.path().join("root/b"), noise(9, 50_000)).expect("a file");
    place.shared("tuesday.tess", &["monday.tess"], &[]);
    let arguments =
        ["--packdir", "packs", "--delta-from", "monday.tess", "tuesday.tess", &place.reference("tuesday")];
    let report = place.pushed(&arguments);
    let tuesday = id_in(&report);

    let tag = Delta::tag(&monday, &tuesday);
    assert_eq!(report["delta"]["tag"], tag);
    let manifest = place.registry.manifest("team/app", &tag).expect("a manifest");
    let Ok(Document::Delta(delta)) = Document::parse(&manifest) else { panic!("no bundle") };
    assert_eq!((delta.from, delta.to), (monday, tuesday));
    fs::write(place.path().join("update"), place.blob(&delta.bundle)).expect("a file");
    support::done(place.path(), &["apply", "--packdir", "packs", "monday.tess", "update", "again.tess"]);
    let read = |name| fs::read(place.path().join(name)).expect("an image");
    assert_eq!(read("again.tess"), read("tuesday.tess"));
    assert_eq!(fs::read_dir(place.path().join("tmp")).expect("a directory").count(), 0);

    let error = place.refused(&[
        "--packdir",
        "packs",
        "--delta-from",
        "monday.tess",
        "monday.tess",
        &place.reference("x"),
    ]);
    assert!(error.contains("are one image"), "{error}");
}

#[test]
fn nothing_has_a_name_before_all_of_it_is_there() {
    let place = Place::new();
    place.shared("v1.tess", &[], &[]);
    let arguments = ["--packdir", "packs", "--tries", "2", "v1.tess", &place.reference("v1")];
    place.registry.wrong("PUT", "/uploads/", usize::MAX, Wrong::Status(500, Vec::new(), String::new()));
    let error = place.refused(&arguments);
    assert!(error.contains("found status 500") && place.has_no_name(), "{error}");
    place.registry.right();
    place.registry.wrong("PUT", "/manifests/v1", 1, Wrong::Status(400, Vec::new(), String::new()));
    let error = place.refused(&arguments);
    assert!(error.contains("found status 400") && place.has_no_name(), "{error}");
    place.pushed(&arguments);
}

#[test]
fn an_interrupt_ends_a_push_and_the_next_one_sends_the_rest() {
    let place = Place::new();
    place.shared("one.tess", &[], &[]);
    // For the last step of each upload the registry is too busy.
    let busy = Wrong::Status(429, vec![("Retry-After", "200".into())], String::new());
    place.registry.wrong("PUT", "/blobs/uploads/", 100, busy);
    let child = Command::new(TESSERAFS)
        .current_dir(place.path())
        .args([
            "push",
            "--plain-http",
            "--authfile",
            "/dev/null",
            "--quiet",
            "--packdir",
            "packs",
            "one.tess",
        ])
        .arg(place.reference("v1"))
        .stderr(Stdio::piped())
        .spawn()
        .expect("tesserafs");
    wait("an upload", || place.registry.seen().iter().any(|seen| seen.method == "PUT"));
    kill_process(Pid::from_child(&child), Signal::TERM).expect("a process");
    let output = child.wait_with_output().expect("tesserafs");
    let said = "interrupted by SIGTERM; the next push does not send again what the registry has";
    assert_eq!(error(&output), format!("tesserafs: {said}\n"));
    assert_eq!(output.status.signal(), Some(Signal::TERM.as_raw()));
    assert!(place.has_no_name());
    place.registry.right();
    place.pushed(&["--packdir", "packs", "one.tess", &place.reference("v1")]);
    let artifact = place.artifact("v1-tesserafs");
    place.has_all(&artifact);
}

#[test]
fn what_is_damaged_here_is_not_spread() {
    let place = Place::new();
    let image = place.shared("v1.tess", &[], &[]);
    let whole = fs::read(&image).expect("an image");
    let mut damaged = whole.clone();
    damaged[5000] ^= 1;
    fs::write(&image, damaged).expect("an image");
    let arguments = ["--packdir", "packs", "v1.tess", &place.reference("v1")];
    assert!(place.refused(&arguments).contains("v1.tess"));
    fs::write(&image, whole).expect("an image");
    let packs: Vec<_> = fs::read_dir(place.path().join("packs"))
        .expect("packs")
        .map(|entry| entry.expect("a pack").path())
        .collect();
    let mut pack = fs::read(&packs[0]).expect("a pack");
    pack[7] ^= 1;
    fs::remove_file(&packs[0]).expect("a pack");
    fs::write(&packs[0], pack).expect("a pack");
    assert!(place.refused(&arguments).contains("pack-digest"));
    fs::remove_file(&packs[0]).expect("a pack");
    assert!(place.refused(&arguments).contains("is not there"));
    assert_eq!(place.registry.seen(), []);
}

#[test]
fn names_that_cannot_be_are_refused_before_anything_is_sent() {
    let place = Place::new();
    build_with(place.path(), |_| ());
    let by_digest = format!("{}/a@sha256:{}", place.registry.host(), "0".repeat(64));
    assert!(place.refused(&["image.tess", &by_digest]).contains("pushed to a tag"));
    let long = format!("{}/a:{}", place.registry.host(), "t".repeat(120));
    assert!(place.refused(&["image.tess", &long]).contains("too long"));
    for wrong in ["", "A/b/C", "a b", "a\u{1b}[m"] {
        let output = place.push(&["image.tess", wrong]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(!output.stderr.contains(&0x1b));
    }
    assert_eq!(place.registry.seen(), []);
    assert!(place.refused(&["--tries", "1", "image.tess", "127.0.0.1:1/a"]).contains("127.0.0.1:1"));
}
