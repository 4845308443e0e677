// SPDX-License-Identifier: GPL-2.0-or-later

//! Container images as sources: all that they are kept in, what their layers do to each other, and what is wrong with them.

#[path = "common/archive.rs"]
mod archive;
#[path = "common/built.rs"]
mod built;
mod common;
#[path = "common/container.rs"]
mod container;

use std::fs;
use std::os::unix::fs::{symlink, FileExt};
use std::path::Path;
use std::process::Stdio;

use archive::Archive;
use common::{noise, read_image, Read, Sandbox};
use container::{archived, layout, sha256, Container, Packed};
use serde_json::json;

/// An entry with a mode.
fn with_mode(archive: &mut Archive, name: &str, kind: u8, mode: &[u8; 7]) {
    archive.raw(name.as_bytes(), kind, b"", b"", |header| header[100..107].copy_from_slice(mode));
}

/// Three layers with one of everything that a layer can do to those below it.
fn layers() -> [Archive; 3] {
    let mut base = Archive::default();
    for dir in ["./", "bin", "d", "e", "e/sub", "gone", "gone/deep", "plain"] {
        base.dir(dir);
    }
    base.file("bin/app", b"old").file("a", b"a").file("b", b"b").link(b'1', "hard", "a");
    base.file("d/x", b"x")
        .file("d/y", b"y")
        .file("e/z", b"z")
        .file("e/sub/z", b"z")
        .file("gone/deep/f", b"f");
    base.link(b'2', "link", "d/y").file("file-to-directory", b"1").dir("directory-to-file");
    base.file("directory-to-file/in", b"in").link(b'2', "lib", "bin").file("again", b"old");
    let mut second = Archive::default();
    second.file(".wh.b", b"").file("d/.wh.x", b"").file("e/new", b"new").file("e/.wh..wh..opq", b"");
    second.file("a", b"other a").link(b'1', "copy", "d/y").dir("bin").file("bin/app", &noise(1, 200_000));
    second.file("plain/deep/new", b"implied").file(".wh.gone", b"").file("never/.wh.there", b"");
    with_mode(&mut second, "d", b'5', b"0001777");
    let mut third = Archive::default();
    third.dir("file-to-directory").file("file-to-directory/f", b"f").file("directory-to-file", b"file");
    third.file("again", b"new").file(".wh.again", b"").file("b", b"b again").file("lib/through", b"t");
    third.pax(b'x', &[(b"SCHILY.xattr.user.k", b"v"), (b"mtime", b"123.456")]).file("d/y", b"y, changed");
    [base, second, third]
}

/// The same tree from one archive.
fn merged() -> Archive {
    let mut all = Archive::default();
    for dir in ["./", "bin", "e", "plain", "file-to-directory"] {
        all.dir(dir);
    }
    with_mode(&mut all, "d", b'5', b"0001777");
    all.file("bin/app", &noise(1, 200_000)).file("a", b"other a").file("hard", b"a").file("b", b"b again");
    all.file("copy", b"y").file("e/new", b"new").link(b'2', "link", "d/y");
    all.file("plain/deep/new", b"implied").file("file-to-directory/f", b"f");
    all.file("directory-to-file", b"file").file("again", b"new").file("lib/through", b"t");
    all.pax(b'x', &[(b"SCHILY.xattr.user.k", b"v"), (b"mtime", b"123.456")]).file("d/y", b"y, changed");
    // A directory that a mark implies.
    all.file("never/x", b"");
    all
}

fn container() -> Container {
    let [base, second, third] = layers();
    Container::new(&[&base, &second, &third])
}

/// The image of a container image.
fn build(sandbox: &Sandbox, place: &str) -> Read {
    sandbox.mkfs(["-f", "--oci", place, "image"]);
    read_image(&sandbox.path("image"))
}

