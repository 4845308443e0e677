// SPDX-License-Identifier: GPL-2.0

//! The account of what is in the source and not in the image: nothing is left out in silence.

use serde::Serialize;

use crate::error::{path_of, Shown};

/// Why something is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// `--exclude` matches its name.
    Excluded,
    /// It is a device node.
    Device,
    /// An xattr that an image does not hold, or that no system call would set.
    Xattr,
    /// It is the image itself.
    Image,
    /// It is on another filesystem.
    Mount,
}

/// Something that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOutName {
    /// Why.
    pub reason: Reason,
    /// Its path beneath the root, as it is shown to people.
    pub path: String,
}

/// What is in the source and not in the image.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LeftOut {
    /// Names that `--exclude` matches, each with everything below it.
    pub excluded: u64,
    /// Device nodes.
    pub devices: u64,
    /// Xattrs of a kind that an image does not hold, or that no system call would set.
    pub xattrs: u64,
    /// The image itself, where it lies in the source.
    pub image: u64,
    /// Names on other filesystems, and mount points whose content is on one.
    pub mounts: u64,
    /// Which, where that is wanted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<LeftOutName>,
    /// Whether that is wanted.
    #[serde(skip)]
    pub keep_names: bool,
}

impl LeftOut {
    /// Counts something; `path` is its path beneath the root.
    pub fn add(&mut self, reason: Reason, path: impl FnOnce() -> Vec<u8>) {
        *match reason {
            Reason::Excluded => &mut self.excluded,
            Reason::Device => &mut self.devices,
            Reason::Xattr => &mut self.xattrs,
            Reason::Image => &mut self.image,
            Reason::Mount => &mut self.mounts,
        } += 1;
        if self.keep_names {
            self.names.push(LeftOutName { reason, path: Shown(path_of(&path())).to_string() });
        }
    }

    /// Lines for people, empty where nothing was left out.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (number, reason, one, many) in [
            (self.excluded, Reason::Excluded, "excluded name", "excluded names"),
            (self.devices, Reason::Device, "device node", "device nodes"),
            (
                self.xattrs,
                Reason::Xattr,
                "xattr that an image does not hold",
                "xattrs that an image does not hold",
            ),
            (self.image, Reason::Image, "name of the image itself", "names of the image itself"),
            (
                self.mounts,
                Reason::Mount,
                "name or content of a directory on another filesystem",
                "names or contents of directories on other filesystems",
            ),
        ] {
            if number > 0 {
                lines.push(format!("left out: {number} {}", if number == 1 { one } else { many }));
                let names = self.names.iter().filter(|name| name.reason == reason);
                lines.extend(names.map(|name| format!("  {}", name.path)));
            }
        }
        lines
    }
}
