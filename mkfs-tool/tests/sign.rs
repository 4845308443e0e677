// SPDX-License-Identifier: GPL-2.0-or-later

//! Signatures: made here, made elsewhere and attached, and refused.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::{read_image, Sandbox};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::cms::{CMSOptions, CmsContentInfo};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkcs7::Pkcs7;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::{X509Builder, X509NameBuilder, X509};
use tesserafs_format::limits::SIGNED_PREFIX;

fn ec(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn rsa() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

fn certificate(key: &PKey<Private>) -> X509 {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "tesserafs test").unwrap();
    let name = name.build();
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&BigNum::from_u32(77).unwrap().to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    let digest =
        if key.id() == openssl::pkey::Id::ED25519 { MessageDigest::null() } else { MessageDigest::sha256() };
    builder.sign(key, digest).unwrap();
    builder.build()
}

/// A sandbox with a tree, and a key with its certificate.
fn sandbox(key: &PKey<Private>) -> (Sandbox, X509) {
    let sandbox = Sandbox::new();
    sandbox.write("src/f", "signed bytes");
    let cert = certificate(key);
    sandbox.write("key", key.private_key_to_pem_pkcs8().unwrap());
    sandbox.write("cert", cert.to_pem().unwrap());
    (sandbox, cert)
}

/// The signature of an image and what it is over.
fn signature(image: &Path) -> (Vec<u8>, [u8; SIGNED_PREFIX]) {
    let read = read_image(image);
    let at = read.superblock.layout.image_bytes as usize;
    let der = read.bytes[at..at + read.superblock.signature_bytes as usize].to_vec();
    assert_eq!(mkfs_tesserafs::encode::sha256(&der), read.superblock.signature_digest);
    assert!(read.bytes[at + der.len()..].iter().all(|byte| *byte == 0));
    (der, read.bytes[..SIGNED_PREFIX].try_into().unwrap())
}

const SIGN: [&str; 4] = ["--sign-key", "key", "--sign-cert", "cert"];

#[test]
fn each_kind_of_key_makes_what_the_kernel_takes() {
    for key in [rsa(), ec(Nid::X9_62_PRIME256V1), ec(Nid::SECP384R1)] {
        let (sandbox, cert) = sandbox(&key);
        let report = sandbox.report(SIGN.iter().chain(&["image", "src"]));
        assert_eq!(report["signed"], true);
        let (der, prefix) = signature(&sandbox.path("image"));
        mkfs_tesserafs::sign::verify(&der, &prefix, &cert).unwrap();
        let mut other = prefix;
        other[9] ^= 1;
        mkfs_tesserafs::sign::verify(&der, &other, &cert).unwrap_err();
        // Detached, without certificates and attributes, one signer by issuer and serial number, SHA-256: small.
        assert!(der.len() < 512, "{}", der.len());
        let pkcs7 = Pkcs7::from_der(&der).unwrap();
        assert!(pkcs7.signed().unwrap().certificates().is_none());
        let sha256 = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
        assert_eq!(der.windows(sha256.len()).filter(|window| *window == sha256).count(), 2);
        // messageDigest would be there with attributes.
        let attribute = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
        assert!(!der.windows(attribute.len()).any(|window| window == attribute));
        // The signature is outside of what the image ID covers.
        let unsigned = sandbox.report(["unsigned", "src"]);
        assert_eq!(unsigned["image_id"], report["image_id"]);
        assert_eq!(unsigned["signed"], false);
    }
}

