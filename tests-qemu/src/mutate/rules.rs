// SPDX-License-Identifier: GPL-2.0
//! The named rules by which images are broken, by the part that is.

mod chunks;
mod head;
mod map;
mod tree;

use anyhow::Result;
use tesserafs_format::Rule;
use zerocopy::little_endian::{U16, U32, U64};

use super::parts::Parts;
use super::reader::At;
use super::{Break, Case, Kernel};

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    [
        head::cases(),
        tree::inodes(),
        tree::entries(),
        tree::cycles(),
        tree::xattr_sets(),
        tree::xattr_entries(),
        map::cases(),
        chunks::cases(),
    ]
    .concat()
}

type Change = fn(&mut Parts) -> Result<()>;

/// Broken records for which the mount is refused.
fn refused(name: &'static str, rule: Rule, change: Change) -> Case {
    Case { name, kernel: Kernel::Refuses(rule), fsck: Some(rule), breaks: Break::Records(change) }
}

/// Broken records that the kernel meets when it does that.
fn fails(name: &'static str, at: At, rule: Rule, change: Change) -> Case {
    Case { name, kernel: Kernel::Fails(at, rule), fsck: Some(rule), breaks: Break::Records(change) }
}

/// Records that the kernel reads right through. Only fsck finds that no builder writes them, or that they are
/// not true.
fn canonical(name: &'static str, rule: Rule, change: Change) -> Case {
    Case { name, kernel: Kernel::Reads, fsck: Some(rule), breaks: Break::Records(change) }
}

/// Odd, and valid.
fn valid(name: &'static str, change: Change) -> Case {
    Case { name, kernel: Kernel::Reads, fsck: None, breaks: Break::Records(change) }
}

impl Case {
    /// The same, where fsck finds another rule than the kernel: one of them sees more.
    fn for_fsck(self, rule: Rule) -> Self {
        Self { fsck: Some(rule), ..self }
    }
}

fn set16(field: &mut U16, value: u16) -> Result<()> {
    *field = value.into();
    Ok(())
}

fn set32(field: &mut U32, value: u32) -> Result<()> {
    *field = value.into();
    Ok(())
}

fn set64(field: &mut U64, value: u64) -> Result<()> {
    *field = value.into();
    Ok(())
}

fn set8(field: &mut u8, value: u8) -> Result<()> {
    *field = value;
    Ok(())
}
