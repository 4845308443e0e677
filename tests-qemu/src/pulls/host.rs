// SPDX-License-Identifier: GPL-2.0
//! A host that pushes and pulls, with a store and nothing else; and what must hold there after each command.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use super::images::{Version, PACKS};
use crate::cache::sha256_of;
use crate::run;
use crate::tools::Tools;

/// Bytes of a config at most: a blob, too, which a pull may look at again.
pub(super) const CONFIG_MAX: u64 = 4096;

/// Longer than any pull takes, with all that it tries again.
pub(super) const LIMIT: Duration = Duration::from_secs(300);

/// Variables of this machine's user that programs of registries look at.
const OF_USER: [&str; 12] = [
    "ALL_PROXY",
    "DOCKER_CONFIG",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "REGISTRY_AUTH_FILE",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// The folders of a host beside its store, which stay empty.
const EMPTY: [&str; 3] = ["home", "tmp", "cwd"];

/// A host.
pub(super) struct Host<'a> {
    tools: &'a Tools,
    folder: tempfile::TempDir,
    store: PathBuf,
    /// Files for its user, such as exported images.
    out: tempfile::TempDir,
    options: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
}

impl<'a> Host<'a> {
    pub(super) fn new(tools: &'a Tools, scratch: &Path) -> Result<Self> {
        let make = |prefix: &str| {
            tempfile::Builder::new().prefix(prefix).tempdir_in(scratch).context("failed to make a host")
        };
        let (folder, out) = (make("host-")?, make("out-")?);
        for name in EMPTY {
            std::fs::create_dir(folder.path().join(name)).context("failed to make a folder of a host")?;
        }
        let store = folder.path().join("store");
        Ok(Self { tools, folder, store, out, options: Vec::new(), environment: Vec::new() })
    }

    /// With these options at each push and pull.
    pub(super) fn with(mut self, options: &[&dyn AsRef<std::ffi::OsStr>]) -> Self {
        self.options.extend(options.iter().map(|option| option.as_ref().to_owned()));
        self
    }

    /// With a variable of the environment.
    pub(super) fn set(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// With its store somewhere else.
    pub(super) fn at(mut self, store: &Path) -> Self {
        store.clone_into(&mut self.store);
        self
    }

    /// A file that its user wants.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.out.path().join(name)
    }

