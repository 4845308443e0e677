// SPDX-License-Identifier: GPL-2.0-or-later

//! From options to a request, validated.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs, thread};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use tesserafs_image::profile::ProfileName;

use super::args::Args;
use crate::config::{named_profile, Config, SourcePath};
use crate::error::{Error, Result, Shown};
use crate::file_contexts::FileContexts;
use crate::image::Annotations;
use crate::output;
use crate::packs::SharedForm;
use crate::sign::Signer;
use crate::source::exclude::{patterns_of, Exclude};
use crate::source::oci::OciImage;
use crate::source::owner::IdMap;
use crate::source::{ArchiveOptions, Filter, Override};

/// A request of the command line.
pub(super) enum Request {
    Build(Box<Config>),
    BuildLayers(Box<Config>),
    Emit { image: PathBuf, data: PathBuf },
    Attach { image: PathBuf, signature: PathBuf, cert: Option<PathBuf> },
}

/// More threads would only wait for each other.
const THREADS_MAX: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Reads `MIN,AVG,MAX`.
pub(super) fn chunk_sizes(text: &str) -> std::result::Result<[u32; 3], String> {
    let sizes: std::result::Result<Vec<u32>, _> = text.split(',').map(str::parse).collect();
    sizes
        .ok()
        .and_then(|sizes| sizes.try_into().ok())
        .ok_or_else(|| "three numbers with commas between them are wanted".into())
}

/// Reads the name of a profile.
pub(super) fn profile_name() -> impl TypedValueParser<Value = ProfileName> {
    let names = ProfileName::ALL.map(|name| PossibleValue::new(name.as_str()).help(name.about()));
    PossibleValuesParser::new(names)
        .try_map(|text| ProfileName::parse(&text).ok_or("it is the name of no profile"))
}

/// Turns the arguments into a request.
pub(super) fn request(args: Args) -> Result<Request> {
    if let Some(signature) = args.attach_signature {
        return Ok(Request::Attach { image: args.image, signature, cert: args.sign_cert });
    }
    let source = match (args.source, args.tar, args.oci) {
        (Some(path), ..) => SourcePath::Directory(path),
        (_, Some(path), _) => SourcePath::Tar(path),
        (.., Some(path)) => SourcePath::Oci(OciImage::parse(&path, args.platform)),
        _ => {
            return match args.emit_signed_data {
                Some(data) => Ok(Request::Emit { image: args.image, data }),
                None => Err(Error::Usage("SOURCE, --tar or --oci is missing; see --help".into())),
            };
        }
    };
    let signer = match (args.sign_key, args.sign_cert) {
        (Some(key), Some(cert)) => Some(Signer::new(&key, &cert, args.sign_passphrase.as_deref())?),
        (None, Some(_)) => {
            return Err(Error::Usage("--sign-cert needs --sign-key or --attach-signature".into()));
        }
        _ => None,
    };
    let mut profile = named_profile(args.profile, args.level);
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
    let root = args.all_root.then_some(0);
    let attributes = Override {
        uid: root.or(args.uid),
        gid: root.or(args.gid),
        uid_map: IdMap::parse("--uid-map", &args.uid_map)?,
        gid_map: IdMap::parse("--gid-map", &args.gid_map)?,
        mtime_max: source_date_epoch()?,
        clamp_mtime: args.clamp_mtime,
    };
    let filter = Filter {
        exclude: exclude(args.exclude, &args.exclude_from)?,
        devices: args.devices,
        one_file_system: args.one_file_system,
        hard_dereference: args.hard_dereference,
        labels: args.file_contexts.map(|path| FileContexts::read(&path).map(Arc::new)).transpose()?,
        attributes,
        image: Vec::new(),
        pack_dir: None,
        archive: ArchiveOptions { strip: args.strip, prefix: args.prefix, acl_names: args.acl_names },
        verbose: args.verbose,
    };
    let to_stdout = |path: &Path| output::is_stdout(path);
    if to_stdout(&args.image) && args.emit_signed_data.as_deref().is_some_and(to_stdout) {
        return Err(Error::Usage("the image and the bytes to sign cannot both go to standard output".into()));
    }
    let processors = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let threads = args.threads.unwrap_or(processors.saturating_add(processors.get())).min(THREADS_MAX);
    let build = if args.layers { Request::BuildLayers } else { Request::Build };
    Ok(build(Box::new(Config {
        image: args.image,
        source,
        filter,
        profile,
        threads,
        annotations: annotations(&args.annotate)?,
        sbom: args.sbom,
        signer,
        signed_data: args.emit_signed_data,
        shared: args.packdir.map(|dir| SharedForm { dir, parents: args.parent, rebase: args.rebase }),
        force: args.force,
        dry_run: args.dry_run,
    })))
}

fn source_date_epoch() -> Result<Option<i64>> {
    let Some(value) = env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let seconds = value.to_str().filter(|text| !text.starts_with('+')).and_then(|text| text.parse().ok());
    seconds.map(Some).ok_or_else(|| Error::Usage("SOURCE_DATE_EPOCH is not a number of seconds".into()))
}

fn exclude(mut patterns: Vec<String>, files: &[PathBuf]) -> Result<Exclude> {
    for path in files {
        let text = fs::read(path).map_err(Error::io("read", path))?;
        let text = String::from_utf8(text).map_err(|error| {
            let line =
                1 + error.as_bytes()[..error.utf8_error().valid_up_to()].split(|byte| *byte == b'\n').count()
                    - 1;
            Error::Usage(format!("{}: line {line} is not UTF-8, as patterns are", Shown(path)))
        })?;
        patterns.extend(patterns_of(&text));
    }
    Exclude::new(&patterns)
        .map_err(|error| Error::Usage(format!("--exclude: {}", Shown(error.to_string().as_ref()))))
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
