// SPDX-License-Identifier: GPL-2.0-or-later

//! The contents that chunks and extents belong to.

use tesserafs_format::{ContentIndex, Extent, Place, Target};

use super::tree::Tree;
use crate::context::Context;
use crate::error::{vec_of, Error};

/// Which content uses the extents and chunks that findings are about.
#[derive(Debug)]
pub(super) struct Users {
    /// First extent of each content that has any, with the content.
    firsts: Vec<(u32, u32)>,
    /// First content of each chunk, plus 1; 0 for none.
    chunks: Vec<u32>,
}

impl Users {
    /// Looks through all extents; an extent that cannot be read has no user.
    pub(super) fn find(context: &Context<'_>, tree: &Tree) -> Result<Self, Error> {
        let layout = &context.image.sb.layout;
        let mut users =
            Users { firsts: Vec::new(), chunks: vec_of(layout.chunks.records(), "a record for each chunk")? };
        let mut covered = 0;
        for (number, size) in (0..).zip(&tree.sizes) {
            context.cancel.check()?;
            let Ok(extents) = context.image.extents(ContentIndex(number), *size) else { continue };
            if extents.first < covered {
                continue;
            }
            covered = extents.end;
            users.firsts.push((extents.first, number));
            for index in extents.first..extents.end {
                let Ok(Extent { target: Target::Chunk { index, .. }, .. }) =
                    context.image.extent(&extents, index)
                else {
                    continue;
                };
                if let Some(user) = users.chunks.get_mut(index.0 as usize).filter(|user| **user == 0) {
                    *user = number + 1;
                }
            }
        }
        Ok(users)
    }

    /// The content that a chunk or an extent belongs to.
    pub(super) fn content(&self, place: Place) -> Option<u32> {
        match place {
            Place::Chunk(chunk) => self.chunks.get(chunk as usize)?.checked_sub(1),
            Place::Extent(extent) => {
                let behind = self.firsts.partition_point(|(first, _)| *first <= extent);
                self.firsts.get(behind.checked_sub(1)?).map(|(_, content)| *content)
            }
            _ => None,
        }
    }
}
