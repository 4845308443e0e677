// SPDX-License-Identifier: GPL-2.0

//! Mounting, from the mount options to the root directory:
//!
//! 1. The options are collected: [`Options`].
//! 2. The mounter is checked: `check_mounter`.
//! 3. The image is opened, and its head read and verified: [`Head`].
//! 4. The superblock is made from that: `fill_super`.
//! 5. Its root is made: `root`.
//!
//! `vfs/tree.rs` calls these in this order.

use core::ffi::CStr;

use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_mutex, Arc, Mutex};

use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE};
use tesserafs_format::{Digest, Inode, SuperBlock as ImageSuperBlock};

use crate::chunk_cache::ChunkCache;
use crate::head::{self, Head};
use crate::inode;
use crate::klib::param::require_signatures;
use crate::klib::printk::within_rate;
use crate::klib::{keyring::Keyring, shrinker, sysfs, workqueue::Helpers, zstd};
use crate::meta::{MerkleTree, MetaReader};
use crate::mount_error;
use crate::options::{self, Kept, Options};
use crate::pack::Packs;
use crate::signature::Signer;
use crate::stats::{self, Stats};
use crate::vfs::inode::Ref;
use crate::vfs::pack_files::PackFiles;
use crate::vfs::page_cache::PageCache;
use crate::vfs::{Backing, FileSystem, FsContext, New, Ready, StatFs, SuperBlock};
use crate::xattr::Xattrs;

/// The filesystem.
pub(crate) struct Tesserafs;

/// The state that all mounts share.
pub(crate) struct Global {
    /// The keys that root trusts to sign images, beside the kernel's own.
    pub(crate) keyring: Keyring,
    /// Where chunks are decoded.
    pub(crate) decoders: Pin<KBox<zstd::Pool>>,
    /// The workers that help to decode.
    pub(crate) helpers: Helpers,
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
            helpers: Helpers::new()?,
            chunks: shrinker::RegisteredShrinker::new(c"tesserafs-chunks", ChunkCache::new()?)?,
            pages: PageCache::new(READAHEAD)?,
            folder: sysfs::Root::new(c"tesserafs")?,
        })
    }
}

/// The folder of a mounted image below `/sys/fs/tesserafs`.
type Shown = sysfs::Folder<Arc<Stats>>;

/// A mounted image.
pub(crate) struct Mounted {
    /// Its superblock.
    pub(crate) sb: KBox<ImageSuperBlock>,
    /// Its root directory.
    pub(crate) root: Inode,
    /// Its counters and its ID.
    pub(crate) stats: Arc<Stats>,
    /// Where the counters are shown, until the device number is given back.
    shown: Pin<KBox<Mutex<Option<Shown>>>>,
    /// Where its chunks are.
    pub(crate) packs: Packs,
    /// The finding about its signature when it was mounted.
    signer: Signer,
    /// Whether the mounter has rights over the whole machine. An unprivileged mounter could learn
    /// from read latency what others have read: such a mount shares neither pages nor decoded
    /// chunks, has no folder in sysfs, and is decoded by its readers alone.
    pub(crate) mounter_is_privileged: bool,
    /// How it is mounted.
    pub(crate) options: Kept,
    /// Whether its files share pages with others.
    pub(crate) shares_pages: bool,
    /// A number that tells it from every other one that is or was mounted.
    pub(crate) number: u64,
}

impl Mounted {
    /// The metadata of the image, which `sb` is the superblock of.
    pub(crate) fn meta<'a>(&'a self, sb: &'a SuperBlock<Tesserafs, Ready>) -> MetaReader<'a> {
        MetaReader::new(sb.meta(), &self.sb)
    }
}