    /// A verb, in the environment of this host.
    fn verb(&self, verb: &str) -> Command {
        let mut command = run::command(&self.tools.store);
        for name in OF_USER {
            command.env_remove(name);
        }
        let at = |name: &str| self.folder.path().join(name);
        command.env("HOME", at("home")).env("TMPDIR", at("tmp")).current_dir(at("cwd"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg(verb);
        command
    }

    /// A verb that knows the store.
    pub(super) fn in_store(&self, verb: &str) -> Command {
        let mut command = self.verb(verb);
        command.arg("--store").arg(&self.store);
        command
    }

    /// `tesserafs pull`.
    pub(super) fn pull_command(&self, name: &str) -> Command {
        let mut command = self.in_store("pull");
        command.args(&self.options).arg(name);
        command
    }

    /// `tesserafs push` of a version with its packs.
    pub(super) fn push_command(&self, version: &Version, name: &str) -> Result<Command> {
        let packs = version.image.parent().context("an image in no folder")?.join(PACKS);
        let mut command = self.verb("push");
        command.args(&self.options).arg("--packdir").arg(packs).arg(&version.image).arg(name);
        Ok(command)
    }

    pub(super) fn push(&self, version: &Version, name: &str) -> Result<()> {
        run::quiet(&mut self.push_command(version, name)?)
    }

    /// Pulls, whatever comes of it.
    pub(super) fn try_pull(&self, name: &str) -> Result<Output> {
        let output = run::output_within(&mut self.pull_command(name), LIMIT)?;
        self.sound().with_context(|| said(&output))?;
        Ok(output)
    }

    /// Pulls a version, which must succeed, and compares it with the original.
    pub(super) fn pull(&self, version: &Version, name: &str) -> Result<()> {
        let output = self.try_pull(name)?;
        ensure!(output.status.success(), "{name} is not pulled: {}", said(&output));
        self.compare(version, name)
    }

    /// Compares what the store has under a name with a version.
    pub(super) fn compare(&self, version: &Version, name: &str) -> Result<()> {
        let file = self.file("exported.tess");
        let mut export = self.in_store("export");
        run::quiet(export.arg(name).arg(&file)).with_context(|| format!("{name} is not exported"))?;
        let [own, original] = [sha256_of(&file)?, sha256_of(&version.one_file)?];
        std::fs::remove_file(&file).context("failed to remove an exported image")?;
        ensure!(own == original, "{name} is not the image that was pushed");
        Ok(())
    }

    /// Pulls what must not be pulled; the sentence that says why.
    pub(super) fn refused(&self, name: &str) -> Result<String> {
        let output = self.try_pull(name)?;
        ensure!(!output.status.success(), "{name} is pulled: {}", said(&output));
        let sentence = sentence(&output)?;
        ensure!(self.names()?.is_empty(), "{name} is refused ({sentence}), and has a name in the store");
        Ok(sentence)
    }

    /// The names of the store: its symbolic links.
    pub(super) fn names(&self) -> Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        let refs = self.store.join("refs");
        if refs.exists() {
            walk(&refs, &mut |path, kind| {
                if kind.is_symlink() {
                    names.push(path.to_owned());
                }
                Ok(())
            })?;
        }
        Ok(names)
    }

    /// That each blob has its digest and cannot be written, that each name leads to a document, and that nothing is beside.
    pub(super) fn sound(&self) -> Result<()> {
        let blobs = self.store.join("blobs/sha256");
        if blobs.exists() {
            walk(&blobs, &mut |path, kind| {
                ensure!(kind.is_file(), "{} is no file", path.display());
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let digest = sha256_of(path)?;
                ensure!(digest == *name, "WRONG BYTES: {} has the digest {digest}", path.display());
                let mode = path.metadata().context("failed to stat a blob")?.permissions().mode();
                ensure!(mode & 0o222 == 0, "{} can be written: mode {mode:o}", path.display());
                Ok(())
            })?;
        }
        for name in self.names()? {
            ensure!(name.metadata().is_ok_and(|found| found.is_file()), "{} leads nowhere", name.display());
        }
        for name in EMPTY {
            walk(&self.folder.path().join(name), &mut |path, _| bail!("{} is left", path.display()))?;
        }
        let mut entries = Vec::new();
        for entry in self.folder.path().read_dir().context("failed to list a host")? {
            entries.push(entry.context("failed to list a host")?.file_name());
        }
        entries.retain(|name| name != "store" && !EMPTY.iter().any(|empty| name == empty));
        ensure!(entries.is_empty(), "{entries:?} are written beside the store");
        Ok(())
    }
}

/// Shows each entry below a folder.
fn walk(folder: &Path, show: &mut dyn FnMut(&Path, std::fs::FileType) -> Result<()>) -> Result<()> {
    for entry in folder.read_dir().with_context(|| format!("failed to list {}", folder.display()))? {
        let entry = entry.context("failed to list a folder")?;
        let kind = entry.file_type().context("failed to stat an entry")?;
        if kind.is_dir() {
            walk(&entry.path(), show)?;
        } else {
            show(&entry.path(), kind)?;
        }
    }
    Ok(())
}

/// The words of a program, for messages.
pub(super) fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    format!("{}: {}", output.status, run::tail(&String::from_utf8_lossy(&text)))
}

/// The one sentence by which `tesserafs` says why it failed: the last line, and the only one of its kind.
pub(super) fn sentence(output: &Output) -> Result<String> {
    let text = String::from_utf8(output.stderr.clone()).context("an error that is not text")?;
    ensure!(output.status.code() == Some(1), "{}", said(output));
    ensure!(!text.contains("panicked"), "{text}");
    ensure!(!text.chars().any(|c| c.is_control() && c != '\n'), "control characters in {text:?}");
    let last = text.lines().last().unwrap_or_default();
    let sentence = last.strip_prefix("tesserafs: ").with_context(|| format!("no sentence in {text:?}"))?;
    ensure!((20..800).contains(&sentence.len()), "a sentence of {} bytes: {sentence}", sentence.len());
    Ok(sentence.to_owned())
}
