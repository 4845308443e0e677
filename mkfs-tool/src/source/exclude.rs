// SPDX-License-Identifier: GPL-2.0-or-later

//! `--exclude`: patterns in the manner of .gitignore, and which of them matched.
//!
//! A pattern without a slash matches a name at any depth; one with a slash, at its start too, is a path from the root of the
//! tree. `*` and `?` stay within a name, `**` is any number of directories.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// The patterns of names that are left out of a tree.
#[derive(Clone, Debug, Default)]
pub struct Exclude {
    set: GlobSet,
    patterns: Arc<[Pattern]>,
}

#[derive(Debug)]
struct Pattern {
    text: String,
    matched: AtomicBool,
}

impl Exclude {
    /// Reads patterns.
    pub fn new(patterns: &[String]) -> Result<Self, globset::Error> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            let named = pattern.trim_end_matches('/');
            let relative = named.trim_start_matches("./").trim_start_matches('/');
            // One that names nothing, as a variable that is not set makes it, matches nothing: `**/` would match everything.
            let is_anywhere = !named.contains('/') && !named.is_empty();
            let anywhere = if is_anywhere { "**/".to_owned() } else { String::new() };
            let glob = GlobBuilder::new(&(anywhere + relative))
                .literal_separator(true)
                .backslash_escape(true)
                .build()?;
            set.add(glob);
        }
        let pattern = |text: &String| Pattern { text: text.clone(), matched: AtomicBool::new(false) };
        Ok(Self { set: set.build()?, patterns: patterns.iter().map(pattern).collect() })
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a path beneath the root is left out.
    pub fn is_match(&self, path: &Path) -> bool {
        if self.is_empty() || !self.set.is_match(path) {
            return false;
        }
        for index in self.set.matches(path) {
            if let Some(pattern) = self.patterns.get(index) {
                pattern.matched.store(true, Ordering::Relaxed);
            }
        }
        true
    }

    /// The patterns that matched nothing.
    pub fn unmatched(&self) -> Vec<&str> {
        let unmatched = self.patterns.iter().filter(|pattern| !pattern.matched.load(Ordering::Relaxed));
        unmatched.map(|pattern| &*pattern.text).collect()
    }
}

/// The patterns in a file: one a line; empty lines, and those that begin with `#`, say nothing.
pub fn patterns_of(text: &str) -> impl Iterator<Item = String> + '_ {
    let lines = text.lines().map(|line| line.strip_suffix('\r').unwrap_or(line));
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_anchors_a_pattern() {
        let patterns = ["*.pyc", "/boot", "var/cache/*", "./tmp", "log/", "a/**/z", "never"];
        let exclude = Exclude::new(&patterns.map(str::to_owned)).unwrap();
        let matches = |path: &str| exclude.is_match(path.as_ref());
        for path in ["x.pyc", "a/b/x.pyc", "boot", "var/cache/apt", "tmp", "log", "a/log", "a/z", "a/b/c/z"] {
            assert!(matches(path), "{path}");
        }
        for path in ["x.pyc/no", "usr/boot", "srv/var/cache/apt", "var/cache", "var/tmp", "b/z", "az"] {
            assert!(!matches(path), "{path}");
        }
        assert_eq!(exclude.unmatched(), ["never"]);
        for names_nothing in ["", "/", "//", ".", "./"] {
            let exclude = Exclude::new(&[names_nothing.to_owned()]).unwrap();
            assert!(!exclude.is_match("a".as_ref()) && !exclude.is_match("a/b".as_ref()), "{names_nothing}");
            assert_eq!(exclude.unmatched(), [names_nothing]);
        }
        let lines = "# a comment\n\n*.o\r\n\\#x\n";
        assert_eq!(patterns_of(lines).collect::<Vec<_>>(), ["*.o", "\\#x"]);
    }
}