#[vtable]
impl FileSystem for Tesserafs {
    type Global = Global;
    type Options = Options;
    type Image = KBox<Head>;
    type Data = Mounted;
    type Meta = MerkleTree;
    type INodeData = inode::Record;

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
        options.parse(fc, key, value)
    }

    /// In a user namespace any user can be a mounter: of signed images only, and only where the machine
    /// requires signatures, which cannot be switched off again.
    fn check_mounter(fc: &FsContext<Self>) -> Result {
        if !fc.is_privileged() && !require_signatures() {
            mount_error!(
                fc,
                "in a user namespace images are mounted only where signatures are required"
            );
            return Err(EPERM);
        }
        Ok(())
    }

    fn open_image(fc: &FsContext<Self>, options: &Options, backing: Backing) -> Result<KBox<Head>> {
        Head::read(fc, options, backing)
    }

    fn pack_files(options: &mut Options) -> &mut PackFiles {
        &mut options.packs
    }

    fn stack_depth(head: &KBox<Head>) -> c_int {
        head.packs.stack_depth()
    }

    fn fill_super(
        fc: &FsContext<Self>,
        options: &Options,
        sb: &SuperBlock<Self, New>,
        head: KBox<Head>,
    ) -> Result<Mounted> {
        let Head {
            backing,
            sb: image_sb,
            signer,
            stats,
            packs,
            root,
        } = KBox::into_inner(head);
        sb.set_uuid(&uuid(&stats.id.0));
        sb.set_xattr::<Xattrs>();
        sb.set_export::<inode::Handles>();
        sb.set_posix_acl(options.acl());
        sb.set_readahead(READAHEAD);
        let tree = MerkleTree::new(backing, &image_sb, stats.clone());
        sb.set_meta(tree.len(), tree)?;
        let mounter_is_privileged = fc.is_privileged();
        let shown = if mounter_is_privileged {
            let folder = &fc.global().folder;
            let shown = Shown::new(folder, sb.device(), stats.clone(), stats::FILES)?;
            sb.set_sysfs_name();
            Some(shown)
        } else {
            None
        };
        let shown = KBox::pin_init(new_mutex!(shown, "tesserafs::Mounted::shown"), GFP_KERNEL)?;
        if mounter_is_privileged || within_rate() {
            pr_info!("{}: mounted, {}\n", stats.id, signer.describe());
        }
        let options = options.kept()?;
        let shares_pages =
            options.may_share_pages() && packs.device().is_some() && mounter_is_privileged;
        Ok(Mounted {
            sb: image_sb,
            root,
            stats,
            shown,
            packs,
            signer,
            mounter_is_privileged,
            options,
            shares_pages,
            number: MOUNTS.fetch_add(1, Relaxed),
        })
    }

    fn root(sb: &SuperBlock<Self, Ready>) -> Result<Ref<'_, Self>> {
        inode::root(sb).map_err(|failure| sb.data().stats.report(failure))
    }

    fn shut_down(mounted: &Mounted) {
        let shown = mounted.shown.lock().take();
        // Waits for tasks that are reading a file of it: not under the lock.
        drop(shown);
    }

    fn check_second_mount(
        fc: &FsContext<Self>,
        options: &Options,
        sb: &SuperBlock<Self, Ready>,
    ) -> Result {
        let mounted = sb.data();
        let id = mounted.stats.id;
        options.check_same(fc, sb)?;
        options.check_trust(fc, id)?;
        head::check_signer(fc, id, mounted.signer)
    }

    fn reconfigure(
        fc: &FsContext<Self>,
        options: &Options,
        sb: &SuperBlock<Self, Ready>,
    ) -> Result {
        options.remount(fc, sb.data())
    }

    fn statfs(sb: &SuperBlock<Self, Ready>) -> Result<StatFs> {
        let sb = &sb.data().sb;
        Ok(StatFs {
            block_size: BLOCK_SIZE as u32,
            blocks: sb.file_bytes().div_ceil(BLOCK_BYTES),
            files: sb.layout.inodes.records(),
        })
    }

    fn show_options(sb: &SuperBlock<Self, Ready>, seq: &SeqFile) {
        options::show(sb, seq);
    }
}

/// Bytes that the page cache reads ahead of a sequential reader: some thirty chunks of the default
/// profile, so that processors which decode them have about as many each. Two of them read a
/// program 1.63 times as fast as one; with half of this, 1.58 times.
const READAHEAD: usize = 2 << 20;

/// How many images were mounted.
static MOUNTS: Atomic<u64> = Atomic::new(0);

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
