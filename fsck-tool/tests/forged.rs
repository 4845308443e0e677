// SPDX-License-Identifier: GPL-2.0-or-later

//! Images whose authors lie, as parents and as layers: what is made of them is whole, or is not made.

use mkfs_tesserafs::compose::{compose, Composition, LayerPath};
use mkfs_tesserafs::convert::{convert, Conversion, Form};
use mkfs_tesserafs::packs::SharedForm;
use mkfs_tesserafs::progress::Silent;
use tesserafs_format::raw::{RawChunk, RawPack};
use tesserafs_format::superblock::Table;
use zerocopy::{FromBytes, Immutable, IntoBytes};

mod shared;

use shared::{with_parents, Build, Folder};

/// Changes a record of a table.
fn change<T: FromBytes + IntoBytes + Immutable>(
    image: &mut [u8],
    table: &Table,
    index: u64,
    change: impl FnOnce(&mut T),
) {
    let at = table.record(index).expect("a record") as usize;
    let bytes = &mut image[at..at + size_of::<T>()];
    let mut record = T::read_from_bytes(bytes).expect("a record");
    change(&mut record);
    record.write_to(bytes).expect("a record");
}

/// An image "1" with a pack, and "forged", which says that the pack is longer; the digest of the pack, and its bytes.
fn with_another_length(folder: &Folder) -> (String, u64) {
    let (_, packs) = folder.build("1", &Build::default());
    folder.forge("forged", "1", |image, layout| {
        change(image, &layout.packs, 1, |pack: &mut RawPack| pack.bytes = (pack.bytes.get() + 100).into());
    });
    (packs.packs[0].digest.clone(), packs.packs[0].bytes)
}

#[test]
fn parents_that_give_a_pack_two_lengths_are_refused() {
    let folder = Folder::new();
    let (digest, bytes) = with_another_length(&folder);
    for parents in [&["forged"][..], &["forged", "1"], &["1", "forged"]] {
        let error =
            folder.try_build("2", &with_parents(parents)).expect_err("a parent that lies").to_string();
        let forged = folder.at("forged").display().to_string();
        for part in [&digest, &forged, &format!("has {bytes} bytes"), &format!("with {}", bytes + 100)] {
            assert!(error.contains(part), "{parents:?}: {error} does not say {part}");
        }
        assert!(!folder.at("2").exists());
    }
    folder.build("2", &with_parents(&["1", "1"]));
}

#[test]
fn layers_that_give_a_pack_two_lengths_are_refused() {
    let folder = Folder::new();
    let (_, bytes) = with_another_length(&folder);
    for (layers, found, before) in
        [(["1", "forged"], bytes + 100, bytes), (["forged", "1"], bytes, bytes + 100)]
    {
        let [first, named] = layers.map(|name| folder.at(name));
        let layers = layers.map(|name| LayerPath { image: folder.at(name), at: Vec::new() }).to_vec();
        let (output, annotations) = (folder.at("composed"), Default::default());
        let composition = Composition { output, layers, partial: false, annotations, force: false };
        let error = compose(&composition).expect_err("a layer that lies").to_string();
        let expected = format!(
            "{}: pack 1 has {found} bytes, expected {before}, as {} says of a pack with the same digest",
            named.display(),
            first.display()
        );
        assert_eq!(error, expected);
        assert!(!folder.at("composed").exists());
    }
}

#[test]
fn a_pack_that_is_no_file_is_refused() {
    let folder = Folder::new();
    let (_, packs) = folder.build("1", &Build::default());
    let pack = folder.at("packs").join(&packs.packs[0].digest);
    std::fs::remove_file(&pack).expect("removed");
    std::fs::create_dir(&pack).expect("a directory");
    let error = folder.try_build("2", &with_parents(&["1"])).expect_err("no pack").to_string();
    assert!(error.starts_with(&format!("{}: is no regular file", pack.display())), "{error}");
}

#[test]
fn a_chunk_of_a_parent_with_another_length_is_not_taken() {
    let folder = Folder::new();
    folder.build("1", &Build::default());
    folder.build("one", &Build { in_one_file: true, ..Build::default() });
    folder.forge("forged", "1", |image, layout| {
        for number in 0..layout.chunks.records() {
            change(image, &layout.chunks, number, |chunk: &mut RawChunk| {
                // A plain one would break a rule.
                if chunk.stored_len() < chunk.raw_len.get() {
                    chunk.raw_len = (chunk.raw_len.get() + 1).into();
                }
            });
        }
    });
    let form = SharedForm { dir: folder.at("packs"), parents: vec![folder.at("forged")], rebase: false };
    let conversion = Conversion {
        output: folder.at("2"),
        image: folder.at("one"),
        pack_dir: None,
        form: Form::Shared(form),
        force: false,
    };
    convert(&conversion, &Silent).expect("an image");
    folder.check("2");
}
