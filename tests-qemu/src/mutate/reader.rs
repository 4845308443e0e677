// SPDX-License-Identifier: GPL-2.0
//! A reader that refuses what the kernel refuses, where the kernel refuses it: in memory, through the format crate.
//!
//! It mounts an image, and then does what a program can do to the mounted one: lists directories, looks names up, reads
//! targets, xattrs and files. The mounted kernel is held to its verdict on an image.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use tesserafs_format::extent::Extents;
use tesserafs_format::image::Metadata;
use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE, FRAME_BLOCK, NAME_MAX, XATTR_NAME_MAX};
use tesserafs_format::raw::RawExtent;
use tesserafs_format::superblock::check_prefix;
use tesserafs_format::{
    frame, x86, Chunk, Codec, ContentIndex, Digest, Dirent, Extent, FileKind, FormatError, Image, Ino, Inode,
    Pack, PackIndex, Parent, Place, Rule, SuperBlock, Target, Verified,
};
use tesserafs_guest::plan::MISSING;
use zerocopy::IntoBytes;

use super::parts::Sha2;

/// The operation that found a rule broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum At {
    /// `readdir`.
    List,
    /// `lookup` of a name, there or not, with the inode behind it.
    Lookup,
    /// `listxattr` or `getxattr`.
    Xattr,
    /// `read` of a file's bytes.
    Data,
    /// The same, by a reader that wants no more than the beginning of a chunk.
    Beginning,
    /// The same, but not by all readers: by one that wants a single page, or by one that wants several at
    /// once or looks for data and holes. A reader that goes from extent to extent asks for other extents than
    /// one that searches.
    Across,
}

/// Why an image cannot be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It breaks a rule.
    Broken(FormatError),
    /// It needs packs in files of their own.
    External,
}

/// Something that cannot be had of a mounted image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) at: At,
    pub(crate) error: FormatError,
    /// Size of the file, if it is one whose bytes were wanted.
    pub(crate) size: u64,
}

/// The results of a whole walk.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// It was not mounted.
    pub(crate) refusal: Option<Refusal>,
    pub(crate) failures: Vec<Failure>,
    /// There are bytes that claim to be an ACL; this reader does not tell whether they are one.
    pub(crate) has_acls: bool,
    /// Names that `readdir` shows and `lookup` does not find.
    pub(crate) lost_names: usize,
    /// Inodes that were looked at.
    pub(crate) inodes: usize,
    /// Records and blocks that were asked for: they bound the time.
    pub(crate) steps: u64,
    /// Something that no image may bring about: other bytes than those of the chunk.
    pub(crate) wrong: Vec<String>,
}

/// The metadata of an image in memory, verified block by block.
struct Memory<'a> {
    image: &'a [u8],
    sb: &'a SuperBlock,
    verified: RefCell<HashMap<u64, Result<(), FormatError>>>,
    steps: RefCell<u64>,
}

impl Memory<'_> {
    fn block(&self, number: u64) -> &[u8] {
        let start = self.sb.layout.tree_offset + number * BLOCK_BYTES;
        &self.image[start as usize..][..BLOCK_SIZE]
    }

    fn verify(&self, number: u64) -> Result<(), FormatError> {
        if let Some(known) = self.verified.borrow().get(&number) {
            return *known;
        }
        let result = self.compare(number);
        self.verified.borrow_mut().insert(number, result);
        result
    }

    fn compare(&self, number: u64) -> Result<(), FormatError> {
        let place = Place::Block(number);
        let expected = match self.sb.layout.geometry.parent(number) {
            None => return Err(FormatError::new(Rule::HashBlock, place, 0, 0)),
            Some(Parent::Root) => self.sb.merkle_root,
            Some(Parent::Slot { block, offset }) => {
                self.verify(block)?;
                let digest = self.block(block)[offset as usize..].first_chunk();
                Digest(*digest.expect("a digest lies in its block"))
            }
        };
        Verified::check::<Sha2>(self.block(number), &expected)
            .map(|_| ())
            .map_err(|found| FormatError::new(Rule::HashBlock, place, found.prefix(), expected.prefix()))
    }
}

impl Metadata for Memory<'_> {
    type Error = FormatError;

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), FormatError> {
        *self.steps.borrow_mut() += 1;
        let layout = &self.sb.layout;
        let end = offset.checked_add(buf.len() as u64).expect("a range of a table");
        assert!(layout.tree_offset <= offset && end <= layout.hash_offset, "{offset}..{end} is no metadata");
        if !buf.is_empty() {
            let first = (offset - layout.tree_offset) / BLOCK_BYTES;
            let last = (end - 1 - layout.tree_offset) / BLOCK_BYTES;
            (first..=last).try_for_each(|number| self.verify(number))?;
        }
        buf.copy_from_slice(&self.image[offset as usize..end as usize]);
        Ok(())
    }
}

