// SPDX-License-Identifier: GPL-2.0-or-later

//! A sink that compares the bytes of a build with those of an image.

use mkfs_tesserafs::error::{Error as BuildError, Result};
use mkfs_tesserafs::image::Sink;
use tesserafs_image::parallel::First;
use tesserafs_image::{Context, Error};

use super::difference::FirstByte;

/// The fields of the superblock that say of the signature: no builder knows it, and the image ID does not cover it.
const SIGNATURE_FIELDS: [std::ops::Range<usize>; 2] = [0x220..0x224, 0x230..0x250];

/// The comparison so far.
#[derive(Debug)]
pub(super) struct Compare<'a> {
    context: &'a Context<'a>,
    first: Option<FirstByte>,
    buffer: Vec<u8>,
}

impl<'a> Compare<'a> {
    pub(super) fn new(context: &'a Context<'a>) -> Self {
        Self { context, first: None, buffer: Vec::new() }
    }

    /// The first byte that differs; the superblock comes last.
    pub(super) fn first(&self) -> Option<FirstByte> {
        self.first
    }

    /// The sink; why it stopped the builder is in `stopped`.
    pub(super) fn sink<'b>(&'b mut self, stopped: &'b First) -> CompareSink<'b, 'a> {
        CompareSink { compare: self, stopped }
    }

    fn take(&mut self, offset: u64, bytes: &[u8]) -> std::result::Result<(), Error> {
        self.context.cancel.check()?;
        if self.first.is_some() {
            return Ok(());
        }
        // Behind the image may be its signature.
        let left = self.context.image.sb.layout.image_bytes.saturating_sub(offset);
        let len = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.buffer.resize(len, 0);
        self.context.metadata.source().read_at(offset, &mut self.buffer)?;
        if offset == 0 {
            for field in SIGNATURE_FIELDS {
                if let (Some(own), Some(built)) = (self.buffer.get_mut(field.clone()), bytes.get(field)) {
                    own.copy_from_slice(built);
                }
            }
        }
        if self.buffer == bytes {
            return Ok(());
        }
        let same = self.buffer.iter().zip(bytes).take_while(|(own, built)| own == built).count();
        self.first = Some(FirstByte {
            offset: offset + same as u64,
            found: self.buffer.get(same).copied(),
            expected: bytes.get(same).copied(),
        });
        Ok(())
    }
}

/// [`Compare`] as the sink of a build.
#[derive(Debug)]
pub(super) struct CompareSink<'b, 'a> {
    compare: &'b mut Compare<'a>,
    stopped: &'b First,
}

impl Sink for CompareSink<'_, '_> {
    fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.compare.take(offset, bytes).map_err(|error| {
            self.stopped.set(error);
            BuildError::Stopped
        })
    }
}
