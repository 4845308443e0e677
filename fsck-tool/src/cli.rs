// SPDX-License-Identifier: GPL-2.0

//! The command line.

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use tesserafs_format::Digest;

use crate::check::{self, Options};
use crate::check_signature::Certificate;
use crate::config::{parse_image_id, Config, Mode};
use crate::exit_code::ExitCode;
use crate::list::{self, Listing};
use crate::progress::{Bar, Progress, Silent};
use crate::report::chain;
use tesserafs_image::error::Error;
use tesserafs_image::extract::{self, Extraction};
use tesserafs_image::parallel::Cancel;
use tesserafs_image::source::Source;
use tesserafs_image::text;

const NAME: &str = "fsck-tesserafs";

const AFTER_HELP: &str = "\
Examples:
  fsck-tesserafs root.tess
  fsck-tesserafs --cert signer.pem root.tess      the signature too, by this signer and no other
  fsck-tesserafs --metadata-only --json root.tess
  fsck-tesserafs --list root.tess                 type and mode, owner, size, SHA-256, path
  fsck-tesserafs --list=sha256 root.tess >sums && (cd /mnt/root && sha256sum -c --quiet) <sums
  fsck-tesserafs --extract out/ root.tess

Each finding is one line: IMAGE: SEVERITY: RULE @ PLACE (PATH): found X, expected Y: the rule.
Of each rule 64 are shown, and how many more there are.
RULE is a stable identifier; section 9 of FORMAT.md lists all. SEVERITY is fatal (nothing behind
it could be checked), error, or canonical (reads are right, but no builder makes such an image).
Bytes that are no printable text, and the backslash, are printed as \\ooo (octal) and \\\\.
An image with more holes than anybody would wait for to be digested (content-holes) has its chunks
checked and no contents; nothing of it is listed or extracted.

In a long listing the type w is a whiteout, and sparse: stands before the digest of a file
above 64 GiB, which is over its data runs (FORMAT.md 4.7); --list=sha256 leaves such files out.

A file that --extract gives its name is complete, whatever ends the extraction (SIGKILL leaves half
a file where the filesystem of DIR knows no O_TMPFILE). What had its name by then stays, and so do
the directories, of which nobody else may enter those that are not complete; a DIR that was there
keeps its mode. Exit status 0 says that the tree is complete; after any other, DIR is to be removed.

Exit status, as fsck(8): 0 clean; 4 errors, none of them repaired; 8 operational error;
16 usage error; 32 cancelled by SIGINT, SIGTERM or SIGHUP; or a sum of these.
SIGABRT is what memory that cannot be had ends the program with.";

/// Checks, lists or extracts a tesserafs image. Nothing is ever repaired or written to the image.
#[derive(Debug, Parser)]
#[command(name = NAME, version, after_help = AFTER_HELP, max_term_width = 110)]
struct Args {
    /// The image: a regular file or a block device
    image: PathBuf,

    /// Ask for a signature by one of the certificates in this file, and by no other signer; repeatable
    #[arg(long, value_name = "PEM")]
    cert: Vec<PathBuf>,

    /// Ask for this image ID, as the mount option digest= does
    #[arg(long, value_name = "sha256:HEX", value_parser = parse_image_id)]
    digest: Option<Digest>,

    /// Check the metadata, and read no data
    #[arg(long)]
    metadata_only: bool,

    /// List the files, once the metadata is found clean
    #[arg(
        long,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "long",
        conflicts_with_all = ["json", "extract", "annotation"]
    )]
    list: Option<Listing>,

    /// Restore the tree in DIR, which is empty or does not exist; only verified bytes are written
    #[arg(long, value_name = "DIR", conflicts_with_all = ["metadata_only", "annotation"])]
    extract: Option<PathBuf>,

    /// Print the bytes of an annotation; to a terminal, only those that it shows
    #[arg(long, value_name = "KEY", conflicts_with = "json")]
    annotation: Option<OsString>,

    /// Where packs beside the embedded one are [default: beside IMAGE]
    #[arg(long, value_name = "DIR")]
    packdir: Option<PathBuf>,

    /// Threads to work on [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Report as JSON on standard output
    #[arg(long)]
    json: bool,

    /// Say nothing but findings and errors
    #[arg(long, short)]
    quiet: bool,

    /// For fsck(8); as nothing is ever repaired, no difference
    #[arg(short = 'a', visible_short_aliases = ['p', 'n', 'y', 'f'], overrides_with = "automatic")]
    automatic: bool,

    /// For fsck(8), which passes a file descriptor; progress is shown on a terminal
    #[arg(short = 'C', value_name = "FD", allow_hyphen_values = true)]
    progress: Option<i32>,
}

