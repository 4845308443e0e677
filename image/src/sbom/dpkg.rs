// SPDX-License-Identifier: GPL-2.0-or-later

//! Debian's packages: `var/lib/dpkg/status` says which are there, `var/lib/dpkg/info` which files each has, and their MD5.

use super::lines::{field, lines};
use super::package::{Algorithm, Bytes, Listed, Manager, Package};
use super::{lossy, Wrong};

/// A package of dpkg's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) package: Package,
    /// It is installed, in contrast to one of which only the configuration is left.
    pub(super) is_installed: bool,
    /// Several architectures of it can be installed at once: then the names of its lists have the architecture.
    pub(super) is_multi_arch: bool,
    /// Files that the administrator may change.
    pub(super) conffiles: Vec<Listed>,
}

/// The fields of a package, as they are read.
#[derive(Default)]
struct Fields<'a> {
    first_line: usize,
    name: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    arch: Option<&'a [u8]>,
    status: Option<&'a [u8]>,
    source: Option<&'a [u8]>,
    maintainer: Option<&'a [u8]>,
    homepage: Option<&'a [u8]>,
    description: Option<&'a [u8]>,
    multi_arch: Option<&'a [u8]>,
    conffiles: Vec<Listed>,
    in_conffiles: bool,
}

/// Hands `each` the packages of a list, which lies at `place`.
pub(super) fn status(text: &[u8], place: &[u8], mut each: impl FnMut(Entry)) -> Result<(), Wrong> {
    let mut fields = Fields::default();
    for (number, line) in lines(text) {
        if line.trim_ascii().is_empty() {
            finish(std::mem::take(&mut fields), place, &mut each)?;
            continue;
        }
        let at = || format!("line {number}");
        if matches!(line.first(), Some(b' ' | b'\t')) {
            if fields.in_conffiles {
                let wanted = "a conffile: PATH MD5";
                let listed = conffile(line).ok_or_else(|| Wrong::bytes(at(), line, wanted))?;
                fields.conffiles.push(listed);
            }
            continue;
        }
        let (name, value) =
            field(line).ok_or_else(|| Wrong::bytes(at(), line, "a field NAME: VALUE, or the rest of one"))?;
        if fields.first_line == 0 {
            fields.first_line = number;
        }
        fields.in_conffiles = name.eq_ignore_ascii_case(b"Conffiles");
        let known: [(&str, &mut Option<&[u8]>); 9] = [
            ("Package", &mut fields.name),
            ("Version", &mut fields.version),
            ("Architecture", &mut fields.arch),
            ("Status", &mut fields.status),
            ("Source", &mut fields.source),
            ("Maintainer", &mut fields.maintainer),
            ("Homepage", &mut fields.homepage),
            ("Description", &mut fields.description),
            ("Multi-Arch", &mut fields.multi_arch),
        ];
        for (known, slot) in known {
            if name.eq_ignore_ascii_case(known.as_bytes()) {
                *slot = Some(value);
            }
        }
    }
    finish(fields, place, &mut each)
}

fn finish(fields: Fields<'_>, place: &[u8], each: &mut impl FnMut(Entry)) -> Result<(), Wrong> {
    if fields.first_line == 0 {
        return Ok(());
    }
    let line = fields.first_line;
    let name = fields.name.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Wrong::new(format!("line {line}"), "no field Package", "one"))?;
    // Lists of one package each, without a status, are of those that are there.
    let status = fields.status.unwrap_or(b"install ok installed");
    let state = status.split(u8::is_ascii_whitespace).next_back().unwrap_or_default();
    if state == b"not-installed" {
        return Ok(());
    }
    let version = fields.version.filter(|version| !version.is_empty());
    let is_installed = state != b"config-files";
    let version = match version {
        Some(version) => lossy(version),
        None if !is_installed => String::new(),
        None => return Err(Wrong::new(format!("line {line}"), "no field Version", "one")),
    };
    let text = |value: Option<&[u8]>| value.map(lossy).filter(|text| !text.is_empty());
    let mut package = Package::new(Manager::Deb, lossy(name), version, place);
    package.arch = text(fields.arch);
    package.source = text(fields.source);
    package.supplier = text(fields.maintainer);
    package.homepage = text(fields.homepage);
    package.description = text(fields.description);
    each(Entry {
        package,
        is_installed,
        is_multi_arch: fields.multi_arch.is_some_and(|value| value.eq_ignore_ascii_case(b"same")),
        conffiles: fields.conffiles,
    });
    Ok(())
}

