// SPDX-License-Identifier: GPL-2.0
//! zstd frames, written from the text of RFC 8878: also those that no encoder makes.

/// A block of a frame.
#[derive(Debug, Clone)]
pub(crate) enum Block {
    /// Bytes as they are.
    Raw(Vec<u8>),
    /// One byte so many times.
    Repeat(u8, u32),
    /// A compressed block, or bytes that claim to be one.
    Compressed(Vec<u8>),
    /// The type that is not to be used.
    Reserved,
}

/// A frame. The default is one of a chunk: a single segment with its content size in four bytes.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// The content size that it claims.
    pub(crate) size: Option<u32>,
    /// The window descriptor; a frame with one is no single segment.
    pub(crate) window: Option<u8>,
    /// The dictionary that it claims to need.
    pub(crate) dictionary: Option<u32>,
    /// Four bytes behind the last block, which claim to be its checksum.
    pub(crate) checksum: Option<u32>,
    /// The bit of the descriptor that must be zero.
    pub(crate) reserved: bool,
    pub(crate) blocks: Vec<Block>,
    /// Whether the last block says that it is.
    pub(crate) ends: bool,
}

impl Frame {
    /// A frame of these blocks which says that it has `size` bytes.
    pub(crate) fn new(size: u32, blocks: Vec<Block>) -> Self {
        Self {
            size: Some(size),
            window: None,
            dictionary: None,
            checksum: None,
            reserved: false,
            blocks,
            ends: true,
        }
    }

    /// The blocks of a chunk: `len` times `byte`, in blocks of `each`.
    pub(crate) fn repeated(byte: u8, len: u32, each: u32) -> Vec<Block> {
        (0..len).step_by(each as usize).map(|at| Block::Repeat(byte, each.min(len - at))).collect()
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0x28, 0xb5, 0x2f, 0xfd];
        let is_single = self.window.is_none();
        let size_flag = if self.size.is_some() { 2 << 6 } else { 0 };
        let dictionary_flag = if self.dictionary.is_some() { 3 } else { 0 };
        out.push(
            size_flag
                | u8::from(is_single) << 5
                | u8::from(self.reserved) << 3
                | u8::from(self.checksum.is_some()) << 2
                | dictionary_flag,
        );
        out.extend(self.window);
        out.extend(self.dictionary.iter().flat_map(|id| id.to_le_bytes()));
        out.extend(self.size.iter().flat_map(|size| size.to_le_bytes()));
        for (number, block) in self.blocks.iter().enumerate() {
            let is_last = self.ends && number + 1 == self.blocks.len();
            let (kind, len, bytes): (u32, u32, &[u8]) = match block {
                Block::Raw(bytes) => (0, bytes.len() as u32, bytes),
                Block::Repeat(byte, len) => (1, *len, std::slice::from_ref(byte)),
                Block::Compressed(bytes) => (2, bytes.len() as u32, bytes),
                Block::Reserved => (3, 0, &[]),
            };
            let header = u32::from(is_last) | kind << 1 | len << 3;
            out.extend(&header.to_le_bytes()[..3]);
            out.extend(bytes);
        }
        out.extend(self.checksum.iter().flat_map(|sum| sum.to_le_bytes()));
        out
    }
}

/// A frame that the decoder skips, with `len` bytes of nothing.
pub(crate) fn skippable(len: u32) -> Vec<u8> {
    let mut out = 0x184d_2a50_u32.to_le_bytes().to_vec();
    out.extend(len.to_le_bytes());
    out.resize(out.len() + len as usize, 0);
    out
}
