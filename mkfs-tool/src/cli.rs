// SPDX-License-Identifier: GPL-2.0

//! The command line.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::{env, fs, thread};

use clap::{ArgGroup, Parser};
use globset::{GlobBuilder, GlobSetBuilder};

use crate::config::{default_profile, Config, SourcePath, DEFAULT_LEVEL};
use crate::error::{Error, Result, Shown};
use crate::exit_code::ExitCode;
use crate::image::Annotations;
use crate::progress::{Bar, Progress, Silent};
use crate::sign::{self, Signer};
use crate::source::{AclNames, ArchiveOptions, Devices, Filter, Override};
use crate::{build, output};

const EXAMPLES: &str = "\
Examples:
  mkfs-tesserafs root.tess rootfs/
  mkfs-tesserafs --sign-key key.pem --sign-cert cert.pem root.tess rootfs/
  mkfs-tesserafs --level 15 --exclude 'var/cache/**' --devices=skip root.tess /mnt/root
  docker export box | mkfs-tesserafs --tar - box.tess
  mkfs-tesserafs --tar container.tar.gz --prefix rootfs root.tess

Signing where the key is not:
  mkfs-tesserafs --emit-signed-data data root.tess rootfs/
  openssl cms -sign -binary -noattr -nocerts -md sha256 -outform DER \\
      -signer cert.pem -inkey key.pem -in data -out sig
  mkfs-tesserafs --attach-signature sig root.tess

The same tree gives the same image, byte for byte, whatever the order of directories on
disk, the number of threads, the machine, the clock, the umask or the path.
SOURCE_DATE_EPOCH, where set, is the largest mtime: later ones become it.

The report says how many names, xattrs and bytes were left out, -v which; --quiet leaves
only that, on standard error, of what no option asked for.

Memory: 48 MiB and 8 MiB a thread of file data, twice that at worst, whatever the size of
the files; besides about 200 bytes an inode and 2 MB for 1 GB of distinct data. An archive
that is compressed or comes from a pipe is unpacked into an unnamed file beside the image.

Exit status: 0 the image is complete; 1 something could not be read, written or
represented, and there is no image, unless all that could not be written was the report;
2 the command line makes no sense. A signal leaves no image either, unless it was complete
already; SIGABRT is what memory that cannot be had ends the program with.";

/// Builds a tesserafs image from a directory or a tar archive.
#[derive(Debug, Parser)]
#[command(name = "mkfs-tesserafs", version, after_help = EXAMPLES, max_term_width = 110)]
#[command(group = ArgGroup::new("from").args(["source", "tar", "attach_signature"]))]
struct Args {
    /// The image
    image: PathBuf,

    /// The directory that becomes the root of the image
    source: Option<PathBuf>,

    /// Take the tree from a tar archive (ustar, PAX, GNU; plain, gzip or zstd); - is standard input
    #[arg(long, value_name = "FILE")]
    tar: Option<PathBuf>,

