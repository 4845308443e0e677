// SPDX-License-Identifier: GPL-2.0-or-later

//! Does what the command line asks for, and says what came of it.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use tesserafs_image::extract::{self, Extraction};
use tesserafs_image::finding::Findings;
use tesserafs_image::lookup::{self, Found, Last};
use tesserafs_image::losses::Losses;
use tesserafs_image::signals::not_ignored;
use tesserafs_image::walk::Tree;
use tesserafs_image::{tar, text, Cancel, Context, Error, Scope, Source};

use crate::check;
use crate::config::{Config, Mode, Shown};
use crate::exit_code::ExitCode;
use crate::list;
use crate::print::{self, cannot_write};
use crate::probe;
use crate::progress::{Bar, Lines, Passes, Progress, Silent};
use crate::report::{chain, Report};
use crate::NAME;

/// Bytes of the output that are written at once.
const OUTPUT: usize = 1 << 16;

/// Writes a line to standard error; a failure to write it is ignored.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{NAME}: {line}");
}

/// Runs the program.
pub(crate) fn run(config: &Config) -> Result<ExitCode, Error> {
    if matches!(config.mode, Mode::Probe) {
        return probe(config);
    }
    let cancel = catch_signals()?;
    let stdout = io::stdout();
    if matches!(config.mode, Mode::Tar) && stdout.is_terminal() {
        return Err(Error::Refused("an archive is not written to a terminal".to_owned()));
    }
    // First of all: a file that is opened here could get the number that the caller did not open.
    let progress = progress(config);
    let source = Source::open(&config.image)?;

    let mut extraction = Extraction::default();
    let mut report =
        check::check_then(&source, &config.options, progress.as_ref(), &cancel, |context, tree| {
            let mut out = BufWriter::with_capacity(OUTPUT, stdout.lock());
            if matches!(config.mode, Mode::List(_) | Mode::Annotation(_) | Mode::Cat(_)) {
                // Or the bar shares a line with the output, and takes it along.
                progress.end();
            }
            let is_terminal = stdout.is_terminal();
            act(config, context, tree, is_terminal, &mut out, &mut extraction)?;
            out.flush().map_err(cannot_write)
        });
    if matches!(config.mode, Mode::List(_) | Mode::Annotation(_) | Mode::Cat(_)) {
        // The reader has read enough. Nobody has enough of an archive before its end.
        report.error.take_if(|error| is_broken_pipe(error));
    }
    let restores = matches!(config.mode, Mode::Extract(..) | Mode::Tar);
    let mut code = report.exit_code();
    if restores {
        if !extraction.losses.is_empty(config.strict) {
            code = code | ExitCode::NOT_RESTORED;
        }
        say_losses(&extraction.losses, config.verbose);
        report.losses = Some(extraction.losses);
    }
    write_report(config, &report, code)?;
    if !report.is_served() {
        match &config.mode {
            Mode::Extract(dir, _) => say_incomplete(dir, extraction.begun),
            Mode::Tar => say("the archive is not complete"),
            Mode::Cat(path) if !report.totals.is_empty() => {
                say(&format!("{}: the output is not the whole file", text::escape(path)));
            }
            _ => (),
        }
    }
    match &report.error {
        Some(error) => {
            say(&chain(error));
            Ok(code)
        }
        None => Ok(code),
    }
}

fn is_broken_pipe(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
}

/// Says what an image is.
fn probe(config: &Config) -> Result<ExitCode, Error> {
    let findings = Findings::default();
    let source = Source::open(&config.image)?;
    probe::probe(&source, &findings, &mut io::stdout().lock())?;
    let (found, _) = findings.into_sorted();
    for finding in found.iter().filter(|_| !config.quiet) {
        say(&format!("{}: {finding}", text::path(&config.image)));
    }
    Ok(if found.is_empty() { ExitCode::CLEAN } else { ExitCode::ERRORS })
}

