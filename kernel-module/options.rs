// SPDX-License-Identifier: GPL-2.0

//! The mount options: what the mounter wants of an image, and what is refused because of it.

use kernel::seq_file::SeqFile;
use kernel::str::CString;
use kernel::{prelude::*, seq_print};

use tesserafs_format::{Digest, FormatError, Place, Rule};

use crate::error::{Failure, ImageId};
use crate::klib::param::require_signatures;
use crate::mount::{Mounted, Tesserafs};
use crate::mount_error;
use crate::verify::Trust;
use crate::vfs::pack_files::{show_path, PackFiles};
use crate::vfs::{FsContext, SuperBlock};

/// The mount options, except the source.
#[derive(Default)]
pub(crate) struct Options {
    /// `digest=sha256:HEX`: the image ID that the image must have.
    digest: Option<Digest>,
    /// `trusted_backing`: the store vouches for the bytes of its chunks.
    trusted_backing: bool,
    /// `private_pages`: share no page with other mounts.
    private_pages: bool,
    /// `acl` or `noacl`: whether POSIX ACLs count.
    acl: Option<bool>,
    /// `packdir`: where the packs are that are files.
    pub(crate) packs: PackFiles,
}

/// The options as a mount keeps them.
pub(crate) struct Kept {
    /// Whether the mounter pinned the ID.
    is_pinned: bool,
    /// Whether the mounter wants its pages for itself.
    private_pages: bool,
    /// Whether the bytes of its chunks are trusted for their digests or for the store.
    pub(crate) trust: Trust,
    /// The directory of the packs, if one was named.
    packdir: Option<CString>,
}

impl Options {
    /// Takes one option; the value of a flag is empty.
    pub(crate) fn parse(&mut self, fc: &FsContext<Tesserafs>, key: &[u8], value: &[u8]) -> Result {
        match key {
            b"trusted_backing" => self.trusted_backing = true,
            b"private_pages" => self.private_pages = true,
            b"acl" => self.acl = Some(true),
            b"noacl" => self.acl = Some(false),
            b"digest" => {
                let Some(digest) = value.strip_prefix(b"sha256:").and_then(Digest::from_hex) else {
                    mount_error!(fc, "digest= takes sha256: and 64 hexadecimal digits");
                    return Err(EINVAL);
                };
                self.digest = Some(digest);
            }
            // The table in helpers.c has no other.
            _ => return Err(EINVAL),
        }
        Ok(())
    }

    /// Refuses an image that is not the one that the mounter has pinned.
    pub(crate) fn check_digest(&self, id: ImageId) -> Result<(), Failure> {
        match self.digest {
            Some(pinned) if pinned != id.0 => {
                let place = Place::SuperBlock(0);
                Err(FormatError::new(Rule::ImageId, place, id.0.prefix(), pinned.prefix()).into())
            }
            _ => Ok(()),
        }
    }

    /// Refuses `trusted_backing` where signatures are required: a dm-verity device and an fs-verity
    /// file prove that their bytes have some digest, not that a trusted key has signed it.
    pub(crate) fn check_trust(&self, fc: &FsContext<Tesserafs>, id: ImageId) -> Result {
        if self.trusted_backing && require_signatures() {
            mount_error!(fc, "{}: signatures are required: no `trusted_backing`", id);
            return Err(EPERM);
        }
        Ok(())
    }

    /// Whether POSIX ACLs count for a new mount.
    pub(crate) fn acl(&self) -> bool {
        self.acl.unwrap_or(true)
    }

    /// Changes what can be changed of a mount.
    pub(crate) fn remount(&self, fc: &FsContext<Tesserafs>, mounted: &Mounted) -> Result {
        self.check_remount(fc, mounted)?;
        if let Some(acl) = self.acl {
            fc.set_posix_acl(acl);
        }
        Ok(())
    }

    /// Refuses what cannot be changed of a mount.
    ///
    /// A mounted image stays readable even if the machine has required signatures since, so only the options
    /// count.
    fn check_remount(&self, fc: &FsContext<Tesserafs>, mounted: &Mounted) -> Result {
        let (id, kept) = (mounted.stats.id, &mounted.options);
        let more_trust = self.trusted_backing && kept.trust != Trust::Backing;
        if more_trust || self.private_pages && !kept.private_pages {
            mount_error!(
                fc,
                "{}: `trusted_backing` and `private_pages` are for new mounts only",
                id
            );
            return Err(EINVAL);
        }
        if !self.packs.is_unnamed() && !self.packs.is_at(kept.packdir.as_deref()) {
            mount_error!(fc, "{}: `packdir` is for new mounts only", id);
            return Err(EINVAL);
        }
        self.check_digest(id).map_err(|failure| {
            mount_error!(fc, "{}: {}", id, failure);
            failure.errno()
        })
    }

    /// Refuses to mount once more what is mounted with other options.
    pub(crate) fn check_same(
        &self,
        fc: &FsContext<Tesserafs>,
        sb: &SuperBlock<Tesserafs>,
    ) -> Result {
        let mounted = sb.data();
        self.check_remount(fc, mounted)?;
        let (id, kept) = (mounted.stats.id, &mounted.options);
        let trusts = kept.trust == Trust::Backing;
        if self.trusted_backing != trusts || self.private_pages != kept.private_pages {
            mount_error!(
                fc,
                "{}: it is mounted already, with another `trusted_backing` or `private_pages`",
                id
            );
            return Err(EBUSY);
        }
        if cfg!(CONFIG_FS_POSIX_ACL) && self.acl() != sb.has_posix_acl() {
            mount_error!(fc, "{}: it is mounted already, with another `acl`", id);
            return Err(EBUSY);
        }
        Ok(())
    }

    /// What vouches for the bytes of chunks.
    pub(crate) fn trust(&self) -> Trust {
        if self.trusted_backing {
            Trust::Backing
        } else {
            Trust::Digests
        }
    }

    /// The options as a mount keeps them.
    pub(crate) fn kept(&self) -> Result<Kept> {
        Ok(Kept {
            is_pinned: self.digest.is_some(),
            private_pages: self.private_pages,
            trust: self.trust(),
            packdir: match self.packs.path() {
                Some(path) => Some(path.try_into()?),
                None => None,
            },
        })
    }
}

impl Kept {
    /// Whether the options let files share their pages: the bytes of a trusted store are not compared with
    /// the digests.
    pub(crate) fn may_share_pages(&self) -> bool {
        !self.private_pages && self.trust == Trust::Digests
    }
}

/// Prints the options of a mount, each with a comma before it.
pub(crate) fn show(sb: &SuperBlock<Tesserafs>, seq: &SeqFile) {
    let mounted = sb.data();
    let kept = &mounted.options;
    if kept.is_pinned {
        seq_print!(seq, ",digest={}", mounted.stats.id);
    }
    if let Some(path) = &kept.packdir {
        show_path(seq, path);
    }
    if kept.private_pages {
        seq_print!(seq, ",private_pages");
    }
    if kept.trust == Trust::Backing {
        seq_print!(seq, ",trusted_backing");
    }
    if cfg!(CONFIG_FS_POSIX_ACL) {
        let acl = if sb.has_posix_acl() { "acl" } else { "noacl" };
        seq_print!(seq, ",{}", acl);
    }
}
