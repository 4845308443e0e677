// SPDX-License-Identifier: GPL-2.0-or-later

//! Archives that hold container images: their layers are archives inside them, so they are no file tree.

use super::nodes::Nodes;

/// The digits of a SHA-256.
const DIGITS: usize = 64;

/// Why an archive that holds images is no tree, if it is one.
pub(super) fn refusal(nodes: &Nodes) -> Option<String> {
    let has = |name: &str| nodes.find(nodes.root(), &[name.as_bytes()]);
    let is_file = |name: &str| has(name).is_some_and(|node| nodes.what(node).is_file());
    let is_directory = |name: &str| has(name).is_some_and(|node| nodes.what(node).is_directory());
    let is_oci = is_file("oci-layout") && is_file("index.json") && is_directory("blobs");
    let is_docker = is_file("manifest.json")
        && nodes.names(nodes.root()).all(|at| is_dockers(nodes.name(at).name))
        && nodes.names(nodes.root()).any(|at| !nodes.name(at).name.ends_with(b".json"));
    let what = match (is_oci, is_docker) {
        (_, true) => "is an archive of container images as `docker save` writes it",
        (true, false) => "is an archive of container images in the OCI layout",
        (false, false) => return None,
    };
    Some(format!(
        "{what}, and no file tree: use mkfs.tesserafs --oci ARCHIVE IMAGE, which puts its layers one over the other; for an image of \
         these very files, unpack the archive and build from the directory"
    ))
}

/// Whether `docker save` writes such a name at the top.
fn is_dockers(name: &[u8]) -> bool {
    let is_digest = name.len() == DIGITS && name.iter().all(u8::is_ascii_hexdigit);
    is_digest
        || matches!(name, b"repositories" | b"blobs" | b"oci-layout")
        || name.ends_with(b".json")
        || name.ends_with(b".tar")
}
