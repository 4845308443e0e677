// SPDX-License-Identifier: GPL-2.0-or-later

//! Python's distributions: `*.dist-info/METADATA` says which one it is, `RECORD` beside it which files it has, and their SHA-256.

use base64::prelude::{Engine as _, BASE64_URL_SAFE_NO_PAD};

use super::lines::{field, lines};
use super::package::{Algorithm, Bytes, Listed, Manager, Package};
use super::{lossy, Wrong};

/// The distribution that metadata at `place` describes.
pub(super) fn metadata(text: &[u8], place: &[u8]) -> Result<Package, Wrong> {
    let mut package = Package::new(Manager::PyPi, String::new(), String::new(), place);
    let (mut author, mut email, mut expression) = (None, None, None);
    // The description follows behind an empty line.
    for (_, line) in lines(text).take_while(|(_, line)| !line.is_empty()) {
        let Some((name, value)) = field(line).filter(|_| !line[0].is_ascii_whitespace()) else { continue };
        let text = || Some(lossy(value)).filter(|text| !text.is_empty() && text != "UNKNOWN");
        match name.to_ascii_lowercase().as_slice() {
            b"name" => package.name = lossy(value),
            b"version" => package.version = lossy(value),
            b"summary" => package.description = text(),
            b"home-page" => package.homepage = text(),
            b"license" => package.license = text(),
            b"license-expression" => expression = text(),
            b"author" => author = text(),
            b"author-email" => email = text(),
            _ => (),
        }
    }
    let lacks = |what: &str| Wrong::new("its head".to_owned(), format!("no field {what}"), "one");
    if package.name.is_empty() {
        return Err(lacks("Name"));
    }
    if package.version.is_empty() {
        return Err(lacks("Version"));
    }
    package.license = expression.or(package.license);
    package.supplier = author.or(email);
    Ok(package)
}

/// The name as package URLs have it: in lower case, and with hyphens.
pub(super) fn normal(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}

/// The files of a distribution, by their paths from the directory that it was installed in.
pub(super) fn record(text: &[u8]) -> Result<Vec<Listed>, Wrong> {
    let mut all = Vec::new();
    for (number, line) in lines(text).filter(|(_, line)| !line.is_empty()) {
        let wrong = |expected| Wrong::bytes(format!("line {number}"), line, expected);
        let wanted = "a path, a digest and a size with commas between";
        let (path, rest) = value(line).ok_or_else(|| wrong(wanted))?;
        let (digest, _) = value(rest.ok_or_else(|| wrong(wanted))?).ok_or_else(|| wrong(wanted))?;
        let split = digest.iter().position(|byte| *byte == b'=').map(|at| (&digest[..at], &digest[at + 1..]));
        let algorithm = split.and_then(|(name, _)| match name {
            b"sha256" => Some(Algorithm::Sha256),
            b"sha384" => Some(Algorithm::Sha384),
            b"sha512" => Some(Algorithm::Sha512),
            _ => None,
        });
        let bytes = match (algorithm, split) {
            (Some(algorithm), Some((_, text))) => {
                let decoded = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
                let bytes = decoded.and_then(|digest| Bytes::digest(algorithm, digest));
                bytes.ok_or_else(|| wrong("the name of a digest, = and the digest as base64"))?
            }
            _ => Bytes::Unknown,
        };
        // Compiled modules are listed without a digest, and are made, and thrown away, at any time.
        let may_be_missing = path.ends_with(b".pyc");
        all.push(Listed { may_be_missing, ..Listed::new(path, bytes) });
    }
    Ok(all)
}

/// The first value of a line with commas between, and what follows the comma.
fn value(line: &[u8]) -> Option<(Vec<u8>, Option<&[u8]>)> {
    if line.first() != Some(&b'"') {
        let mut parts = line.splitn(2, |byte| *byte == b',');
        return Some((parts.next()?.to_vec(), parts.next()));
    }
    let mut text = Vec::new();
    let mut at = 1;
    loop {
        let byte = *line.get(at)?;
        at += 1;
        if byte == b'"' {
            match line.get(at) {
                None => return Some((text, None)),
                Some(b',') => return Some((text, line.get(at + 1..))),
                // Two quotes stand for one.
                Some(b'"') => at += 1,
                Some(_) => return None,
            }
        }
        text.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_ends_where_the_description_begins() {
        let text = b"Metadata-Version: 2.1\nName: Jinja2\nVersion: 3.1\nLicense: BSD\nLicense-Expression: BSD-3-Clause\n\
            Author-email: a@b\nSummary: x\n  more\n\nName: other\n";
        let package = metadata(text, b"place").expect("metadata");
        assert_eq!((&*package.name, package.license.as_deref()), ("Jinja2", Some("BSD-3-Clause")));
        assert_eq!((package.supplier.as_deref(), package.description.as_deref()), (Some("a@b"), Some("x")));
        assert!(metadata(b"Name: x\n\nVersion: 1\n", b"").is_err() && metadata(b"\xff\0", b"").is_err());
        assert_eq!(normal("Zope_Interface"), "zope-interface");
    }

    #[test]
    fn records_have_paths_with_commas_and_quotes() {
        let text =
            b"a/b.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n\"a,\"\"b\"\"\",,\n../x.pyc,,\n";
        let all = record(text).expect("a record");
        let paths: Vec<_> = all.iter().map(|file| &*file.path).collect();
        assert_eq!(paths, [&b"a/b.py"[..], b"a,\"b\"", b"../x.pyc"]);
        assert!(
            matches!(&all[0].bytes, Bytes::Digest(Algorithm::Sha256, digest) if digest[..2] == [0xe3, 0xb0])
        );
        assert!(all[2].may_be_missing && !all[0].may_be_missing);
        for wrong in [&b"path"[..], b"\"path", b"\"a\"b,,", b"a,sha256=x,1"] {
            assert!(record(wrong).is_err());
        }
        for end in 0..text.len() {
            let _ = record(&text[..end]);
        }
    }
}
