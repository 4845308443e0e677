// SPDX-License-Identifier: GPL-2.0
//! The trees: real ones, each in ten versions, from the package registries.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

use super::super::Bench;
use crate::cache::key;
use crate::releases::{self, Releases};
use crate::run;

/// Versions of each.
pub(in super::super) const VERSIONS: usize = 10;

/// A series.
pub(in super::super) struct Series {
    pub(in super::super) name: &'static str,
    /// For the report.
    pub(in super::super) about: &'static str,
    /// The program that its versions are fetched with.
    pub(in super::super) needs: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Debian,
    Python([&'static [&'static str]; VERSIONS]),
    Node([&'static [&'static str]; VERSIONS]),
    Archives,
    Source(&'static str, [&'static str; VERSIONS]),
}

pub(in super::super) const SERIES: [Series; 5] = [
    Series {
        name: "Debian root",
        about: "the root of the tests as published, and after the updates of the archive, which come in nine batches of packages",
        needs: "dpkg",
        kind: Kind::Debian,
    },
    Series {
        name: "Python application",
        about: "ansible 10.1 to 11.2 from PyPI with what it depends on, which stays, as pip installs it",
        needs: "python3",
        kind: Kind::Python([
            &["ansible==10.1.0", "ansible-core==2.17.1"],
            &["ansible==10.2.0", "ansible-core==2.17.2"],
            &["ansible==10.3.0", "ansible-core==2.17.3"],
            &["ansible==10.4.0", "ansible-core==2.17.4"],
            &["ansible==10.5.0", "ansible-core==2.17.5"],
            &["ansible==10.6.0", "ansible-core==2.17.6"],
            &["ansible==10.7.0", "ansible-core==2.17.7"],
            &["ansible==11.0.0", "ansible-core==2.18.0"],
            &["ansible==11.1.0", "ansible-core==2.18.1"],
            &["ansible==11.2.0", "ansible-core==2.18.2"],
        ]),
    },
    Series {
        name: "Node application",
        about: "webpack, eslint, react, express and typescript from npm with what they depend on, one or two of them newer each time",
        needs: "npm",
        kind: Kind::Node([
            &["webpack@5.90.0", "eslint@8.56.0", "react@18.2.0", "express@4.18.2", "typescript@5.3.3"],
            &["webpack@5.90.3", "eslint@8.56.0", "react@18.2.0", "express@4.18.3", "typescript@5.3.3"],
            &["webpack@5.91.0", "eslint@8.57.0", "react@18.2.0", "express@4.18.3", "typescript@5.3.3"],
            &["webpack@5.91.0", "eslint@8.57.0", "react@18.2.0", "express@4.19.2", "typescript@5.4.3"],
            &["webpack@5.91.0", "eslint@8.57.0", "react@18.3.1", "express@4.19.2", "typescript@5.4.5"],
            &["webpack@5.92.0", "eslint@8.57.0", "react@18.3.1", "express@4.19.2", "typescript@5.4.5"],
            &["webpack@5.92.1", "eslint@8.57.0", "react@18.3.1", "express@4.19.2", "typescript@5.5.2"],
            &["webpack@5.93.0", "eslint@8.57.0", "react@18.3.1", "express@4.19.2", "typescript@5.5.4"],
            &["webpack@5.94.0", "eslint@8.57.0", "react@18.3.1", "express@4.20.0", "typescript@5.5.4"],
            &["webpack@5.95.0", "eslint@8.57.1", "react@18.3.1", "express@4.21.0", "typescript@5.6.2"],
        ]),
    },
    Series {
        name: "a hundred archives",
        about: "a hundred Java archives of Debian's packages, of which each version has another one in the place of one",
        needs: "dpkg-deb",
        kind: Kind::Archives,
    },
    Series {
        name: "source releases",
        about: "ten point releases of a large source tree, OpenSSL 1.1.1m to 1.1.1w as crates.io has them, which has taken 1.1.1r back (kernel.org is no package registry)",
        needs: "cargo",
        kind: Kind::Source(
            "openssl-src",
            [
                "111.17.0", "111.18.0", "111.19.0", "111.21.0", "111.22.0", "111.24.0", "111.25.0", "111.26.0",
                "111.27.0", "111.28.0",
            ],
        ),
    },
];

/// The series of which single files are taken, too.
pub(in super::super) const PYTHON: &Series = &SERIES[1];

/// The dependencies of all versions of the Python application: those of the day when they are fetched would differ.
const PYTHON_DEPENDENCIES: [&str; 8] = [
    "cffi==1.17.1",
    "cryptography==44.0.0",
    "Jinja2==3.1.5",
    "MarkupSafe==3.0.2",
    "packaging==24.2",
    "pycparser==2.22",
    "PyYAML==6.0.2",
    "resolvelib==1.0.1",
];

