// SPDX-License-Identifier: GPL-2.0-or-later

//! How far a check is: a bar on a terminal, lines in a log, numbers for fsck(8).

mod bar;
mod far;
mod lines;
mod passes;

pub use tesserafs_image::progress::{Progress, Silent};

pub use self::bar::Bar;
pub use self::lines::Lines;
pub use self::passes::Passes;
