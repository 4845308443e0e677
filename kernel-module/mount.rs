// SPDX-License-Identifier: GPL-2.0

//! Mounting, in the order in which it happens: options, superblock, image ID, signature, metadata,
//! root.
//!
//! Until the signature is checked, nothing of the image is looked at but its superblock, which is
//! parsed in place, and the signature itself.

use core::ffi::CStr;

use kernel::seq_file::SeqFile;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_mutex, Arc, Mutex};
use kernel::{prelude::*, seq_print};

use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE};
use tesserafs_format::superblock::{check_prefix, SuperBlock};
use tesserafs_format::{Digest, FormatError, Image, Ino, Inode, Place, Rule};

use crate::chunk_cache::ChunkCache;
use crate::error::{Failure, ImageId};
use crate::inode;
use crate::klib::param::require_signatures;
use crate::klib::printk::within_rate;
use crate::klib::{buffer::Buffer, keyring::Keyring, shrinker, sysfs, zstd};
use crate::meta::{MerkleTree, MetaReader};
use crate::mount_error;
use crate::pack::Packs;
use crate::signature::{self, Signer};
use crate::stats::{self, Stats};
use crate::verify::{KernelSha256, Trust};
use crate::vfs::inode::Ref;
use crate::vfs::page_cache::PageCache;
use crate::vfs::{Backing, FileSystem, FsContext, New, Ready, StatFs, SuperBlock as VfsSuperBlock};
use crate::xattr::Xattrs;

/// The filesystem.
pub(crate) struct Tesserafs;

/// What there is once for all mounts.
pub(crate) struct Global {
    /// The keys that root trusts to sign images, beside the kernel's own.
    pub(crate) keyring: Keyring,
    /// Where chunks are decoded.
    pub(crate) decoders: Pin<KBox<zstd::Pool>>,
    /// The chunks that were decoded last.
    pub(crate) chunks: shrinker::RegisteredShrinker<ChunkCache>,
    /// The pages that files of equal bytes share.
    pages: PageCache,
    /// `/sys/fs/tesserafs`.
    folder: sysfs::Root,
}

impl Global {
    /// Allocates all of it.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            keyring: Keyring::new(c".tesserafs")?,
            decoders: KBox::pin_init(zstd::Pool::new(), GFP_KERNEL)?,
            chunks: shrinker::RegisteredShrinker::new(c"tesserafs-chunks", ChunkCache::new()?)?,
            pages: PageCache::new(READAHEAD)?,
            folder: sysfs::Root::new(c"tesserafs")?,
        })
    }
}

/// The mount options.
#[derive(Default)]
pub(crate) struct Options {
    /// `digest=sha256:HEX`: the image ID that the image must have.
    digest: Option<Digest>,
    /// `trusted_backing`: what the image lies on vouches for the bytes of its chunks.
    trusted_backing: bool,
    /// `private_pages`: share no page with other mounts.
    private_pages: bool,
}

/// The folder of a mounted image below `/sys/fs/tesserafs`.
type Shown = sysfs::Folder<Arc<Stats>>;

/// A mounted image.
pub(crate) struct Mounted {
    /// Its superblock.
    pub(crate) sb: SuperBlock,
    /// What is counted for it, and its ID.
    pub(crate) stats: Arc<Stats>,
    /// Where that is shown, until the device number is given back.
    shown: Pin<KBox<Mutex<Option<Shown>>>>,
    /// Where its chunks are.
    pub(crate) packs: Packs,
    /// Who vouches for it.
    signer: Signer,
    /// Whether the mounter has rights over the whole machine. An unprivileged mounter could learn from the
    /// time of a read what others have read: such a mount shares neither pages nor decoded chunks, has no
    /// folder in sysfs, and is decoded by its readers alone.
    pub(crate) mounter_is_privileged: bool,
    /// Whether the mounter pinned the ID.
    pinned: bool,
    /// Whether the mounter wants its pages for itself.
    private_pages: bool,
    /// Whether its files share pages with others.
    pub(crate) shares_pages: bool,
    /// What vouches for the bytes of its chunks.
    pub(crate) trust: Trust,
    /// What tells it from every other one that is or was mounted.
    pub(crate) number: u64,
}

impl Mounted {
    /// The metadata of the image, which `sb` is the superblock of.
    pub(crate) fn meta<'a>(&'a self, sb: &'a VfsSuperBlock<Tesserafs, Ready>) -> MetaReader<'a> {
        MetaReader::new(sb.meta(), &self.sb)
    }
}

#[vtable]
impl FileSystem for Tesserafs {
    type Global = Global;
    type Options = Options;
    type Data = Mounted;
    type Meta = MerkleTree;
    type INodeData = Inode;

    const NAME: &'static CStr = c"tesserafs";
    const INODE_CACHE: &'static CStr = c"tesserafs_inode";
    /// `"TESS"` on a little endian machine.
    const MAGIC: u32 = 0x5353_4554;
    const BLOCK_BITS: u8 = 12;

