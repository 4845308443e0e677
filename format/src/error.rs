// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The rules that an image can break, and the error that names the rule, the place and the values.

use core::fmt;

/// Declares [`Rule`] from one list, so that a rule cannot lack a name, a sentence or a place in [`Rule::ALL`].
macro_rules! rules {
    ($($variant:ident $name:literal $text:literal;)*) => {
        /// A rule of `FORMAT.md`. Its name is stable: fsck prints it, tests and scripts match it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $(#[doc = $text] $variant,)*
        }

        impl Rule {
            /// All rules, in the order in which a reader meets them.
            pub const ALL: &'static [Rule] = &[$(Rule::$variant,)*];

            /// The stable identifier.
            pub const fn name(self) -> &'static str {
                match self { $(Rule::$variant => $name,)* }
            }

            /// The rule in one sentence.
            pub const fn text(self) -> &'static str {
                match self { $(Rule::$variant => $text,)* }
            }
        }
    };
}

rules! {
    // Superblock.
    Magic "magic" "the image begins with the magic";
    Version "version" "the format version is one that this reader knows";
    Incompat "incompat" "every incompat feature is one that this reader knows";
    PrefixDigest "prefix-digest" "the signed prefix has the digest that stands behind it";
    SuperBlockPadding "superblock-padding" "the reserved bytes of the superblock are zero";
    Count "count" "a table has no more records or bytes than its limit";
    RegionOffset "region-offset" "the tree region begins at a block boundary behind the superblock";
    ImageBytes "image-bytes" "the image ends where its hash region ends";
    ProfileRange "profile-range" "the profile's sizes and level are in range, the chunk sizes even and in order";
    SignatureBytes "signature-bytes" "the signature is no longer than its limit";
    FileLength "file-length" "the file holds the whole image and its signature, and, unless it is a device, no more";

    // Digests and signature.
    HashBlock "hash-block" "a metadata or hash block has the digest that its parent holds";
    ImageId "image-id" "the image ID is the pinned one";
    SignatureDigest "signature-digest" "the signature has the digest that the superblock holds";
    Signature "signature" "the signature is over this image and by a trusted key";
    TreeId "tree-id" "the tree ID is the digest of the tree region";

    // Inodes.
    InodeNumber "inode-number" "an inode number is between 1 and the number of inodes";
    InodeAttributes "inode-attributes" "the attribute index of an inode is in its table";
    InodePadding "inode-padding" "the unused fields of an inode are zero";
    InodeNlink "inode-nlink" "an inode has a link at least";
    InodeTime "inode-time" "the nanoseconds are below one second";
    InodeSize "inode-size" "the size is in the range of its type";
    InodeBlocks "inode-blocks" "the number of blocks that are not zero is that of the bytes";
    InodeContent "inode-content" "the content index of a file with bytes is in its table";
    InodeEntries "inode-entries" "the entries of a directory, and the fence behind them, lie in the entry table";
    InodeTarget "inode-target" "the target of a symlink lies in the target table";
    InodeNames "inode-names" "the names of a directory begin in the name table";
    InodeParent "inode-parent" "the parent of a directory is an inode number";
    AttributesType "attributes-type" "the file type is a known one";
    AttributesPadding "attributes-padding" "the reserved byte of an attribute record is zero";
    AttributesMode "attributes-mode" "the mode has permission bits only, that of a symlink is 0777";
    AttributesOwner "attributes-owner" "the owner and the group are not 2^32-1, which is nobody";
    AttributesXattrs "attributes-xattrs" "the xattr set lies in its table";
    RootType "root-type" "inode 1 is a directory and its own parent";

    // Directory entries and names.
    DirentNameLength "dirent-name-length" "a name has 1 to 255 bytes";
    DirentNameRange "dirent-name-range" "a name lies in the name table";
    DirentNameBytes "dirent-name-bytes" "a name has no slash and no NUL, and is not . or ..";
    DirentOrder "dirent-order" "the names of a directory ascend, byte by byte";
    DirentInode "dirent-inode" "an entry points to an inode number of the image";
    DirentType "dirent-type" "an entry has the type of its inode";
    DirentFence "dirent-fence" "the fence behind the entries of a directory has no inode and no type";
    TargetBytes "target-bytes" "a symlink target has no NUL";

    // Xattrs.
    XattrSetRange "xattr-set-range" "an xattr set lies in the xattr entry table";
    XattrSetCount "xattr-set-count" "an xattr set has between 1 and 9362 entries, and exactly as many as it says";
    XattrEntryRange "xattr-entry-range" "an xattr lies in its set";
    XattrName "xattr-name" "an xattr name has a known prefix, bytes after it, no NUL, and 255 bytes at most";
    XattrValueLength "xattr-value-length" "an xattr value has 65536 bytes at most";
    XattrOrder "xattr-order" "the names of an xattr set ascend, byte by byte";
    XattrPadding "xattr-padding" "the reserved and padding bytes of an xattr are zero";

    // Packs and chunks.
    PackIndex "pack-index" "a pack index is in the pack table";
    PackKind "pack-kind" "pack 0 is embedded, every other pack is a file";
    PackBytes "pack-bytes" "an embedded pack ends before the tree region, and is empty where there are others";
    PackPadding "pack-padding" "the reserved bytes of a pack record are zero, and those behind pack 0 up to the next block, where the tree region begins";
    PackDigest "pack-digest" "a pack has the digest that the pack table holds";
    ChunkIndex "chunk-index" "a chunk index is in the chunk table";
    ChunkCodec "chunk-codec" "the codec is a known one";
    ChunkRawLength "chunk-raw-length" "a chunk decodes to between 1 byte and 1 MiB";
    ChunkStoredLength "chunk-stored-length" "a chunk is stored in its raw length, or compressed in less";
    ChunkRange "chunk-range" "the stored bytes of a chunk lie in its pack";
    ChunkDigest "chunk-digest" "the stored bytes of a chunk have the digest that the chunk table holds";
    ChunkDecode "chunk-decode" "a chunk decodes to exactly its raw length";
    ChunkFrame "chunk-frame" "a compressed chunk is one zstd frame, with its content size";
    ChunkBlocks "chunk-blocks" "each block of a chunk's frame but the last one decodes to 32 KiB";

    // Extents.
    ContentIndex "content-index" "a content index is in the content table";
    ContentExtents "content-extents" "the extents of a content are a range of the extent table, not empty";
    ExtentOrder "extent-order" "the extents of a content begin at 0, ascend, and begin before its end";
    ExtentHole "extent-hole" "a hole has no chunk offset";
    ExtentLength "extent-length" "an extent of a chunk has 4096 bytes at least, or ends at a multiple of 4096 or with its content";
    ExtentRange "extent-range" "an extent lies in its chunk";

    // Annotations.
    AnnotationRange "annotation-range" "an annotation lies in the annotation data, back to back with the one before";
    AnnotationKey "annotation-key" "an annotation key has 1 to 255 bytes";
    AnnotationOrder "annotation-order" "the annotation keys ascend, byte by byte";

    // Rules that only a reader of the whole image can check.
    TablePadding "table-padding" "the bytes between tables, and behind the last one, are zero";
    HashPadding "hash-padding" "the hash blocks hold what the metadata blocks give, and zeros";
    TreeOrder "tree-order" "inodes are numbered breadth first, in the order of their names";
    TreeUnreachable "tree-unreachable" "every inode has a name, every directory exactly one";
    TreeParent "tree-parent" "a directory's parent is the directory that names it";
    TreeNlink "tree-nlink" "the link count is the number of names, of a directory 2 plus its subdirectories";
    TreeEntries "tree-entries" "the entries of directories follow each other in inode order and fill the table";
    TreeNames "tree-names" "names follow each other in entry order, zeros behind those of a directory, and fill the table";
    TreeTargets "tree-targets" "symlink targets follow each other in inode order and fill the table";
    TreeAttributes "tree-attributes" "attribute records are distinct, in the order of their first use, and each is used";
    TreeXattrs "tree-xattrs" "xattr sets are distinct, in the order of their first use, and fill their tables";
    XattrListLength "xattr-list-length" "the names of an xattr set, with a NUL after each, have 65536 bytes at most";
    XattrSettable "xattr-settable" "setxattr(2) takes the xattrs of an inode on a file of its type";
    TreeContents "tree-contents" "contents have distinct digests and are in the order of their first use";
    ContentSize "content-size" "all files of one content have the same size";
    ContentDigest "content-digest" "a file's bytes have the digest that the tree region holds";
    ContentHoles "content-holes" "the holes in contents of at most 8 GiB come to no more than 64 GiB and 64 times the image with its chunks";
    MapExtents "map-extents" "the extents of contents fill the extent table, and neighbours do not continue each other";
    MapChunks "map-chunks" "stored chunks lie back to back and fill pack 0, or ascend in the other packs without overlap, and each is used";
    MapPacks "map-packs" "packs have distinct digests, and each beside pack 0 has a chunk";
    RawDigest "raw-digest" "the decoded bytes of a chunk have the digest that the raw digest table holds";
    SignaturePadding "signature-padding" "the bytes behind the signature, to the next block, are zero";

    // A question of its own, which only a builder can answer.
    Canonical "canonical" "the image is, but for its signature, what a builder makes of its tree, profile and annotations";
}

