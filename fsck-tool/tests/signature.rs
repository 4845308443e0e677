// SPDX-License-Identifier: GPL-2.0-or-later

//! Signatures: by the right key, by others, over other images, damaged, and not there.

use std::io::Write;

use fsck_tesserafs::check_signature::Certificate;
use fsck_tesserafs::parallel::Cancel;
use fsck_tesserafs::progress::Silent;
use fsck_tesserafs::{check, Options, Report, Source};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::cms::{CMSOptions, CmsContentInfo};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::{X509Name, X509};
use tesserafs_format::Rule;

#[path = "../../format/tests/common/mod.rs"]
mod common;

use common::{attach, superblock, Draft};

struct Signer {
    key: PKey<Private>,
    certificate: X509,
}

impl Signer {
    fn new(name: &str, serial: u32, key: PKey<Private>) -> Self {
        let mut subject = X509Name::builder().expect("a name");
        subject.append_entry_by_text("CN", name).expect("a name");
        let subject = subject.build();
        let mut builder = X509::builder().expect("a certificate");
        builder.set_version(2).expect("version");
        builder.set_subject_name(&subject).expect("subject");
        builder.set_issuer_name(&subject).expect("issuer");
        let serial = BigNum::from_u32(serial).and_then(|serial| serial.to_asn1_integer()).expect("a serial");
        builder.set_serial_number(&serial).expect("serial");
        builder.set_pubkey(&key).expect("key");
        // Long over: as in the kernel, dates do not count.
        builder.set_not_before(&Asn1Time::from_unix(0).expect("a time")).expect("time");
        builder.set_not_after(&Asn1Time::from_unix(1).expect("a time")).expect("time");
        builder.sign(&key, MessageDigest::sha256()).expect("signed");
        Self { key, certificate: builder.build() }
    }

    fn rsa(name: &str, serial: u32) -> Self {
        let rsa = Rsa::generate(2048).and_then(PKey::from_rsa).expect("a key");
        Self::new(name, serial, rsa)
    }

    fn ec(name: &str, curve: Nid) -> Self {
        let group = EcGroup::from_curve_name(curve).expect("a curve");
        Self::new(name, 1, EcKey::generate(&group).and_then(PKey::from_ec_key).expect("a key"))
    }

    /// As `openssl cms -sign -binary -noattr -nocerts -outform DER`.
    fn sign(&self, data: &[u8]) -> Vec<u8> {
        let options =
            CMSOptions::BINARY | CMSOptions::DETACHED | CMSOptions::NOATTR | CMSOptions::CMS_NOCERTS;
        let cms = CmsContentInfo::sign(Some(&self.certificate), Some(&self.key), None, Some(data), options);
        cms.and_then(|cms| cms.to_der()).expect("a signature")
    }

    fn trusted(&self) -> Vec<Certificate> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(&self.certificate.to_pem().expect("PEM")).expect("written");
        Certificate::read_pem(file.path()).expect("a certificate")
    }
}

fn check_bytes(image: &[u8], trusted: Vec<Certificate>) -> Report {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(image).expect("written");
    let source = Source::open(file.path()).expect("opened");
    check(&source, &Options { trusted, ..Options::default() }, &Silent, &Cancel::default())
}

fn signed_by(signer: &Signer) -> Vec<u8> {
    let mut image = Draft::sample().image();
    let signature = signer.sign(&image[..512]);
    attach(&mut image, &signature);
    image
}

/// Expects one finding, of that rule, with those words in it.
fn refused(report: &Report, rule: Rule, words: &str) {
    let all: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(all.len(), 1, "{all:#?}");
    assert_eq!(report.findings[0].rule, rule, "{all:#?}");
    assert!(all[0].contains(words), "{all:#?}");
    assert_eq!(report.signature_is_trusted, Some(false));
}

#[test]
fn the_trusted_key_is_accepted() {
    let signers = [
        Signer::rsa("rsa", 1),
        Signer::ec("p256", Nid::X9_62_PRIME256V1),
        Signer::ec("p384", Nid::SECP384R1),
    ];
    for signer in &signers {
        let image = signed_by(signer);
        let report = check_bytes(&image, signer.trusted());
        assert!(report.is_clean(), "{:#?}", report.findings);
        assert_eq!(report.signature_is_trusted, Some(true));
        // One of several.
        let all = signers.iter().flat_map(Signer::trusted).collect();
        assert!(check_bytes(&image, all).is_clean());
        // No signer was asked for.
        let report = check_bytes(&image, Vec::new());
        assert!(report.is_clean() && report.signed);
        assert_eq!(report.signature_is_trusted, None);
    }
}

#[test]
fn others_are_refused() {
    let (signer, other) = (Signer::rsa("signer", 1), Signer::rsa("other", 1));
    refused(&check_bytes(&signed_by(&other), signer.trusted()), Rule::Signature, "unknown signer");
    // The name and number of the signer, with another key.
    let thief = Signer::rsa("signer", 1);
    refused(&check_bytes(&signed_by(&thief), signer.trusted()), Rule::Signature, "another key");
}

#[test]
fn the_signature_of_another_image_is_refused() {
    let signer = Signer::ec("signer", Nid::X9_62_PRIME256V1);
    let mut image = Draft::sample().image();
    let signature = signer.sign(&Draft::empty().image()[..512]);
    attach(&mut image, &signature);
    refused(&check_bytes(&image, signer.trusted()), Rule::Signature, "over other data");
}

#[test]
fn an_unsigned_image_is_refused_when_asked_for_a_signer() {
    let signer = Signer::ec("signer", Nid::X9_62_PRIME256V1);
    let image = Draft::sample().image();
    refused(&check_bytes(&image, signer.trusted()), Rule::Signature, "not signed");
}

#[test]
fn a_damaged_signature_is_told_from_an_unknown_signer() {
    let signer = Signer::ec("signer", Nid::X9_62_PRIME256V1);
    let mut image = signed_by(&signer);
    let at = image.len() - 4096 + 10;
    image[at] ^= 1;
    refused(&check_bytes(&image, signer.trusted()), Rule::SignatureDigest, "damaged");
}

#[test]
fn bytes_that_are_no_signature_are_refused() {
    let signer = Signer::ec("signer", Nid::X9_62_PRIME256V1);
    let mut image = Draft::sample().image();
    attach(&mut image, b"not DER");
    refused(&check_bytes(&image, signer.trusted()), Rule::Signature, "no PKCS#7");
}

#[test]
fn a_changed_prefix_is_refused() {
    let signer = Signer::ec("signer", Nid::X9_62_PRIME256V1);
    let mut image = signed_by(&signer);
    // A compat feature is nothing that the rest of the check minds.
    superblock(&mut image, |sb| sb.compat = 1.into());
    refused(&check_bytes(&image, signer.trusted()), Rule::Signature, "over other data");
}
