// SPDX-License-Identifier: GPL-2.0-or-later

//! The command line.

mod args;
mod request;

use std::io::{self, IsTerminal, Write};

use clap::{CommandFactory, Parser};
use tesserafs_image::text;

use self::args::Args;
use self::request::{request, Request};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit_code::ExitCode;
use crate::progress::{Bar, How, Lines, Progress, Silent};
use crate::report::Report;
use crate::{build, build_layers, output, sign, PROGRAM};

/// The reports of a build, and where they go.
struct Telling {
    quiet: bool,
    json: bool,
    progress: How,
    /// Standard output has the image.
    to_stderr: bool,
}

impl Telling {
    fn progress(&self) -> Box<dyn Progress> {
        match self.progress {
            _ if self.quiet => Box::new(Silent),
            How::Plain => Box::new(Lines::plain()),
            How::Auto if io::stderr().is_terminal() => Box::new(Bar::new()),
            How::Auto => Box::new(Lines::patient()),
            How::None => Box::new(Silent),
        }
    }

    /// Tells of images that were built, in the form that is wanted.
    fn report<'a>(
        &self,
        config: &Config,
        images: impl IntoIterator<Item = &'a Report>,
        json: impl FnOnce() -> String,
        text: impl FnOnce() -> String,
    ) -> Result<()> {
        match (self.json, self.quiet) {
            (true, _) => self.say(&json()),
            (false, true) => {
                // With --verbose, what options ask for is wanted all the same.
                for line in images.into_iter().flat_map(|image| {
                    let lines = image.left_out.to_text(config.filter.verbose);
                    lines.lines().map(str::to_owned).collect::<Vec<_>>()
                }) {
                    // Nobody may be there to read it, and the image is complete.
                    let _ = writeln!(io::stderr(), "{PROGRAM}: {line}");
                }
                Ok(())
            }
            (false, false) => self.say(&text()),
        }
    }

    fn say(&self, text: &str) -> Result<()> {
        let (said, name) = if self.to_stderr {
            (io::stderr().write_all(text.as_bytes()), "standard error")
        } else {
            (io::stdout().write_all(text.as_bytes()), "standard output")
        };
        match said {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(Error::io("write", name.as_ref())),
        }
    }
}

/// The definition of the command line, for manual pages and completions.
pub fn command() -> clap::Command {
    Args::command()
}

/// Runs the program.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let shown = error.render().to_string();
            // --help and --version come here too.
            let _ = if text::is_plain(&shown) {
                error.print()
            } else {
                // It quotes an argument, which a shell may have made of the name of a file.
                shown.lines().try_for_each(|line| writeln!(io::stderr(), "{}", text::escape(line.as_bytes())))
            };
            return if error.use_stderr() { ExitCode::Usage } else { ExitCode::Success };
        }
    };
    let telling = Telling {
        quiet: args.quiet,
        json: args.json,
        progress: args.progress,
        to_stderr: output::is_stdout(&args.image) && !args.dry_run,
    };
    match request(args).and_then(|request| run(request, &telling)) {
        Ok(()) => ExitCode::Success,
        Err(error) => {
            // The exit status is the same where nobody reads it.
            let _ = writeln!(io::stderr(), "{PROGRAM}: {error}");
            match error {
                Error::Usage(_) => ExitCode::Usage,
                _ => ExitCode::Failure,
            }
        }
    }
}

fn run(request: Request, telling: &Telling) -> Result<()> {
    output::remove_on_signal().map_err(Error::io("wait for signals in", "the process".as_ref()))?;
    match request {
        Request::Build(config) => {
            let progress = telling.progress();
            let report = build(&config, &*progress);
            drop(progress);
            let report = report?;
            note_unmatched(&report.unmatched_excludes);
            for note in report.sbom.iter().flat_map(|sbom| &sbom.notes) {
                let _ = writeln!(io::stderr(), "{PROGRAM}: --sbom: {note}");
            }
            telling.report(&config, [&report], || report.to_json(), || report.to_text())
        }
        Request::BuildLayers(config) => {
            let progress = telling.progress();
            let report = build_layers(&config, &*progress);
            drop(progress);
            let report = report?;
            note_unmatched(&report.unmatched_excludes);
            telling.report(&config, &report.built, || report.to_json(), || report.to_text())
        }
        Request::Emit { image, data } => {
            let (_, _, prefix) = sign::open_image(&image)?;
            sign::emit_signed_data(&prefix, &data)
        }
        Request::Attach { image, signature, cert } => {
            let cert = cert.map(|path| sign::certificate(&path)).transpose()?;
            sign::attach_signature(&image, &signature, cert.as_ref()).map(|_| ())
        }
    }
}

/// Says which patterns of `--exclude` match nothing.
fn note_unmatched(patterns: &[String]) {
    for pattern in patterns {
        let _ = writeln!(
            io::stderr(),
            "{PROGRAM}: --exclude '{pattern}' matches nothing: a pattern with a slash is a path from the root of the tree, one \
             without a slash a name at any depth"
        );
    }
}
