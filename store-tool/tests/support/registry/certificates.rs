// SPDX-License-Identifier: GPL-2.0-or-later

//! Certificates of an authority of the tests' own.

use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{SslAcceptor, SslMethod, SslVerifyMode};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509NameBuilder, X509};

/// An authority.
pub(crate) struct Authority {
    certificate: X509,
    key: PKey<Private>,
}

/// A certificate and its key.
pub(crate) struct Issued {
    pub(crate) certificate: X509,
    pub(crate) key: PKey<Private>,
}

/// The key of a certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Rsa,
    Elliptic,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = key(Kind::Elliptic);
        let certificate = certificate("an authority", &key, None);
        Self { certificate, key }
    }

    /// Issues a certificate for 127.0.0.1 and localhost, or for a client: nobody asks which.
    pub(crate) fn issue(&self, kind: Kind) -> Issued {
        let key = key(kind);
        Issued { certificate: certificate("somebody", &key, Some(self)), key }
    }

    /// The file that whoever trusts it has.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("authority.crt");
        std::fs::write(&path, self.certificate.to_pem().expect("PEM")).expect("a file");
        path
    }

    /// The certificate of a server; `asks` for certificates of clients by this authority.
    pub(crate) fn acceptor(&self, asks: bool) -> SslAcceptor {
        let Issued { certificate, key } = self.issue(Kind::Rsa);
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("an acceptor");
        acceptor.set_certificate(&certificate).expect("a certificate");
        acceptor.set_private_key(&key).expect("a key");
        if asks {
            acceptor.cert_store_mut().add_cert(self.certificate.clone()).expect("a certificate");
            acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        }
        acceptor.build()
    }
}

impl Issued {
    /// The files that a client has, the key in the form of its kind.
    pub(crate) fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let (cert, path) = (folder.join("client.cert"), folder.join("client.key"));
        std::fs::write(&cert, self.certificate.to_pem().expect("PEM")).expect("a file");
        let key = match self.key.rsa() {
            Ok(rsa) => rsa.private_key_to_pem(),
            Err(_) => self.key.ec_key().expect("a key").private_key_to_pem(),
        };
        std::fs::write(&path, key.expect("PEM")).expect("a file");
        (cert, path)
    }
}

fn key(kind: Kind) -> PKey<Private> {
    match kind {
        Kind::Rsa => PKey::from_rsa(Rsa::generate(2048).expect("a key")),
        Kind::Elliptic => {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
            PKey::from_ec_key(EcKey::generate(&group).expect("a key"))
        }
    }
    .expect("a key")
}

fn certificate(name: &str, key: &PKey<Private>, issuer: Option<&Authority>) -> X509 {
    let mut subject = X509NameBuilder::new().expect("a name");
    subject.append_entry_by_nid(Nid::COMMONNAME, name).expect("a name");
    let subject = subject.build();
    let mut builder = X509::builder().expect("a certificate");
    builder.set_version(2).expect("a version");
    let serial = BigNum::from_u32(std::process::id()).and_then(|number| number.to_asn1_integer());
    builder.set_serial_number(&serial.expect("a number")).expect("a number");
    builder.set_subject_name(&subject).expect("a name");
    builder
        .set_issuer_name(issuer.map_or(&subject, |issuer| issuer.certificate.subject_name()))
        .expect("a name");
    builder.set_pubkey(key).expect("a key");
    builder.set_not_before(&Asn1Time::days_from_now(0).expect("a time")).expect("a time");
    builder.set_not_after(&Asn1Time::days_from_now(2).expect("a time")).expect("a time");
    let extension = match issuer {
        None => BasicConstraints::new().critical().ca().build(),
        Some(issuer) => {
            let context = builder.x509v3_context(Some(&issuer.certificate), None);
            SubjectAlternativeName::new().dns("localhost").ip("127.0.0.1").build(&context)
        }
    };
    builder.append_extension(extension.expect("an extension")).expect("an extension");
    builder.sign(issuer.map_or(key, |issuer| &issuer.key), MessageDigest::sha256()).expect("a signature");
    builder.build()
}