/// Where in an image a rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A byte of the superblock.
    SuperBlock(u32),
    /// A byte of the image.
    Byte(u64),
    /// A metadata or hash block, counted from the tree region.
    Block(u64),
    /// An inode, by number.
    Ino(u32),
    /// An attribute record, by index.
    Attributes(u32),
    /// A directory entry, by index.
    Dirent(u32),
    /// An xattr set, by index.
    XattrSet(u32),
    /// A content, by index.
    Content(u32),
    /// An extent, by index.
    Extent(u32),
    /// A chunk, by index.
    Chunk(u32),
    /// A pack, by index.
    Pack(u16),
    /// An annotation, by index.
    Annotation(u32),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::SuperBlock(n) => write!(f, "superblock byte {n}"),
            Place::Byte(n) => write!(f, "byte {n}"),
            Place::Block(n) => write!(f, "metadata block {n}"),
            Place::Ino(n) => write!(f, "ino {n}"),
            Place::Attributes(n) => write!(f, "attributes {n}"),
            Place::Dirent(n) => write!(f, "dirent {n}"),
            Place::XattrSet(n) => write!(f, "xattr set {n}"),
            Place::Content(n) => write!(f, "content {n}"),
            Place::Extent(n) => write!(f, "extent {n}"),
            Place::Chunk(n) => write!(f, "chunk {n}"),
            Place::Pack(n) => write!(f, "pack {n}"),
            Place::Annotation(n) => write!(f, "annotation {n}"),
        }
    }
}

