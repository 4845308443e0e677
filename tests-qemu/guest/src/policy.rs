// SPDX-License-Identifier: GPL-2.0
//! Keys: which of them may sign images for a running machine, from when, and until when.
//!
//! The steps are those of SIGNING.md, typed as it says; the order matters, as the last one ends all changes.

use std::path::Path;

use anyhow::{ensure, Context, Result};
use rustix::io::Errno;
use tesserafs_guest::plan::Appliance;

use crate::appliance::checked;
use crate::mounts::{on_disk, Mount};
use crate::signatures::refuses;
use crate::suite::Suite;

pub(crate) fn tests(suite: &mut Suite, plan: &Appliance) {
    suite.test("built-in-key-is-trusted", || accepted("app"));
    suite.test("nobody-else-is", || refused("fleet", Errno::NOKEY));
    suite.test("built-in-keyrings-are-closed", || {
        let added = trust("stranger", "%:.builtin_trusted_keys");
        ensure!(added.is_err(), "root added a key to the built-in ones");
        // A certificate that a built-in key has signed could be added here; the stranger's is self-signed.
        let added = trust("stranger", "%:.secondary_trusted_keys");
        ensure!(added.is_err(), "root added a key of its own to the secondary ones");
        Ok(String::new())
    });
    suite.test("added-key-is-trusted", || {
        trust("fleet", OURS)?;
        accepted("fleet")?;
        // Rotation: the old key goes on until it is revoked.
        accepted("app")
    });
    suite.test("dates-do-not-matter-to-the-kernel", || {
        trust("expired", OURS)?;
        accepted("expired")
    });
    suite.test("revoked-key-is-not-trusted", || {
        refused("retired", Errno::KEYREJECTED)?;
        // Nor when somebody adds it again.
        trust("retired", OURS)?;
        refused("retired", Errno::KEYREJECTED)
    });
    suite.test("blacklist-takes-what-the-vendor-signed", || {
        let entry = plan.blacklist_entry.as_str();
        let unsigned = checked("keyctl", &["padd", "blacklist", entry, BLACKLIST], b"no signature");
        ensure!(unsigned.is_err(), "the blacklist took an entry that nobody signed");
        checked("keyctl", &["padd", "blacklist", entry, BLACKLIST], &read("blacklist.p7s")?)?;
        Ok(String::new())
    });
    suite.test("blacklisted-certificate-cannot-be-added", || {
        ensure!(trust("blacklisted", OURS).is_err(), "a blacklisted certificate was added");
        refused("blacklisted", Errno::NOKEY)
    });
    suite.test("key-that-is-taken-out-is-not-trusted", || {
        distrust("fleet")?;
        refused("fleet", Errno::NOKEY)
    });
    suite.test("sealed-keyring-takes-no-key", || {
        checked("keyctl", &["restrict_keyring", OURS], b"")?;
        ensure!(trust("stranger", OURS).is_err(), "a sealed keyring took a key");
        refused("stranger", Errno::NOKEY)
    });
    suite.test("sealed-keyring-loses-keys", || {
        accepted("expired")?;
        distrust("expired")?;
        refused("expired", Errno::NOKEY)
    });
}

/// After a boot by the initramfs: its certificate, the vendor's, is trusted, and no other can be added.
pub(crate) fn sealed(suite: &mut Suite) {
    suite.test("keyring-holds-the-key-of-the-initramfs", || {
        let listing = checked("keyctl", &["list", OURS], b"")?;
        ensure!(listing.starts_with("1 key in keyring"), "the keyring holds {listing}");
        ensure!(serial(&listing, "vendor").is_some(), "the keyring holds {listing}");
        accepted("app")
    });
    suite.test("keyring-is-sealed", || {
        refused("fleet", Errno::NOKEY)?;
        ensure!(trust("fleet", OURS).is_err(), "a sealed keyring took a key");
        refused("fleet", Errno::NOKEY)
    });
    suite.test("other-keyrings-are-closed", || {
        for keyring in ["%:.builtin_trusted_keys", "%:.secondary_trusted_keys"] {
            ensure!(trust("fleet", keyring).is_err(), "root added a key to {keyring}");
        }
        refused("fleet", Errno::NOKEY)
    });
}

/// The driver's keyring, and the blacklist, as keyctl finds them.
const OURS: &str = "%:.tesserafs";
const BLACKLIST: &str = "%:.blacklist";

fn read(name: &str) -> Result<Vec<u8>> {
    std::fs::read(on_disk(name)).with_context(|| format!("failed to read {name}"))
}

/// Adds the certificate `name` to a keyring.
fn trust(name: &str, keyring: &str) -> Result<()> {
    checked("keyctl", &["padd", "asymmetric", "", keyring], &read(&format!("{name}.der"))?).map(|_| ())
}

/// Takes the key of the certificate `name` out of the driver's keyring.
fn distrust(name: &str) -> Result<()> {
    let listing = checked("keyctl", &["list", OURS], b"")?;
    let serial = serial(&listing, name).with_context(|| format!("the keyring holds {listing}"))?;
    checked("keyctl", &["unlink", serial, OURS], b"").map(|_| ())
}

/// The number of a key in what keyctl lists: `123: perms uid gid asymmetric: tesserafs test key NAME: identifier`.
fn serial<'a>(listing: &'a str, name: &str) -> Option<&'a str> {
    let subject = format!("tesserafs test key {name}: ");
    let line = listing.lines().find(|line| line.contains(&subject))?;
    line.split_once(':').map(|(serial, _)| serial.trim())
}

fn accepted(name: &str) -> Result<String> {
    let image = on_disk(&format!("{name}.tess"));
    let mount = Mount::image(&image, Path::new("/mnt"), "").context("the mount was refused")?;
    mount.unmount()?;
    Ok(String::new())
}

fn refused(name: &str, errno: Errno) -> Result<String> {
    refuses(&format!("{name}.tess"), "", errno)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_key_is_found_by_its_subject() {
        let listing = "2 keys in keyring:\n\
                       12: --als--v     0     0 asymmetric: tesserafs test key one: 8d1e\n\
                       345: --als--v     0     0 asymmetric: tesserafs test key fleet: 9c\n";
        assert_eq!(super::serial(listing, "fleet"), Some("345"));
        assert_eq!(super::serial(listing, "two"), None);
    }
}
