// SPDX-License-Identifier: GPL-2.0-or-later

//! The name of a system, by its `os-release`.

use super::lines::lines;
use super::lossy;

/// The system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// Its short name, such as `debian`; `linux` where it has none.
    pub id: String,
    /// Its number, such as `13`.
    pub version_id: Option<String>,
    /// Its name for people.
    pub pretty_name: Option<String>,
    /// Its page.
    pub home_url: Option<String>,
    /// Its name for vulnerability databases.
    pub cpe: Option<String>,
    /// The file that says so.
    pub place: Vec<u8>,
}

impl OsRelease {
    /// Reads the file at `place`; lines that mean nothing are none of a shell's either.
    pub(super) fn parse(text: &[u8], place: &[u8]) -> Self {
        let mut os = Self { id: "linux".to_owned(), place: place.to_vec(), ..Self::default() };
        for (_, line) in lines(text) {
            let Some(equals) = line.iter().position(|byte| *byte == b'=') else { continue };
            let value = unquoted(&line[equals + 1..]);
            if value.is_empty() {
                continue;
            }
            match &line[..equals] {
                b"ID" => os.id = value,
                b"VERSION_ID" => os.version_id = Some(value),
                b"PRETTY_NAME" => os.pretty_name = Some(value),
                b"HOME_URL" => os.home_url = Some(value),
                b"CPE_NAME" => os.cpe = Some(value),
                _ => (),
            }
        }
        os
    }

    /// The system and its number, as package URLs name a distribution.
    pub(super) fn distro(&self) -> String {
        match &self.version_id {
            Some(version) => format!("{}-{version}", self.id),
            None => self.id.clone(),
        }
    }
}

/// A value without its quotes, and without the backslashes before characters that mean something to a shell.
fn unquoted(value: &[u8]) -> String {
    let value = lossy(value);
    let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''));
    let inner = quote.and_then(|quote| value.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(&value);
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c == '\\' && quote != Some('\'') {
            text.extend(chars.next());
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_have_quotes() {
        let text = b"# x\nID=debian\nVERSION_ID=\"13\"\nPRETTY_NAME='Debian \\x'\nHOME_URL=\"a\\$b\"\nnonsense\n\xff=\n";
        let os = OsRelease::parse(text, b"etc/os-release");
        assert_eq!((&*os.id, os.version_id.as_deref()), ("debian", Some("13")));
        assert_eq!((os.pretty_name.as_deref(), os.home_url.as_deref()), (Some("Debian \\x"), Some("a$b")));
        assert_eq!(os.distro(), "debian-13");
        assert_eq!(OsRelease::parse(b"ID=\"\nVERSION_ID='", b"").id, "\"");
    }
}