/// Archives in the tree of those.
const ARCHIVES: usize = 100;

/// The versions of a series, fetched.
pub(in super::super) struct Versions {
    kind: Kind,
    /// A folder for each version, or of what versions are made from.
    folder: PathBuf,
    releases: Option<Releases>,
}

/// Fetches a series; none where its program is not there.
pub(in super::super) fn open(bench: &Bench<'_>, series: &Series) -> Result<Option<Versions>> {
    let is_there =
        run::command(series.needs).arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        return Ok(None);
    }
    let key = key(&[series.name.as_bytes(), include_bytes!("series.rs")]);
    let prefix = format!("bench-series-{}-", series.name.replace(' ', "-"));
    let folder = bench.cache.once(&format!("{prefix}{key}"), |folder| {
        run::say(format_args!("fetching ten versions: {}", series.name));
        fetch(series.kind, folder)
    })?;
    bench.cache.forget_others(&folder, &prefix)?;
    let releases = match series.kind {
        Kind::Debian => Some(releases::prepare(&bench.cache)?),
        _ => None,
    };
    Ok(Some(Versions { kind: series.kind, folder, releases }))
}

fn fetch(kind: Kind, folder: &Path) -> Result<()> {
    match kind {
        Kind::Debian => Ok(()),
        Kind::Python(versions) => versions.iter().enumerate().try_for_each(|(number, packages)| {
            let target = folder.join((number + 1).to_string());
            let mut pip = run::command("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--no-compile", "--only-binary", ":all:", "--target"]);
            run::capture(pip.arg(&target).args(*packages).args(PYTHON_DEPENDENCIES)).map(drop)
        }),
        Kind::Node(versions) => versions.iter().enumerate().try_for_each(|(number, packages)| {
            let target = folder.join((number + 1).to_string());
            std::fs::create_dir(&target).context("failed to create a folder")?;
            std::fs::write(target.join("package.json"), "{\"name\":\"application\",\"version\":\"1.0.0\"}\n")
                .context("failed to write package.json")?;
            let mut npm = run::command("npm");
            npm.current_dir(&target).args(["install", "--save-exact", "--ignore-scripts", "--no-audit", "--no-fund"]);
            run::capture(npm.args(*packages)).map(drop)
        }),
        Kind::Archives => archives(folder),
        Kind::Source(name, versions) => versions.iter().enumerate().try_for_each(|(number, version)| {
            let project = folder.join("project");
            std::fs::create_dir_all(project.join("src")).context("failed to create a folder")?;
            let manifest = format!(
                "[package]\nname = \"project\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\n{name} = \"={version}\"\n[workspace]\n"
            );
            std::fs::write(project.join("Cargo.toml"), manifest).context("failed to write Cargo.toml")?;
            std::fs::write(project.join("src/lib.rs"), "").context("failed to write lib.rs")?;
            let _ = std::fs::remove_file(project.join("Cargo.lock"));
            let mut cargo = run::command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            run::capture(cargo.current_dir(&project).args(["vendor", "--quiet", "--versioned-dirs"]))?;
            let vendored = project.join("vendor");
            let source = only_entry(&vendored, name)?;
            std::fs::rename(source, folder.join((number + 1).to_string())).context("failed to move a tree")?;
            std::fs::remove_dir_all(&vendored).context("failed to remove a folder")
        }),
    }
}