/// Mounts an image and reads all of it.
pub(crate) fn read(image: &[u8]) -> Reading {
    let refused = |error| Reading { refusal: Some(Refusal::Broken(error)), ..Reading::default() };
    let sb = match superblock(image) {
        Ok(sb) => sb,
        Err(error) => return refused(error),
    };
    let memory = Memory { image, sb: &sb, verified: RefCell::default(), steps: RefCell::default() };
    let whole = Image::new(&sb, &memory);
    let root = match whole.inode(Ino::ROOT) {
        Ok(root) => root,
        Err(error) => return refused(error),
    };
    let pack = match whole.pack(PackIndex(0)) {
        Ok(pack) => pack,
        Err(error) => return refused(error),
    };
    if sb.layout.packs.records() > 1 {
        // The mounter names no place of the next one, if it is one.
        return match whole.pack(PackIndex(1)) {
            Ok(_) => Reading { refusal: Some(Refusal::External), ..Reading::default() },
            Err(error) => refused(error),
        };
    }
    let mut reader = Reader { image: whole, pack, reading: Reading::default(), decoded: HashMap::new() };
    reader.walk(root);
    let mut reading = reader.reading;
    reading.steps = *memory.steps.borrow();
    reading
}

/// The checks of a mount before it looks at anything that the superblock points to.
fn superblock(image: &[u8]) -> Result<SuperBlock, FormatError> {
    let Some(block) = image.first_chunk::<BLOCK_SIZE>() else {
        return Err(FormatError::new(Rule::Magic, Place::SuperBlock(0), 0, 0));
    };
    check_prefix::<Sha2>(block)?;
    let sb = SuperBlock::parse(block)?;
    let (found, expected) = (image.len() as u64, sb.file_bytes());
    if found < expected {
        return Err(FormatError::new(Rule::FileLength, Place::Byte(found), found, expected));
    }
    if sb.signature_bytes > 0 {
        let place = Place::Byte(sb.layout.image_bytes);
        let start = sb.layout.image_bytes as usize;
        let signature = &image[start..start + sb.signature_bytes as usize];
        Verified::check::<Sha2>(signature, &sb.signature_digest).map_err(|found| {
            let expected = sb.signature_digest.prefix();
            FormatError::new(Rule::SignatureDigest, place, found.prefix(), expected)
        })?;
    }
    Ok(sb)
}

struct Reader<'a> {
    image: Image<'a, Memory<'a>>,
    pack: Pack,
    reading: Reading,
    /// The outcome of each chunk.
    decoded: HashMap<u32, Result<(), (At, FormatError)>>,
}

