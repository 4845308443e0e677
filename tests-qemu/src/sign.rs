// SPDX-License-Identifier: GPL-2.0
//! Keys and certificates for the tests, made by openssl in the cache: none is ever in the repository.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::{sha256_of, Cache};
use crate::run;

/// A private key with its self-signed certificate.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    /// PEM, private.
    pub(crate) key: PathBuf,
    /// PEM.
    pub(crate) certificate: PathBuf,
    /// DER, as the kernel's keyrings take it.
    pub(crate) der: PathBuf,
}

/// The signers that the tests know.
#[derive(Debug, Clone)]
pub(crate) struct Signers {
    /// RSA of 2048 bits.
    pub(crate) rsa: Signer,
    /// ECDSA on P-256.
    pub(crate) ecdsa: Signer,
    /// RSA; its certificate goes into no keyring.
    pub(crate) stranger: Signer,
}

/// Makes the keys once.
pub(crate) fn signers(cache: &Cache) -> Result<Signers> {
    let folder = cache.once("keys", |folder| {
        let rsa = ["-newkey", "rsa:2048"];
        let ecdsa = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        make(&signer(folder, "rsa"), "rsa", &rsa)?;
        make(&signer(folder, "ecdsa"), "ecdsa", &ecdsa)?;
        make(&signer(folder, "stranger"), "stranger", &rsa)
    })?;
    Ok(Signers {
        rsa: signer(&folder, "rsa"),
        ecdsa: signer(&folder, "ecdsa"),
        stranger: signer(&folder, "stranger"),
    })
}

/// The signers that an appliance knows.
#[derive(Debug, Clone)]
pub(crate) struct Vendor {
    /// Its certificate is built into the kernel.
    pub(crate) current: Signer,
    /// As well; and it was revoked before the kernel was built.
    pub(crate) retired: Signer,
    /// The operator of the machines: its certificate is put into `.tesserafs` after the boot.
    pub(crate) fleet: Signer,
    /// One more of those, whose certificate is not valid any more.
    pub(crate) expired: Signer,
    /// One more of those, whose certificate is on the blacklist before anybody adds it.
    pub(crate) blacklisted: Signer,
    /// Nobody trusts it.
    pub(crate) stranger: Signer,
    /// The built-in certificates, in one PEM file.
    pub(crate) trusted: PathBuf,
}

/// Makes the keys of a vendor once.
pub(crate) fn vendor(cache: &Cache) -> Result<Vendor> {
    const TRUSTED: &str = "trusted.pem";
    let folder = cache.once("vendor-keys", |folder| {
        let rsa = ["-newkey", "rsa:2048"];
        for name in ["vendor", "retired", "fleet", "blacklisted", "outsider"] {
            make(&signer(folder, name), name, &rsa)?;
        }
        make(&signer(folder, "expired"), "expired", &rsa)?;
        expire(&signer(folder, "expired"))?;
        let mut trusted = Vec::new();
        for name in ["vendor", "retired"] {
            let certificate = signer(folder, name).certificate;
            trusted.extend(
                std::fs::read(&certificate)
                    .with_context(|| format!("failed to read {}", certificate.display()))?,
            );
        }
        std::fs::write(folder.join(TRUSTED), trusted).context("failed to write the trusted certificates")
    })?;
    Ok(Vendor {
        current: signer(&folder, "vendor"),
        retired: signer(&folder, "retired"),
        fleet: signer(&folder, "fleet"),
        expired: signer(&folder, "expired"),
        blacklisted: signer(&folder, "blacklisted"),
        stranger: signer(&folder, "outsider"),
        trusted: folder.join(TRUSTED),
    })
}

fn signer(folder: &Path, name: &str) -> Signer {
    Signer {
        key: folder.join(format!("{name}.key.pem")),
        certificate: folder.join(format!("{name}.cert.pem")),
        der: folder.join(format!("{name}.cert.der")),
    }
}

