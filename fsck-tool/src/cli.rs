// SPDX-License-Identifier: GPL-2.0-or-later

//! The command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use clap::{ArgGroup, CommandFactory, Parser};
use tesserafs_format::Digest;
use tesserafs_image::error::Error;
use tesserafs_image::{extract, text};

use crate::check::Options;
use crate::check_signature::Certificate;
use crate::config::{parse_image_id, Config, Mode, Shown};
use crate::exit_code::ExitCode;
use crate::list::Listing;
use crate::report::chain;
use crate::run::{run, say};
use crate::NAME;

const AFTER_HELP: &str = "\
Examples:
  fsck.tesserafs root.tess
  fsck.tesserafs --cert signer.pem root.tess      the signature too, by this signer and no other
  fsck.tesserafs --metadata-only --json root.tess
  fsck.tesserafs --canonical root.tess            and that a builder makes no other image of this tree
  fsck.tesserafs --list root.tess                 type and mode, owner, size, SHA-256, path
  fsck.tesserafs --list=json --path etc root.tess | jq -r 'select(.xattrs) | .path'
  fsck.tesserafs --list=sha256 root.tess >sums && (cd /mnt/root && sha256sum -c --quiet) <sums
  fsck.tesserafs --list=mtree root.tess | bsdtar -tvf -    sockets are comments: bsdtar knows none
  fsck.tesserafs --cat etc/os-release root.tess
  fsck.tesserafs --extract out/ root.tess
  fsck.tesserafs --extract out/ --path usr/share --no-owner root.tess
  fsck.tesserafs --probe /dev/vdb                 ID_FS_TYPE=, ID_FS_UUID= and so on, for udev
  fsck.tesserafs --tar root.tess | tar -xp --xattrs --xattrs-include='*' -C out/

A path begins at the root of the image, with a slash or without one. Symlinks on the way are followed
within the image, and by --cat the last one, too. With --path, what is there is listed, extracted or
archived as if it were the root: a directory becomes DIR, a file comes into DIR under its name.

Each finding is one line: IMAGE: SEVERITY: RULE @ PLACE (PATH): found X, expected Y: the rule.
Of each rule 64 findings are shown, and the number of further ones.
RULE is a stable identifier; section 9 of FORMAT.md lists all. SEVERITY is fatal (nothing behind
it could be checked), error, form (reads are right, but no builder makes such an image), or, with
--canonical only, difference (no rule is broken, but a builder makes another image of the same tree).
Bytes that are no printable text, and the backslash, are printed as \\ooo (octal) and \\\\.
If an image has more holes than can be digested in reasonable time (content-holes), its chunks are
checked, but no contents; nothing of it is listed or extracted. If files have xattrs that Linux does
not take there (xattr-settable), the image is not clean, but is listed, archived and extracted.

A clean image need not be canonical: readers accept other cut points, groups, holes, filters, levels
and frames than a builder makes, stored bytes that could be shorter, and bytes that are stored twice.
--canonical checks the image as ever; where no rule is broken, it decodes all files, cuts, groups,
numbers and compresses them as mkfs.tesserafs would, writes nothing, and compares each byte with the
image but for the signature, which no builder knows. It names the first byte that differs, its region,
the file, and the freedom that was taken. Frames depend on the version of libzstd: an image of another
version than this program's (the finding names both) may differ for that reason alone; if it does not
differ, it is not known whether it is canonical, and the exit status is 8. A broken image is not
compared, and the last line says so. It takes the time of mkfs.tesserafs besides.

In a long listing the type w is a whiteout, and sparse: stands before the digest of a file
above 8 GiB, which is over its data runs (FORMAT.md 4.7); --list=sha256 leaves such files out.

A file that --extract gives its name is complete, whatever ends the extraction (SIGKILL leaves half
a file where the filesystem of DIR knows no O_TMPFILE). Files that had their names by then stay. So
do the directories; nobody else may enter those that are not complete. A DIR that was there keeps
its mode until then.