#[test]
fn layers_are_put_one_over_the_other() {
    let sandbox = Sandbox::new();
    container().layout(&sandbox.path("layout"));
    let read = build(&sandbox, "layout");
    let mut expected = merged().image().items;
    expected.remove("never/x");
    let names = |items: &std::collections::BTreeMap<String, common::Item>| -> Vec<String> {
        items.keys().cloned().collect()
    };
    assert_eq!(names(&read.items), names(&expected));
    for (name, item) in &read.items {
        let expected = &expected[name];
        assert_eq!(
            (item.kind, item.mode, item.mtime),
            (expected.kind, expected.mode, expected.mtime),
            "{name}"
        );
        assert_eq!((&item.bytes, &item.xattrs), (&expected.bytes, &expected.xattrs), "{name}");
        assert_eq!((item.uid, item.gid, item.nlink), (expected.uid, expected.gid, expected.nlink), "{name}");
    }
    assert_eq!(sandbox.names(), ["image", "layout"]);
}

#[test]
fn a_hard_link_to_a_file_of_a_lower_layer_is_one() {
    let (mut base, mut upper) = (Archive::default(), Archive::default());
    base.file("a", b"bytes").file("b", b"b").link(b'1', "c", "b");
    upper.link(b'1', "link", "a").file("b", b"other");
    let sandbox = Sandbox::new();
    Container::new(&[&base, &upper]).layout(&sandbox.path("layout"));
    let read = build(&sandbox, "layout");
    assert_eq!(read.item("a").ino, read.item("link").ino);
    assert_eq!((read.item("a").nlink, read.item("b").nlink, read.item("c").nlink), (2, 1, 1));
    assert_eq!((&read.item("b").bytes[..], &read.item("c").bytes[..]), (&b"other"[..], &b"b"[..]));
}

#[test]
fn what_is_hidden_does_not_depend_on_where_the_mark_stands() {
    let base = layers()[0].clone();
    let entries: [fn(&mut Archive) -> &mut Archive; 4] = [
        |archive| archive.file("d/new", b"new"),
        |archive| archive.file("d/.wh..wh..opq", b""),
        |archive| archive.file(".wh.gone", b""),
        |archive| archive.dir("gone"),
    ];
    let mut trees = Vec::new();
    for turn in 0..entries.len() {
        let mut upper = Archive::default();
        for add in entries.iter().cycle().skip(turn).take(entries.len()) {
            add(&mut upper);
        }
        let sandbox = Sandbox::new();
        Container::new(&[&base, &upper]).layout(&sandbox.path("layout"));
        let read = build(&sandbox, "layout");
        assert!(read.items.contains_key("d/new") && !read.items.contains_key("d/x"));
        assert!(read.items.contains_key("gone") && !read.items.contains_key("gone/deep"));
        trees.push(read.superblock.tree_id);
    }
    assert!(trees.iter().all(|tree| *tree == trees[0]));
}

#[test]
fn an_opaque_root_hides_everything() {
    let base = layers()[0].clone();
    let mut upper = Archive::default();
    upper.file("only", b"x").file(".wh..wh..opq", b"");
    let sandbox = Sandbox::new();
    Container::new(&[&base, &upper]).layout(&sandbox.path("layout"));
    let read = build(&sandbox, "layout");
    assert_eq!(read.items.keys().collect::<Vec<_>>(), ["/", "only"]);
    assert!(read.item("/").xattrs.is_empty());
}