    fn page_cache(global: &Global) -> &PageCache {
        &global.pages
    }

    fn parse_param(
        fc: &FsContext<Self>,
        options: &mut Options,
        key: &[u8],
        value: &[u8],
    ) -> Result {
        match key {
            b"trusted_backing" => {
                options.trusted_backing = true;
                return Ok(());
            }
            b"private_pages" => {
                options.private_pages = true;
                return Ok(());
            }
            _ => {}
        }
        let digest = value.strip_prefix(b"sha256:").and_then(Digest::from_hex);
        if key != b"digest" || digest.is_none() {
            mount_error!(fc, "digest= takes sha256: and 64 hexadecimal digits");
            return Err(EINVAL);
        }
        options.digest = digest;
        Ok(())
    }

    fn fill_super(
        fc: &FsContext<Self>,
        options: &Options,
        sb: &VfsSuperBlock<Self, New>,
        backing: Backing,
    ) -> Result<Mounted> {
        let refuse = |failure: Failure| {
            mount_error!(fc, "{}", failure);
            failure.errno()
        };
        if backing.len() < BLOCK_BYTES {
            let found = backing.len();
            mount_error!(
                fc,
                "{} bytes are no image, a superblock has {}",
                found,
                BLOCK_BYTES
            );
            return Err(EINVAL);
        }
        let block = read_superblock(&backing).map_err(refuse)?;
        let block: &[u8; BLOCK_SIZE] = block.first_chunk().ok_or(EIO)?;
        let id = check_prefix::<KernelSha256>(block).map_err(|error| refuse(error.into()))?;
        let id = ImageId(id);
        let parsed = SuperBlock::parse(block).map_err(|error| refuse(error.into()))?;
        let refuse = |failure: Failure| {
            mount_error!(fc, "{}: {}", id, failure);
            failure.errno()
        };
        check_length(&backing, &parsed).map_err(refuse)?;
        options.admit(id).map_err(refuse)?;
        let signer =
            signature::verify(&backing, block, &parsed, &fc.global().keyring).map_err(refuse)?;
        admit(fc, id, signer)?;
        options.check_trust(fc, id)?;

        sb.set_uuid(&uuid(&id.0));
        sb.set_xattr::<Xattrs>();
        sb.set_export::<inode::Handles>();
        sb.enable_posix_acl();
        sb.set_readahead(READAHEAD);
        let mounter_is_privileged = fc.is_privileged();
        let stats = Arc::pin_init(Stats::new(id, mounter_is_privileged), GFP_KERNEL)?;
        let tree = MerkleTree::new(backing.clone(), &parsed, stats.clone());
        let layout = &parsed.layout;
        tree.ask_for(&[layout.packs, layout.attributes, layout.inodes]);
        let meta = MetaReader::new(sb.set_meta(tree.len(), tree)?, &parsed);
        // Nobody compares the bytes of a trusted store with the digests.
        let is_verified = !options.private_pages && !options.trusted_backing;
        let shares_pages = is_verified && backing.is_local() && mounter_is_privileged;
        if layout.packs.records() > 1 {
            mount_error!(
                fc,
                "{}: it has packs in files of their own, which are not read yet",
                id
            );
            return Err(EOPNOTSUPP);
        }
        let packs = Packs::open(Image::new(&parsed, &meta), backing).map_err(refuse)?;
        let folder = &fc.global().folder;
        let shown = if mounter_is_privileged {
            let files = stats::FILES;
            Some(Shown::new(folder, sb.device(), stats.clone(), files)?)
        } else {
            None
        };
        let shown = KBox::pin_init(new_mutex!(shown, "tesserafs::Mounted::shown"), GFP_KERNEL)?;
        if fc.is_privileged() || within_rate() {
            pr_info!("{}: mounted, {}\n", id, signer.describe());
        }
        Ok(Mounted {
            sb: parsed,
            stats,
            shown,
            packs,
            signer,
            mounter_is_privileged,
            pinned: options.digest.is_some(),
            private_pages: options.private_pages,
            shares_pages,
            trust: if options.trusted_backing {
                Trust::Backing
            } else {
                Trust::Digests
            },
            number: MOUNTS.fetch_add(1, Relaxed),
        })
    }

    fn shut_down(mounted: &Mounted) {
        let shown = mounted.shown.lock().take();
        // Waits for those who are reading a file of it: not under the lock.
        drop(shown);
    }

