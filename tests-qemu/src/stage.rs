// SPDX-License-Identifier: GPL-2.0
//! Everything that the guest gets: images, manifests, keys, the plan; on a disk.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tesserafs_guest::plan::{Image, Plan, Signed};

use crate::cache::{key, sha256_of, Cache};
use crate::corrupt;
use crate::sign::{self, Signer, Signers};
use crate::tools::Tools;
use crate::{answers, cases, disk, labels, layers, packs, rootfs, run, stores, trees};

/// Bits to flip in each region.
const FLIPS: usize = 200;

/// The folder that becomes the data disk, in the stage's folder.
const CONTENTS: &str = "contents";

/// The files that a boot needs besides kernel and initramfs.
pub(crate) struct Stage {
    /// The folder that the data disk was made from.
    folder: PathBuf,
    /// The plan of the guest for it.
    pub(crate) plan: Plan,
    /// Data disk and raw root image: `/dev/vda` and `/dev/vdb`.
    pub(crate) disks: Vec<PathBuf>,
    /// Empty filesystems: `/dev/vdc` and so on.
    pub(crate) scratch: Vec<PathBuf>,
}

impl Stage {
    /// A file that the plan names.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(CONTENTS).join(name)
    }
}

/// Whether the root image is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    Unsigned,
    Signed,
}

/// The name of the data disk, in the same folder.
const DATA: &str = "data.ext4";

/// The name of the plan, on the data disk.
const PLAN: &str = "plan.json";

/// Builds all images of a run, unless the same programs have built them of the same root and keys before.
pub(crate) fn prepare(
    cache: &Cache,
    tools: &Tools,
    debian: &Path,
    signers: &Signers,
    root: Root,
) -> Result<Stage> {
    let mut inputs = vec![debian.as_os_str().as_encoded_bytes().to_vec(), tools.digest()?.into_bytes()];
    for signer in [&signers.rsa, &signers.ecdsa, &signers.stranger] {
        inputs.push(sha256_of(&signer.der)?.into_bytes());
    }
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    let prefix = match root {
        Root::Unsigned => "stage-unsigned-",
        Root::Signed => "stage-signed-",
    };
    let folder = cache.once(&format!("{prefix}{}", key(&inputs)), |folder| {
        run::say("building the images of the guest");
        build(cache, tools, debian, signers, root, folder)
    })?;
    cache.forget_others(&folder, prefix)?;
    let contents = folder.join(CONTENTS);
    let text = std::fs::read(contents.join(PLAN)).context("failed to read the plan")?;
    let plan: Plan = serde_json::from_slice(&text).context("the plan cannot be read")?;
    let disks = vec![folder.join(DATA), trees::path(&contents, &plan.root)];
    let scratch = stores::empty(&folder);
    Ok(Stage { folder, plan, disks, scratch })
}