#[test]
fn all_that_images_are_kept_in_gives_one_tree() {
    let sandbox = Sandbox::new();
    let mut container = container();
    // A layer twice.
    container.layers.push(container.layers[2].clone());
    let mut trees = Vec::new();
    for packed in [Packed::Plain, Packed::Gzip, Packed::Zstd, Packed::Chunked] {
        container.packed = packed;
        let dir = |name: &str| sandbox.path(&format!("{packed:?}-{name}"));
        container.layout(&dir("layout"));
        container.directory(&dir("skopeo"));
        let archive = archived(&dir("layout")).end();
        fs::write(dir("layout.tar"), &archive).unwrap();
        fs::write(dir("layout.tar.gz"), Packed::Gzip.pack(&archive)).unwrap();
        let saved = container.saved().end();
        fs::write(dir("saved.tar"), &saved).unwrap();
        fs::write(dir("saved.tar.zst"), Packed::Zstd.pack(&saved)).unwrap();
        for name in [
            "layout",
            "layout:latest",
            "skopeo",
            "layout.tar",
            "layout.tar.gz",
            "layout.tar:latest",
            "saved.tar",
            "saved.tar.zst",
            "saved.tar:app:latest",
        ] {
            trees.push(build(&sandbox, dir(name).to_str().unwrap()).superblock.tree_id);
        }
        let mut command = sandbox.command(["-f", "--oci", "-", "image"]);
        command.stdin(Stdio::from(fs::File::open(dir("saved.tar")).unwrap()));
        assert!(command.status().unwrap().success());
        trees.push(read_image(&sandbox.path("image")).superblock.tree_id);
    }
    assert!(trees.iter().all(|tree| *tree == trees[0]), "{trees:?}");
}

/// All keys and values of an image.
fn annotations(read: &Read) -> Vec<u8> {
    let data = &read.superblock.layout.annotation_data;
    let start = data.offset() as usize;
    read.bytes[start..start + data.records() as usize].to_vec()
}

#[test]
fn configuration_and_manifest_are_annotations() {
    let sandbox = Sandbox::new();
    let container = container();
    container.layout(&sandbox.path("layout"));
    let config = [b"org.opencontainers.image.config", &container.config()[..]].concat();
    let manifest = [b"org.opencontainers.image.manifest", &container.manifest()[..]].concat();
    assert_eq!(annotations(&build(&sandbox, "layout")), [&config[..], &manifest].concat());
    fs::write(sandbox.path("saved"), container.saved().end()).unwrap();
    assert_eq!(annotations(&build(&sandbox, "saved")), config);
    let key = "org.opencontainers.image.config=layout/index.json";
    let error = sandbox.refused(2, ["--annotate", key, "--oci", "layout", "other"]);
    assert!(error.contains("the container image has that itself"), "{error}");
}

#[test]
fn the_image_that_is_meant_is_found() {
    let sandbox = Sandbox::new();
    let image = |architecture, text: &str| {
        let mut layer = Archive::default();
        layer.file("is", text.as_bytes());
        Container { architecture, ..Container::new(&[&layer]) }
    };
    let (one, two, arm) = (image("amd64", "one"), image("amd64", "two"), image("arm64", "arm"));
    let named = |name: &str| json!({ "annotations": { "org.opencontainers.image.ref.name": name } });
    layout(&sandbox.path("named"), &[(&one, one.described(&named("1"))), (&two, two.described(&named("2")))]);
    let error = sandbox.refused(1, ["--oci", "named", "image"]);
    assert!(error.contains("named: has several images; say which, as PLACE:REF: 1, 2"), "{error}");
    let error = sandbox.refused(1, ["--oci", "named:3", "image"]);
    assert!(error.contains("named: has no image 3; it has 1, 2"), "{error}");
    assert_eq!(build(&sandbox, "named:2").item("is").bytes, b"two");
    let digest = format!("named:sha256:{}", sha256(&one.manifest()));
    assert_eq!(build(&sandbox, &digest).item("is").bytes, b"one");

    // Of several machines, in an index of its own, and with what is said of an image beside it.
    let on = |architecture: &str, variant: Option<&str>| json!({ "platform": { "os": "linux", "architecture": architecture, "variant": variant } });
    let beside = json!({
        "platform": { "os": "unknown", "architecture": "unknown" },
        "annotations": { "vnd.docker.reference.type": "attestation-manifest" },
    });
    let all = [
        (&two, two.described(&beside)),
        (&arm, arm.described(&on("arm64", Some("v8")))),
        (&one, one.described(&on("amd64", None))),
    ];
    layout(&sandbox.path("flat"), &all);
    layout(&sandbox.path("nested"), &all);
    let inner = fs::read(sandbox.path("nested/index.json")).unwrap();
    fs::write(sandbox.path("nested/blobs/sha256").join(sha256(&inner)), &inner).unwrap();
    let outer = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": format!("sha256:{}", sha256(&inner)),
        "size": inner.len(),
        "annotations": { "org.opencontainers.image.ref.name": "latest" },
    }] });
    fs::write(sandbox.path("nested/index.json"), outer.to_string()).unwrap();
    for place in ["flat", "nested", "nested:latest"] {
        for (platform, bytes) in [("linux/amd64", "one"), ("linux/arm64", "arm"), ("linux/arm64/v8", "arm")] {
            sandbox.mkfs(["-f", "--oci", place, "--platform", platform, "image"]);
            assert_eq!(read_image(&sandbox.path("image")).item("is").bytes, bytes.as_bytes(), "{place}");
        }
        let error = sandbox.refused(1, ["--oci", place, "--platform", "linux/s390x", "other"]);
        let expected = "has no image for linux/s390x; --platform chooses one of: linux/amd64, linux/arm64/v8";
        assert!(error.contains(expected), "{error}");
    }
    let error = sandbox.refused(1, ["--oci", "named:1", "--platform", "linux/arm64", "other"]);
    assert!(error.contains("is for linux/amd64, expected linux/arm64"), "{error}");
    let error = sandbox.refused(2, ["--oci", "named:1", "--platform", "arm64", "other"]);
    assert!(error.contains("OS/ARCHITECTURE[/VARIANT] is wanted"), "{error}");
}

