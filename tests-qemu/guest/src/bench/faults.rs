// SPDX-License-Identifier: GPL-2.0
//! Page faults, and the starts of programs, which are mostly page faults.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};
use tesserafs_guest::reading::Page;

use super::measures::{cold, Measure, Opens, Subject, PAGE};
use super::Work;
use crate::sys::{self, Mapping};

/// A program that gcc compiles.
pub(super) const SOURCE: (&str, &str) =
    ("tmp/hello.c", "#include <stdio.h>\nint main(void) { return printf(\"compiled %d\\n\", 6 * 7) < 0; }\n");

pub(super) const FAULTS: [Measure; 13] = [
    cold("fault: 1 page of a large program", |at| pages_of_program(at, 1)).with_open(Opens::Program),
    cold("fault: 8 pages of a large program", |at| pages_of_program(at, 8)).with_open(Opens::Program),
    cold("fault: 32 pages of a large program", |at| pages_of_program(at, 32)).with_open(Opens::Program),
    cold("fault: 200 pages of all files", |at| pages_of_all(at, 200)).with_open(Opens::FilesOfPages),
    cold("fault: 2000 pages of all files", |at| pages_of_all(at, 2000)).with_open(Opens::FilesOfPages),
    cold("fault: a large program, in order", program_in_order).with_open(Opens::Program),
    cold("start of cc1 --version", |at| start(at.root, &[&format!("/{}", at.plan.program), "--version"])),
    cold("start of bash", |at| start(at.root, &["/bin/bash", "-c", ":"])),
    cold("start of python3", |at| start(at.root, &["/usr/bin/python3", "-c", "pass"])),
    cold("start of python3, ssl and json", |at| {
        start(at.root, &["/usr/bin/python3", "-c", "import ssl, json"])
    }),
    // Its program, an empty one, comes from standard input: with `-e` perl opens `/dev/null` of its root.
    cold("start of perl", |at| start(at.root, &["/usr/bin/perl", "-MPOSIX", "-"])),
    cold("start of gcc, compiling a file", |at| {
        start(at.root, &["/usr/bin/gcc", "-c", "-o", "/tmp/hello.o", "/tmp/hello.c"])
    })
    .with_scratch(),
    cold("start of apt-get --version", |at| start(at.root, &["/usr/bin/apt-get", "--version"])),
];

/// Faults in the first `count` of the pages that were drawn from the large program.
fn pages_of_program(at: &Subject<'_>, count: usize) -> Result<Work> {
    fault_in(at, &at.plan.program_pages, count)
}

/// The same, of those that were drawn from all files.
fn pages_of_all(at: &Subject<'_>, count: usize) -> Result<Work> {
    fault_in(at, &at.plan.pages, count)
}

/// Maps each file as a whole when its first page is wanted, and touches the pages.
fn fault_in(at: &Subject<'_>, pages: &[Page], count: usize) -> Result<Work> {
    let mut mappings: HashMap<&str, Mapping> = HashMap::new();
    let mut work = Work::default();
    for page in pages.iter().take(count) {
        if !mappings.contains_key(page.path.as_str()) {
            mappings.insert(&page.path, map(at.opened(&page.path)?, &page.path)?);
        }
        touch(&mappings[page.path.as_str()], page.offset, &mut work)?;
    }
    Ok(work)
}

/// Touches each page of the large program from its beginning to its end.
fn program_in_order(at: &Subject<'_>) -> Result<Work> {
    let mapping = map(at.opened(&at.plan.program)?, &at.plan.program)?;
    let mut work = Work::default();
    for offset in (0..mapping.bytes().len()).step_by(PAGE) {
        touch(&mapping, offset as u64, &mut work)?;
    }
    Ok(work)
}

fn map(file: &File, path: &str) -> Result<Mapping> {
    let length = file.metadata().with_context(|| format!("failed to look at {path}"))?.len();
    let length = usize::try_from(length).context("a size out of range")?;
    Mapping::new(file, length).with_context(|| format!("failed to map {path}"))
}

/// Reads one byte of a page, which all systems have alike.
fn touch(mapping: &Mapping, offset: u64, work: &mut Work) -> Result<()> {
    let place = usize::try_from(offset).context("a position out of range")?;
    let byte = mapping.bytes().get(place).context("a page behind the end of its file")?;
    work.count += 1;
    work.bytes += PAGE as u64;
    work.found = work.found.wrapping_mul(31).wrapping_add(u64::from(*byte));
    Ok(())
}

/// Starts a program of the mount and waits for its end.
fn start(root: &Path, command: &[&str]) -> Result<Work> {
    let mut program = Command::new(command[0]);
    program
        .args(&command[1..])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    sys::enter_root(&mut program, root).context("the root cannot be entered")?;
    let status = program.status().with_context(|| format!("failed to start {}", command[0]))?;
    ensure!(status.success(), "{} ended with {status}", command[0]);
    Ok(Work { count: 1, ..Work::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_counted_and_its_first_byte_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut bytes = vec![0; 2 * PAGE + 1];
        (bytes[PAGE], bytes[2 * PAGE]) = (2, 3);
        std::fs::write(&path, bytes).unwrap();
        let mapping = map(&File::open(&path).unwrap(), "file").unwrap();
        let mut work = Work::default();
        touch(&mapping, PAGE as u64, &mut work).unwrap();
        touch(&mapping, 2 * PAGE as u64, &mut work).unwrap();
        assert_eq!(work, Work { count: 2, bytes: 2 * PAGE as u64, found: 2 * 31 + 3 });
        assert!(touch(&mapping, 3 * PAGE as u64, &mut work).is_err());
    }
}