#[test]
fn a_signature_made_elsewhere_can_be_attached_and_replaced() {
    let key = rsa();
    let (sandbox, cert) = sandbox(&key);
    sandbox.mkfs(["--emit-signed-data", "data", "image", "src"]);
    let unsigned = fs::read(sandbox.path("image")).unwrap();
    assert_eq!(fs::read(sandbox.path("data")).unwrap(), &unsigned[..SIGNED_PREFIX]);
    sandbox.mkfs(["--emit-signed-data", "data2", "image"]);
    assert_eq!(fs::read(sandbox.path("data2")).unwrap(), &unsigned[..SIGNED_PREFIX]);
    let openssl = Command::new("openssl")
        .args(["cms", "-sign", "-binary", "-noattr", "-nocerts", "-md", "sha256", "-outform", "DER"])
        .args(["-signer", "cert", "-inkey", "key", "-in", "data", "-out", "sig"])
        .current_dir(sandbox.path("."))
        .status();
    if !openssl.is_ok_and(|status| status.success()) {
        eprintln!("no openssl program; its library makes the signature");
        let flags = CMSOptions::DETACHED | CMSOptions::BINARY | CMSOptions::NOATTR | CMSOptions::CMS_NOCERTS;
        let cms = CmsContentInfo::sign(Some(&cert), Some(&key), None, Some(&unsigned[..512]), flags).unwrap();
        sandbox.write("sig", cms.to_der().unwrap());
    }
    fs::set_permissions(sandbox.path("image"), fs::Permissions::from_mode(0o640)).unwrap();
    sandbox.mkfs(["--attach-signature", "sig", "--sign-cert", "cert", "image"]);
    let (der, _) = signature(&sandbox.path("image"));
    assert_eq!(der, fs::read(sandbox.path("sig")).unwrap());
    assert_eq!(fs::metadata(sandbox.path("image")).unwrap().permissions().mode() & 0o7777, 0o640);
    let signed = fs::read(sandbox.path("image")).unwrap();
    // Building with the key gives the very same file.
    sandbox.mkfs(SIGN.iter().chain(&["direct", "src"]));
    assert!(fs::read(sandbox.path("direct")).unwrap() == signed);
    // A shorter signature in place of a longer one leaves nothing of it.
    let ec_key = ec(Nid::X9_62_PRIME256V1);
    let flags = CMSOptions::DETACHED | CMSOptions::BINARY | CMSOptions::NOATTR | CMSOptions::CMS_NOCERTS;
    let ec_cert = certificate(&ec_key);
    let cms =
        CmsContentInfo::sign(Some(&ec_cert), Some(&ec_key), None, Some(&unsigned[..512]), flags).unwrap();
    sandbox.write("sig2", cms.to_der().unwrap());
    sandbox.mkfs(["--attach-signature", "sig2", "image"]);
    let (der, _) = signature(&sandbox.path("image"));
    assert_eq!(der, cms.to_der().unwrap());
    sandbox.mkfs(["--attach-signature", "sig", "image"]);
    assert!(fs::read(sandbox.path("image")).unwrap() == signed);
    assert!(!sandbox.names().iter().any(|name| name.starts_with('.')));
}

#[test]
fn what_does_not_serve_is_refused_and_changes_nothing() {
    let key = rsa();
    let (sandbox, cert) = sandbox(&key);
    sandbox.mkfs(["image", "src"]);
    let before = fs::read(sandbox.path("image")).unwrap();
    let flags = CMSOptions::DETACHED | CMSOptions::BINARY | CMSOptions::NOATTR | CMSOptions::CMS_NOCERTS;
    let sign = |bytes: &[u8]| {
        CmsContentInfo::sign(Some(&cert), Some(&key), None, Some(bytes), flags).unwrap().to_der().unwrap()
    };
    let good = sign(&before[..512]);
    sandbox.write("garbage", "not a signature");
    sandbox.write("empty", "");
    sandbox.write("trailing", [&good[..], b"x"].concat());
    sandbox.write("cut", &good[..good.len() - 1]);
    sandbox.write("other", sign(b"other bytes"));
    sandbox.write("pem", "-----BEGIN CMS-----\n");
    for name in ["garbage", "empty", "trailing", "cut", "pem", "missing"] {
        sandbox.refused(1, ["--attach-signature", name, "image"]);
    }
    // With the certificate, the signature itself is checked.
    let error = sandbox.refused(1, ["--attach-signature", "other", "--sign-cert", "cert", "image"]);
    assert!(error.contains("not over this image"), "{error}");
    assert!(fs::read(sandbox.path("image")).unwrap() == before);
    sandbox.write("good", &good);
    sandbox.write("no-image", vec![0; 8192]);
    sandbox.refused(1, ["--attach-signature", "good", "no-image"]);
    assert!(sandbox.refused(1, ["--emit-signed-data", "d", "no-image"]).contains("magic"));
}