fn make(signer: &Signer, name: &str, algorithm: &[&str]) -> Result<()> {
    run::capture(
        run::command("openssl")
            .args(["req", "-x509", "-nodes", "-sha256", "-days", "36500"])
            .args(["-subj", &format!("/CN=tesserafs test key {name}")])
            .args(algorithm)
            .arg("-keyout")
            .arg(&signer.key)
            .arg("-out")
            .arg(&signer.certificate),
    )
    .with_context(|| format!("failed to make the key {name}"))?;
    convert(signer)
}

/// Writes the certificate as the kernel's keyrings take it.
fn convert(signer: &Signer) -> Result<()> {
    run::capture(
        run::command("openssl")
            .args(["x509", "-outform", "DER", "-in"])
            .arg(&signer.certificate)
            .arg("-out")
            .arg(&signer.der),
    )
    .with_context(|| format!("failed to convert {}", signer.certificate.display()))
    .map(|_| ())
}

/// Makes the certificate end in the second in which it begins.
fn expire(signer: &Signer) -> Result<()> {
    let long = std::fs::read(&signer.certificate)
        .with_context(|| format!("failed to read {}", signer.certificate.display()))?;
    let scratch = tempfile::NamedTempFile::new().context("failed to make a scratch file")?;
    std::fs::write(scratch.path(), long).context("failed to write a scratch file")?;
    run::capture(
        run::command("openssl")
            .args(["x509", "-days", "0", "-in"])
            .arg(scratch.path())
            .arg("-signkey")
            .arg(&signer.key)
            .arg("-out")
            .arg(&signer.certificate),
    )
    .context("failed to make a certificate that has expired")?;
    convert(signer)
}

/// The options of mkfs that sign an image.
pub(crate) fn options(signer: &Signer) -> Result<[String; 4]> {
    let text = |path: &Path| {
        path.to_str().map(ToOwned::to_owned).with_context(|| format!("{} is not text", path.display()))
    };
    Ok(["--sign-key".to_owned(), text(&signer.key)?, "--sign-cert".to_owned(), text(&signer.certificate)?])
}

/// A signature by `signer` over a file, as the kernel's keyrings and mkfs take it: CMS, DER, detached.
pub(crate) fn detached(signer: &Signer, file: &Path, signature: &Path) -> Result<()> {
    run::capture(
        run::command("openssl")
            .args(["cms", "-sign", "-binary", "-noattr", "-nocerts", "-md", "sha256", "-outform", "DER"])
            .arg("-signer")
            .arg(&signer.certificate)
            .arg("-inkey")
            .arg(&signer.key)
            .arg("-in")
            .arg(file)
            .arg("-out")
            .arg(signature),
    )
    .with_context(|| format!("failed to sign {}", file.display()))
    .map(|_| ())
}

/// The same, over bytes.
pub(crate) fn over(signer: &Signer, bytes: &[u8]) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir().context("failed to make a scratch folder")?;
    let (data, signature) = (folder.path().join("data"), folder.path().join("signature"));
    std::fs::write(&data, bytes).context("failed to write what is to be signed")?;
    detached(signer, &data, &signature)?;
    std::fs::read(&signature).context("failed to read a signature")
}

#[cfg(test)]
impl Signer {
    /// A key for one test.
    pub(crate) fn scratch(folder: &Path, name: &str) -> Result<Self> {
        let made = signer(folder, name);
        make(&made, name, &["-newkey", "rsa:2048"])?;
        Ok(made)
    }
}

/// The SHA-256 of the part of a certificate that its issuer has signed: a blacklist names the certificate by
/// it.
pub(crate) fn tbs_digest(signer: &Signer) -> Result<String> {
    let scratch = tempfile::NamedTempFile::new().context("failed to make a scratch file")?;
    // The first element of the outer sequence, header and all.
    run::capture(
        run::command("openssl")
            .args(["asn1parse", "-inform", "DER", "-strparse", "4", "-noout", "-in"])
            .arg(&signer.der)
            .arg("-out")
            .arg(scratch.path()),
    )?;
    sha256_of(scratch.path())
}
