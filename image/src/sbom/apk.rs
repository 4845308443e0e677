// SPDX-License-Identifier: GPL-2.0-or-later

//! Alpine's packages: `lib/apk/db/installed`, with the files of each and their SHA-1.

use base64::prelude::{Engine as _, BASE64_STANDARD};

use super::lines::lines;
use super::package::{Algorithm, Bytes, Event, Listed, Manager, Package};
use super::{lossy, Wrong};

/// Hands `each` the packages of a database, which lies at `place`; before each its files, where they are `wanted`.
pub(super) fn installed(
    text: &[u8],
    place: &[u8],
    wanted: bool,
    each: &mut dyn FnMut(Event),
) -> Result<(), Wrong> {
    let empty = || Package::new(Manager::Apk, String::new(), String::new(), place);
    let mut package = empty();
    let mut first_line = 0;
    let mut dir: &[u8] = b"";
    let mut file = None;
    for (number, line) in lines(text).chain([(0, &b""[..])]) {
        if line.is_empty() {
            each_file(&mut file, each);
            if first_line != 0 {
                let package = whole(std::mem::replace(&mut package, empty()), first_line)?;
                each(Event::Package(Box::new(package)));
            }
            (first_line, dir) = (0, b"");
            continue;
        }
        let wrong = |expected| Wrong::bytes(format!("line {number}"), line, expected);
        let [letter, b':', value @ ..] = line else { return Err(wrong("a letter, a colon and a value")) };
        if first_line == 0 {
            first_line = number;
        }
        let text = || Some(lossy(value)).filter(|text| !text.is_empty());
        match letter {
            b'P' => package.name = lossy(value),
            b'V' => package.version = lossy(value),
            b'A' => package.arch = text(),
            b'L' => package.license = text(),
            b'm' => package.supplier = text(),
            b'U' => package.homepage = text(),
            b'T' => package.description = text(),
            b'o' => package.source = text(),
            b'F' => dir = value,
            b'R' if wanted => {
                each_file(&mut file, each);
                file = Some(Listed::new(in_directory(dir, value), Bytes::Unknown));
            }
            b'Z' if wanted => {
                let bytes = digest(value).ok_or_else(|| wrong("a digest: Q1 and the SHA-1 as base64"))?;
                let file = file.as_mut().ok_or_else(|| wrong("the digest of a file behind its name"))?;
                file.bytes = bytes;
            }
            _ => (),
        }
    }
    Ok(())
}

fn each_file(file: &mut Option<Listed>, each: &mut dyn FnMut(Event)) {
    if let Some(file) = file.take() {
        each(Event::File(file));
    }
}

/// A package that has a name and a version.
fn whole(package: Package, line: usize) -> Result<Package, Wrong> {
    let place = || format!("line {line}");
    if package.name.is_empty() {
        return Err(Wrong::new(place(), "no field P", "the name of a package"));
    }
    if package.version.is_empty() {
        return Err(Wrong::new(place(), "no field V", "the version of a package"));
    }
    Ok(package)
}

fn in_directory(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        name.to_vec()
    } else {
        [dir, name].join(&b'/')
    }
}

fn digest(value: &[u8]) -> Option<Bytes> {
    let (algorithm, text) = match value {
        [b'Q', b'1', text @ ..] => (Algorithm::Sha1, text),
        [b'Q', b'2', text @ ..] => (Algorithm::Sha256, text),
        _ => return None,
    };
    Bytes::digest(algorithm, BASE64_STANDARD.decode(text).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTALLED: &[u8] = b"C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\nT:the musl c library\nL:MIT\no:musl\n\
        m:Somebody <a@b>\nF:\nR:top\nF:lib\nM:0:0:755\nR:ld-musl-x86_64.so.1\na:0:0:755\n\
        Z:Q12jmj7l5rSw0yVb/vlWAYkK/YBwk=\n\nP:b\nV:2\n";

    fn all(text: &[u8]) -> Result<(Vec<Package>, Vec<Listed>), Wrong> {
        let (mut packages, mut files) = (Vec::new(), Vec::new());
        installed(text, b"installed", true, &mut |event| match event {
            Event::File(file) => files.push(file),
            Event::Package(package) => packages.push(*package),
        })?;
        Ok((packages, files))
    }

    #[test]
    fn packages_have_files_with_digests() {
        let (packages, files) = all(INSTALLED).expect("a database");
        let names: Vec<_> = packages.iter().map(|package| (&*package.name, &*package.version)).collect();
        assert_eq!(names, [("musl", "1.2.4-r2"), ("b", "2")]);
        assert_eq!(packages[0].license.as_deref(), Some("MIT"));
        let paths: Vec<_> = files.iter().map(|file| &*file.path).collect();
        assert_eq!(paths, [&b"top"[..], b"lib/ld-musl-x86_64.so.1"]);
        assert_eq!(files[0].bytes, Bytes::Unknown);
        assert!(
            matches!(&files[1].bytes, Bytes::Digest(Algorithm::Sha1, digest) if digest[..2] == [0xda, 0x39])
        );
    }

    #[test]
    fn what_is_no_database_is_refused_by_line() {
        for (text, wanted) in [
            (&b"P:a\nV:1\nnonsense\n"[..], "line 3: found 'nonsense'"),
            (b"V:1\n", "line 1: found no field P"),
            (b"P:a\n\n", "line 1: found no field V"),
            (b"P:a\nV:1\nZ:Q12jmj7l5rSw0yVb/vlWAYkK/YBwk=\n", "line 3"),
            (b"P:a\nV:1\nR:x\nZ:Q1short\n", "line 4"),
        ] {
            let error = all(text).expect_err(wanted).text();
            assert!(error.starts_with(wanted), "{error}");
        }
        for end in 0..INSTALLED.len() {
            let _ = all(&INSTALLED[..end]);
        }
    }
}