/// A line of the field Conffiles. One that is obsolete belongs to the package, and may go.
fn conffile(line: &[u8]) -> Option<Listed> {
    let mut rest = line.trim_ascii();
    let mut is_gone = false;
    // From the end: paths may have spaces.
    while let Some(shorter) =
        [&b" obsolete"[..], b" remove-on-upgrade"].iter().find_map(|flag| rest.strip_suffix(*flag))
    {
        (rest, is_gone) = (shorter, true);
    }
    let space = rest.iter().rposition(|byte| *byte == b' ')?;
    let (path, digest) = (rest[..space].trim_ascii(), &rest[space + 1..]);
    if path.is_empty() {
        return None;
    }
    let bytes = match digest {
        b"newconffile" => Bytes::Unknown,
        _ => Bytes::hex(Algorithm::Md5, digest)?,
    };
    let listed = Listed { is_config: true, may_be_missing: is_gone, ..Listed::new(path.to_vec(), bytes) };
    Some(listed)
}

/// The paths of a package, directories among them.
pub(super) fn list(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    lines(text).map(|(_, line)| line).filter(|line| !line.is_empty() && *line != b"/.")
}

/// The files of a package with their MD5.
pub(super) fn md5sums(text: &[u8]) -> Result<Vec<Listed>, Wrong> {
    let mut all = Vec::new();
    for (number, line) in lines(text).filter(|(_, line)| !line.is_empty()) {
        let wrong =
            || Wrong::bytes(format!("line {number}"), line, "32 hexadecimal digits, two spaces and a path");
        let (digest, path) = line.split_at_checked(32).ok_or_else(wrong)?;
        let path =
            path.strip_prefix(b"  ").or_else(|| path.strip_prefix(b" *")).filter(|path| !path.is_empty());
        let bytes = Bytes::hex(Algorithm::Md5, digest).ok_or_else(wrong)?;
        all.push(Listed::new(path.ok_or_else(wrong)?.to_vec(), bytes));
    }
    Ok(all)
}

/// A file that one package, or the administrator, has moved out of the way of all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Diversion {
    pub(super) from: Vec<u8>,
    pub(super) to: Vec<u8>,
    /// The package whose own file stays at `from`; `:` for none.
    pub(super) by: Vec<u8>,
}

/// The diversions: three lines each.
pub(super) fn diversions(text: &[u8]) -> Result<Vec<Diversion>, Wrong> {
    let mut all = Vec::new();
    let mut lines = lines(text).filter(|(_, line)| !line.is_empty());
    while let Some((number, from)) = lines.next() {
        let (Some((_, to)), Some((_, by))) = (lines.next(), lines.next()) else {
            let place = format!("line {number}");
            return Err(Wrong::bytes(place, from, "three lines of a diversion: from, to and by"));
        };
        all.push(Diversion { from: from.to_vec(), to: to.to_vec(), by: by.to_vec() });
    }
    Ok(all)
}

