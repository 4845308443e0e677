// SPDX-License-Identifier: GPL-2.0-or-later

//! `--file-contexts`: SELinux labels from a policy's file_contexts(5), as setfiles(8) would give them.
//!
//! libselinux is not asked: it is C that reads the policy of the machine it runs on, its bindings need its headers and libclang
//! where mkfs is built, and a process of its tools for each path is too slow. The file is a regular expression and a label a
//! line, and the regular expressions are left to a library. A test compares the labels with those of matchpathcon(8).

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{fs, str};

use regex::bytes::{Regex, RegexBuilder};
use tesserafs_format::FileType;

use crate::error::{Error, Result, Shown};

/// The xattr that has the label.
pub const LABEL: &[u8] = b"security.selinux";

/// Characters that make a path a regular expression.
const META: &str = ".^$?*+|[({";

/// The labels of a policy.
#[derive(Debug)]
pub struct FileContexts {
    /// The first that matches counts.
    specs: Vec<Spec>,
    /// Prefixes of paths that stand for others.
    substitutes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A line.
#[derive(Debug)]
struct Spec {
    /// The common beginning of all paths that it matches.
    prefix: Vec<u8>,
    /// It has nothing but a path.
    exact: bool,
    text: String,
    regex: OnceLock<Option<Regex>>,
    file_type: Option<FileType>,
    /// The label with a NUL; none for `<<none>>`.
    label: Option<Vec<u8>>,
}

impl FileContexts {
    /// Reads a file, and what belongs to it: FILE.homedirs, FILE.local, FILE.subs_dist and FILE.subs, where they are.
    pub fn read(path: &Path) -> Result<Self> {
        let mut specs = Vec::new();
        parse(path, &text_of(path)?, &mut specs)?;
        let beside = |suffix: &str| {
            let mut name = OsString::from(path);
            name.push(suffix);
            PathBuf::from(name)
        };
        let optional = |path: &Path| match text_of(path) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(String::new()),
            other => other,
        };
        for suffix in [".homedirs", ".local"] {
            let path = beside(suffix);
            parse(&path, &optional(&path)?, &mut specs)?;
        }
        let mut substitutes = Vec::new();
        for suffix in [".subs", ".subs_dist"] {
            let text = optional(&beside(suffix))?;
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            substitutes.extend(lines.filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?.as_bytes().to_vec(), words.next()?.as_bytes().to_vec()))
            }));
        }
        // The last one that matches counts, and an exact path before all expressions.
        specs.reverse();
        specs.sort_by_key(|spec| !spec.exact);
        Ok(Self { specs, substitutes })
    }

    /// The value of the xattr for a path beneath the root, if the policy has a label for it.
    pub fn label(&self, path: &[u8], file_type: FileType) -> Option<&[u8]> {
        let mut path = [b"/", path].concat();
        for (from, to) in &self.substitutes {
            let Some(rest) = path.strip_prefix(&from[..]) else { continue };
            if rest.is_empty() || rest.starts_with(b"/") {
                path = [&to[..], rest].concat();
                break;
            }
        }
        let spec = self.specs.iter().find(|spec| spec.matches(&path, file_type))?;
        spec.label.as_deref()
    }
}

impl Spec {
    fn matches(&self, path: &[u8], file_type: FileType) -> bool {
        let fits = self.file_type.is_none_or(|wanted| wanted == file_type) && path.starts_with(&self.prefix);
        if !fits || self.exact {
            return fits && path.len() == self.prefix.len();
        }
        let regex = self.regex.get_or_init(|| compile(&self.text).ok());
        regex.as_ref().is_some_and(|regex| regex.is_match(path))
    }
}

/// As libselinux does: the whole path, byte by byte, and a dot is any byte.
fn compile(text: &str) -> std::result::Result<Regex, regex::Error> {
    RegexBuilder::new(&format!(r"\A(?:{text})\z")).unicode(false).dot_matches_new_line(true).build()
}

fn text_of(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    String::from_utf8(bytes).map_err(|_| Error::unsupported(path, "is no file_contexts: it is not UTF-8"))
}

fn parse(path: &Path, text: &str, specs: &mut Vec<Spec>) -> Result<()> {
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first().is_none_or(|word| word.starts_with('#')) {
            continue;
        }
        let refused =
            |what: &str| Error::unsupported(path, format!("line {number}: {what}: {}", Shown(line.as_ref())));
        let (text, kind, label) = match words[..] {
            [text, label] => (text, None, label),
            [text, kind, label] => (text, Some(kind), label),
            _ => return Err(refused("a path, perhaps a type, and a label are wanted")),
        };
        // Of block devices an image has none.
        let file_type = match kind {
            None => None,
            Some("--") => Some(FileType::Regular),
            Some("-d") => Some(FileType::Directory),
            Some("-l") => Some(FileType::Symlink),
            Some("-p") => Some(FileType::Fifo),
            Some("-s") => Some(FileType::Socket),
            Some("-c") => Some(FileType::Whiteout),
            Some("-b") => continue,
            Some(_) => return Err(refused("the type is none of --, -d, -l, -p, -s, -b, -c")),
        };
        let (prefix, exact) = prefix(text);
        if !exact {
            compile(text).map_err(|_| refused("the path is no regular expression that is known here"))?;
        }
        let label = (label != "<<none>>").then(|| [label.as_bytes(), b"\0"].concat());
        specs.push(Spec { prefix, exact, text: text.to_owned(), regex: OnceLock::new(), file_type, label });
    }
    Ok(())
}

/// The common beginning of all paths that an expression matches, and whether that is all of it.
fn prefix(text: &str) -> (Vec<u8>, bool) {
    let mut prefix = Vec::new();
    if text.contains('|') {
        return (prefix, false);
    }
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let literal = match c {
            '\\' => match chars.next() {
                Some(escaped) if escaped.is_ascii_punctuation() => escaped,
                _ => return (prefix, false),
            },
            c if META.contains(c) => return (prefix, false),
            c => c,
        };
        if matches!(chars.peek(), Some('?' | '*' | '+' | '{')) {
            return (prefix, false);
        }
        prefix.extend_from_slice(literal.encode_utf8(&mut [0; 4]).as_bytes());
    }
    (prefix, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_expression_is_found() {
        for (text, expected, exact) in [
            ("/etc/passwd", "/etc/passwd", true),
            ("/lib/ld\\.so", "/lib/ld.so", true),
            ("/usr(/.*)?", "/usr", false),
            ("/var/logs?/x", "/var/log", false),
            ("/a\\d", "/a", false),
            ("/a|/b", "", false),
            (".*", "", false),
        ] {
            assert_eq!(prefix(text), (expected.as_bytes().to_vec(), exact), "{text}");
        }
    }
}