/// Why a container image is refused, in an OCI layout to which something was done.
fn refusal(damage: impl FnOnce(&Path)) -> String {
    let sandbox = Sandbox::new();
    container().layout(&sandbox.path("layout"));
    damage(&sandbox.path("layout"));
    let error = sandbox.refused(1, ["--oci", "layout", "image"]);
    assert_eq!(sandbox.names(), ["layout"], "{error}");
    error
}

#[test]
fn damage_is_told_as_what_it_is() {
    let container = container();
    let blobs = container.blobs();
    let blob = |dir: &Path, number: usize| dir.join("blobs/sha256").join(sha256(&blobs[number]));
    let name = sha256(&blobs[1]);

    let error = refusal(|dir| fs::remove_file(blob(dir, 1)).unwrap());
    assert!(error.contains(&format!("layout: has no file blobs/sha256/{name}, which the manifest names")));
    let error =
        refusal(|dir| fs::File::options().write(true).open(blob(dir, 1)).unwrap().set_len(99).unwrap());
    let expected = format!("layout/blobs/sha256/{name}: has 99 bytes, expected {}", blobs[1].len());
    assert!(error.contains(&expected), "{error}");
    for place in [0, 5, 100, blobs[1].len() as u64 - 1] {
        let error = refusal(|dir| {
            let file = fs::File::options().read(true).write(true).open(blob(dir, 1)).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, place).unwrap();
            file.write_all_at(&[byte[0] ^ 1], place).unwrap();
        });
        assert!(error.contains(&format!("layout/blobs/sha256/{name}: has the digest sha256:")), "{error}");
        assert!(error.contains(&format!(", expected sha256:{name}")), "{error}");
    }
    for document in [container.manifest(), container.config()] {
        let name = sha256(&document);
        let other = " ".repeat(document.len());
        let error = refusal(|dir| fs::write(dir.join("blobs/sha256").join(&name), other).unwrap());
        assert!(error.contains(&format!("layout/blobs/sha256/{name}: has the digest sha256:")), "{error}");
        let error = refusal(|dir| fs::write(dir.join("blobs/sha256").join(&name), b"{}").unwrap());
        let expected = format!("layout/blobs/sha256/{name}: has 2 bytes, expected {}", document.len());
        assert!(error.contains(&expected), "{error}");
    }
    let error = refusal(|dir| fs::write(dir.join("index.json"), b"[").unwrap());
    assert!(error.contains("layout/index.json: EOF while parsing"), "{error}");
    let error = refusal(|dir| {
        fs::File::options().write(true).open(dir.join("index.json")).unwrap().set_len(1 << 40).unwrap();
    });
    assert!(
        error.contains("layout/index.json: has 1099511627776 bytes, expected 4194304 at most"),
        "{error}"
    );
    let error = refusal(|dir| fs::remove_file(dir.join("oci-layout")).unwrap());
    assert!(error.contains("layout: holds no container image"), "{error}");
    let error = refusal(|dir| {
        fs::remove_file(blob(dir, 0)).unwrap();
        fs::create_dir(blob(dir, 0)).unwrap();
    });
    assert!(error.contains("is no regular file"), "{error}");
    let error = refusal(|dir| {
        fs::remove_file(blob(dir, 0)).unwrap();
        symlink("/etc/passwd", blob(dir, 0)).unwrap();
    });
    assert!(error.contains("leads out of the place of the container image"), "{error}");
}

