// SPDX-License-Identifier: GPL-2.0-or-later

//! Reads, verifies and extracts tesserafs images: what the tools share above [`tesserafs_format`], which has no I/O.
//!
//! Modules, in the order in which bytes pass them:
//!
//! - [`source`]: the bytes of an image or a pack, read at positions; nothing is mapped;
//! - [`superblock`]: what the rest is proven by; [`metadata`]: blocks that the Merkle tree vouches for;
//! - [`signature`]: whether a trusted signer vouches for that;
//! - [`walk`]: the tree, and whether its tables say what a builder would; [`lookup`]: from a path to an inode;
//! - [`packs`]: stored and decoded chunks, with [`open_files`] for as many packs as there can be; [`contents`]: the bytes of files;
//! - [`serve`]: the tree and ranges of files for many threads at once, of an image that nobody has walked;
//! - [`visit`]: the names in the order of paths; [`scope`]: a part of a tree;
//! - [`unchecked`]: a walk of an image that nobody has checked; [`diff`]: what is different in another image;
//! - [`sbom`]: the packages that are in a tree, and whether its files are theirs;
//! - [`extract`]: the tree, restored in a directory; [`tar`]: as an archive; [`losses`]: what of it could not be restored;
//! - [`finding`] names broken rules, [`error`] what ends the work; [`text`] is how names are printed, [`profile`] how a profile is
//!   reported; [`hash`], [`parallel`], [`progress`] and [`signals`] serve all of them, and [`Context`] is what they are handed.
//!
//! # Units
//!
//! Offsets and lengths are bytes in `u64`: of the file where a [`Source`] is read, of the pack where a chunk lies, of the content
//! where an extent begins. Metadata blocks have 4096 bytes and are counted from the tree region. Inode numbers begin at 1, which
//! is the root; all other indices begin at 0. Names, symlink targets, keys and values are bytes without an encoding. Times are
//! seconds since 1970 and nanoseconds, modes the 12 bits of chmod(2).
//!
//! # Errors
//!
//! [`Broken::Rule`] is a rule of `FORMAT.md` that the image breaks, with the place, what was found and what was expected: whoever
//! checks makes a [`Finding`] of it and goes on. [`Error`] ends the work: a read or write that failed, memory that is not there,
//! a request that cannot be met, the user's interrupt. Its text names the file. Nothing here panics because of what an image says.
//!
//! No byte is handed out before it was compared with a digest that goes back to the superblock; whether the superblock is the right
//! one, by its image ID or a signature, the caller decides. Numbers in authentic metadata can still be wrong: for an image from
//! elsewhere, let [`walk::walk`] find nothing before [`contents`] or [`extract`] rely on them.
//!
//! # Example
//!
//! ```
//! use tesserafs_image::lookup::{self, Last};
//! use tesserafs_image::packs::Decoder;
//! use tesserafs_image::{superblock, walk, Cancel, Contents, Context, Findings, Piece, Silent, Source, VerifiedMetadata};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let (root, path) = (folder.path().join("root"), folder.path().join("example.tess"));
//! # std::fs::create_dir_all(root.join("etc"))?;
//! # std::fs::create_dir_all(root.join("usr/lib"))?;
//! # std::fs::write(root.join("usr/lib/os-release"), "NAME=example\n")?;
//! # std::os::unix::fs::symlink("../usr/lib/os-release", root.join("etc/os-release"))?;
//! # let config = mkfs_tesserafs::config::Config {
//! #     image: path.clone(),
//! #     source: mkfs_tesserafs::config::SourcePath::Directory(root),
//! #     filter: Default::default(),
//! #     profile: mkfs_tesserafs::config::default_profile(mkfs_tesserafs::config::DEFAULT_LEVEL),
//! #     threads: std::num::NonZeroUsize::MIN,
//! #     annotations: Default::default(),
//! #     signer: None,
//! #     signed_data: None,
//! #     sbom: false,
//! #     shared: None,
//! #     force: false,
//! #     dry_run: false,
//! # };
//! # mkfs_tesserafs::build(&config, &mkfs_tesserafs::progress::Silent)?;
//! let source = Source::open(&path)?;
//! let sb = superblock::read(&source)?;
//! let metadata = VerifiedMetadata::new(&source, &sb);
//! let (findings, cancel) = (Findings::default(), Cancel::default());
//! let context = Context::new(&metadata, &findings, &Silent, &cancel);
//!
//! let tree = walk::walk(&context)?;
//! assert_eq!(findings.count(), 0, "the tree breaks rules");
//! assert_eq!(tree.directories.len(), 4);
//!
//! // etc/os-release is a symlink to ../usr/lib/os-release.
//! let found = lookup::find(&context, b"etc/os-release", Last::Follow)?;
//! let contents = Contents::open(&context)?;
//! let mut bytes = Vec::new();
//! contents.read(&found.inode, &mut Decoder::new()?, |piece| {
//!     match piece {
//!         Piece::Data(data) => bytes.extend_from_slice(data),
//!         Piece::Hole(len) => bytes.resize(bytes.len() + len as usize, 0),
//!     }
//!     Ok(())
//! })?;
//! assert_eq!(bytes, b"NAME=example\n");
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod contents;
pub mod context;
pub mod diff;
pub mod error;
pub mod extract;
pub mod finding;
pub mod hash;
pub mod lookup;
pub mod losses;
pub mod metadata;
pub mod open_files;
pub mod packs;
pub mod parallel;
pub mod profile;
pub mod progress;
pub mod sbom;
pub mod scope;
pub mod serve;
pub mod signals;
pub mod signature;
pub mod source;
pub mod superblock;
pub mod tar;
pub mod text;
pub mod time;
pub mod unchecked;
pub mod visit;
pub mod walk;

pub use contents::{Contents, Piece};
pub use context::Context;
pub use error::{Broken, Error};
pub use finding::{Finding, Findings, Severity};
pub use losses::Losses;
pub use metadata::VerifiedMetadata;
pub use parallel::Cancel;
pub use progress::{Progress, Silent};
pub use scope::Scope;
pub use source::Source;
