// SPDX-License-Identifier: GPL-2.0
//! Keys and certificates for the tests, made by openssl in the cache: none is ever in the repository.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::Cache;
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
    run::capture(
        run::command("openssl")
            .args(["x509", "-outform", "DER", "-in"])
            .arg(&signer.certificate)
            .arg("-out")
            .arg(&signer.der),
    )
    .with_context(|| format!("failed to convert the certificate {name}"))?;
    Ok(())
}

/// The options of mkfs that sign an image.
pub(crate) fn options(signer: &Signer) -> Result<[String; 4]> {
    let text = |path: &Path| {
        path.to_str().map(ToOwned::to_owned).with_context(|| format!("{} is not text", path.display()))
    };
    Ok(["--sign-key".to_owned(), text(&signer.key)?, "--sign-cert".to_owned(), text(&signer.certificate)?])
}