#[test]
fn documents_write_nothing_to_a_terminal() {
    let evil = "\u{1b}[31m\nmkfs.tesserafs: all is well\u{7}";
    let sandbox = Sandbox::new();
    let image = Container::new(&[&Archive::default()]);
    let named = json!({ "annotations": { "org.opencontainers.image.ref.name": evil } });
    let other = json!({ "platform": { "os": evil, "architecture": "amd64" } });
    layout(
        &sandbox.path("named"),
        &[(&image, image.described(&named)), (&image, image.described(&json!({})))],
    );
    layout(&sandbox.path("other"), &[(&image, image.described(&other)), (&image, image.described(&other))]);
    let many: Vec<_> = (0..500)
        .map(|number| {
            let name =
                json!({ "annotations": { "org.opencontainers.image.ref.name": format!("{number:0100}") } });
            (&image, image.described(&name))
        })
        .collect();
    layout(&sandbox.path("many"), &many);
    let manifest = json!([{ "Config": evil, "RepoTags": [evil], "Layers": [evil] }]);
    let mut saved = Archive::default();
    sandbox.write("saved", saved.file("manifest.json", manifest.to_string().as_bytes()).end());
    for place in ["named", "named:x", "other", "many", "saved", "saved:x"] {
        let error = sandbox.refused(1, ["--oci", place, "image"]);
        let (line, rest) = error.split_once('\n').expect("a line");
        assert!(rest.is_empty() && line.chars().all(|char| !char.is_control()), "{place}: {error:?}");
        assert!(line.len() < 5000, "{place}: {} bytes", line.len());
    }
    let error = sandbox.refused(1, ["--oci", "many:x", "image"]);
    assert!(error.contains(" and 480 more"), "{error}");
}

/// Why a container image is refused whose documents say something else, with digests that fit.
fn lie(edit: impl FnOnce(&mut serde_json::Value, &mut serde_json::Value)) -> String {
    let sandbox = Sandbox::new();
    let dir = sandbox.path("layout");
    let container = container();
    container.layout(&dir);
    let mut config = serde_json::from_slice(&container.config()).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&container.manifest()).unwrap();
    edit(&mut manifest, &mut config);
    let put = |bytes: &[u8]| {
        fs::write(dir.join("blobs/sha256").join(sha256(bytes)), bytes).unwrap();
        (json!(format!("sha256:{}", sha256(bytes))), json!(bytes.len()))
    };
    let config = config.to_string();
    (manifest["config"]["digest"], manifest["config"]["size"]) = put(config.as_bytes());
    let (digest, size) = put(manifest.to_string().as_bytes());
    let media_type = manifest["mediaType"].clone();
    let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": size });
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    let error = sandbox.refused(1, ["--oci", "layout", "image"]);
    assert_eq!(sandbox.names(), ["layout"], "{error}");
    error
}

