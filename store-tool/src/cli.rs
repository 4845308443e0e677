// SPDX-License-Identifier: GPL-2.0-or-later

//! The command line.

mod bundle;
mod compose;
mod diff;
mod export;
mod forms;
mod fsck;
mod gc;
mod images;
mod interrupt;
mod made;
mod named;
mod pull;
mod push;
mod registry;
mod repair;
mod sbom;
mod store;
mod transfer;

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use tesserafs_format::Digest;
use tesserafs_image::{text, Error};

use self::bundle::{ApplyArgs, BundleArgs};
use self::compose::ComposeArgs;
use self::diff::DiffArgs;
use self::export::ExportArgs;
use self::forms::{PackArgs, UnpackArgs};
use self::fsck::FsckArgs;
use self::gc::{GcArgs, RmArgs};
use self::images::ImagesArgs;
use self::pull::PullArgs;
use self::push::PushArgs;
use self::repair::RepairArgs;
use self::sbom::SbomArgs;
use self::store::StoreArgs;
use crate::daemon::{self, Flags, Job};
use crate::mount::{self, Driver, Request};
use crate::options::Options;
use crate::{chain, say, umount, NAME};

const AFTER_HELP: &str = "\
Examples:
  tesserafs mount root.tess mnt/
  tesserafs umount mnt/
  tesserafs bundle monday.tess tuesday.tess > update
  tesserafs apply monday.tess update tuesday.tess
  tesserafs compose app.tess base.tess libraries.tess code.tess
  tesserafs diff monday.tess tuesday.tess
  tesserafs images
  tesserafs rm registry.example/app:1
  tesserafs gc
  tesserafs export registry.example/app:2 app.tess
  tesserafs pack --packdir packs/ shared.tess root.tess
  tesserafs pull registry.example/team/app:1
  tesserafs push root.tess registry.example/team/root:12
  tesserafs repair root.tess --from backup.tess
  tesserafs sbom --check root.tess
  tesserafs unpack root.tess shared.tess
  tesserafs mount --help          options, more examples and the exit status of a verb

Exit status of each verb but diff, fsck and sbom: 0 done; 1 not done, and standard error says why; 2 usage error.";

/// Works with images of tesserafs.
#[derive(Debug, Parser)]
#[command(name = NAME, version, after_help = AFTER_HELP, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Mount(MountArgs),
    Umount(UmountArgs),
    Apply(ApplyArgs),
    Bundle(BundleArgs),
    Compose(ComposeArgs),
    Diff(DiffArgs),
    Export(ExportArgs),
    Fsck(FsckArgs),
    Gc(GcArgs),
    Images(ImagesArgs),
    Pack(PackArgs),
    Pull(Box<PullArgs>),
    Push(Box<PushArgs>),
    Repair(RepairArgs),
    Rm(RmArgs),
    Sbom(SbomArgs),
    Unpack(UnpackArgs),
    #[command(hide = true)]
    Serve(ServeArgs),
}

const MOUNT_HELP: &str = "\
Examples:
  tesserafs mount root.tess mnt/                     by the kernel driver if it is loaded and you are root, else by FUSE
  tesserafs mount --fuse --foreground root.tess mnt/
  tesserafs mount --cert signer.pem root.tess mnt/   signed by this signer, or not at all
  tesserafs mount --digest sha256:... root.tess mnt/ this image and no other
  tesserafs mount registry.example/app:1 mnt/        from the store, by the image ID that its manifest has

