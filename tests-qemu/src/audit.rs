// SPDX-License-Identifier: GPL-2.0
//! `cargo xtask unsafe`: every place of the module where the compiler takes our word, with the reason given there.
//!
//! Read from the text, which rustfmt has brought into one form: a reason is the comment that begins with `SAFETY:`
//! above the statement. The lints of the module demand one; that this finds each is a test (`source/unsafe`).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

use crate::tools;

/// Folders and files of the module that may hold such places.
const PLACES: [&str; 4] = ["vfs.rs", "vfs/", "klib/", "bindings.rs"];

/// A place where the compiler takes our word.
struct Place {
    file: PathBuf,
    line: usize,
    code: String,
    reason: String,
}

/// The places of the module, as a list in Markdown.
pub(crate) fn list() -> Result<String> {
    let places = places()?;
    let mut text = format!("# Unsafe blocks and implementations of the module: {}\n", places.len());
    let mut file = Path::new("");
    for place in &places {
        if place.file != file {
            file = &place.file;
            write!(text, "\n## kernel-module/{}\n\n", file.display())?;
        }
        writeln!(text, "- {}: `{}`  \n  {}", place.line, place.code, place.reason)?;
    }
    Ok(text)
}

/// Fails unless each place is where it may be and has a reason; says how many there are.
pub(crate) fn check() -> Result<String> {
    let places = places()?;
    for Place { file, line, code, reason } in &places {
        let name = format!("kernel-module/{}:{line}", file.display());
        let is_allowed = PLACES.iter().any(|place| file.to_string_lossy().starts_with(place));
        ensure!(is_allowed, "{name}: `{code}` outside of {PLACES:?}");
        ensure!(!reason.is_empty(), "{name}: no reason is given for `{code}`");
    }
    ensure!(!places.is_empty(), "not one is found");
    Ok(format!("{} blocks and implementations", places.len()))
}

fn places() -> Result<Vec<Place>> {
    let root = tools::repository().join("kernel-module");
    let mut places = Vec::new();
    for folder in ["", "vfs", "klib"] {
        let folder = root.join(folder);
        let mut files: Vec<PathBuf> = folder
            .read_dir()
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .with_context(|| format!("failed to list {}", folder.display()))?;
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("failed to read {}", file.display()))?;
            let name = file.strip_prefix(&root).unwrap_or(file);
            places.extend(of_file(name, &text));
        }
    }
    Ok(places)
}

fn of_file(file: &Path, text: &str) -> Vec<Place> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_place = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        code.contains("unsafe {") || code.starts_with("unsafe impl")
    };
    let mut places = Vec::new();
    // A reason is that of the first place behind it, and of no other.
    let mut start = 0;
    for (index, _) in lines.iter().enumerate().filter(|(_, line)| is_place(line)) {
        places.push(Place {
            file: file.to_path_buf(),
            line: index + 1,
            code: code(&lines[index..]),
            reason: reason(&lines[start..index]),
        });
        start = index + 1;
    }
    places
}

/// The code of a place, on one line.
fn code(lines: &[&str]) -> String {
    let first = lines.first().copied().unwrap_or_default();
    if first.ends_with("unsafe {") {
        let inner: Vec<&str> =
            lines.iter().skip(1).copied().take_while(|line| !line.starts_with('}')).collect();
        return format!("{first} {} }}", inner.join(" "));
    }
    first.to_owned()
}

/// The last reason in `lines`, on one line; nothing if there is none.
fn reason(lines: &[&str]) -> String {
    let Some(start) = lines.iter().rposition(|line| line.starts_with("// SAFETY:")) else {
        return String::new();
    };
    let text: Vec<&str> =
        lines[start..].iter().map_while(|line| line.strip_prefix("//")).map(str::trim).collect();
    text.join(" ").trim_start_matches("SAFETY:").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_with_their_reasons() {
        // Spelled as they are, clippy takes them for comments.
        let text = "fn f() {\n    // REASON: It is\n    // so.\n    let x = unsafe { g() };\n    \
                    // REASON: Also.\n    unsafe {\n        h(\n            1,\n        )\n    };\n}\n\
                    // an unsafe { in a comment\nunsafe impl Send for T {}\n"
            .replace("REASON", "SAFETY");
        let found = of_file(Path::new("a.rs"), &text);
        let found: Vec<_> =
            found.iter().map(|place| (place.line, place.code.as_str(), place.reason.as_str())).collect();
        assert_eq!(
            found,
            [
                (4, "let x = unsafe { g() };", "It is so."),
                (6, "unsafe { h( 1, ) }", "Also."),
                (13, "unsafe impl Send for T {}", ""),
            ]
        );
    }
}
