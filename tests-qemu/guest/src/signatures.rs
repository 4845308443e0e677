// SPDX-License-Identifier: GPL-2.0
//! The signatures that a machine accepts for a mount.

use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use rustix::io::Errno;
use tesserafs_guest::plan::{Image, Plan};

use crate::compare::compare;
use crate::keys;
use crate::kmsg::Log;
use crate::mounts::{on_disk, Mount};
use crate::suite::Suite;

pub(crate) const POLICY: &str = "/sys/module/tesserafs/parameters/require_signatures";

pub(crate) fn tests(suite: &mut Suite, plan: &Plan) {
    let signed = &plan.signed;
    suite.test("unsigned-mounts-by-default", || {
        accepted(&signed.unsigned, "")?;
        Ok(String::new())
    });
    // Without a key the signer is not known; the image is what it says it is all the same.
    suite.test("policy-is-off-at-first", || {
        ensure!(!required()?, "signatures are required without anybody's asking");
        Ok(String::new())
    });
    suite.test("policy-turns-on-and-never-off", || {
        require()?;
        for off in ["0", "N", "n"] {
            ensure!(std::fs::write(POLICY, off).is_err(), "require_signatures took {off}");
        }
        ensure!(required()?, "require_signatures went back to off");
        Ok(String::new())
    });
    suite.test("no-key-yet", || {
        require()?;
        refused(&signed.good[0], "", Errno::NOKEY)
    });
    suite.test("right-key", || {
        require()?;
        trust(plan)?;
        for image in &signed.good {
            accepted(image, "").with_context(|| image.image.clone())?;
        }
        Ok(format!("{} signers", signed.good.len()))
    });
    suite.test("right-key-and-digest", || {
        require()?;
        trust(plan)?;
        let image = &signed.good[0];
        accepted(image, &format!("digest=sha256:{}", image.image_id))?;
        let other = format!("digest=sha256:{}", signed.unsigned.image_id);
        if image.image_id == signed.unsigned.image_id {
            // Signing does not change the identity of an image.
            return Ok("the unsigned image has the same image ID".to_owned());
        }
        refused(image, &other, Errno::BADMSG)
    });
    suite.test("no-signature", || {
        require()?;
        refused(&signed.unsigned, "", Errno::NODATA)
    });
    suite.test("digest-does-not-replace-a-signature", || {
        require()?;
        let options = format!("digest=sha256:{}", signed.unsigned.image_id);
        refused(&signed.unsigned, &options, Errno::NODATA)
    });
    suite.test("nobody-vouches-for-the-backing-store", || {
        require()?;
        trust(plan)?;
        refused(&signed.good[0], "trusted_backing", Errno::PERM)
    });
    suite.test("wrong-key", || {
        require()?;
        trust(plan)?;
        refused(&signed.stranger, "", Errno::NOKEY)
    });
    suite.test("signature-of-another-image", || {
        require()?;
        trust(plan)?;
        refused(&signed.transplanted, "", Errno::KEYREJECTED)
    });
    suite.test("flipped-bit-in-the-signed-prefix", || {
        require()?;
        trust(plan)?;
        refused(&signed.tampered, "", Errno::KEYREJECTED)
    });
}

/// Turns the policy on; it may be on already.
pub(crate) fn require() -> Result<()> {
    std::fs::write(POLICY, "1").context("failed to require signatures")
}

/// Whether the policy is on.
pub(crate) fn required() -> Result<bool> {
    let value = std::fs::read_to_string(POLICY).context("failed to read the policy")?;
    match value.trim() {
        "Y" | "1" => Ok(true),
        "N" | "0" => Ok(false),
        other => bail!("require_signatures is {other}"),
    }
}

/// Puts every trusted certificate into the keyring; one that is there is replaced.
pub(crate) fn trust(plan: &Plan) -> Result<()> {
    plan.signed.trusted.iter().try_for_each(|certificate| keys::trust(certificate))
}

fn accepted(image: &Image, options: &str) -> Result<()> {
    let mount = Mount::image(&on_disk(&image.image), Path::new("/mnt/image"), options)
        .context("the mount was refused")?;
    compare(image, mount.path())?;
    mount.unmount()
}

fn refused(image: &Image, options: &str, errno: Errno) -> Result<String> {
    refuses(&image.image, options, errno)
}

/// The reason in the log for a mount that is refused with this errno.
pub(crate) fn reason(errno: Errno) -> Result<&'static str> {
    Ok(match errno {
        Errno::NODATA => "not signed",
        Errno::NOKEY => "signed by an unknown key",
        Errno::KEYREJECTED => "signature @",
        Errno::BADMSG => "image-id @",
        Errno::PERM => "signatures are required",
        other => bail!("{other} is none of the policy"),
    })
}

/// Fails unless the mount of an image of the data disk is refused with this errno, and for its reason.
pub(crate) fn refuses(image: &str, options: &str, errno: Errno) -> Result<String> {
    let mut log = Log::from_now()?;
    match Mount::image(&on_disk(image), Path::new("/mnt/refused"), options) {
        Ok(_) => bail!("{image} was mounted"),
        Err(found) if found == errno => {}
        Err(found) => bail!("{image} was refused with {found}, not {errno}"),
    }
    let line = log.expect_line(reason(errno)?)?;
    Ok(format!("{errno}: {line}"))
}