In an archive, whiteouts are character devices 0:0. A file whose name begins with .wh. is that to tar;
readers of OCI layers, as mkfs.tesserafs --tar is one, take it for a whiteout.

If the system or the filesystem of DIR takes not all of a file, the extraction goes on; what is not
restored is counted and named on standard error, 64 of each kind: an owner that the user namespace has
no number for, an xattr that the filesystem does not know, a mode, a time, a file of a type without a
place there, a socket in an archive. The exit status then is 64. For what only a privilege was lacking
for (owners for a user other than root, trusted.* without CAP_SYS_ADMIN) it is 64 with --strict only;
-v names it. A file without its owner gets no set-user-ID and set-group-ID bit. After any exit status
other than 0 and 64, and 4 and 68 where nothing but xattr-settable is broken, DIR is not complete, and
is to be removed; an archive then has no end. Standard error says which it is.

Exit status, as fsck(8): 0 clean; 4 errors, none of them repaired; 8 operational error;
16 usage error; 32 cancelled by SIGINT, SIGTERM or SIGHUP; 64 not all of the tree could be
restored, or, with --canonical, clean and not canonical; or a sum of these. The program ends with
SIGABRT where memory cannot be had: it takes up to 64 MiB for metadata, some MiB for each thread, and
about 60 bytes for each inode; with --canonical what mkfs.tesserafs takes, too.";

/// Checks, lists or extracts a tesserafs image. Nothing is ever repaired or written to the image.
#[derive(Debug, Parser)]
#[command(name = NAME, version, after_help = AFTER_HELP, max_term_width = 110)]
#[command(group = ArgGroup::new("mode").multiple(false))]
#[command(group = ArgGroup::new("tree").multiple(false))]
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

    /// Check all, then say whether the image is byte for byte what a builder makes of its tree, profile and annotations
    #[arg(long, group = "mode", conflicts_with = "metadata_only")]
    canonical: bool,

    /// List the files, once the metadata is found clean
    #[arg(
        long,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "long",
        groups = ["mode", "tree"],
        conflicts_with = "json"
    )]
    list: Option<Listing>,

    /// Restore the tree in DIR, which does not exist or has nothing in it but lost+found; only verified bytes are written
    #[arg(long, value_name = "DIR", groups = ["mode", "tree"], conflicts_with = "metadata_only")]
    extract: Option<PathBuf>,

    /// Write the tree to standard output as a tar archive (PAX), with all attributes and whoever runs this
    #[arg(long, groups = ["mode", "tree"], conflicts_with_all = ["metadata_only", "json"])]
    tar: bool,

    /// Write the bytes of one file to standard output
    #[arg(long, value_name = "PATH", group = "mode", conflicts_with_all = ["metadata_only", "json"])]
    cat: Option<OsString>,

    /// Say what IMAGE is, in lines KEY=VALUE as udev reads them; the superblock alone is read. With status 4 it is no image
    #[arg(long, group = "mode", conflicts_with_all = ["json", "metadata_only", "cert", "digest"])]
    probe: bool,

    /// Print the bytes of an annotation; to a terminal, only those that it shows
    #[arg(long, value_name = "KEY", group = "mode", conflicts_with = "json")]
    annotation: Option<OsString>,

    /// List, extract or archive what is at PATH in the image
    #[arg(long, value_name = "PATH", requires = "tree")]
    path: Option<OsString>,

    /// Extract no xattrs
    #[arg(long, requires = "extract", conflicts_with_all = ["list", "tar"])]
    no_xattrs: bool,

    /// Extract no owners, and so no set-user-ID and set-group-ID bits
    #[arg(long, requires = "extract", conflicts_with_all = ["list", "tar"])]
    no_owner: bool,

    /// End with 64, too, where only a privilege was lacking to restore something
    #[arg(long, requires = "tree")]
    strict: bool,

    /// Where packs beside the embedded one are [default: beside IMAGE]
    #[arg(long, value_name = "DIR")]
    packdir: Option<PathBuf>,

    /// Threads to work on [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Report as JSON on standard output
    #[arg(long)]
    json: bool,

    /// Say nothing but findings, errors and what was not restored
    #[arg(long, short, conflicts_with = "verbose")]
    quiet: bool,

    /// Name also what was not restored for the lack of a privilege
    #[arg(long, short)]
    verbose: bool,

    /// How progress is shown
    #[arg(long, value_name = "HOW", default_value = "auto")]
    progress: Shown,

    /// For fsck(8); as nothing is ever repaired, no difference
    #[arg(
        short = 'a',
        visible_short_aliases = ['p', 'n', 'y', 'f', 'r', 'A', 'M', 'N', 'P', 'R', 'T', 's'],
        overrides_with = "automatic"
    )]
    automatic: bool,

    /// For fsck(8): write lines to this file descriptor as e2fsck does, PASS DONE TOTAL IMAGE; with 0 and below, none
    #[arg(short = 'C', value_name = "FD", allow_hyphen_values = true)]
    progress_fd: Option<i32>,
}