impl Reader<'_> {
    /// Every inode once, however many names it has: else the names below names could multiply without limit.
    fn walk(&mut self, root: Inode) {
        let mut seen = HashSet::from([root.ino]);
        let mut queue = VecDeque::from([root]);
        while let Some(inode) = queue.pop_front() {
            self.reading.inodes += 1;
            if let Err(error) = self.xattrs(&inode) {
                self.fail(At::Xattr, error, 0);
            }
            match inode.kind {
                FileKind::Regular { size, content: Some(content) } => {
                    self.data(content, size);
                }
                FileKind::Directory(_) => {
                    for found in self.directory(&inode) {
                        if seen.insert(found.ino) {
                            queue.push_back(found);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn fail(&mut self, at: At, error: FormatError, size: u64) {
        self.reading.failures.push(Failure { at, error, size });
    }

    /// Lists a directory, and looks up what it lists, and what it does not.
    fn directory(&mut self, directory: &Inode) -> Vec<Inode> {
        let FileKind::Directory(tables) = directory.kind else { return Vec::new() };
        let mut names = Vec::new();
        let mut buf = [0; NAME_MAX];
        for n in 0.. {
            let name = self.image.dirent(&tables, n).and_then(|dirent| match dirent {
                Some(dirent) => self.image.name(&dirent, &mut buf).map(|name| Some(name.to_vec())),
                None => Ok(None),
            });
            match name {
                Ok(Some(name)) => names.push(name),
                Ok(None) => break,
                Err(error) => {
                    self.fail(At::List, error, 0);
                    break;
                }
            }
        }
        let mut found = Vec::new();
        for name in names.iter().map(Vec::as_slice).chain(MISSING) {
            match self.lookup(directory, name) {
                Ok(Some(inode)) => found.push(inode),
                // One of those that are missing may be listed here, and then it is lost like any other.
                Ok(None) => self.reading.lost_names += usize::from(names.iter().any(|listed| listed == name)),
                Err(error) => self.fail(At::Lookup, error, 0),
            }
        }
        found
    }

    fn lookup(&self, directory: &Inode, name: &[u8]) -> Result<Option<Inode>, FormatError> {
        let FileKind::Directory(tables) = directory.kind else { return Ok(None) };
        let Some(dirent) = self.image.lookup(&tables, name)? else { return Ok(None) };
        let found = self.image.inode(dirent.ino)?;
        if let FileKind::Symlink { offset, len } = found.kind {
            self.image.target(found.ino, offset, &mut vec![0; len as usize])?;
        }
        check_entry(directory, &dirent, &found)?;
        Ok(Some(found))
    }

    /// Lists the xattrs of an inode, and gets each.
    fn xattrs(&mut self, inode: &Inode) -> Result<(), FormatError> {
        let Some(index) = inode.xattrs else { return Ok(()) };
        let mut xattrs = self.image.xattrs(self.image.xattr_set(index)?);
        let mut buf = [0; XATTR_NAME_MAX];
        while let Some((entry, name)) = xattrs.next(&mut buf)? {
            self.reading.has_acls |= name.starts_with(b"system.posix_acl_");
            self.image.xattr_value(index, &entry, &mut vec![0; entry.value_len as usize])?;
        }
        Ok(())
    }

    /// Reads a file, page by page, and then as a reader that wants more than a page.
    fn data(&mut self, content: ContentIndex, size: u64) {
        let extents = self.image.extents(content, size);
        let pages = extents.and_then(|extents| Ok((extents, self.pages(&extents)?)));
        let (extents, pages) = match pages {
            Ok(both) => both,
            Err(error) => return self.fail(At::Data, error, size),
        };
        // The end of what a reader that began at an earlier page can read.
        let mut reach = 0;
        for page in pages {
            let (end, broken) = self.across(&extents, page);
            reach = reach.max(end);
            if let Some(error) = broken {
                self.fail(At::Across, error, size);
            }
            match self.page(&extents, page) {
                Ok(chunks) => {
                    for chunk in chunks {
                        if let Err((at, error)) = self.chunk(&chunk) {
                            self.fail(at, error, size);
                        }
                    }
                }
                // A reader that wants more than this page may never ask for the broken extent.
                Err(error) if reach >= page.saturating_add(BLOCK_BYTES).min(size) => {
                    self.fail(At::Across, error, size);
                }
                Err(error) => self.fail(At::Data, error, size),
            }
        }
    }

    /// Where the pages begin that stand for all others: the pages with the beginning of an extent, wherever
    /// the extents say that it is, and the pages behind them, which may lie in one extent.
    fn pages(&self, extents: &Extents) -> Result<BTreeSet<u64>, FormatError> {
        let mut pages = BTreeSet::from([0]);
        for index in extents.first..extents.end {
            let mut raw = RawExtent::default();
            let record = self.image.sb.layout.extents.record(index.into());
            let broken = FormatError::new(Rule::ContentExtents, Place::Extent(index), index.into(), 0);
            self.image.metadata.read(record.ok_or(broken)?, raw.as_mut_bytes())?;
            let page = raw.file_offset.get() / BLOCK_BYTES * BLOCK_BYTES;
            pages.extend(
                [page, page.saturating_add(BLOCK_BYTES)].into_iter().filter(|page| *page < extents.size),
            );
        }
        Ok(pages)
    }

    /// The chunks of a page: of the extents that follow each other in it.
    fn page(&self, extents: &Extents, start: u64) -> Result<Vec<Chunk>, FormatError> {
        let end = start.saturating_add(BLOCK_BYTES);
        let mut extent = self.image.extent_at(extents, start)?;
        let mut chunks = Vec::from_iter(self.chunk_of(&extent)?);
        let first = extent.index;
        while extent.end < end && extent.index + 1 < extents.end {
            extent = self.image.extent(extents, extent.index + 1)?;
            chunks.extend(self.chunk_of(&extent)?);
        }
        if extent.index > first {
            self.image.check_run(extents, &extent)?;
        }
        Ok(chunks)
    }

    /// Looks at the extents from that of a byte on to the end of the file, as a reader that wants all of
    /// them. Returns up to where it can read, and what is wrong with an extent, if anything.
    fn across(&self, extents: &Extents, start: u64) -> (u64, Option<FormatError>) {
        let (mut end, mut broken) = (0, None);
        let mut next = self.image.extent_at(extents, start);
        loop {
            let extent = match next.and_then(|extent| self.chunk_of(&extent).map(|_| extent)) {
                Ok(extent) => extent,
                Err(error) => return (end, Some(error)),
            };
            match self.image.check_run(extents, &extent) {
                Ok(()) => end = extent.end,
                Err(error) => broken = broken.or(Some(error)),
            }
            if extent.index + 1 >= extents.end {
                return (end, broken);
            }
            next = self.image.extent(extents, extent.index + 1);
        }
    }

    /// The chunk of an extent; none for a hole.
    fn chunk_of(&self, extent: &Extent) -> Result<Option<Chunk>, FormatError> {
        let Target::Chunk { index, .. } = extent.target else { return Ok(None) };
        let chunk = self.image.chunk(index)?;
        extent.check_range(&chunk)?;
        Ok(Some(chunk))
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<(), (At, FormatError)> {
        if let Some(known) = self.decoded.get(&chunk.index.0) {
            return *known;
        }
        let result = self.decode(chunk);
        self.decoded.insert(chunk.index.0, result);
        result
    }

    fn decode(&mut self, chunk: &Chunk) -> Result<(), (At, FormatError)> {
        chunk.check_range(&self.pack).map_err(|error| (At::Data, error))?;
        let start = (BLOCK_BYTES + chunk.offset) as usize;
        let stored = &self.image.metadata.image[start..start + chunk.stored_len as usize];
        let place = Place::Chunk(chunk.index.0);
        let verified = Verified::check_chunk::<Sha2>(stored, &chunk.digest).map_err(|found| {
            let (found, expected) = (found.prefix(), chunk.digest.prefix());
            (At::Data, FormatError::new(Rule::ChunkDigest, place, found, expected))
        })?;
        if chunk.codec == Codec::Plain {
            return Ok(());
        }
        let whole = decompress(chunk.codec, verified.bytes(), chunk.raw_len);
        let broken = |at, rule, found: usize, expected: u32| {
            Err((at, FormatError::new(rule, place, found as u64, expected.into())))
        };
        if whole.len() != chunk.raw_len as usize {
            return broken(At::Data, Rule::ChunkDecode, whole.len(), chunk.raw_len);
        }
        let unsure = if chunk.codec == Codec::ZstdX86 { x86::UNSURE } else { 0 };
        for wanted in (1..chunk.raw_len).step_by(FRAME_BLOCK as usize) {
            let mut stored = verified.bytes().to_vec();
            let Some(beginning) = frame::shorten(&mut stored, chunk.raw_len, wanted + unsure) else {
                continue;
            };
            let raw = decompress(chunk.codec, &stored[..beginning.stored_len], beginning.raw_len);
            if raw.len() != beginning.raw_len as usize {
                return broken(At::Beginning, Rule::ChunkBlocks, raw.len(), beginning.raw_len);
            }
            let sure = raw.len() - unsure as usize;
            if raw[..sure] != whole[..sure] {
                self.reading.wrong.push(format!("the first {wanted} bytes of chunk {}", chunk.index.0));
            }
        }
        Ok(())
    }
}

/// As the kernel's `check_entry`.
fn check_entry(directory: &Inode, dirent: &Dirent, found: &Inode) -> Result<(), FormatError> {
    let file_type = found.kind.file_type();
    if file_type != dirent.file_type {
        let (found, expected) = (dirent.file_type.value().into(), file_type.value().into());
        return Err(FormatError::new(Rule::DirentType, Place::Dirent(dirent.index), found, expected));
    }
    match found.kind {
        FileKind::Directory(tables) if tables.parent != directory.ino || found.ino == directory.ino => {
            let place = Place::Ino(found.ino.get());
            Err(FormatError::new(Rule::TreeParent, place, tables.parent.get().into(), 0))
        }
        _ => Ok(()),
    }
}

/// The bytes that a frame decodes to in one call, as in the kernel; none if it does not decode, or to more
/// than `len` bytes.
fn decompress(codec: Codec, stored: &[u8], len: u32) -> Vec<u8> {
    let mut raw = vec![0; len as usize];
    let decoded = zstd_safe::decompress(&mut raw[..], stored).unwrap_or(0);
    raw.truncate(decoded);
    if codec == Codec::ZstdX86 {
        x86::decode(&mut raw);
    }
    raw
}