By FUSE a daemon serves the image, and ends when it is unmounted. One that is killed leaves a mount whose files
cannot be reached (\"Transport endpoint is not connected\"), until that is unmounted, too.

Exit status: 0 mounted; 1 not mounted, and standard error says why; 2 usage error.";

/// Mounts an image at a directory; one line says by what
#[derive(Args, Debug)]
#[command(after_help = MOUNT_HELP)]
struct MountArgs {
    /// The image: a regular file or a block device, or the name of an image that was pulled. A path that exists is
    /// taken for a path, and so is one that begins with / or ./
    image: PathBuf,

    /// The directory
    dir: PathBuf,

    /// By FUSE, even where the kernel driver is loaded
    #[arg(long, conflicts_with = "kernel")]
    fuse: bool,

    /// By the kernel driver, or not at all
    #[arg(long, conflicts_with_all = ["foreground", "threads"])]
    kernel: bool,

    /// Ask for a signature by one of the certificates in this file, and by no other signer; repeatable
    #[arg(long, value_name = "PEM")]
    cert: Vec<PathBuf>,

    /// Ask for this image ID
    #[arg(long, value_name = "sha256:HEX", value_parser = parse_image_id)]
    digest: Option<Digest>,

    /// Where packs beside the embedded one are [default: beside IMAGE]
    #[arg(long, value_name = "DIR")]
    packdir: Option<PathBuf>,

    /// Let other users see the mount, as those of root's mounts do; it takes user_allow_other in /etc/fuse.conf
    #[arg(long)]
    allow_other: bool,

    /// Options as in fstab, with commas between
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,

    /// Stay here until it is unmounted; SIGINT and SIGTERM unmount it
    #[arg(long, short)]
    foreground: bool,

    /// Threads that serve requests, 1 to 64 [default: 8]
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    threads: Option<NonZeroUsize>,

    /// Do not say by what it is mounted
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    store: StoreArgs,
}

const UMOUNT_HELP: &str = "\
Examples:
  tesserafs umount mnt/
  tesserafs umount --lazy mnt/      files that are open stay readable

It unmounts images only, whether the kernel driver serves them, FUSE, or nobody any more.

Exit status: 0 unmounted; 1 not unmounted, and standard error says why; 2 usage error.";

/// Unmounts an image
#[derive(Args, Debug)]
#[command(after_help = UMOUNT_HELP)]
struct UmountArgs {
    /// The directory at which it is mounted
    dir: PathBuf,

    /// Take it out of the tree now, even if it is in use
    #[arg(long, short)]
    lazy: bool,
}

/// The daemon, which `tesserafs mount` starts.
#[derive(Args, Debug)]
struct ServeArgs {
    #[arg(long)]
    image: PathBuf,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, value_parser = parse_image_id)]
    digest: Digest,
    #[arg(long)]
    packdir: PathBuf,
    #[arg(long)]
    noacl: bool,
    #[arg(long)]
    allow_other: bool,
    #[arg(long)]
    nosuid: bool,
    #[arg(long)]
    nodev: bool,
    #[arg(long)]
    noexec: bool,
    #[arg(long)]
    threads: NonZeroUsize,
    #[arg(long)]
    foreground: bool,
}

impl ServeArgs {
    fn into_job(self) -> Job {
        Job {
            image: self.image,
            id: self.digest,
            dir: self.dir,
            pack_dir: self.packdir,
            acl: !self.noacl,
            allow_other: self.allow_other,
            flags: Flags { nosuid: self.nosuid, nodev: self.nodev, noexec: self.noexec },
            threads: self.threads.get(),
            foreground: self.foreground,
        }
    }
}

impl MountArgs {
    fn run(mut self) -> Result<(), String> {
        let store = std::mem::take(&mut self.store);
        let mut request = self.into_request().map_err(|error| chain(&error))?;
        // Held until the mount keeps the image itself, and in the foreground until it ends.
        let _pin = named::resolve(&mut request, &store)?;
        mount::run(&request)
    }

    fn into_request(self) -> Result<Request, Error> {
        let mut options =
            Options { digest: self.digest, certs: self.cert, pack_dir: self.packdir, ..Options::default() };
        options.allow_other = self.allow_other;
        for list in &self.options {
            options.parse(list)?;
        }
        let driver = match (self.fuse, self.kernel) {
            (true, _) => Driver::Fuse,
            (_, true) => Driver::Kernel,
            _ => Driver::Any,
        };
        Ok(Request {
            image: self.image,
            name: None,
            dir: self.dir,
            driver,
            options,
            foreground: self.foreground,
            threads: self.threads.map(NonZeroUsize::get),
            quiet: self.quiet,
            fake: false,
        })
    }
}

/// Threads that somebody may ask for: each has memory of its own, and one that cannot be started ends the daemon.
const THREADS: usize = 64;

fn parse_threads(text: &str) -> Result<NonZeroUsize, String> {
    let threads = text.parse().ok().filter(|threads: &NonZeroUsize| threads.get() <= THREADS);
    threads.ok_or_else(|| format!("not a number from 1 to {THREADS}"))
}

/// Parses an image ID: 64 hexadecimal digits, with `sha256:` before them or not (the mount option `digest=` wants it).
fn parse_image_id(text: &str) -> Result<Digest, String> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    Digest::from_hex(hex.as_bytes()).ok_or_else(|| "not sha256: and 64 hexadecimal digits".to_owned())
}

/// The definition of the command line, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The name under which mount(8) calls the program for `mount -t fuse.tesserafs`, and so for a line of fstab.
const HELPER: &str = "mount.fuse.tesserafs";

