// SPDX-License-Identifier: GPL-2.0-or-later

//! Profiles by name: the numbers of each, and the reports that name it.

mod common;

use std::fs;

use common::{noise, Sandbox};
use serde_json::{json, Value};

/// A tree of which every profile cuts something else.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("src/large", noise(1, 2 << 20));
    for number in 0..12 {
        sandbox.write(&format!("src/small-{number}"), noise(10 + number, 20_000));
        sandbox.write(&format!("src/medium-{number}"), noise(30 + number, 50_000));
    }
    sandbox
}

/// The numbers of a report's profile, in KiB.
fn numbers(report: &Value) -> [u64; 6] {
    ["chunk_min", "chunk_avg", "chunk_max", "group_size", "small_max", "hole_min"]
        .map(|field| report["profile"][field].as_u64().expect(field) >> 10)
}

#[test]
fn a_name_is_the_image_of_its_numbers() {
    let sandbox = sandbox();
    let mut images = Vec::new();
    for (name, chunks, group, small) in [
        ("default", "16,64,128", "96", "64"),
        ("small", "32,128,256", "128", "64"),
        ("fast", "12,40,80", "32", "32"),
    ] {
        let named = sandbox.report(["--force", "--profile", name, "named", "src"]);
        assert_eq!(named["profile"]["name"], name);
        let sizes = [chunks, group, small, "32"].join(",");
        assert_eq!(numbers(&named).map(|kib| kib.to_string()).join(","), sizes);
        let typed = sandbox.report([
            "--force",
            "--chunk-size",
            chunks,
            "--group-size",
            group,
            "--small-max",
            small,
            "typed",
            "src",
        ]);
        assert_eq!((&typed["image_id"], &typed["profile"]), (&named["image_id"], &named["profile"]));
        let image = fs::read(sandbox.path("named")).unwrap();
        assert!(image == fs::read(sandbox.path("typed")).unwrap(), "{name}: the images differ");
        // The name is of the cuts: at another level it is the same one.
        let text = sandbox.mkfs(["--force", "--profile", name, "--level", "1", "named", "src"]);
        assert!(text.contains(&format!("; profile {name}\n")), "{text}");
        assert!(!images.contains(&image), "{name}: the image of another profile");
        images.push(image);
    }
    let unnamed = sandbox.report(["unnamed", "src"]);
    assert_eq!(unnamed["profile"]["name"], "default");
    assert!(fs::read(sandbox.path("unnamed")).unwrap() == images[0]);
}

#[test]
fn numbers_override_those_of_the_name() {
    let sandbox = sandbox();
    let of = |args: &[&str]| {
        let report = sandbox.report([&["--force"], args, &["image", "src"]].concat());
        (numbers(&report), report["profile"].get("name").cloned())
    };
    assert_eq!(of(&["--profile=fast", "--group-size=64"]), ([12, 40, 80, 64, 32, 32], None));
    assert_eq!(of(&["--chunk-size=16,32,64", "--profile=small"]), ([16, 32, 64, 128, 64, 32], None));
    assert_eq!(of(&["--profile=small", "--group-size=48"]), ([32, 128, 256, 48, 48, 32], None));
    // These are the numbers of another one.
    let small = of(&["--profile=default", "--chunk-size=32,128,256", "--group-size=128"]);
    assert_eq!(small, ([32, 128, 256, 128, 64, 32], Some(json!("small"))));
    let text = sandbox.mkfs(["--force", "--profile=fast", "--group-size=64", "image", "src"]);
    assert!(!text.contains("profile"), "{text}");
}

#[test]
fn an_unknown_name_is_answered_with_those_that_there_are() {
    let sandbox = sandbox();
    let said = sandbox.refused(2, ["--profile", "tiny", "image", "src"]);
    assert!(["tiny", "default", "small", "fast"].iter().all(|name| said.contains(name)), "{said}");
    assert_eq!(sandbox.names(), ["src"]);
    let help = sandbox.mkfs(["--help"]);
    assert!(help.contains("--profile small") && help.contains("- fast:"), "{help}");
}

#[test]
fn packs_of_a_parent_are_used_with_each_profile() {
    let sandbox = sandbox();
    fs::create_dir(sandbox.path("packs")).unwrap();
    for name in ["small", "fast"] {
        let (first, second) = (format!("{name}-1"), format!("{name}-2"));
        let build = |image: &str, parent: Option<&str>| {
            let mut args = vec!["--profile", name, "--packdir", "packs"];
            args.extend(parent.iter().flat_map(|parent| ["--parent", parent]));
            args.extend([image, "src"]);
            sandbox.report(args)
        };
        let alone = build(&first, None);
        assert_eq!(alone["profile"]["name"], name);
        let with_parent = build(&second, Some(&first));
        assert_eq!(with_parent["image_id"], alone["image_id"]);
        let packs = with_parent["shared"]["packs"].as_array().unwrap();
        assert!(!packs.is_empty() && packs.iter().all(|pack| pack["new"] == false), "{packs:?}");
    }
}
