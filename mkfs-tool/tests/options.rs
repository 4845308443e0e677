// SPDX-License-Identifier: GPL-2.0-or-later

//! Owners, links, streams and dry runs: what other builders of images have, too.

mod common;

use std::fs;
use std::os::unix::fs::{symlink, MetadataExt};
use std::process::{Command, Stdio};

use common::{noise, read_image, Sandbox};
use rustix::fs::{lsetxattr, XattrFlags};

#[test]
fn owners_are_mapped() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("src/f", "x");
    let owner = fs::metadata(&file).unwrap();
    let map = |from: u32, to: u32| format!("{from}:{to}:1");
    let (uid_map, gid_map) = (map(owner.uid(), 70_000), map(owner.gid(), 70_001));
    let acl = |id: u32| {
        let entries =
            [(1_u16, 7_u16, u32::MAX), (2, 5, id), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 5, u32::MAX)];
        let bytes = entries.iter().flat_map(|(tag, perm, id)| {
            [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
        });
        [2_u32.to_le_bytes().to_vec(), bytes.collect()].concat()
    };
    let name = "system.posix_acl_access";
    let has_acl = lsetxattr(&file, name, &acl(owner.uid()), XattrFlags::empty()).is_ok();
    sandbox.mkfs(["--uid-map", &uid_map, "--gid-map", &gid_map, "image", "src"]);
    let read = read_image(&sandbox.path("image"));
    for item in read.items.values() {
        assert_eq!((item.uid, item.gid), (70_000, 70_001));
    }
    if has_acl {
        assert_eq!(read.item("f").xattrs, [(name.to_owned(), acl(70_000))]);
    }
    // A number in no range stays.
    let other = map(owner.uid().wrapping_add(1), 5);
    sandbox.mkfs(["--uid-map", &other, "--force", "image", "src"]);
    assert_eq!(read_image(&sandbox.path("image")).item("f").uid, owner.uid());
    sandbox.mkfs(["--all-root", "--force", "image", "src"]);
    for item in read_image(&sandbox.path("image")).items.values() {
        assert_eq!((item.uid, item.gid), (0, 0));
    }
    for bad in [
        &["--uid-map", "0:0"][..],
        &["--uid-map", "0:0:5", "--uid-map", "4:9:1"],
        &["--all-root", "--uid", "1"],
    ] {
        sandbox.refused(2, [bad, &["image2", "src"]].concat());
    }
}

#[test]
fn names_of_one_file_become_files_of_their_own() {
    let sandbox = Sandbox::new();
    for (name, bytes) in [("big", noise(1, 300_000)), ("small", b"z".to_vec())] {
        let first = sandbox.write(&format!("links/{name}"), &bytes);
        fs::hard_link(&first, sandbox.path(&format!("links/{name}2"))).unwrap();
        sandbox.write(&format!("copies/{name}"), &bytes);
        sandbox.write(&format!("copies/{name}2"), &bytes);
    }
    for tree in ["links", "copies"] {
        symlink("there", sandbox.path(&format!("{tree}/s"))).unwrap();
        Command::new("sh").args(["-c", "touch -hd @0 * ."]).current_dir(sandbox.path(tree)).status().unwrap();
    }
    let links = sandbox.report(["--hard-dereference", "links.tess", "links"]);
    let copies = sandbox.report(["copies.tess", "copies"]);
    assert_eq!(links["image_id"], copies["image_id"]);
    assert_eq!((&links["counts"], &links["raw_bytes"]), (&copies["counts"], &copies["raw_bytes"]));
    assert_eq!(links["duplicate_files"], copies["duplicate_files"]);
    let read = read_image(&sandbox.path("links.tess"));
    assert_eq!((read.item("big2").nlink, read.item("big2").bytes.len()), (1, 300_000));
    // An archive, too.
    Command::new("tar")
        .args(["cf", "a.tar", "-C", "links", "."])
        .current_dir(sandbox.path("."))
        .status()
        .unwrap();
    let archive = sandbox.report(["--hard-dereference", "--tar", "a.tar", "tar.tess"]);
    assert_eq!(archive["counts"]["hard_links"], 0);
    assert_eq!(read_image(&sandbox.path("tar.tess")).item("small2").bytes, b"z");
}