const HELPER_STATUS: &str =
    "Exit status, as of mount(8): 0 mounted; 1 usage error; 32 not mounted, and standard error says why.";

/// Mounts an image for mount(8), by FUSE; in fstab: IMAGE DIR fuse.tesserafs OPTIONS 0 0
#[derive(Debug, Parser)]
#[command(name = HELPER, version, max_term_width = 110, after_help = HELPER_STATUS)]
struct HelperArgs {
    /// The image
    image: PathBuf,

    /// The directory
    dir: PathBuf,

    /// Options, with commas between
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,

    /// Only look whether it could be mounted
    #[arg(short)]
    fake: bool,

    /// Say by what it is mounted
    #[arg(short)]
    verbose: bool,

    /// Ignore options that are not known
    #[arg(short)]
    sloppy: bool,

    /// For mount(8); no difference
    #[arg(short = 'n')]
    no_mtab: bool,

    /// For mount(8); the type
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<String>,
}

impl HelperArgs {
    fn into_request(self) -> Result<Request, Error> {
        let mut options = Options { sloppy: self.sloppy, ..Options::default() };
        for list in &self.options {
            options.parse(list)?;
        }
        Ok(Request {
            image: self.image,
            name: None,
            dir: self.dir,
            driver: Driver::Fuse,
            options,
            foreground: false,
            threads: None,
            quiet: !self.verbose,
            fake: self.fake,
        })
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let name = std::env::args_os().next().map(PathBuf::from);
    if name.as_ref().and_then(|name| name.file_name()).is_some_and(|name| name == HELPER) {
        return exit(HelperArgs::try_parse(), 1, |args| {
            // As mount(8) wants it.
            mount(args.into_request()).map(|()| 0).map_err(|error| (32, error))
        });
    }
    exit(Cli::try_parse(), 2, |cli| {
        let done = match cli.verb {
            // As diff(1) ends.
            Verb::Diff(args) => {
                return crate::diff::run(&args.into_request()).map(u8::from).map_err(|error| (2, error));
            }
            Verb::Fsck(args) => {
                return args.run().map(u8::from).map_err(|error| (2, error));
            }
            Verb::Sbom(args) => {
                return crate::sbom::run(&args.into_request()).map(u8::from).map_err(|error| (2, error));
            }
            Verb::Apply(args) => args.run(),
            Verb::Bundle(args) => args.run(),
            Verb::Compose(args) => args.run(),
            Verb::Export(args) => args.run(),
            Verb::Gc(args) => args.run(),
            Verb::Images(args) => args.run(),
            Verb::Mount(args) => args.run(),
            Verb::Pack(args) => args.run(),
            Verb::Pull(args) => args.run(),
            Verb::Push(args) => args.run(),
            Verb::Repair(args) => args.run(),
            Verb::Rm(args) => args.run(),
            Verb::Unpack(args) => args.run(),
            Verb::Serve(args) => {
                let job = args.into_job();
                daemon::run(&job).map_err(|error| format!("{}: {}", text::path(&job.image), chain(&error)))
            }
            Verb::Umount(args) => umount::run(&umount::Request { dir: args.dir, lazy: args.lazy }),
        };
        done.map(|()| 0).map_err(|error| (1, error))
    })
}

fn mount(request: Result<Request, Error>) -> Result<(), String> {
    mount::run(&request.map_err(|error| chain(&error))?)
}

/// Does what the arguments ask for. The status is what `run` says, also where it is not done, and why; or `usage`, where the arguments are wrong.
fn exit<T>(
    args: Result<T, clap::Error>,
    usage: u8,
    run: impl FnOnce(T) -> Result<u8, (u8, String)>,
) -> ExitCode {
    match args.map(run) {
        Ok(Ok(status)) => ExitCode::from(status),
        Ok(Err((status, error))) => {
            say(&error);
            ExitCode::from(status)
        }
        Err(error) => {
            print(&error);
            ExitCode::from(if error.use_stderr() { usage } else { 0 })
        }
    }
}

/// Prints a usage error, or the help that was asked for.
fn print(error: &clap::Error) {
    let shown = error.render().to_string();
    // A closed pipe while help is printed is nobody's error.
    let _ = if text::is_plain(&shown) {
        error.print()
    } else {
        // It quotes an argument, which a shell may have made of the name of a file.
        shown.lines().try_for_each(|line| writeln!(io::stderr(), "{}", text::escape(line.as_bytes())))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
