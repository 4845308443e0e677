// SPDX-License-Identifier: GPL-2.0-or-later

//! Conversion between the forms: what comes out is, byte for byte, what a build in that form gives.

use std::fs;
use std::path::PathBuf;

use mkfs_tesserafs::convert::{convert, Conversion, ConvertReport, Form};
use mkfs_tesserafs::error::Error;
use mkfs_tesserafs::packs::SharedForm;
use mkfs_tesserafs::progress::Silent;

mod shared;

use shared::{names, pattern, with_parents, Build, Folder};

const IN_ONE_FILE: Build<'static> =
    Build { in_one_file: true, parents: &[], rebase: false, level: None, threads: None, dry_run: false };

impl Folder {
    fn try_unpack(&self, new: &str, image: &str) -> Result<ConvertReport, Error> {
        self.try_convert(new, image, Form::OneFile)
    }

    fn unpack(&self, new: &str, image: &str) -> ConvertReport {
        let report = self.try_unpack(new, image).expect(new);
        self.check(new);
        report
    }

    fn pack(&self, dir: &str, new: &str, image: &str, parents: &[&str], rebase: bool) -> ConvertReport {
        fs::create_dir_all(self.at(dir)).expect(dir);
        let parents = parents.iter().map(|name| self.at(name)).collect();
        let form = SharedForm { dir: self.at(dir), parents, rebase };
        self.try_convert(new, image, Form::Shared(form)).expect(new)
    }

    fn try_convert(&self, new: &str, image: &str, form: Form) -> Result<ConvertReport, Error> {
        let conversion = Conversion {
            output: self.at(new),
            image: self.at(image),
            pack_dir: Some(self.at("packs")),
            form,
            force: false,
        };
        convert(&conversion, &Silent)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).expect(name)
    }

    /// Changes the tree as a night does; contents change their order, too.
    fn change(&self, night: u64) {
        self.write(&format!("new-{night}"), &pattern(90_000 + night as usize * 7, 10 + night));
        for n in (night..200).step_by(17) {
            self.write(&format!("many/{n:03}"), &pattern((n * 31 % 3000 + 1) as usize, 50 + night));
        }
        let mut large = pattern(3_000_000, 1);
        large.splice(1_000_000..1_000_000, pattern(5000, 90 + night));
        // A hole, and two files of the same bytes.
        large.splice(2_000_000..2_000_000, vec![0; 200_000]);
        self.write("large", &large);
        self.write("many/copy", &large);
        let _ = fs::remove_file(self.at(&format!("tree/many/{:03}", night * 3)));
    }
}

#[test]
fn an_image_with_packs_unpacks_to_the_build_in_one_file() {
    let folder = Folder::new();
    folder.build("0", &Build::default());
    for night in 1..6_u64 {
        folder.change(night);
        let (parent, image) = ((night - 1).to_string(), night.to_string());
        let (shared, _) = folder.build(&image, &with_parents(&[&parent]));
        let (one, _) = folder.build("one", &IN_ONE_FILE);
        let unpacked = folder.unpack(&format!("unpacked-{night}"), &image);
        assert_eq!(unpacked.image_id, one.image_id);
        assert_eq!((&unpacked.tree_id, unpacked.signature_dropped), (&shared.tree_id, false));
        assert!(folder.bytes(&format!("unpacked-{night}")) == folder.bytes("one"), "night {night}");
    }
}