/// Builds them in `folder`.
fn build(
    cache: &Cache,
    tools: &Tools,
    debian: &Path,
    signers: &Signers,
    root: Root,
    folder: &Path,
) -> Result<()> {
    let scratch = cache.folder("scratch")?;
    // The disk lies beside the folder that it is made of.
    let contents = folder.join(CONTENTS);
    std::fs::create_dir(&contents).context("failed to create the stage")?;

    let rsa = sign::options(&signers.rsa)?;
    let rsa: Vec<&str> = rsa.iter().map(String::as_str).collect();
    let root_options: Vec<&str> = match root {
        Root::Unsigned => vec!["--level", "3"],
        Root::Signed => [&["--level", "3"], &rsa[..]].concat(),
    };
    let root = trees::image(tools, &contents, "root", debian, &root_options)?;

    let sparse_tree = trees::sparse()?;
    let sparse = trees::image(tools, &contents, "sparse", sparse_tree.path(), &[])?;

    let small_tree = tempfile::tempdir().context("failed to make a scratch folder")?;
    trees::small(small_tree.path())?;
    let small = trees::image(tools, &contents, "small", small_tree.path(), &[])?;
    // Beside the cache, whose file system keeps access control lists.
    let cases_tree = tempfile::tempdir_in(&scratch).context("failed to make a scratch folder")?;
    cases::tree(cases_tree.path())?;
    let cases = trees::image(tools, &contents, "cases", cases_tree.path(), &[])?;
    let answers_tree = tempfile::tempdir_in(&scratch).context("failed to make a scratch folder")?;
    let answers = answers::stage(tools, &contents, answers_tree.path())?;
    let labels_tree = tempfile::tempdir_in(&scratch).context("failed to make a scratch folder")?;
    let labels = labels::stage(tools, &contents, labels_tree.path())?;
    let layer = tempfile::tempdir_in(&scratch).context("failed to make a scratch folder")?;
    let opaque = layers::stage(tools, &contents, layer.path())?;
    let signed = signed(tools, &contents, small_tree.path(), &small, signers)?;
    let packed = packs::stage(tools, &contents, small_tree.path(), &rsa)?;

    let good = trees::path(&contents, &signed.good[0]);
    let bytes = std::fs::read(&good).with_context(|| format!("failed to read {}", good.display()))?;
    let flips = corrupt::places(&bytes, &tools.regions(&good)?, FLIPS)?;

    let sign = |prefix: &[u8]| sign::over(&signers.rsa, prefix);
    crate::mutate::pack::stage(tools, &contents, &sign, 1, 10_000)?;

    let unknown_feature = "unknown-feature.tess";
    corrupt::changed(&trees::path(&contents, &small), &contents.join(unknown_feature), |image| {
        corrupt::unknown_feature(image)
    })?;

    let nests = stores::nests(tools, &contents, &small)?;
    stores::make_empty(folder)?;

    let plan = Plan {
        root,
        sparse,
        small,
        nests,
        cases,
        answers,
        labels,
        opaque,
        packed,
        signed,
        flips,
        unknown_feature: unknown_feature.to_owned(),
        big_directory: rootfs::BIG_DIRECTORY.to_owned(),
    };
    let text = serde_json::to_vec_pretty(&plan).context("the plan cannot be written down")?;
    std::fs::write(contents.join(PLAN), text).context("failed to write the plan")?;
    disk::write(&folder.join(DATA), &contents)
}

/// The images of the signature tests, all of the same small tree.
fn signed(
    tools: &Tools,
    contents: &Path,
    tree: &Path,
    unsigned: &Image,
    signers: &Signers,
) -> Result<Signed> {
    let build = |name: &str, tree: &Path, signer: &Signer| -> Result<Image> {
        let options = sign::options(signer)?;
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        trees::image(tools, contents, name, tree, &options)
    };
    let rsa = build("signed-rsa", tree, &signers.rsa)?;
    let ecdsa = build("signed-ecdsa", tree, &signers.ecdsa)?;
    let stranger = build("signed-stranger", tree, &signers.stranger)?;

    // The donor is of another tree and signed by the same key: its signature is as long.
    let other = tempfile::tempdir().context("failed to make a scratch folder")?;
    std::fs::write(other.path().join("file"), "another tree\n").context("failed to write")?;
    let donor = build("donor", other.path(), &signers.rsa)?;
    let region = |image: &Image| -> Result<(u64, u64)> {
        let path = trees::path(contents, image);
        tools
            .regions(&path)?
            .into_iter()
            .find(|region| region.name == "signature")
            .map(|region| (region.offset, region.length))
            .with_context(|| format!("{} has no signature", path.display()))
    };
    let (to, from) = (region(&rsa)?, region(&donor)?);
    anyhow::ensure!(to.1 == from.1, "two RSA signatures differ in length");
    let donor = std::fs::read(trees::path(contents, &donor)).context("failed to read the donor")?;
    let copy = |name: &str| Image { image: format!("{name}.tess"), ..rsa.clone() };
    let (transplanted, tampered) = (copy("transplanted"), copy("tampered"));
    let source = trees::path(contents, &rsa);
    corrupt::changed(&source, &trees::path(contents, &transplanted), |image| {
        corrupt::transplant(image, &donor, (to.0, from.0), to.1)
    })?;
    corrupt::changed(&source, &trees::path(contents, &tampered), |image| corrupt::tamper(image))?;

    let mut trusted = Vec::new();
    for (name, signer) in [("rsa.der", &signers.rsa), ("ecdsa.der", &signers.ecdsa)] {
        std::fs::copy(&signer.der, contents.join(name))
            .with_context(|| format!("failed to copy {}", signer.der.display()))?;
        trusted.push(name.to_owned());
    }
    Ok(Signed {
        trusted,
        good: vec![rsa, ecdsa],
        unsigned: unsigned.clone(),
        stranger,
        transplanted,
        tampered,
    })
}
