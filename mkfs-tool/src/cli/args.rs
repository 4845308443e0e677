// SPDX-License-Identifier: GPL-2.0-or-later

//! The options, and the help.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{ArgGroup, Parser};
use tesserafs_image::profile::ProfileName;

use super::request::{chunk_sizes, profile_name};
use crate::config::DEFAULT_LEVEL;
use crate::progress::How;
use crate::source::oci::Platform;
use crate::source::{AclNames, Devices};

const EXAMPLES: &str = "\
Examples:
  mkfs.tesserafs root.tess rootfs/
  mkfs.tesserafs --sign-key key.pem --sign-cert cert.pem root.tess rootfs/
  mkfs.tesserafs --profile small --level 15 root.tess rootfs/
  mkfs.tesserafs --level 15 --exclude 'var/cache/**' --devices=skip root.tess /mnt/root
  mkfs.tesserafs --exclude-from list --one-file-system root.tess /
  mkfs.tesserafs --uid-map 100000:0:65536 --gid-map 100000:0:65536 root.tess ~/container
  mkfs.tesserafs --dry-run --json root.tess rootfs/
  mkfs.tesserafs --sbom root.tess rootfs/
  mkfs.tesserafs --packdir packs monday.tess rootfs/
  mkfs.tesserafs --packdir packs --parent monday.tess tuesday.tess rootfs/
  docker export box | mkfs.tesserafs --tar - - | ssh host 'cat >box.tess'
  mkfs.tesserafs --tar container.tar.gz --prefix rootfs root.tess
  docker save app | mkfs.tesserafs --oci - app.tess
  mkfs.tesserafs --oci layout:latest --platform linux/arm64 app.tess
  mkfs.tesserafs --oci layout:latest --packdir packs --layers layers/

Signing with a key on another machine:
  mkfs.tesserafs --emit-signed-data data root.tess rootfs/
  openssl cms -sign -binary -noattr -nocerts -md sha256 -outform DER \\
      -signer cert.pem -inkey key.pem -in data -out sig
  mkfs.tesserafs --attach-signature sig root.tess