#[test]
fn an_image_in_one_file_packs_to_the_build_with_packs() {
    let folder = Folder::new();
    folder.build("parent", &Build::default());
    folder.change(1);
    for (number, (parents, rebase)) in
        [(&[][..], false), (&["parent"], false), (&["parent"], true)].into_iter().enumerate()
    {
        let built = format!("built-{number}");
        let (shared, packs) = folder.build(&built, &Build { parents, rebase, ..Build::default() });
        let one = format!("one-{number}");
        folder.build(&one, &IN_ONE_FILE);
        // The directory has the parent's packs, and may have the new one, whose bytes are the same then.
        for (dir, new) in [("packs", format!("again-{number}")), ("packs", format!("once-{number}"))] {
            let report = folder.pack(dir, &new, &one, parents, rebase);
            folder.check(&new);
            assert_eq!(report.image_id, shared.image_id);
            assert!(folder.bytes(&new) == folder.bytes(&built));
            assert_eq!(names(report.shared.as_ref().expect("packs")), names(&packs));
        }
    }
    let report = folder.pack("elsewhere", "moved", "one-0", &[], false);
    let [pack] = &report.shared.expect("packs").packs[..] else { panic!("one pack") };
    let (there, here) = (format!("elsewhere/{}", pack.digest), format!("packs/{}", pack.digest));
    assert!(pack.new && folder.bytes(&there) == folder.bytes(&here));
}

#[test]
fn packs_are_gathered_in_one() {
    let folder = Folder::new();
    folder.build("0", &Build::default());
    folder.change(1);
    let (_, packs) = folder.build("1", &with_parents(&["0"]));
    assert_eq!(packs.packs.len(), 2);
    let gathered = folder.pack("packs", "gathered", "1", &[], false);
    let (fresh, _) = folder.build("fresh", &Build::default());
    assert_eq!(gathered.image_id, fresh.image_id);
    // Nothing is written that a parent has.
    let same = folder.pack("packs", "same", "gathered", &["fresh"], false);
    assert!(same.shared.expect("packs").packs.iter().all(|pack| !pack.new));
}

#[test]
fn a_file_without_bytes_needs_no_pack() {
    let folder = Folder::new();
    fs::remove_dir_all(folder.at("tree")).expect("removed");
    fs::create_dir(folder.at("tree")).expect("created");
    folder.write("empty", b"");
    folder.build("one", &IN_ONE_FILE);
    let report = folder.pack("packs", "shared", "one", &[], false);
    assert!(report.shared.expect("packs").packs.is_empty() && folder.packs().is_empty());
    assert!(folder.bytes("shared") == folder.bytes("one"));
}

#[test]
fn what_cannot_be_converted_is_named_and_nothing_is_left() {
    let folder = Folder::new();
    folder.build("one", &IN_ONE_FILE);
    let (_, packs) = folder.build("shared", &Build::default());
    let fails = |image: &str, expected: &[&str]| {
        let error = folder.try_unpack("new", image).expect_err(image);
        let cause = std::error::Error::source(&error).map(|cause| cause.to_string());
        let error = format!("{error}: {}", cause.unwrap_or_default());
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
        assert!(!folder.at("new").exists());
    };
    fails("one", &["one: is an image in one file already"]);
    fails("nothing", &["nothing", "No such file"]);
    let pack = folder.at("packs").join(&packs.packs[0].digest);
    let bytes = fs::read(&pack).expect("read");
    let mut broken = bytes.clone();
    broken[bytes.len() / 2] ^= 1;
    fs::write(&pack, &broken).expect("written");
    fails("shared", &["shared", "chunk-digest"]);
    fs::write(&pack, &bytes[..bytes.len() - 1]).expect("written");
    fails("shared", &[&packs.packs[0].digest]);
    fs::remove_file(&pack).expect("removed");
    fails("shared", &[&packs.packs[0].digest]);
    fs::write(&pack, &bytes).expect("written");

    let mut image = folder.bytes("shared");
    image[4096 + 100] ^= 1;
    fs::write(folder.at("flipped"), &image).expect("written");
    fails("flipped", &["flipped", "hash-block"]);

    fs::write(folder.at("there"), b"precious").expect("written");
    let error = folder.try_unpack("there", "shared").expect_err("it is there").to_string();
    assert!(error.contains("--force") && folder.bytes("there") == b"precious", "{error}");
    let left: Vec<PathBuf> = fs::read_dir(folder.dir.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