impl Args {
    fn into_config(self) -> Result<Config, Error> {
        let mut options = Options { pinned: self.digest, pack_dir: self.packdir, ..Options::default() };
        if let Some(threads) = self.threads {
            options.threads = threads.get().min(1024);
        }
        for path in &self.cert {
            options.trusted.extend(Certificate::read_pem(path)?);
        }
        let mode = match (self.list, self.extract, self.annotation) {
            (Some(listing), _, _) => Mode::List(listing),
            (_, Some(dir), _) => Mode::Extract(dir),
            (_, _, Some(key)) => Mode::Annotation(key.into_vec()),
            (None, None, None) => Mode::Check,
        };
        options.metadata_only = self.metadata_only || !matches!(mode, Mode::Check);
        Ok(Config { image: self.image, mode, options, json: self.json, quiet: self.quiet })
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let shown = error.render().to_string();
            // A closed pipe while help is printed is nobody's error.
            let _ = if shown.lines().any(|line| line.contains(char::is_control)) {
                // It quotes an argument, which a shell may have made of the name of a file.
                shown.lines().try_for_each(|line| writeln!(io::stderr(), "{}", text::escape(line.as_bytes())))
            } else {
                error.print()
            };
            return if error.use_stderr() { ExitCode::USAGE } else { ExitCode::CLEAN };
        }
    };
    let result = args.into_config().and_then(|config| run(&config));
    result.unwrap_or_else(|error| {
        say(&chain(&error));
        match error {
            Error::Cancelled => ExitCode::CANCELLED,
            _ => ExitCode::OPERATIONAL,
        }
    })
}

/// Writes a line to standard error; that it cannot be written is no reason to fail.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{NAME}: {line}");
}

fn run(config: &Config) -> Result<ExitCode, Error> {
    let cancel = Cancel::default();
    let no_signals = |source| Error::Io { what: "cannot catch signals".to_owned(), source };
    // Caught, so that a file larger than the process may write is an error and not the end.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(no_signals)?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The second one ends the program where the first is not heard.
        let flag = cancel.flag();
        signal_hook::flag::register_conditional_shutdown(
            signal,
            ExitCode::CANCELLED.value().into(),
            flag.clone(),
        )
        .and_then(|_| signal_hook::flag::register(signal, flag.clone()))
        .map_err(no_signals)?;
    }
    let source = Source::open(&config.image)?;
    let bar: Box<dyn Progress> =
        if config.quiet || !io::stderr().is_terminal() { Box::new(Silent) } else { Box::new(Bar::new()) };

    let mut extraction = Extraction::default();
    let stdout = io::stdout();
    let report = check::check_then(&source, &config.options, bar.as_ref(), &cancel, |context, tree| {
        let mut out = BufWriter::new(stdout.lock());
        if matches!(config.mode, Mode::List(_) | Mode::Annotation(_)) {
            // Or the bar shares a line with the output, and takes it along.
            bar.end();
        }
        let written = match &config.mode {
            Mode::Check => Ok(()),
            Mode::List(listing) => list::list(context, *listing, stdout.is_terminal(), &mut out),
            Mode::Annotation(key) => list::annotation(context, key, stdout.is_terminal(), &mut out),
            Mode::Extract(dir) => extract::extract(context, tree, dir, &mut extraction),
        };
        written.and_then(|()| out.flush().map_err(list::cannot_write))
    });

    let is_output = matches!(config.mode, Mode::Check | Mode::Extract(_));
    let written = if config.json {
        report.write_json(&mut stdout.lock())
    } else if is_output {
        report.write_text(&mut BufWriter::new(stdout.lock()), config.quiet)
    } else {
        // Standard output belongs to the listing.
        report.write_text(&mut io::stderr().lock(), true)
    };
    match written {
        // A closed pipe: who reads has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(list::cannot_write(error)),
        _ => (),
    }
    if let Mode::Extract(dir) = &config.mode {
        let dir = text::path(dir);
        extraction.notes.iter().for_each(|note| say(note));
        if !report.is_clean() {
            say(&match extraction.begun {
                true => format!("{dir}: the extracted tree is not complete"),
                false => format!("{dir}: nothing was extracted"),
            });
        }
    }
    match &report.error {
        Some(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::CLEAN),
        Some(error) => {
            say(&chain(error));
            Ok(report.exit_code())
        }
        None => Ok(report.exit_code()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_fsck_passes_is_understood() {
        for line in ["-a", "-p", "-n", "-y", "-f", "-C0", "-a -C 3", "-pf"] {
            let words = [NAME].into_iter().chain(line.split(' ')).chain(["image"]);
            let args = Args::try_parse_from(words).expect(line);
            assert_eq!(args.image, PathBuf::from("image"));
        }
    }
}