impl Args {
    fn into_config(self) -> Result<Config, Error> {
        let mut options = Options {
            canonical: self.canonical,
            pinned: self.digest,
            pack_dir: self.packdir,
            ..Options::default()
        };
        if let Some(threads) = self.threads {
            options.threads = threads.get().min(1024);
        }
        for path in &self.cert {
            options.trusted.extend(Certificate::read_pem(path)?);
        }
        let restored = extract::Options { owners: !self.no_owner, xattrs: !self.no_xattrs };
        let mode = match (self.list, self.extract, self.annotation, self.cat) {
            (Some(listing), ..) => Mode::List(listing),
            (_, Some(dir), ..) => Mode::Extract(dir, restored),
            (_, _, Some(key), _) => Mode::Annotation(key.into_vec()),
            (_, _, _, Some(path)) => Mode::Cat(path.into_vec()),
            _ if self.tar => Mode::Tar,
            _ if self.probe => Mode::Probe,
            _ => Mode::Check,
        };
        options.metadata_only = self.metadata_only || !matches!(mode, Mode::Check);
        Ok(Config {
            image: self.image,
            mode,
            path: self.path.map(OsStringExt::into_vec),
            options,
            json: self.json,
            quiet: self.quiet,
            verbose: self.verbose,
            strict: self.strict,
            progress: self.progress,
            progress_fd: self.progress_fd.filter(|fd| *fd > 0),
        })
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
            // A closed pipe while help is printed is nobody's error.
            let _ = if text::is_plain(&shown) {
                error.print()
            } else {
                // It quotes an argument, which a shell may have made of the name of a file.
                shown.lines().try_for_each(|line| writeln!(io::stderr(), "{}", text::escape(line.as_bytes())))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_fsck_passes_is_understood() {
        for line in
            ["-a", "-p", "-n", "-y", "-f", "-C0", "-a -C 3", "-pf", "-v", "-r", "-A", "-rAv", "-fy -C-1"]
        {
            let words = [NAME].into_iter().chain(line.split(' ')).chain(["image"]);
            let args = Args::try_parse_from(words).expect(line);
            assert_eq!(args.image, PathBuf::from("image"));
        }
    }

    #[test]
    fn one_thing_is_done_at_a_time() {
        for line in [
            "--canonical --list",
            "--canonical --metadata-only",
            "--list --tar",
            "--cat x --extract y",
            "--path x",
            "--path x --cat y",
            "--no-owner --tar",
        ] {
            let words = [NAME].into_iter().chain(line.split(' ')).chain(["image"]);
            assert!(Args::try_parse_from(words).is_err(), "{line}");
        }
    }
}
