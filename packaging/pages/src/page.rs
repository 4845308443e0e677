// SPDX-License-Identifier: GPL-2.0-or-later

//! A manual page from the definition of a command line.
//!
//! The text behind the options in `--help` is one there. A page has a section for the examples, one for the exit
//! status, and one for the rest, and keeps the lines of what a user types.

use anyhow::{Context, Result};
use clap::Command;
use clap_mangen::roff::{bold, roman, Roff};
use clap_mangen::Man;

/// The pages to read besides.
const SEE_ALSO: [(&str, &str); 9] = [
    ("mkfs.tesserafs", "8"),
    ("fsck.tesserafs", "8"),
    ("tesserafs-mount", "8"),
    ("tesserafs-umount", "8"),
    ("tesserafs", "8"),
    ("tesserafs", "5"),
    ("mount", "8"),
    ("fsck", "8"),
    ("openssl", "1"),
];

/// The page of a program, in roff.
pub(crate) fn page(program: &Command, date: &str) -> Result<String> {
    let version = program.get_version().context("a program without a version")?;
    let man = Man::new(program.clone())
        .section("8")
        .date(date)
        .source(format!("tesserafs {version}"))
        .manual("System administration");
    let mut page = Vec::new();
    man.render_title(&mut page)
        .and_then(|()| man.render_name_section(&mut page))
        .and_then(|()| man.render_synopsis_section(&mut page))
        .and_then(|()| man.render_description_section(&mut page))
        .and_then(|()| man.render_options_section(&mut page))
        .context("failed to render the options")?;

    let after = program.get_after_help().map(ToString::to_string).unwrap_or_default();
    let after = sections(&after);
    let mut roff = Roff::new();
    for (title, blocks) in
        [("EXIT STATUS", &after.exit_status), ("NOTES", &after.notes), ("EXAMPLES", &after.examples)]
    {
        section(&mut roff, title, blocks);
    }
    see_also(&mut roff, program.get_name());
    page.extend(roff.to_roff().into_bytes());
    String::from_utf8(page).context("a page that is no text")
}

/// A part of the text behind the options.
#[derive(Debug, PartialEq, Eq)]
enum Block {
    /// Lines that are filled.
    Prose(String),
    /// Lines that stay as they are.
    Typed(Vec<String>),
}

/// That text, sorted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sections {
    examples: Vec<Block>,
    notes: Vec<Block>,
    exit_status: Vec<Block>,
}

/// Sorts the paragraphs of the text behind the options.
///
/// A first line that ends in a colon introduces what is typed, if the others are indented.
fn sections(text: &str) -> Sections {
    let mut sections = Sections::default();
    for paragraph in text.split("\n\n") {
        let lines: Vec<&str> = paragraph.lines().collect();
        let Some((first, rest)) = lines.split_first() else {
            continue;
        };
        let is_typed = first.ends_with(':') && !rest.is_empty() && rest.iter().all(|l| l.starts_with("  "));
        if is_typed {
            if *first != "Examples:" {
                sections.examples.push(Block::Prose((*first).to_owned()));
            }
            let typed = rest.iter().map(|line| line.get(2..).unwrap_or_default().to_owned());
            sections.examples.push(Block::Typed(typed.collect()));
            continue;
        }
        let prose = Block::Prose(paragraph.to_owned());
        if first.starts_with("Exit status") {
            sections.exit_status.push(prose);
        } else {
            sections.notes.push(prose);
        }
    }
    sections
}

/// Writes a section, unless it is empty.
fn section(roff: &mut Roff, title: &str, blocks: &[Block]) {
    if blocks.is_empty() {
        return;
    }
    roff.control("SH", [title]);
    for (index, block) in blocks.iter().enumerate() {
        if index > 0 {
            roff.control("PP", []);
        }
        match block {
            Block::Prose(text) => {
                for line in text.lines() {
                    roff.text([roman(line)]);
                }
            }
            Block::Typed(lines) => {
                roff.control("nf", []);
                for line in lines {
                    roff.text([roman(line)]);
                }
                roff.control("fi", []);
            }
        }
    }
}

/// Writes the last section.
fn see_also(roff: &mut Roff, own: &str) {
    roff.control("SH", ["SEE ALSO"]);
    let others: Vec<_> = SEE_ALSO.iter().filter(|(name, _)| *name != own).collect();
    for (index, (name, section)) in others.iter().enumerate() {
        let end = if index + 1 < others.len() { "," } else { "" };
        roff.text([bold(*name), roman(format!("({section}){end}"))]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_behind_the_options_is_sorted() {
        let text = "Examples:\n  a b\n    -c\n\nOn another machine:\n  d\n\nA pattern:\nno list.\n\n\
                    Exit status: 0 it\nworked.";
        let prose = |text: &str| Block::Prose(text.to_owned());
        let typed = |lines: &[&str]| Block::Typed(lines.iter().map(|line| (*line).to_owned()).collect());
        let expected = Sections {
            examples: vec![typed(&["a b", "  -c"]), prose("On another machine:"), typed(&["d"])],
            notes: vec![prose("A pattern:\nno list.")],
            exit_status: vec![prose("Exit status: 0 it\nworked.")],
        };
        assert_eq!(sections(text), expected);
        assert_eq!(sections(""), Sections::default());
    }

    #[test]
    fn pages_have_all_that_the_help_has() {
        for program in crate::programs() {
            let page = page(&program, "2026-11-26").unwrap();
            let after = program.get_after_help().map(ToString::to_string).unwrap_or_default();
            // Not every program has something else to say.
            let notes = (!sections(&after).notes.is_empty()).then_some("NOTES");
            let titles = ["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"];
            for title in titles.into_iter().chain(notes) {
                assert!(
                    page.lines().any(|line| line.trim_end() == format!(".SH {title}")
                        || line == format!(".SH \"{title}\"")),
                    "{title}: {page}"
                );
            }
            let plain = page.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "");
            for option in program.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(plain.contains(&format!("--{option}")), "{option}");
            }
        }
    }
}