/// The entry of a folder whose name begins so.
fn only_entry(folder: &Path, prefix: &str) -> Result<PathBuf> {
    for entry in folder.read_dir().with_context(|| format!("failed to list {}", folder.display()))? {
        let entry = entry.context("failed to list a folder")?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    anyhow::bail!("there is no {prefix} in {}", folder.display())
}

/// Java archives of Debian's packages, as many as all versions need, in the order of their names.
fn archives(folder: &Path) -> Result<()> {
    let wanted = ARCHIVES + VERSIONS - 1;
    let names = run::capture(run::command("apt-cache").args(["pkgnames", "lib"]))?;
    let mut names: Vec<&str> = names.lines().filter(|name| name.ends_with("-java")).collect();
    names.sort_unstable();
    let (jars, scratch) = (folder.join("jars"), folder.join("scratch"));
    std::fs::create_dir(&jars).context("failed to create a folder")?;
    for name in names {
        if jars.read_dir().context("failed to list archives")?.count() >= wanted {
            break;
        }
        std::fs::create_dir(&scratch).context("failed to create a folder")?;
        // A name without a package of its own has none to fetch.
        let fetched =
            run::output(run::command("apt-get").current_dir(&scratch).args(["-qq", "download", name]))?;
        if fetched.status.success() {
            let package = only_entry(&scratch, name)?;
            run::capture(run::command("dpkg-deb").arg("-x").arg(package).arg(&scratch))?;
            for jar in std::fs::read_dir(scratch.join("usr/share/java")).into_iter().flatten() {
                let jar = jar.context("failed to list archives")?;
                if jar.file_type().context("failed to stat an archive")?.is_file() {
                    std::fs::copy(jar.path(), jars.join(jar.file_name()))
                        .context("failed to copy an archive")?;
                }
            }
        }
        std::fs::remove_dir_all(&scratch).context("failed to remove a folder")?;
    }
    Ok(())
}

impl Versions {
    /// Where a version lies that was fetched as a whole.
    pub(in super::super) fn folder(&self, version: usize) -> PathBuf {
        self.folder.join(version.to_string())
    }

    /// Makes `tree` the version of this number, from 1; it has the version before, or is not there.
    pub(in super::super) fn fill(&mut self, tree: &Path, version: usize) -> Result<()> {
        if let Some(releases) = &self.releases {
            return debian(releases, tree, version);
        }
        if tree.exists() {
            std::fs::remove_dir_all(tree).context("failed to remove a tree")?;
        }
        if let Kind::Archives = self.kind {
            return self.fill_archives(tree, version);
        }
        copy(&self.folder.join(version.to_string()), tree)?;
        still(tree)
    }

    /// In each version one archive more is another one.
    fn fill_archives(&self, tree: &Path, version: usize) -> Result<()> {
        let mut jars = Vec::new();
        for jar in self.folder.join("jars").read_dir().context("failed to list archives")? {
            jars.push(jar.context("failed to list archives")?.path());
        }
        jars.sort();
        ensure!(jars.len() >= ARCHIVES + VERSIONS - 1, "{} archives only", jars.len());
        std::fs::create_dir_all(tree.join("lib")).context("failed to create a folder")?;
        for number in 0..ARCHIVES {
            let is_new = number % VERSIONS == 0 && number / VERSIONS + 1 < version;
            let jar = if is_new { &jars[ARCHIVES + number / VERSIONS] } else { &jars[number] };
            std::fs::copy(jar, tree.join(format!("lib/archive-{number:03}.jar")))
                .context("failed to copy an archive")?;
        }
        still(tree)
    }
}

/// Gives all files one time: when they were unpacked or copied says nothing of a version.
fn still(tree: &Path) -> Result<()> {
    run::quiet(run::command("find").arg(tree).args(["-exec", "touch", "-h", "-d", "@1700000000", "{}", "+"]))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    run::quiet(run::command("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to))
}

/// A root in which some more of the updated packages are those of the updated root.
fn debian(releases: &Releases, tree: &Path, version: usize) -> Result<()> {
    if version == 1 {
        return copy(&releases.before, tree);
    }
    // Each version gets some of them, and the last one the rest.
    let until = |version: usize| releases.updated.len() * (version - 1) / (VERSIONS - 1);
    let packages = &releases.updated[until(version - 1)..until(version)];
    let info = releases.after.join("var/lib/dpkg/info");
    let mut paths = BTreeSet::new();
    for package in packages {
        let name = package.split([' ', ':']).next().unwrap_or(package);
        for entry in info.read_dir().context("failed to list what packages have")? {
            let file = entry.context("failed to list what packages have")?.file_name();
            let file = file.to_string_lossy();
            let is_of_it = file.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', ':']));
            if !is_of_it {
                continue;
            }
            paths.insert(format!("var/lib/dpkg/info/{file}"));
            if file.ends_with(".list") {
                let list = std::fs::read_to_string(info.join(&*file)).context("failed to read a list")?;
                for path in list.lines().map(|path| path.trim_start_matches('/')) {
                    let is_file =
                        releases.after.join(path).symlink_metadata().is_ok_and(|found| !found.is_dir());
                    // Links in the root, such as `lib`, stay.
                    if is_file && path.contains('/') {
                        paths.insert(path.to_owned());
                    }
                }
            }
        }
    }
    let list = tree.with_extension("list");
    let paths: Vec<String> = paths.into_iter().collect();
    std::fs::write(&list, paths.join("\n") + "\n").context("failed to write a list")?;
    let script = "tar -C \"$1\" -cf - --no-recursion -T \"$2\" | tar -C \"$3\" --unlink-first -xpf -";
    run::quiet(
        run::command("bash")
            .args(["-euo", "pipefail", "-c", script, "update"])
            .arg(&releases.after)
            .arg(&list)
            .arg(tree),
    )
}