/// The symlinks of a group of alternatives, which update-alternatives makes and no list has.
pub(super) fn alternatives(name: &[u8], text: &[u8]) -> Vec<Vec<u8>> {
    let in_etc = |name: &[u8]| [b"etc/alternatives/", name].concat();
    let mut lines = lines(text).map(|(_, line)| line).skip(1);
    let mut all = vec![in_etc(name)];
    all.extend(lines.next().map(<[u8]>::to_vec));
    // Names and links of the others, up to an empty line.
    while let (Some(name), Some(link)) = (lines.next().filter(|name| !name.is_empty()), lines.next()) {
        all.push(in_etc(name));
        all.push(link.to_vec());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &[u8] =
        b"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: same\n\
        Source: glibc\nVersion: 2.36-9\nConffiles:\n /etc/ld.so.conf d41d8cd98f00b204e9800998ecf8427e\n \
        /etc/an old d41d8cd98f00b204e9800998ecf8427e obsolete\nDescription: C library\n more of it\n .\n\n\
        Package: gone\nStatus: deinstall ok config-files\n\n\
        Package: never\nStatus: purge ok not-installed\n\n\n\
        Package: all\nVersion: 1";

    fn entries(text: &[u8]) -> Result<Vec<Entry>, Wrong> {
        let mut all = Vec::new();
        status(text, b"status", |entry| all.push(entry))?;
        Ok(all)
    }

    #[test]
    fn packages_are_those_that_are_there_or_have_left_something() {
        let all = entries(STATUS).expect("a list");
        let names: Vec<_> = all.iter().map(|entry| (&*entry.package.name, entry.is_installed)).collect();
        assert_eq!(names, [("libc6", true), ("gone", false), ("all", true)]);
        let libc = &all[0];
        assert_eq!((libc.package.source.as_deref(), &*libc.package.version), (Some("glibc"), "2.36-9"));
        assert_eq!(libc.package.description.as_deref(), Some("C library"));
        assert!(libc.is_multi_arch && libc.conffiles.len() == 2);
        assert_eq!(libc.conffiles[1].path, b"/etc/an old");
        assert!(libc.conffiles[1].may_be_missing && !libc.conffiles[0].may_be_missing);
    }

    #[test]
    fn what_is_no_list_is_refused_by_line() {
        for (text, wanted) in [
            (&b"Package: a\nVersion: 1\nnonsense\n"[..], "line 3: found 'nonsense'"),
            (b"Version: 1\n", "line 1: found no field Package"),
            (b"\n\nPackage: a\n", "line 3: found no field Version"),
            (b"Package: a\nVersion: 1\nConffiles:\n /etc/x 12\n", "line 4: found ' /etc/x 12'"),
            (b"\0\xff", "line 1: found '\\000\\377'"),
        ] {
            let error = entries(text).expect_err(wanted).text();
            assert!(error.starts_with(wanted), "{error}");
        }
        assert_eq!(entries(b""), Ok(Vec::new()));
        // Cut anywhere, it is a list or refused.
        for end in 0..STATUS.len() {
            let _ = entries(&STATUS[..end]);
        }
    }

    #[test]
    fn sums_diversions_and_alternatives_are_read() {
        let sums = md5sums(b"d41d8cd98f00b204e9800998ecf8427e  usr/bin/a b\n").expect("sums");
        assert_eq!(sums[0].path, b"usr/bin/a b");
        for wrong in
            [&b"d41d8cd98f00b204e9800998ecf8427e"[..], b"zz1d8cd98f00b204e9800998ecf8427e  x", b"short"]
        {
            assert!(md5sums(wrong).is_err());
        }
        let all = diversions(b"/bin/sh\n/bin/sh.distrib\ndash\n").expect("diversions");
        assert_eq!((&*all[0].to, &*all[0].by), (&b"/bin/sh.distrib"[..], &b"dash"[..]));
        assert!(diversions(b"/bin/sh\n/bin/sh.distrib\n").is_err());
        let links = alternatives(
            b"awk",
            b"auto\n/usr/bin/awk\nawk.1.gz\n/usr/share/man/man1/awk.1.gz\n\n/usr/bin/mawk\n5\n\n",
        );
        let wanted: [&[u8]; 4] = [
            b"etc/alternatives/awk",
            b"/usr/bin/awk",
            b"etc/alternatives/awk.1.gz",
            b"/usr/share/man/man1/awk.1.gz",
        ];
        assert_eq!(links, wanted);
        assert_eq!(list(b"/.\n/usr\n/usr/x\n").collect::<Vec<_>>(), [&b"/usr"[..], b"/usr/x"]);
    }
}
