// SPDX-License-Identifier: GPL-2.0-or-later

//! The content of a device, in the words of udev: `KEY=VALUE` lines as `blkid -o udev` prints them.
//!
//! udev runs this on each block device in which libblkid found nothing, whoever plugged it in: one block is read, and parsed by the
//! code that the kernel mounts with. It tells what the superblock says, and nothing of whether the rest is right.

use std::io::Write;

use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::raw::VERSION;
use tesserafs_image::finding::Findings;
use tesserafs_image::superblock::uuid;
use tesserafs_image::{Error, Source};

use crate::check_superblock;
use crate::print::cannot_write;

/// Writes what an image is; where the file or the device holds none, nothing, and findings say why.
pub(crate) fn probe(source: &Source, findings: &Findings, out: &mut dyn Write) -> Result<(), Error> {
    let Some(head) = check_superblock::check(source, None, findings)? else { return Ok(()) };
    let Some(sb) = head.sb.filter(|_| findings.count() == 0) else { return Ok(()) };
    let (uuid, id, size) = (uuid(&head.image_id), head.image_id, sb.file_bytes());
    // The encoded form is for names of links; a UUID has nothing to encode.
    write!(
        out,
        "ID_FS_USAGE=filesystem\nID_FS_TYPE=tesserafs\nID_FS_VERSION={VERSION}\nID_FS_UUID={uuid}\nID_FS_UUID_ENC={uuid}\n\
         ID_FS_SIZE={size}\nID_FS_BLOCKSIZE={BLOCK_BYTES}\nID_TESSERAFS_IMAGE=sha256:{id}\n"
    )
    .and_then(|()| out.flush())
    .map_err(cannot_write)
}