    /// Take N names off the start of each path of the archive, and leave out what has no more (a directory of N becomes the root)
    #[arg(
        long,
        value_name = "N",
        requires = "tar",
        conflicts_with = "prefix",
        default_value_t = 0,
        hide_default_value = true,
        help_heading = "Archives"
    )]
    strip: usize,

    /// Take this directory of the archive as the root, and leave out what is not below it
    #[arg(long, value_name = "DIR", requires = "tar", help_heading = "Archives")]
    prefix: Option<PathBuf>,

    /// Where the numbers of users come from whom an access control list names: the headers of the archive, or else this machine
    #[arg(
        long,
        value_enum,
        default_value_t,
        require_equals = true,
        value_name = "WHO",
        requires = "tar",
        help_heading = "Archives"
    )]
    acl_names: AclNames,

    /// zstd level, 1 to 22
    #[arg(long, short, default_value_t = DEFAULT_LEVEL, value_parser = clap::value_parser!(u32).range(1..=22))]
    level: u32,

    /// Threads that read and compress [default: two for each processor, as they also wait for the disk]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Owner of everything
    #[arg(long, value_name = "UID", value_parser = clap::value_parser!(u32).range(..=0xffff_fffe))]
    uid: Option<u32>,

    /// Group of everything
    #[arg(long, value_name = "GID", value_parser = clap::value_parser!(u32).range(..=0xffff_fffe))]
    gid: Option<u32>,

    /// Make an mtime that an image cannot hold the nearest that it can (1901-12-13 to 2446-05-10)
    #[arg(long)]
    clamp_mtime: bool,

    /// Leave out what matches, relative to the root, and everything below it (* within a name, ** across); repeatable
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,

    /// Block and character devices, which an image cannot hold (a whiteout, device 0:0, it can)
    #[arg(long, value_enum, default_value_t, require_equals = true, value_name = "WHAT")]
    devices: Devices,

    /// Sign with this key (PEM; RSA, or ECDSA on P-256 or P-384)
    #[arg(long, value_name = "PEM", requires = "sign_cert", conflicts_with = "attach_signature")]
    sign_key: Option<PathBuf>,

    /// The key's certificate (PEM); with --attach-signature, check the signature against it
    #[arg(long, value_name = "PEM")]
    sign_cert: Option<PathBuf>,

    /// Write the 512 bytes that a signature is over; without a source, those of the existing IMAGE
    #[arg(long, value_name = "FILE")]
    emit_signed_data: Option<PathBuf>,

    /// Give the existing IMAGE this signature (CMS, DER), in place of the one it has
    #[arg(long, value_name = "FILE")]
    attach_signature: Option<PathBuf>,

    /// Embed the bytes of a file under a key, hashed and signed with the rest; repeatable
    #[arg(long, value_name = "KEY=FILE")]
    annotate: Vec<OsString>,

    /// Replace an existing IMAGE
    #[arg(long, short)]
    force: bool,

    /// Name what is left out
    #[arg(long, short)]
    verbose: bool,

    /// No report, no progress bar
    #[arg(long, short)]
    quiet: bool,

    /// Report as JSON on standard output
    #[arg(long)]
    json: bool,

    /// Sizes of content-defined chunks in KiB; changes the image ID, not the tree ID
    #[arg(long, value_name = "MIN,AVG,MAX", value_parser = chunk_sizes, help_heading = "Profile")]
    chunk_size: Option<[u32; 3]>,

    /// Size of groups of small files in KiB
    #[arg(long, value_name = "KIB", help_heading = "Profile")]
    group_size: Option<u32>,

    /// Largest file in a group in KiB
    #[arg(long, value_name = "KIB", help_heading = "Profile")]
    small_max: Option<u32>,
}

/// What the command line asks for.
enum Request {
    Build(Box<Config>),
    Emit { image: PathBuf, data: PathBuf },
    Attach { image: PathBuf, signature: PathBuf, cert: Option<PathBuf> },
}

/// Runs the program.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let shown = error.render().to_string();
            // --help and --version come here too.
            let _ = if shown.lines().any(|line| line.contains(char::is_control)) {
                // It quotes an argument, which a shell may have made of the name of a file.
                shown.lines().try_for_each(|line| writeln!(io::stderr(), "{}", Shown(line.as_ref())))
            } else {
                error.print()
            };
            return if error.use_stderr() { ExitCode::Usage } else { ExitCode::Success };
        }
    };
    let how = (args.quiet, args.json);
    match request(args).and_then(|request| run(request, how.0, how.1)) {
        Ok(()) => ExitCode::Success,
        Err(error) => {
            eprintln!("mkfs-tesserafs: {error}");
            match error {
                Error::Usage(_) => ExitCode::Usage,
                _ => ExitCode::Failure,
            }
        }
    }
}

