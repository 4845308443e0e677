// SPDX-License-Identifier: GPL-2.0-or-later

//! Signatures: CMS over the signed prefix, in the one form that the kernel's parser accepts (`FORMAT.md` 7).
//!
//! OpenSSL writes and reads all of the ASN.1.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use openssl::cms::{CMSOptions, CmsContentInfo};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::stack::Stack;
use openssl::x509::X509;
use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE, SIGNATURE_MAX, SIGNED_PREFIX};
use tesserafs_format::superblock::{check_prefix, signed_prefix};
use tesserafs_format::{Digest, SuperBlock};
use zerocopy::IntoBytes;

use crate::encode::{sha256, Sha2};
use crate::error::{Error, Result, Shown};
use crate::output::Output;

/// A key and its certificate.
pub struct Signer {
    key: PKey<Private>,
    cert: X509,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

fn refuse(what: &str, path: &Path) -> impl FnOnce(ErrorStack) -> Error {
    let text = format!("{} is not {what}", Shown(path));
    move |error| Error::Signature(format!("{text}: {error}"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::io("read", path))
}

/// Reads a certificate, PEM.
pub fn certificate(path: &Path) -> Result<X509> {
    X509::from_pem(&read(path)?).map_err(refuse("an X.509 certificate in PEM form", path))
}

/// Reads a key; an encrypted one with the passphrase in a file, or from the terminal.
fn private_key(path: &Path, passphrase: Option<&Path>) -> Result<PKey<Private>> {
    let pem = read(path)?;
    let no_key = refuse("a private key in PEM form", path);
    if let Some(file) = passphrase {
        let text = read(file)?;
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let what = format!("a private key in PEM form with the passphrase in {}", Shown(file));
        return PKey::private_key_from_pem_passphrase(&pem, line).map_err(refuse(&what, path));
    }
    let mut encrypted = false;
    let key = PKey::private_key_from_pem_callback(&pem, |_| {
        encrypted = true;
        Ok(0)
    });
    if !encrypted {
        return key.map_err(no_key);
    }
    // OpenSSL asks on the terminal of the process, wherever its standard input comes from.
    if OpenOptions::new().read(true).write(true).open("/dev/tty").is_err() {
        return Err(Error::Signature(format!(
            "{} is encrypted, and there is no terminal to ask for its passphrase: name a file that has it with \
             --sign-passphrase",
            Shown(path)
        )));
    }
    PKey::private_key_from_pem(&pem).map_err(no_key)
}

impl Signer {
    /// Reads a key and its certificate, both PEM, and proves that they belong together and that the kernel knows their kind.
    pub fn new(key_path: &Path, cert_path: &Path, passphrase: Option<&Path>) -> Result<Self> {
        let key = private_key(key_path, passphrase)?;
        let cert = certificate(cert_path)?;
        let public = cert.public_key().map_err(refuse("a certificate with a usable key", cert_path))?;
        if !key.public_eq(&public) {
            return Err(Error::Signature(format!(
                "the certificate {} is not for the key {}",
                Shown(cert_path),
                Shown(key_path)
            )));
        }
        let curve = key.ec_key().ok().and_then(|key| key.group().curve_name());
        let known = match key.id() {
            Id::RSA => true,
            Id::EC => matches!(curve, Some(Nid::X9_62_PRIME256V1 | Nid::SECP384R1)),
            _ => false,
        };
        if !known {
            return Err(Error::Signature(format!(
                "{}: the kernel verifies RSA keys and ECDSA keys on P-256 and P-384",
                Shown(key_path)
            )));
        }
        Ok(Self { key, cert })
    }

    /// The signature of a signed prefix.
    pub fn sign(&self, prefix: &[u8; SIGNED_PREFIX]) -> Result<Vec<u8>> {
        let flags = CMSOptions::DETACHED | CMSOptions::BINARY | CMSOptions::NOATTR | CMSOptions::CMS_NOCERTS;
        let failed = |error: ErrorStack| Error::Signature(format!("cannot sign: {error}"));
        let cms = CmsContentInfo::sign(Some(&self.cert), Some(&self.key), None, Some(prefix), flags)
            .map_err(failed)?;
        let der = cms.to_der().map_err(failed)?;
        check_signature(&der, "the signature that OpenSSL made")?;
        verify(&der, prefix, &self.cert)?;
        Ok(der)
    }
}

/// Proves that bytes are a CMS signature in DER form, and nothing else.
pub fn check_signature(der: &[u8], name: &str) -> Result<()> {
    let refused = |what: String| Err(Error::Signature(format!("{name} {what}")));
    if der.starts_with(b"-----BEGIN") {
        return refused("is PEM; the image holds DER: make it with -outform DER".into());
    }
    if der.len() > SIGNATURE_MAX as usize {
        return refused(format!("has {} bytes; an image holds {SIGNATURE_MAX}", der.len()));
    }
    let signed = openssl::pkcs7::Pkcs7::from_der(der);
    match signed.and_then(|pkcs7| Ok((pkcs7.type_().map(|kind| kind.nid()), pkcs7.to_der()?))) {
        Ok((Some(Nid::PKCS7_SIGNED), again)) if again == der => Ok(()),
        Ok((Some(Nid::PKCS7_SIGNED), _)) => refused("is not in DER form, or more follows it".into()),
        Ok(_) => refused("is PKCS#7, but no signature".into()),
        Err(_) => refused("is not PKCS#7/CMS in DER form".into()),
    }
}

/// Proves that a signature is over `prefix` and by the key of `cert`.
pub fn verify(der: &[u8], prefix: &[u8; SIGNED_PREFIX], cert: &X509) -> Result<()> {
    let verified = || -> std::result::Result<(), ErrorStack> {
        let mut certs = Stack::new()?;
        certs.push(cert.clone())?;
        let flags = CMSOptions::BINARY | CMSOptions::NO_SIGNER_CERT_VERIFY | CMSOptions::NOINTERN;
        CmsContentInfo::from_der(der)?.verify(Some(&certs), None, Some(prefix), None, flags)
    };
    verified().map_err(|error| {
        Error::Signature(format!("the signature is not over this image by the certificate's key: {error}"))
    })
}

/// Writes a signature behind an image of `superblock`, and its length and digest into the superblock.
pub fn append_signature(file: &File, path: &Path, superblock: &SuperBlock, der: &[u8]) -> Result<()> {
    let at = superblock.layout.image_bytes;
    let mut padded = der.to_vec();
    padded.resize(padded.len().next_multiple_of(BLOCK_SIZE), 0);
    let signed = SuperBlock {
        signature_bytes: der.len() as u32,
        signature_digest: if der.is_empty() { Digest::default() } else { sha256(der) },
        ..*superblock
    };
    file.write_all_at(&padded, at)
        .and_then(|()| file.set_len(at + padded.len() as u64))
        .and_then(|()| file.write_all_at(signed.to_raw::<Sha2>().as_bytes(), 0))
        .map_err(Error::io("write", path))
}

/// Reads the superblock of an existing image.
pub fn read_superblock(file: &File, path: &Path) -> Result<(SuperBlock, [u8; SIGNED_PREFIX])> {
    let mut block = [0; BLOCK_SIZE];
    file.read_exact_at(&mut block, 0).map_err(Error::io("read the superblock of", path))?;
    let superblock = check_prefix::<Sha2>(&block)
        .and_then(|_| SuperBlock::parse(&block))
        .map_err(|source| Error::Image { path: path.to_owned(), source })?;
    Ok((superblock, *signed_prefix(&block)))
}

/// Opens an existing image and reads its superblock.
pub fn open_image(path: &Path) -> Result<(File, SuperBlock, [u8; SIGNED_PREFIX])> {
    let file = OpenOptions::new().read(true).open(path).map_err(Error::io("open", path))?;
    let (superblock, prefix) = read_superblock(&file, path)?;
    Ok((file, superblock, prefix))
}

/// Writes the bytes that a signature is over.
pub fn emit_signed_data(prefix: &[u8; SIGNED_PREFIX], path: &Path) -> Result<()> {
    if path.as_os_str() == "-" {
        return io::stdout().write_all(prefix).map_err(Error::io("write", path));
    }
    // A target that is no file, such as a pipe, cannot be replaced.
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return fs::write(path, prefix).map_err(Error::io("write", path));
    }
    let output = Output::create(path, true)?;
    output.file()?.write_all(prefix).map_err(Error::io("write", path))?;
    output.commit()
}

/// Gives an existing image the signature in the file `signature`, in place of the one it has.
///
/// A copy gets it, and then the image's name: a reader of the image sees the old one or the new one
/// meanwhile.
pub fn attach_signature(image: &Path, signature: &Path, cert: Option<&X509>) -> Result<SuperBlock> {
    let der = read(signature)?;
    check_signature(&der, &Shown(signature).to_string())?;
    let (mut file, superblock, prefix) = open_image(image)?;
    if let Some(cert) = cert {
        verify(&der, &prefix, cert)?;
    }
    let metadata = file.metadata().map_err(Error::io("stat", image))?;
    let at = superblock.layout.image_bytes;
    if metadata.len() < at {
        let reason = format!("has {} bytes, less than the {at} of its image", metadata.len());
        return Err(Error::unsupported(image, reason));
    }
    let output = Output::create(image, true)?;
    let mut copy = output.file()?;
    let copied = file.seek(SeekFrom::Start(0)).and_then(|_| io::copy(&mut (&file).take(at), &mut copy));
    if copied.map_err(Error::io("copy", image))? != at {
        return Err(Error::Changed { path: image.to_owned(), what: "it became shorter" });
    }
    append_signature(&copy, image, &superblock, &der)?;
    let mode = fs::Permissions::from_mode(metadata.permissions().mode() & 0o7777);
    copy.set_permissions(mode).map_err(Error::io("set the mode of", image))?;
    copy.sync_all().map_err(Error::io("write", image))?;
    output.commit()?;
    Ok(read_superblock(&copy, image)?.0)
}

/// Bytes of an image with a signature of so many bytes.
pub fn signed_bytes(superblock: &SuperBlock, signature: usize) -> u64 {
    superblock.layout.image_bytes + (signature as u64).next_multiple_of(BLOCK_BYTES)
}