/// A broken rule: which one, where, what stands there, and what should (a value or the limit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// The rule.
    pub rule: Rule,
    /// Where it is broken.
    pub place: Place,
    /// The value that stands there.
    pub found: u64,
    /// The value that should, or the limit that is passed.
    pub expected: u64,
}

impl FormatError {
    /// A broken rule.
    pub const fn new(rule: Rule, place: Place, found: u64, expected: u64) -> Self {
        Self { rule, place, found, expected }
    }

    /// Whether a newer reader might read the image, in contrast to an image that contradicts itself.
    pub const fn is_unsupported(&self) -> bool {
        matches!(self.rule, Rule::Version | Rule::Incompat)
    }

    /// Whether the bytes are not an image of this format at all.
    pub const fn is_foreign(&self) -> bool {
        matches!(self.rule, Rule::Magic)
    }

    /// Whether bytes do not have the digest that vouches for them, in contrast to authentic bytes that break a rule.
    pub const fn is_digest_mismatch(&self) -> bool {
        matches!(
            self.rule,
            Rule::PrefixDigest | Rule::HashBlock | Rule::ChunkDigest | Rule::ImageId | Rule::SignatureDigest
        )
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rule, place, text) = (self.rule.name(), self.place, self.rule.text());
        let (found, expected) = (self.found, self.expected);
        if self.is_digest_mismatch() {
            // The first eight bytes of the digests, as the digests are written.
            write!(f, "{rule} @ {place}: found {found:016x}, expected {expected:016x} (rule: {text})")
        } else {
            write!(f, "{rule} @ {place}: found {found}, expected {expected} (rule: {text})")
        }
    }
}

impl core::error::Error for FormatError {}

/// Refuses `found` where the rule does not hold.
pub(crate) fn ensure(
    holds: bool,
    rule: Rule,
    place: Place,
    found: u64,
    expected: u64,
) -> Result<(), FormatError> {
    if holds {
        Ok(())
    } else {
        Err(FormatError::new(rule, place, found, expected))
    }
}