#[test]
fn documents_that_lie_are_refused() {
    let error = lie(|_, config| {
        let ids = config["rootfs"]["diff_ids"].as_array_mut().unwrap();
        ids.swap(0, 1);
    });
    assert!(error.contains("holds an archive with the digest sha256:"), "{error}");
    let error = lie(|_, config| drop(config["rootfs"]["diff_ids"].as_array_mut().unwrap().pop()));
    assert!(error.contains("has 2 diff_ids for 3 layers"), "{error}");
    let error = lie(|manifest, _| {
        manifest["layers"][1]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
    });
    assert!(error.contains("which is encrypted"), "{error}");
    let error = lie(|manifest, _| {
        manifest["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
    });
    assert!(error.contains("is no container image: its configuration is of the type"), "{error}");
    let error = lie(|manifest, _| {
        manifest["mediaType"] = json!("application/vnd.docker.distribution.manifest.v1+json");
    });
    assert!(error.contains("expected a manifest of OCI or of docker (schema 2)"), "{error}");
    for digest in ["sha256:../../../etc/passwd", "sha256:00", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        let error = lie(|manifest, _| manifest["layers"][0]["digest"] = json!(digest));
        assert!(error.contains("layout") && error.contains("1") && !error.contains("root:"), "{error}");
    }
    let error = lie(|_, config| config["rootfs"] = json!(null));
    assert!(error.contains("layout/blobs/sha256/"), "{error}");
}

#[test]
fn names_in_an_archive_lead_nowhere_else() {
    let sandbox = Sandbox::new();
    let manifest = |layer: &str| {
        let config = Container::new(&[&layers()[0]]).config();
        let mut archive = Archive::default();
        archive.file("config.json", &config).link(b'2', "loop", "loop").link(b'2', "out", "../../etc/passwd");
        archive.link(b'2', "absolute", "/etc/passwd").dir("directory").link(b'2', "dangling", "nothing");
        let manifest = json!([{ "Config": "config.json", "RepoTags": null, "Layers": [layer] }]);
        archive.file("manifest.json", manifest.to_string().as_bytes());
        archive.end()
    };
    for (layer, expected) in [
        ("../x", "leaves the archive by way of .."),
        ("loop", "leads through more than 8 symlinks"),
        ("out", "leads out of the archive"),
        ("absolute", "has no file absolute"),
        ("directory", "is a directory, expected a file"),
        ("dangling", "has no file dangling"),
        ("nothing", "has no file nothing"),
    ] {
        sandbox.write("saved.tar", manifest(layer));
        let error = sandbox.refused(1, ["--oci", "saved.tar", "image"]);
        assert!(error.contains("saved.tar") && error.contains(expected), "{layer}: {error}");
    }
    assert_eq!(sandbox.names(), ["saved.tar"]);
    let error = sandbox.refused(1, ["--oci", "no-such", "image"]);
    assert!(error.contains("cannot open no-such"), "{error}");
    sandbox.write("rubbish", noise(1, 5000));
    let error = sandbox.refused(1, ["--oci", "rubbish", "image"]);
    assert!(error.contains("rubbish at byte 0"), "{error}");
}

#[test]
fn a_layer_that_is_no_archive_is_told_by_its_name() {
    let sandbox = Sandbox::new();
    let mut container = container();
    container.layers[1] = noise(7, 3000);
    container.layout(&sandbox.path("layout"));
    let error = sandbox.refused(1, ["--oci", "layout", "image"]);
    let name = sha256(&container.blobs()[1]);
    assert!(error.contains(&format!("layout/blobs/sha256/{name} at byte 0:")), "{error}");
    let mut bad = Archive::default();
    bad.file("fine", b"x").link(b'1', "link", "nowhere");
    container.layers[1] = bad.end();
    container.layout(&sandbox.path("other"));
    let error = sandbox.refused(1, ["--oci", "other", "image"]);
    assert!(error.contains("at byte 1024: link: a hard link to nowhere"), "{error}");
}