fn run(request: Request, quiet: bool, json: bool) -> Result<()> {
    output::remove_on_signal().map_err(Error::io("wait for signals in", "the process".as_ref()))?;
    let say = |text: String| match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Error::io("write", "standard output".as_ref())),
    };
    match request {
        Request::Build(config) => {
            let progress: Box<dyn Progress> =
                if quiet || !io::stderr().is_terminal() { Box::new(Silent) } else { Box::new(Bar::new()) };
            let report = build(&config, &*progress);
            drop(progress);
            let report = report?;
            match (json, quiet) {
                (true, _) => say(report.to_json()),
                (false, true) => {
                    for line in report.left_out.to_text(false).lines() {
                        // Nobody may be there to read it, and the image is complete.
                        let _ = writeln!(io::stderr(), "mkfs-tesserafs: {line}");
                    }
                    Ok(())
                }
                (false, false) => say(report.to_text()),
            }
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

/// More threads wait for each other only.
const THREADS_MAX: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Reads `MIN,AVG,MAX`.
fn chunk_sizes(text: &str) -> std::result::Result<[u32; 3], String> {
    let sizes: std::result::Result<Vec<u32>, _> = text.split(',').map(str::parse).collect();
    sizes
        .ok()
        .and_then(|sizes| sizes.try_into().ok())
        .ok_or_else(|| "three numbers with commas between them are wanted".into())
}

/// From what was typed to what is asked for.
fn request(args: Args) -> Result<Request> {
    if let Some(signature) = args.attach_signature {
        return Ok(Request::Attach { image: args.image, signature, cert: args.sign_cert });
    }
    let source = match (args.source, args.tar) {
        (Some(path), _) => SourcePath::Directory(path),
        (_, Some(path)) => SourcePath::Tar(path),
        _ => {
            return match args.emit_signed_data {
                Some(data) => Ok(Request::Emit { image: args.image, data }),
                None => Err(Error::Usage("SOURCE or --tar is missing; see --help".into())),
            };
        }
    };
    let signer = match (args.sign_key, args.sign_cert) {
        (Some(key), Some(cert)) => Some(Signer::new(&key, &cert)?),
        (None, Some(_)) => {
            return Err(Error::Usage("--sign-cert needs --sign-key or --attach-signature".into()));
        }
        _ => None,
    };
    let mut profile = default_profile(args.level);
    let kib = |kib: u32| {
        kib.checked_mul(1024).ok_or_else(|| Error::Usage(format!("{kib} KiB is too much for a chunk")))
    };
    if let Some([min, avg, max]) = args.chunk_size {
        (profile.chunk_min, profile.chunk_avg, profile.chunk_max) = (kib(min)?, kib(avg)?, kib(max)?);
    }
    if let Some(size) = args.group_size {
        profile.group_size = kib(size)?;
        profile.small_max = profile.small_max.min(profile.group_size);
    }
    if let Some(size) = args.small_max {
        profile.small_max = kib(size)?;
    }
    let attributes = Override {
        uid: args.uid,
        gid: args.gid,
        mtime_max: source_date_epoch()?,
        clamp_mtime: args.clamp_mtime,
    };
    let filter = Filter {
        exclude: exclude(&args.exclude)?,
        devices: args.devices,
        attributes,
        image: Vec::new(),
        archive: ArchiveOptions { strip: args.strip, prefix: args.prefix, acl_names: args.acl_names },
        verbose: args.verbose,
    };
    let processors = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let threads = args.threads.unwrap_or(processors.saturating_add(processors.get())).min(THREADS_MAX);
    Ok(Request::Build(Box::new(Config {
        image: args.image,
        source,
        filter,
        profile,
        threads,
        annotations: annotations(&args.annotate)?,
        signer,
        signed_data: args.emit_signed_data,
        force: args.force,
    })))
}

fn source_date_epoch() -> Result<Option<i64>> {
    let Some(value) = env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let seconds = value.to_str().filter(|text| !text.starts_with('+')).and_then(|text| text.parse().ok());
    seconds.map(Some).ok_or_else(|| Error::Usage("SOURCE_DATE_EPOCH is not a number of seconds".into()))
}

fn exclude(patterns: &[String]) -> Result<globset::GlobSet> {
    let refused =
        |error: globset::Error| Error::Usage(format!("--exclude: {}", Shown(error.to_string().as_ref())));
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let relative = pattern.trim_start_matches("./").trim_matches('/');
        let glob = GlobBuilder::new(relative).literal_separator(true).backslash_escape(true).build();
        set.add(glob.map_err(refused)?);
    }
    set.build().map_err(refused)
}

fn annotations(pairs: &[OsString]) -> Result<Annotations> {
    let mut annotations = Annotations::new();
    for pair in pairs {
        let bytes = pair.as_bytes();
        let Some(equals) = bytes.iter().position(|byte| *byte == b'=') else {
            return Err(Error::Usage(format!("--annotate {}: KEY=FILE is wanted", Shown(pair.as_ref()))));
        };
        let (key, path) = (bytes[..equals].to_vec(), crate::error::path_of(&bytes[equals + 1..]));
        let value = fs::read(path).map_err(Error::io("read", path))?;
        if annotations.insert(key, value).is_some() {
            return Err(Error::Usage(format!("--annotate {}: the key is there twice", Shown(pair.as_ref()))));
        }
    }
    Ok(annotations)
}