/// Does what is wanted of an image whose tree is whole.
fn act(
    config: &Config,
    context: &Context<'_>,
    tree: &Tree,
    is_terminal: bool,
    out: &mut dyn Write,
    extraction: &mut Extraction,
) -> Result<(), Error> {
    let top = || -> Result<Found, Error> {
        lookup::find(context, config.path.as_deref().unwrap_or_default(), Last::Stay)
    };
    match &config.mode {
        Mode::Check | Mode::Probe => Ok(()),
        Mode::List(listing) => list::list(context, &top()?, *listing, is_terminal, out),
        Mode::Annotation(key) => print::annotation(context, key, is_terminal, out),
        Mode::Cat(path) => print::cat(context, path, out),
        Mode::Tar => print::note(context, tar::write(context, &top()?, &extraction.losses, out)),
        Mode::Extract(dir, options) => {
            let scope = Scope::at(context, tree, &top()?)?;
            extract::extract(context, tree, &scope, *options, dir, extraction)
        }
    }
}

fn catch_signals() -> Result<Cancel, Error> {
    let cancel = Cancel::default();
    let no_signals = |source| Error::Io { what: "cannot catch signals".to_owned(), source };
    // Caught, so that a file larger than the process may write is an error and not the end.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(no_signals)?;
    for signal in not_ignored([SIGINT, SIGTERM, SIGHUP]) {
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
    Ok(cancel)
}

fn progress(config: &Config) -> Box<dyn Progress> {
    if let Some(fd) = config.progress_fd {
        match Passes::to_fd(fd, &config.image) {
            Ok(passes) => return Box::new(passes),
            // The check is what counts.
            Err(error) => say(&format!("no progress on file descriptor {fd}: {error}")),
        }
    }
    match config.progress {
        Shown::Plain => Box::new(Lines::plain()),
        Shown::Auto if config.quiet => Box::new(Silent),
        Shown::Auto if io::stderr().is_terminal() => Box::new(Bar::new()),
        Shown::Auto => Box::new(Lines::patient()),
        Shown::None => Box::new(Silent),
    }
}

fn write_report(config: &Config, report: &Report, code: ExitCode) -> Result<(), Error> {
    let stdout = io::stdout();
    let written = if config.json {
        report.write_json(code, &mut stdout.lock())
    } else if matches!(config.mode, Mode::Check | Mode::Extract(..)) {
        report.write_text(&mut BufWriter::new(stdout.lock()), config.quiet)
    } else {
        // Standard output belongs to the listing.
        report.write_text(&mut io::stderr().lock(), true)
    };
    match written {
        // A closed pipe: the reader has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(cannot_write(error)),
        _ => Ok(()),
    }
}

fn say_incomplete(dir: &Path, begun: bool) {
    let dir = text::path(dir);
    say(&match begun {
        true => format!("{dir}: the extracted tree is not complete"),
        false => format!("{dir}: nothing was extracted"),
    });
}

/// Counts what was not restored, and names it; what only a privilege was lacking for is named if `verbose`.
fn say_losses(losses: &Losses, verbose: bool) {
    let kept = losses.kept();
    for ((kind, by_privilege), count) in losses.counts() {
        let why = match by_privilege {
            true if rustix::process::geteuid().is_root() => "not enough privileges: ",
            true => "not root: ",
            false => "",
        };
        let be = if count == 1 && kind.is_counted_alone() { "was" } else { "were" };
        say(&format!("{why}{} {be} not restored", kind.counted(count)));
        if by_privilege && !verbose {
            continue;
        }
        let named = kept.iter().filter(|loss| (loss.kind, loss.by_privilege) == (kind, by_privilege));
        let mut shown = 0;
        for loss in named {
            say(&format!("not restored: {loss}"));
            shown += 1;
        }
        if count > shown {
            say(&format!("not restored: {} more like these", count - shown));
        }
    }
}
