// SPDX-License-Identifier: GPL-2.0-or-later

//! Certificates: whom this machine trusts, and what it shows of itself.

use std::fs;
use std::path::{Path, PathBuf};

use openssl::pkey::PKey;
use openssl::x509::X509;
use tesserafs_image::{text, Error};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};

use super::options::{ClientCertificate, Options};
use super::url::Origin;

/// Where docker and podman have certificates of registries, a folder a host.
const CERTS_D: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// How TLS with a host begins. The certificate that the options name is for the registry and its mirrors alone.
pub(super) fn config(options: &Options, origin: &Origin, is_registry: bool) -> Result<TlsConfig, Error> {
    let mut authorities = options.ca.clone();
    let mut client = options.client.clone().filter(|_| is_registry);
    for folder in folders(origin) {
        let found = Found::in_folder(&folder)?;
        authorities.extend(found.authorities);
        client = client.or(found.client);
    }
    let roots = if authorities.is_empty() {
        RootCerts::PlatformVerifier
    } else {
        let mut roots = system()?;
        for path in &authorities {
            roots.extend(certificates(path)?);
        }
        RootCerts::new_with_certs(&roots)
    };
    let client = client.map(|client| shown_to_host(&client)).transpose()?;
    let config = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(roots).client_cert(client);
    Ok(config.build())
}

/// The folders for a host.
fn folders(origin: &Origin) -> Vec<PathBuf> {
    let own = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let own = own.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    let own = own.map(|own| own.join("containers/certs.d"));
    let all = own.into_iter().chain(CERTS_D.map(PathBuf::from));
    all.flat_map(|folder| origin.names().into_iter().map(move |name| folder.join(name))).collect()
}

/// The certificates of a folder.
#[derive(Debug, Default)]
struct Found {
    authorities: Vec<PathBuf>,
    client: Option<ClientCertificate>,
}

impl Found {
    /// As docker has it: `*.crt` are authorities, `*.cert` a certificate of this machine, whose key is beside it in `*.key`.
    fn in_folder(folder: &Path) -> Result<Self, Error> {
        let mut found = Self::default();
        // A folder that is not there, or that is not for this user.
        let Ok(entries) = fs::read_dir(folder) else { return Ok(found) };
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => found.authorities.push(path),
                Some("cert") if found.client.is_none() => {
                    let key = path.with_extension("key");
                    if !key.exists() {
                        return Err(Error::Refused(format!("{} has no key beside it", text::path(&path))));
                    }
                    found.client = Some(ClientCertificate { cert: path, key });
                }
                _ => (),
            }
        }
        Ok(found)
    }
}

/// The authorities that the system trusts. A set of others replaces them, so they are part of it.
fn system() -> Result<Vec<Certificate<'static>>, Error> {
    openssl_probe::probe().cert_file.map_or(Ok(Vec::new()), |path| certificates(&path))
}

/// All certificates of a file in PEM.
fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, Error> {
    let refuse = |error: openssl::error::ErrorStack| {
        Error::Refused(format!("{} has no certificates in PEM: {error}", text::path(path)))
    };
    let parsed = X509::stack_from_pem(&read(path)?).map_err(refuse)?;
    if parsed.is_empty() {
        return Err(Error::Refused(format!("{} has no certificates in PEM", text::path(path))));
    }
    parsed
        .iter()
        .map(|certificate| Ok(Certificate::from_der(&certificate.to_der().map_err(refuse)?).to_owned()))
        .collect()
}

fn shown_to_host(client: &ClientCertificate) -> Result<ClientCert, Error> {
    let chain = certificates(&client.cert)?;
    let refuse = |error: openssl::error::ErrorStack| {
        Error::Refused(format!("{} has no key in PEM without a password: {error}", text::path(&client.key)))
    };
    // Nobody is asked for a password: it could be anywhere that this program runs.
    let key = PKey::private_key_from_pem_callback(&read(&client.key)?, |_| Ok(0)).map_err(refuse)?;
    // The form that the library of HTTP hands to that of TLS, whatever it was in the file.
    let key = key.private_key_to_pem_pkcs8().map_err(refuse)?;
    let key = PrivateKey::from_pem(&key)
        .map_err(|error| Error::Refused(format!("{}: {error}", text::path(&client.key))))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Io { what: format!("cannot read {}", text::path(path)), source })
}