    fn root<'a>(
        _fc: &FsContext<Self>,
        sb: &'a VfsSuperBlock<Self, Ready>,
    ) -> Result<Ref<'a, Self>> {
        inode::iget(sb, Ino::ROOT).map_err(|failure| sb.data().stats.report(failure))
    }

    /// In a user namespace anybody can mount: only images of those whom the machine trusts, and only
    /// where it has said, for good, that it trusts nobody else.
    fn admit_mounter(fc: &FsContext<Self>) -> Result {
        if !fc.is_privileged() && !require_signatures() {
            mount_error!(
                fc,
                "in a user namespace images are mounted only where signatures are required"
            );
            return Err(EPERM);
        }
        Ok(())
    }

    fn admit(fc: &FsContext<Self>, options: &Options, sb: &VfsSuperBlock<Self, Ready>) -> Result {
        Self::reconfigure(fc, options, sb)?;
        let mounted = sb.data();
        let trusts = mounted.trust == Trust::Backing;
        if options.trusted_backing != trusts || options.private_pages != mounted.private_pages {
            mount_error!(
                fc,
                "{}: it is mounted already, with another `trusted_backing` or `private_pages`",
                mounted.stats.id
            );
            return Err(EBUSY);
        }
        options.check_trust(fc, mounted.stats.id)?;
        admit(fc, mounted.stats.id, mounted.signer)
    }

    /// What is mounted stays readable whatever the machine asks for by now, so only the options
    /// count.
    fn reconfigure(
        fc: &FsContext<Self>,
        options: &Options,
        sb: &VfsSuperBlock<Self, Ready>,
    ) -> Result {
        let mounted = sb.data();
        let id = mounted.stats.id;
        let more_trust = options.trusted_backing && mounted.trust != Trust::Backing;
        if more_trust || options.private_pages && !mounted.private_pages {
            mount_error!(
                fc,
                "{}: `trusted_backing` and `private_pages` are for new mounts only",
                id
            );
            return Err(EINVAL);
        }
        options.admit(id).map_err(|failure| {
            mount_error!(fc, "{}: {}", id, failure);
            failure.errno()
        })
    }

    fn statfs(sb: &VfsSuperBlock<Self, Ready>) -> Result<StatFs> {
        let sb = &sb.data().sb;
        Ok(StatFs {
            block_size: BLOCK_SIZE as u32,
            blocks: sb.file_bytes().div_ceil(BLOCK_BYTES),
            files: sb.layout.inodes.records(),
        })
    }

    fn show_options(sb: &VfsSuperBlock<Self, Ready>, seq: &SeqFile) {
        let mounted = sb.data();
        if mounted.pinned {
            seq_print!(seq, ",digest={}", mounted.stats.id);
        }
        if mounted.private_pages {
            seq_print!(seq, ",private_pages");
        }
        if mounted.trust == Trust::Backing {
            seq_print!(seq, ",trusted_backing");
        }
    }
}

/// Bytes that the page cache reads ahead of a sequential reader: some thirty chunks of the default
/// profile, so that processors which decode them have about as many each. With half of it two of
/// them read a program 1.58 times as fast as one, with this 1.63 times.
const READAHEAD: usize = 2 << 20;

/// How many images were mounted.
static MOUNTS: Atomic<u64> = Atomic::new(0);

impl Options {
    /// Whether the machine lets the mounter vouch for the backing store.
    ///
    /// Where signatures are required, nobody can: a dm-verity device and an fs-verity file prove
    /// that their bytes are those of some digest, and not of one that a trusted key has signed.
    fn check_trust(&self, fc: &FsContext<Tesserafs>, id: ImageId) -> Result {
        if self.trusted_backing && require_signatures() {
            mount_error!(fc, "{}: signatures are required: no `trusted_backing`", id);
            return Err(EPERM);
        }
        Ok(())
    }

    /// Whether they admit the image with that ID.
    fn admit(&self, id: ImageId) -> Result<(), Failure> {
        match self.digest {
            Some(pinned) if pinned != id.0 => {
                let place = Place::SuperBlock(0);
                Err(FormatError::new(Rule::ImageId, place, id.0.prefix(), pinned.prefix()).into())
            }
            _ => Ok(()),
        }
    }
}

/// Reads the first block of the backing store.
fn read_superblock(backing: &Backing) -> Result<Buffer<u8>, Failure> {
    backing
        .read(0, BLOCK_SIZE)
        .map_err(|error| Failure::backing(Place::SuperBlock(0), error))
}

/// Whether the backing store holds the whole image.
fn check_length(backing: &Backing, sb: &SuperBlock) -> Result<(), Failure> {
    let (found, expected) = (backing.len(), sb.file_bytes());
    if found < expected {
        return Err(FormatError::new(Rule::FileLength, Place::Byte(found), found, expected).into());
    }
    Ok(())
}

/// Whether the machine admits an image with such a signature; the mounter learns why not.
fn admit(fc: &FsContext<Tesserafs>, id: ImageId, signer: Signer) -> Result {
    signer.admit().inspect_err(|_| {
        mount_error!(
            fc,
            "{}: {}, and signatures are required",
            id,
            signer.describe()
        );
    })
}

/// The image ID as a UUID: its first bytes, with the version (8: of the vendor's own making) and
/// the variant in place.
fn uuid(id: &Digest) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = id.0;
    [
        a,
        b,
        c,
        d,
        e,
        f,
        (g & 0x0f) | 0x80,
        h,
        (i & 0x3f) | 0x80,
        j,
        k,
        l,
        m,
        n,
        o,
        p,
    ]
}