#[test]
fn an_image_goes_to_standard_output_whole_or_not_at_all() {
    let sandbox = Sandbox::new();
    sandbox.write("src/f", noise(1, 3 << 20));
    let ids = sandbox.report(["image", "src"]);
    let image = fs::read(sandbox.path("image")).unwrap();
    for name in ["-", "/dev/stdout"] {
        let output = sandbox.run([name, "src"]);
        assert!(output.status.success() && output.stdout == image, "{name}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(ids["image_id"].as_str().unwrap()), "{text}");
    }
    // Into a file that is there.
    let file = fs::File::create(sandbox.path("file")).unwrap();
    assert!(sandbox.command(["-q", "-", "src"]).stdout(file).status().unwrap().success());
    assert!(fs::read(sandbox.path("file")).unwrap() == image);
    let failed = sandbox.run(["-", "nowhere"]);
    assert!(failed.status.code() == Some(1) && failed.stdout.is_empty());
    assert_eq!(sandbox.names(), ["file", "image", "src"]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = sandbox.command(["-q", "-", "src"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output"));
}

#[test]
fn a_dry_run_tells_the_ids_and_writes_nothing() {
    let sandbox = Sandbox::new();
    sandbox.write("src/f", noise(1, 3 << 20));
    sandbox.write("src/image", "in the way");
    let dry = sandbox.report(["--dry-run", "--exclude", "image", "src/image", "src"]);
    assert_eq!(fs::read(sandbox.path("src/image")).unwrap(), b"in the way");
    let real = sandbox.report(["image", "--exclude", "image", "src"]);
    for field in ["version", "image_id", "tree_id", "image_bytes", "counts", "chunks"] {
        assert_eq!(dry[field], real[field], "{field}");
    }
    assert_eq!((&dry["dry_run"], &real["dry_run"]), (&true.into(), &false.into()));
    assert_eq!(sandbox.names(), ["image", "src"]);
    let text = sandbox.mkfs(["--dry-run", "image", "src"]);
    assert!(text.contains("not written"), "{text}");
}

#[test]
fn the_ratio_of_a_tiny_tree_is_not_told() {
    let sandbox = Sandbox::new();
    sandbox.write("src/f", "x");
    fs::create_dir(sandbox.path("empty")).unwrap();
    for source in ["src", "empty"] {
        let text = sandbox.mkfs(["--force", "image", source]);
        assert!(!text.contains('%'), "{text}");
    }
    sandbox.write("src/g", noise(1, 1 << 20).repeat(4));
    let text = sandbox.mkfs(["--force", "image", "src"]);
    assert!(text.contains(" %, in "), "{text}");
}

#[test]
fn progress_is_lines_where_they_are_wanted() {
    let sandbox = Sandbox::new();
    sandbox.write("src/f", noise(1, 2 << 20));
    let output = sandbox.run(["--progress=plain", "image", "src"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("2.0 MiB of 2.0 MiB read, 100 %\n"), "{text}");
    for how in [&["--progress=none"][..], &[], &["--progress=plain", "--quiet"]] {
        assert!(sandbox.run([how, &["--force", "image", "src"]].concat()).stderr.is_empty());
    }
}

#[test]
fn file_knows_an_image() {
    let sandbox = Sandbox::new();
    sandbox.write("src/f", "x");
    let report = sandbox.report(["image", "src"]);
    let magic = concat!(env!("CARGO_MANIFEST_DIR"), "/tesserafs.magic");
    let Ok(output) = Command::new("file").args(["-b", "-m", magic]).arg(sandbox.path("image")).output()
    else {
        eprintln!("no file(1); this test needs it");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let expected = format!(
        "tesserafs filesystem image, version 1, {} bytes, 2 inodes, not signed, image ID {}",
        report["image_bytes"],
        report["image_id"].as_str().unwrap()
    );
    assert_eq!(text.trim(), expected, "{}", String::from_utf8_lossy(&output.stderr));
}

/// Each field of the JSON report is in the table of README.md, and the table has no others.
#[test]
fn the_report_is_documented() {
    let sandbox = Sandbox::new();
    sandbox.write("src/f", "x");
    sandbox.write("src/g", "x");
    assert!(Command::new("tar")
        .args(["-cf", "a.tar", "src"])
        .current_dir(sandbox.path("."))
        .status()
        .unwrap()
        .success());
    let report = sandbox.report(["-v", "--exclude", "g", "--exclude", "h", "--tar", "a.tar", "image"]);
    let mut fields = Vec::new();
    for (name, value) in report.as_object().unwrap() {
        match value.as_object() {
            Some(below) => fields.extend(below.keys().map(|field| format!("{name}.{field}"))),
            None => fields.push(name.clone()),
        }
    }
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let mut documented: Vec<String> = rows.map(|(field, _)| field.to_owned()).collect();
    fields.sort();
    documented.sort();
    assert_eq!(fields, documented);
    assert_eq!(report["version"], 1);
}

#[test]
fn help_readme_and_messages_have_one_name_for_the_program() {
    let sandbox = Sandbox::new();
    let help = sandbox.mkfs(["--help"]);
    assert!(help.contains("mkfs.tesserafs [OPTIONS]") && !help.contains("mkfs-tesserafs"), "{help}");
    assert!(sandbox.refused(1, ["image", "nowhere"]).starts_with("mkfs.tesserafs: "));
}

#[test]
fn packs_lie_in_no_tree_that_is_built() {
    let sandbox = Sandbox::new();
    sandbox.write("src/file", noise(1, 100_000));
    fs::create_dir_all(sandbox.path("src/dir/packs")).unwrap();
    symlink("src/dir/packs", sandbox.path("link")).unwrap();
    for packdir in ["src/dir/packs", "link"] {
        let said = sandbox.refused(1, ["--packdir", packdir, "image", "src"]);
        let expected = "mkfs.tesserafs: src/dir/packs: is the directory for packs, and lies in SOURCE: choose another, or \
                        leave it out: --exclude=/dir/packs\n";
        assert_eq!(said, expected);
    }
    let said = sandbox.refused(1, ["--packdir", "src", "image", "src"]);
    assert_eq!(said, "mkfs.tesserafs: src: is the directory for packs, and lies in SOURCE: choose another\n");
    assert!(!sandbox.path("image").exists());
    assert_eq!(fs::read_dir(sandbox.path("src/dir/packs")).unwrap().count(), 0);

    sandbox.mkfs(["--packdir", "link", "--exclude=/dir/packs", "image", "src"]);
    sandbox.mkfs(["--packdir", "link", "--exclude=/dir/packs", "again", "src"]);
    assert_eq!(fs::read_dir(sandbox.path("src/dir/packs")).unwrap().count(), 1);
    // The source may lie in it.
    sandbox.mkfs(["--packdir", ".", "whole", "src/dir"]);
    let (one, two) = (fs::read(sandbox.path("image")).unwrap(), fs::read(sandbox.path("again")).unwrap());
    assert!(one == two);
}
