// SPDX-License-Identifier: GPL-2.0-or-later

//! Helpers that the tests share: running the real binary in a directory of its own, and reading what it
//! built.
#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use tesserafs_format::extent::Target;
use tesserafs_format::limits::{BLOCK_SIZE, NAME_MAX, XATTR_NAME_MAX};
use tesserafs_format::{x86, Codec, Digest, FileKind, FormatError, Image, Ino, Metadata, SuperBlock};

/// A directory for one test.
pub(crate) struct Sandbox {
    dir: TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().expect("a temporary directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, with the directories above it.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(&path, bytes).expect("a file");
        path
    }

    /// The program, not yet run, in the sandbox.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mkfs-tesserafs"));
        command.args(args).current_dir(self.dir.path()).env_remove("SOURCE_DATE_EPOCH");
        command
    }

    /// Runs the program.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.command(args).output().expect("the program starts")
    }

    /// Runs the program, which must succeed; its output.
    pub(crate) fn mkfs<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs the program, which must fail with this status; its output on standard error.
    pub(crate) fn refused<S: AsRef<OsStr>>(&self, status: i32, args: impl IntoIterator<Item = S>) -> String {
        let output = self.run(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{text}");
        text
    }

    /// Builds an image with `--json`; the report.
    pub(crate) fn report<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> serde_json::Value {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        serde_json::from_str(&self.mkfs(args.chain(["--json".into()]))).expect("JSON")
    }

    /// The names in the sandbox.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).expect("the sandbox");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Bytes of an image.
struct Bytes(Vec<u8>);

impl Metadata for Bytes {
    type Error = FormatError;

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), FormatError> {
        buf.copy_from_slice(&self.0[offset as usize..offset as usize + buf.len()]);
        Ok(())
    }
}

/// An inode as an image has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) ino: u32,
    /// `f`, `d`, `l`, `p`, `s`, or `w`.
    pub(crate) kind: char,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) size: u64,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    /// Of a symlink the target, of a file below 64 MiB the bytes.
    pub(crate) bytes: Vec<u8>,
    pub(crate) holes: u64,
}

/// An image, read through the format crate.
pub(crate) struct Read {
    pub(crate) superblock: SuperBlock,
    pub(crate) items: BTreeMap<String, Item>,
    pub(crate) bytes: Vec<u8>,
}

impl Read {
    pub(crate) fn item(&self, path: &str) -> &Item {
        self.items.get(path).unwrap_or_else(|| panic!("{path} in {:?}", self.items.keys()))
    }
}

/// Reads an image, and proves every rule on the way that the format crate knows, and the digests of all contents.
pub(crate) fn read_image(path: &Path) -> Read {
    let bytes = fs::read(path).expect("the image");
    let block: &[u8; BLOCK_SIZE] = bytes[..BLOCK_SIZE].try_into().expect("a block");
    let superblock = SuperBlock::parse(block).expect("a superblock");
    assert_eq!(bytes.len() as u64, superblock.file_bytes());
    let bytes = Bytes(bytes);
    let image = Image::new(&superblock, &bytes);
    let mut items = BTreeMap::new();
    walk(&image, &bytes.0, Ino::ROOT, "", &mut items);
    Read { superblock, items, bytes: bytes.0 }
}

fn walk(image: &Image<'_, Bytes>, bytes: &[u8], ino: Ino, path: &str, items: &mut BTreeMap<String, Item>) {
    let inode = image.inode(ino).expect("an inode");
    let mut item = Item {
        ino: ino.get(),
        kind: '?',
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        nlink: inode.nlink,
        mtime: (inode.mtime.sec, inode.mtime.nsec),
        size: 0,
        xattrs: Vec::new(),
        bytes: Vec::new(),
        holes: 0,
    };
    if let Some(index) = inode.xattrs {
        let set = image.xattr_set(index).expect("a set");
        let mut xattrs = image.xattrs(set);
        let mut name = [0; XATTR_NAME_MAX];
        while let Some((entry, name)) = xattrs.next(&mut name).expect("an xattr") {
            let mut value = vec![0; entry.value_len as usize];
            image.xattr_value(index, &entry, &mut value).expect("a value");
            item.xattrs.push((String::from_utf8_lossy(name).into_owned(), value));
        }
    }
    match inode.kind {
        FileKind::Fifo => item.kind = 'p',
        FileKind::Socket => item.kind = 's',
        FileKind::Whiteout => item.kind = 'w',
        FileKind::Symlink { offset, len } => {
            item.kind = 'l';
            item.bytes = vec![0; len as usize];
            image.target(ino, offset, &mut item.bytes).expect("a target");
        }
        FileKind::Regular { size, content } => {
            item.kind = 'f';
            item.size = size;
            if let Some(content) = content {
                let keep = size < 64 << 20;
                let extents = image.extents(content, size).expect("extents");
                for index in extents.first..extents.end {
                    let extent = image.extent(&extents, index).expect("an extent");
                    match extent.target {
                        Target::Hole => {
                            item.holes += extent.len();
                            if keep {
                                item.bytes.resize(extent.end as usize, 0);
                            }
                        }
                        Target::Chunk { index, offset } => {
                            let chunk = image.chunk(index).expect("a chunk");
                            let start = BLOCK_SIZE + chunk.offset as usize;
                            let stored = &bytes[start..start + chunk.stored_len as usize];
                            assert_eq!(
                                tesserafs_format::chunk_digest::<mkfs_tesserafs::encode::Sha2>(stored),
                                chunk.digest
                            );
                            let raw = match chunk.codec {
                                Codec::Plain => stored.to_vec(),
                                Codec::Zstd | Codec::ZstdX86 => {
                                    let mut raw = zstd::decode_all(stored).expect("a frame");
                                    if chunk.codec == Codec::ZstdX86 {
                                        x86::decode(&mut raw);
                                    }
                                    raw
                                }
                            };
                            assert_eq!(raw.len() as u32, chunk.raw_len);
                            let end = offset as usize + extent.len() as usize;
                            item.bytes.extend_from_slice(&raw[offset as usize..end]);
                        }
                    }
                }
                if keep {
                    let digest: Digest = image.content_digest(content).expect("a digest");
                    assert_eq!(mkfs_tesserafs::encode::sha256(&item.bytes), digest, "{path}");
                }
            }
        }
        FileKind::Directory(directory) => {
            item.kind = 'd';
            item.size = directory.entries.into();
            let mut name = [0; NAME_MAX];
            for n in 0..directory.entries {
                let dirent = image.dirent(&directory, n).expect("an entry").expect("not the fence");
                let name =
                    String::from_utf8_lossy(image.name(&dirent, &mut name).expect("a name")).into_owned();
                let below = if path.is_empty() { name } else { format!("{path}/{name}") };
                walk(image, bytes, dirent.ino, &below, items);
            }
        }
    }
    items.insert(if path.is_empty() { "/".into() } else { path.into() }, item);
}