A pattern of --exclude matches a name at any depth (*.pyc, cache), or, where it has a slash,
a path from the root of the tree (/boot, var/cache/*); * and ? stay within a name, ** does
not. In a file of patterns, empty lines and lines that begin with # say nothing.

An image to standard output is built in an unnamed file in TMPDIR first, and sent when it is
complete; the report goes to standard error then.

The same tree gives the same image, byte for byte, whatever the order of directories on
disk, the number of threads, the machine, the clock, the umask or the path.
SOURCE_DATE_EPOCH, where set, is the largest mtime: later ones become it.

The report says how many names, xattrs and bytes were left out, and -v which ones. With
--quiet, standard error still gets those that no option asked for; with -v, too, all.

Memory: 48 MiB and 8 MiB a thread of file data, twice that at worst, whatever the size of
the files; besides some 200 bytes an inode, and 2 MB for 1 GB of distinct data; --sbom
takes 260 bytes a name more, until the tree is walked. An archive that is compressed or comes
from a pipe is unpacked into an unnamed file beside the image.

Exit status: 0 the image is complete; 1 something could not be read, written or
represented, and there is no image (if only the report could not be written, there is one);
2 the command line makes no sense. A signal leaves no image either, unless it was complete
already. The program ends with SIGABRT where memory cannot be had.";

/// Builds a tesserafs image from a directory, a tar archive or a container image.
#[derive(Debug, Parser)]
#[command(name = "mkfs.tesserafs", bin_name = "mkfs.tesserafs", version)]
#[command(after_help = EXAMPLES, max_term_width = 110)]
#[command(group = ArgGroup::new("from").args(["source", "tar", "oci", "attach_signature"]))]
pub(super) struct Args {
    /// The image; - is standard output
    pub(super) image: PathBuf,

    /// The directory that becomes the root of the image
    pub(super) source: Option<PathBuf>,

    /// Take the tree from a tar archive (ustar, PAX, GNU; plain, gzip or zstd); - is standard input
    #[arg(long, value_name = "FILE")]
    pub(super) tar: Option<PathBuf>,

    /// Take the tree from a container image: an OCI image layout, an archive of one, what `docker save` or `podman save` writes, or a
    /// directory of `skopeo copy dir:`; - is standard input. All layers are put one over the other, digests are compared, and
    /// configuration and manifest become the annotations org.opencontainers.image.config and org.opencontainers.image.manifest
    #[arg(long, value_name = "PLACE[:REF]")]
    pub(super) oci: Option<PathBuf>,

    /// Of a container image for several machines, the one for this [default: linux and the architecture of this machine]
    #[arg(
        long,
        value_name = "OS/ARCH[/VARIANT]",
        conflicts_with_all = ["source", "tar", "attach_signature"],
        help_heading = "Container images"
    )]
    pub(super) platform: Option<Platform>,

    /// Make an image of each layer, for `tesserafs compose`, in the directory IMAGE, named by its chain ID; one that is there already
    /// with these bytes stays, so that container images share layers
    #[arg(
        long,
        requires = "packdir",
        conflicts_with_all = ["source", "tar", "attach_signature", "emit_signed_data", "sbom"],
        help_heading = "Container images"
    )]
    pub(super) layers: bool,

    /// Take N names off the start of each path of the archive, and leave out entries with no name left (a
    /// directory with N names becomes the root)
    #[arg(
        long,
        value_name = "N",
        conflicts_with_all = ["source", "oci", "attach_signature"],
        conflicts_with = "prefix",
        default_value_t = 0,
        hide_default_value = true,
        help_heading = "Archives"
    )]
    pub(super) strip: usize,

    /// Take this directory of the archive as the root, and leave out everything that is not below it
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["source", "oci", "attach_signature"],
        help_heading = "Archives"
    )]
    pub(super) prefix: Option<PathBuf>,

    /// The source of numbers for users and groups that an access control list gives by name
    #[arg(
        long,
        value_enum,
        default_value_t,
        require_equals = true,
        value_name = "SOURCE",
        conflicts_with_all = ["source", "attach_signature"],
        help_heading = "Archives"
    )]
    pub(super) acl_names: AclNames,

    /// Put the chunks into a pack in this directory, a file named by its digest, that other images can use, too
    #[arg(long, value_name = "DIR", help_heading = "Packs")]
    pub(super) packdir: Option<PathBuf>,

    /// Use the chunks that this image has in packs there, and write the others only; repeatable, the first one counts
    /// first. Its metadata is believed: take images whose origin you know
    #[arg(long, value_name = "IMAGE", requires = "packdir", help_heading = "Packs")]
    pub(super) parent: Vec<PathBuf>,

    /// Name no pack of the parents, and put everything into one new pack, their chunks too
    #[arg(long, requires = "parent", help_heading = "Packs")]
    pub(super) rebase: bool,

    /// zstd level, 1 to 22
    #[arg(long, short, default_value_t = DEFAULT_LEVEL, value_parser = clap::value_parser!(u32).range(1..=22))]
    pub(super) level: u32,

    /// Threads that read and compress [default: two for each processor, as they also wait for the disk]
    #[arg(long, value_name = "N")]
    pub(super) threads: Option<NonZeroUsize>,

    /// Owner of everything
    #[arg(long, value_name = "UID", value_parser = clap::value_parser!(u32).range(..=0xffff_fffe))]
    pub(super) uid: Option<u32>,

    /// Group of everything
    #[arg(long, value_name = "GID", value_parser = clap::value_parser!(u32).range(..=0xffff_fffe))]
    pub(super) gid: Option<u32>,

    /// root as owner and group of everything
    #[arg(long, conflicts_with_all = ["uid", "gid", "uid_map", "gid_map"])]
    pub(super) all_root: bool,

    /// Owners FROM and up become TO and up, COUNT of them, in ACLs too; others stay; repeatable
    #[arg(long, value_name = "FROM:TO:COUNT", conflicts_with = "uid")]
    pub(super) uid_map: Vec<String>,

    /// The same for groups
    #[arg(long, value_name = "FROM:TO:COUNT", conflicts_with = "gid")]
    pub(super) gid_map: Vec<String>,

    /// Make an mtime that an image cannot hold the nearest that it can (1901-12-13 to 2446-05-10)
    #[arg(long)]
    pub(super) clamp_mtime: bool,

    /// Leave out what matches, and everything below it: a name at any depth, or, with a slash, a path from
    /// the root of the tree; repeatable
    #[arg(long, value_name = "GLOB")]
    pub(super) exclude: Vec<String>,

    /// Leave out what matches a pattern in this file, one a line; repeatable
    #[arg(long, value_name = "FILE")]
    pub(super) exclude_from: Vec<PathBuf>,

    /// Leave out what is mounted in the directory: mount points stay, and are empty
    #[arg(long, conflicts_with_all = ["tar", "oci"])]
    pub(super) one_file_system: bool,

    /// SELinux labels from a policy's file_contexts, in place of those of the source
    #[arg(long, value_name = "FILE")]
    pub(super) file_contexts: Option<PathBuf>,

    /// Make each name of a hard-linked file a file of its own (its bytes are stored once all the same)
    #[arg(long)]
    pub(super) hard_dereference: bool,

    /// Block and character devices, which an image cannot hold (a whiteout, device 0:0, it can)
    #[arg(long, value_enum, default_value_t, require_equals = true, value_name = "WHAT")]
    pub(super) devices: Devices,

    /// Sign with this key (PEM; RSA, or ECDSA on P-256 or P-384)
    #[arg(long, value_name = "PEM", requires = "sign_cert", conflicts_with = "attach_signature")]
    pub(super) sign_key: Option<PathBuf>,

    /// The key's certificate (PEM); with --attach-signature, check the signature against it
    #[arg(long, value_name = "PEM")]
    pub(super) sign_cert: Option<PathBuf>,

    /// The passphrase of an encrypted key is the first line of this file
    #[arg(long, value_name = "FILE", requires = "sign_key")]
    pub(super) sign_passphrase: Option<PathBuf>,

    /// Write the 512 bytes that a signature is over; without a source, those of the existing IMAGE
    #[arg(long, value_name = "FILE")]
    pub(super) emit_signed_data: Option<PathBuf>,

    /// Give the existing IMAGE this signature (CMS, DER), in place of the one it has
    #[arg(long, value_name = "FILE")]
    pub(super) attach_signature: Option<PathBuf>,

    /// Embed the bytes of a file under a key, hashed and signed with the rest; repeatable
    #[arg(long, value_name = "KEY=FILE")]
    pub(super) annotate: Vec<OsString>,

    /// Embed a bill of materials, a CycloneDX document of the packages in the tree, under the key sbom.cdx.json: from the
    /// databases of dpkg, apk and rpm, and metadata of Python, Node and Rust. `tesserafs sbom` prints it
    #[arg(long, conflicts_with = "attach_signature")]
    pub(super) sbom: bool,

    /// Replace an existing IMAGE
    #[arg(long, short)]
    pub(super) force: bool,

    /// Build nothing, and report what would be built, with its IDs; IMAGE is not touched
    #[arg(long, conflicts_with_all = ["sign_key", "attach_signature"])]
    pub(super) dry_run: bool,

    /// No report, no progress; what is left out though no option asked for it is told on standard error all the same
    #[arg(long, short)]
    pub(super) quiet: bool,

    /// Name what is left out
    #[arg(long, short)]
    pub(super) verbose: bool,

    /// How far the build is, on standard error: a bar on a terminal, elsewhere lines that name the step if it takes longer than
    /// ten seconds (auto); a line every few seconds (plain); or nothing
    #[arg(long, value_enum, default_value_t, require_equals = true, value_name = "HOW")]
    pub(super) progress: How,

    /// Report as JSON on standard output
    #[arg(long)]
    pub(super) json: bool,

    /// How files are cut into what is compressed, and read, as one; changes the image ID, not the tree ID. The numbers below override
    /// it, and the image has the numbers, not the name
    #[arg(long, value_name = "NAME", value_parser = profile_name(), default_value = "default", help_heading = "Profile")]
    pub(super) profile: ProfileName,

    /// Sizes of content-defined chunks in KiB, instead of the profile's
    #[arg(long, value_name = "MIN,AVG,MAX", value_parser = chunk_sizes, help_heading = "Profile")]
    pub(super) chunk_size: Option<[u32; 3]>,

    /// Size of groups of small files in KiB, instead of the profile's
    #[arg(long, value_name = "KIB", help_heading = "Profile")]
    pub(super) group_size: Option<u32>,

    /// Largest file in a group in KiB, instead of the profile's
    #[arg(long, value_name = "KIB", help_heading = "Profile")]
    pub(super) small_max: Option<u32>,
}
