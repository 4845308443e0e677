// SPDX-License-Identifier: GPL-2.0
//! Block devices with the files of the first root: loop devices, and dm-verity over them.
//!
//! No disk of the machine is behind them, whose emulation would want a processor of the host for itself.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tesserafs_guest::reading::{Loop, LoopVerity, LOOPS, LOOP_HASHES, LOOP_IMAGE};

use crate::sys;

/// Block devices that stay until this value goes.
pub(super) struct Devices(Vec<File>);

impl Devices {
    /// Makes them, and gives them their names below [`LOOPS`].
    pub(super) fn make(loops: &[Loop]) -> Result<Self> {
        std::fs::create_dir_all(LOOPS).with_context(|| format!("failed to create {LOOPS}"))?;
        let mut devices = Self(Vec::new());
        for each in loops {
            let image = devices.add(&each.image)?;
            let device = match &each.verity {
                None => image,
                Some(verity) => devices.verify(&each.name, verity, &image)?,
            };
            symlink(&device, Path::new(LOOPS).join(&each.name))
                .with_context(|| format!("failed to name {}", device.display()))?;
        }
        Ok(devices)
    }

    /// A loop device with a file of the first root.
    fn add(&mut self, name: &str) -> Result<PathBuf> {
        let path = Path::new("/").join(name);
        let file = File::open(&path).with_context(|| format!("failed to open {}", path.display()))?;
        let (device, user) = sys::loop_device(&file).with_context(|| format!("no loop device for {name}"))?;
        self.0.push(user);
        Ok(device)
    }

    /// dm-verity over the device of an image.
    fn verify(&mut self, name: &str, verity: &LoopVerity, image: &Path) -> Result<PathBuf> {
        let hashes = self.add(&verity.hashes)?;
        let parameters = parameters(&verity.parameters, image, &hashes);
        // A name of the device mapper has no spaces.
        let number = sys::mapper::verity(&name.replace(' ', "-"), verity.sectors, &parameters)
            .with_context(|| format!("dm-verity does not take {parameters}"))?;
        Ok(PathBuf::from(format!("/dev/dm-{number}")))
    }
}

/// With the names of the devices in their places.
fn parameters(text: &str, image: &Path, hashes: &Path) -> String {
    text.replace(LOOP_IMAGE, &image.display().to_string()).replace(LOOP_HASHES, &hashes.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_put_into_the_parameters() {
        let text = parameters("1 IMAGE HASHES 4096", Path::new("/dev/loop0"), Path::new("/dev/loop1"));
        assert_eq!(text, "1 /dev/loop0 /dev/loop1 4096");
    }
}