#[test]
fn keys_that_do_not_serve_are_refused_before_anything_is_built() {
    let (sandbox, _) = sandbox(&rsa());
    let stranger = certificate(&rsa());
    sandbox.write("stranger", stranger.to_pem().unwrap());
    let error = sandbox.refused(1, ["--sign-key", "key", "--sign-cert", "stranger", "image", "src"]);
    assert!(error.contains("is not for the key"), "{error}");
    for key in [ec(Nid::SECP521R1), PKey::generate_ed25519().unwrap()] {
        sandbox.write("odd", key.private_key_to_pem_pkcs8().unwrap());
        sandbox.write("odd-cert", certificate(&key).to_pem().unwrap());
        let error = sandbox.refused(1, ["--sign-key", "odd", "--sign-cert", "odd-cert", "image", "src"]);
        assert!(error.contains("P-256"), "{error}");
    }
    sandbox.refused(1, ["--sign-key", "cert", "--sign-cert", "cert", "image", "src"]);
    assert!(!sandbox.names().contains(&"image".to_owned()));
}

#[test]
fn an_encrypted_key_wants_a_passphrase_and_says_so_without_a_terminal() {
    let key = rsa();
    let (sandbox, _) = sandbox(&key);
    let pem = key.private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_256_cbc(), b"open sesame");
    sandbox.write("secret", pem.unwrap());
    sandbox.write("passphrase", "open sesame\n");
    sandbox.write("wrong", "open");
    let args = ["--sign-key", "secret", "--sign-cert", "cert", "image", "src"];
    // A session of its own has no terminal.
    let program = env!("CARGO_BIN_EXE_mkfs-tesserafs");
    let mut command = Command::new("setsid");
    let output =
        command.args(["--wait", program]).args(args).current_dir(sandbox.path(".")).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("secret is encrypted") && error.contains("--sign-passphrase"), "{error}");
    let with = |file: &'static str| [&["--sign-passphrase", file][..], &args].concat();
    assert!(sandbox.refused(1, with("wrong")).contains("the passphrase in wrong"));
    assert!(!sandbox.names().contains(&"image".to_owned()));
    sandbox.mkfs(with("passphrase"));
    signature(&sandbox.path("image"));
}

#[test]
fn an_image_with_packs_is_signed_as_any_other_and_its_signature_is_for_no_other_form() {
    let key = rsa();
    let (sandbox, cert) = sandbox(&key);
    fs::create_dir(sandbox.path("packs")).unwrap();
    sandbox.mkfs(["--packdir", "packs", "--emit-signed-data", "data", "image", "src"]);
    let data = fs::read(sandbox.path("data")).unwrap();
    let flags = CMSOptions::DETACHED | CMSOptions::BINARY | CMSOptions::NOATTR | CMSOptions::CMS_NOCERTS;
    let cms = CmsContentInfo::sign(Some(&cert), Some(&key), None, Some(&data), flags).unwrap();
    sandbox.write("sig", cms.to_der().unwrap());
    sandbox.mkfs(["--attach-signature", "sig", "--sign-cert", "cert", "image"]);
    let (_, superblock, prefix) = mkfs_tesserafs::sign::open_image(&sandbox.path("image")).unwrap();
    let at = superblock.layout.image_bytes as usize;
    let image = fs::read(sandbox.path("image")).unwrap();
    let der = &image[at..at + superblock.signature_bytes as usize];
    assert_eq!((der, &prefix[..]), (&fs::read(sandbox.path("sig")).unwrap()[..], &data[..]));
    sandbox.mkfs(SIGN.iter().chain(&["--packdir", "packs", "direct", "src"]));
    assert!(fs::read(sandbox.path("direct")).unwrap() == fs::read(sandbox.path("image")).unwrap());
    sandbox.mkfs(["one", "src"]);
    let error = sandbox.refused(1, ["--attach-signature", "sig", "--sign-cert", "cert", "one"]);
    assert!(error.contains("not over this image"), "{error}");
}
