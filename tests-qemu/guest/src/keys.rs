// SPDX-License-Identifier: GPL-2.0
//! The keyring of the file system.

use anyhow::{Context, Result};

use crate::mounts::on_disk;
use crate::sys;

/// The module's own keyring, as it appears in `/proc/keys`.
const KEYRING: &str = ".tesserafs";

/// Puts a certificate of the data disk into the keyring.
pub(crate) fn trust(certificate: &str) -> Result<()> {
    let path = on_disk(certificate);
    let der = std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
    sys::add_certificate(keyring()?, &der)
        .with_context(|| format!("failed to add {certificate} to the keyring {KEYRING}"))
}

/// Serial number of the keyring.
fn keyring() -> Result<i32> {
    let keys = std::fs::read_to_string("/proc/keys").context("failed to read /proc/keys")?;
    find(&keys).with_context(|| format!("there is no keyring {KEYRING} in /proc/keys"))
}

/// Lines are `serial flags usage timeout permissions uid gid type description: summary`.
fn find(keys: &str) -> Option<i32> {
    keys.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words.get(8)?.trim_end_matches(':');
        if words.get(7) != Some(&"keyring") || name != KEYRING {
            return None;
        }
        let serial = u32::from_str_radix(words.first()?, 16).ok()?;
        i32::try_from(serial).ok()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_keyring_is_found_by_name() {
        let keys = "\
0db54c14 I------     1 perm 1f030000     0     0 asymmetri a key: X509.rsa 8d1ee6b1 []
24c6e5b5 I------     2 perm 1f0b0000     0     0 keyring   .tesserafs: 1
2fa2c2d5 I------     1 perm 1f0b0000     0     0 keyring   .builtin_trusted_keys: empty
";
        assert_eq!(super::find(keys), Some(0x24c6_e5b5));
        assert_eq!(super::find("not a table"), None);
    }
}
