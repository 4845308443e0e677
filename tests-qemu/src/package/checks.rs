// SPDX-License-Identifier: GPL-2.0
//! The tests of the packages: what is in them, and what they do where they are installed.

mod dkms;
mod roots;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use super::{driver, kernel, list, machine, read, Part, Signer, Source, FOLDER};
use crate::cache::Cache;
use crate::report::Report;
use crate::setup::{self, Need};
use crate::stock::Stock;
use crate::{readme, run, sign, tools};

/// The group of these tests.
const GROUP: &str = "packages";

/// The files that the package of the programs must hold, but for documents.
const TOOLS: [&str; 28] = [
    "./usr/sbin/mkfs.tesserafs",
    "./usr/sbin/fsck.tesserafs",
    "./usr/bin/tesserafs",
    "./usr/sbin/mount.fuse.tesserafs",
    "./usr/share/tesserafs/tesserafs.magic",
    "./usr/lib/udev/rules.d/61-tesserafs.rules",
    "./usr/share/initramfs-tools/hooks/tesserafs",
    "./usr/share/initramfs-tools/scripts/init-top/tesserafs",
    "./usr/share/initramfs-tools/scripts/tesserafs",
    "./etc/tesserafs/initramfs.conf",
    "./usr/share/man/man8/mkfs.tesserafs.8.gz",
    "./usr/share/man/man8/fsck.tesserafs.8.gz",
    "./usr/share/man/man8/tesserafs-mount.8.gz",
    "./usr/share/man/man8/tesserafs-umount.8.gz",
    "./usr/share/man/man8/mount.fuse.tesserafs.8.gz",
    "./usr/share/man/man8/tesserafs.8.gz",
    "./usr/share/man/man5/tesserafs.5.gz",
    "./usr/share/bash-completion/completions/mkfs.tesserafs",
    "./usr/share/bash-completion/completions/fsck.tesserafs",
    "./usr/share/bash-completion/completions/tesserafs",
    "./usr/share/zsh/vendor-completions/_mkfs.tesserafs",
    "./usr/share/zsh/vendor-completions/_fsck.tesserafs",
    "./usr/share/zsh/vendor-completions/_tesserafs",
    "./usr/share/fish/vendor_completions.d/mkfs.tesserafs.fish",
    "./usr/share/fish/vendor_completions.d/fsck.tesserafs.fish",
    "./usr/share/fish/vendor_completions.d/tesserafs.fish",
    "./usr/share/doc/tesserafs-tools/examples/fstab",
    "./usr/share/doc/tesserafs-tools/examples/srv-app.mount",
];

/// The packages, built.
pub(crate) struct Packages {
    /// All of them.
    pub(crate) all: Vec<PathBuf>,
    /// Release of the kernel that the driver is for.
    pub(crate) release: String,
    /// Version of its packages.
    pub(crate) kernel_version: String,
}

impl Packages {
    /// The one whose name begins like this.
    pub(crate) fn named(&self, start: &str) -> Result<&Path> {
        self.all
            .iter()
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)))
            .map(PathBuf::as_path)
            .with_context(|| format!("no package {start}* was built"))
    }

    fn tools(&self) -> Result<&Path> {
        self.named("tesserafs-tools_")
    }
}

/// Builds the packages, and tests them.
pub(crate) fn test(cache: &Cache, report: &mut Report) -> Result<()> {
    let names = |name: &str| format!("{GROUP}/{name}");
    report.test(&names("dkms-says-why-not"), dkms::says_why_not);
    setup::ensure(cache, &[Need::Packages, Need::Lint])?;
    report.test(&names("cargo-installs-the-tools"), cargo_install);
    let stock = kernel(cache)?;
    let source = Source::find(&tools::repository())?;
    let packages = Packages {
        all: built_as_readme_says(cache, &source)?,
        release: stock.kernel.key.clone(),
        kernel_version: stock.version.clone(),
    };
    report.test(&names("hold-what-they-should"), || contents(&packages));
    report.test(&names("driver-is-signed-where-a-key-is-given"), || signed(cache, &stock));
    report.test(&names("lintian-is-silent"), || lintian(&packages));
    let unpacked = tempfile::tempdir().context("failed to make a scratch folder")?;
    run::capture(run::command("dpkg-deb").arg("-x").arg(packages.tools()?).arg(unpacked.path()))?;
    report.test(&names("pages-render-without-a-warning"), || pages(unpacked.path()));
    report.test(&names("page-of-the-driver-names-all-options"), || options(unpacked.path()));
    report.test(&names("completions-complete"), || completions(unpacked.path()));
    report.test(&names("are-reproducible"), || reproducible(cache, &source, &packages, &stock));
    report.test(&names("tools-run-on-debian-12"), || roots::on_debian_12(cache, &packages));
    report.test(&names("dkms-builds-and-never-blocks"), || roots::dkms(cache, &packages, &stock));
    report.test(&names("make-an-initramfs-where-it-is-booted"), || roots::initramfs(cache, &packages));
    machine::test(cache, report, &packages, &stock)?;
    machine::upgrade::test(cache, report, &source, &packages, &stock)
}

/// The README's advice for those who want no packages.
fn cargo_install() -> Result<String> {
    let folder = tempfile::tempdir().context("failed to make a scratch folder")?;
    let text = readme::text()?;
    let commands = readme::commands(readme::section(&text, "Install it")?);
    let installs: Vec<&&str> = commands.iter().filter(|line| line.starts_with("cargo install ")).collect();
    for line in &installs {
        run::capture(typed(line).env("CARGO_INSTALL_ROOT", folder.path()))?;
    }
    for program in ["mkfs-tesserafs", "fsck-tesserafs", "tesserafs"] {
        run::capture(run::command(folder.path().join("bin").join(program)).arg("--version"))
            .with_context(|| format!("README.md has no line that installs {program}"))?;
    }
    Ok(format!("{} commands", installs.len()))
}

/// A command of README.md, in the repository.
fn typed(line: &str) -> Command {
    let mut bash = run::command("bash");
    bash.current_dir(tools::repository()).args(["-euo", "pipefail", "-c", line]);
    bash
}

/// Builds all packages by what README.md says, and finds them where it installs them from.
fn built_as_readme_says(cache: &Cache, source: &Source) -> Result<Vec<PathBuf>> {
    let text = readme::text()?;
    let commands = readme::commands(readme::section(&text, "Install it")?);
    let line = |start: &str| {
        let line = commands.iter().copied().find(|line| line.starts_with(start));
        line.with_context(|| format!("README.md, section `Install it`, has no line `{start}...`"))
    };
    run::logged(&mut typed(line("cargo xtask package")?), &cache.log("package")?)?;
    let pattern = line("apt install ")?.trim_start_matches("apt install ");
    let found = run::capture(&mut typed(&format!("ls -- {pattern}")))?;
    let mut packages: Vec<PathBuf> = found.lines().map(|name| tools::repository().join(name)).collect();
    // One of another kernel may be there as well.
    packages.retain(|path| path.to_string_lossy().contains(&format!("_{}_", source.version)));
    packages.sort();
    ensure!(packages.len() == Part::ALL.len(), "README.md installs {packages:?}, expected three packages");
    Ok(packages)
}

/// The paths in a package.
fn paths(package: &Path) -> Result<BTreeSet<String>> {
    let listing = run::capture(run::command("dpkg-deb").arg("--contents").arg(package))?;
    let mut paths = BTreeSet::new();
    for line in listing.lines() {
        // Mode, owner, size, date, time, path.
        let mut words = line.split_whitespace();
        let (owner, path) = (words.nth(1), words.nth(3));
        ensure!(owner == Some("root/root"), "{}: not root's: {line}", package.display());
        paths.insert(path.context("a line without a path")?.to_owned());
    }
    Ok(paths)
}

/// Each package has its files, and the programs of the driver's packages are at no wrong place.
fn contents(packages: &Packages) -> Result<String> {
    let tools = paths(packages.tools()?)?;
    let missing: Vec<&&str> = TOOLS.iter().filter(|path| !tools.contains(**path)).collect();
    ensure!(missing.is_empty(), "tesserafs-tools lacks {missing:?}");

    let release = &packages.release;
    let module = format!("./usr/lib/modules/{release}/updates/tesserafs.ko");
    let of_modules = paths(packages.named("tesserafs-modules-")?)?;
    ensure!(of_modules.contains(&module), "tesserafs-modules-{release} lacks {module}");
    let depends = run::capture(
        run::command("dpkg-deb").arg("-f").arg(packages.named("tesserafs-modules-")?).arg("Depends"),
    )?;
    let wanted = format!("linux-image-{release} (>= {})", packages.kernel_version);
    ensure!(depends.contains(&wanted), "tesserafs-modules-{release} depends on {depends}, not on {wanted}");

    let of_dkms = paths(packages.named("tesserafs-dkms_")?)?;
    for end in ["/dkms.conf", "/check", "/Kbuild", "/kernel-module/main.rs", "/format/src/lib.rs"] {
        ensure!(
            of_dkms.iter().any(|path| path.starts_with("./usr/src/tesserafs-") && path.ends_with(end)),
            "tesserafs-dkms lacks {end}"
        );
    }
    Ok(format!("{} files", tools.len() + of_modules.len() + of_dkms.len()))
}

/// The last bytes of a module that is signed.
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// A signature is behind the driver as it is without one.
fn signed(cache: &Cache, stock: &Stock) -> Result<String> {
    let keys = sign::signers(cache)?.rsa;
    let signer = Signer { key: &keys.key, cert: &keys.certificate };
    let source = cache.folder(FOLDER)?.join("source");
    let plain = driver(cache, &source, stock, None)?;
    let signed = driver(cache, &source, stock, Some(&signer))?;
    ensure!(!plain.ends_with(SIGNED), "the driver is signed, though nobody asked for it");
    ensure!(signed.starts_with(&plain) && signed.ends_with(SIGNED), "the driver is not signed");
    Ok(format!("{} bytes of signature", signed.len() - plain.len()))
}

/// lintian says nothing at its default level.
fn lintian(packages: &Packages) -> Result<String> {
    let mut lintian = run::command("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning"]).args(&packages.all);
    let output = run::output(&mut lintian)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && said.trim().is_empty(),
        "lintian ends with {}: {said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::new())
}

/// A page as it is read on a terminal; fails for each warning.
fn rendered(page: &Path) -> Result<String> {
    let mut man = run::command("man");
    man.env("LC_ALL", "C.UTF-8").env("MANWIDTH", "80").args(["--warnings", "--local-file"]).arg(page);
    let output = run::output(&mut man)?;
    let warnings = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && warnings.trim().is_empty(),
        "{}: {} {warnings}",
        page.display(),
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn pages(root: &Path) -> Result<String> {
    let mut count = 0;
    for section in ["man5", "man8"] {
        for page in list(&root.join("usr/share/man").join(section))? {
            let text = rendered(&page)?;
            for title in ["NAME", "DESCRIPTION", "SEE ALSO"] {
                ensure!(text.lines().any(|line| line == title), "{} has no {title}", page.display());
            }
            count += 1;
        }
    }
    let expected = TOOLS.iter().filter(|file| file.contains("/man/")).count();
    ensure!(count == expected, "found {count} pages, expected {expected}");
    Ok(format!("{count} pages"))
}

/// Names of the driver's mount options and parameters, as its tables have them.
fn names(tables: &str) -> Vec<String> {
    let quoted = |line: &str| Some(line.split('"').nth(1)?.to_owned());
    tables
        .lines()
        .map(str::trim)
        .flat_map(|line| {
            if line.starts_with("fsparam_flag_no(") {
                quoted(line).map_or(Vec::new(), |name| vec![format!("no{name}"), name])
            } else if line.starts_with("fsparam_") {
                quoted(line).into_iter().collect()
            } else if let Some(rest) = line.strip_prefix("module_param_named(") {
                rest.split(',').next().map(ToOwned::to_owned).into_iter().collect()
            } else {
                Vec::new()
            }
        })
        // Not an option: the image itself.
        .filter(|name| name != "source")
        .collect()
}

fn options(root: &Path) -> Result<String> {
    let names = names(&read(&tools::repository().join("kernel-module/helpers.c"))?);
    ensure!(names.len() >= 5, "the driver's tables have {names:?}");
    let page = rendered(&root.join("usr/share/man/man8/tesserafs.8.gz"))?;
    let missing: Vec<&String> = names.iter().filter(|name| !page.contains(name.as_str())).collect();
    ensure!(missing.is_empty(), "tesserafs(8) does not name {missing:?}");
    Ok(names.join(" "))
}

/// Loads completions, and completes the beginning of a word.
const COMPLETE: &str = r#"
. "$1"
function=$(complete -p "$2" | sed 's/.* -F \([^ ]*\) .*/\1/')
COMP_WORDS=("$2" "$3") COMP_CWORD=1
"$function" "$2" "$3" "$2"
printf '%s\n' "${COMPREPLY[@]}"
"#;

fn completions(root: &Path) -> Result<String> {
    for (program, beginning, option) in [
        ("mkfs.tesserafs", "--sign-k", "--sign-key"),
        ("fsck.tesserafs", "--metadata", "--metadata-only"),
        ("tesserafs", "umo", "umount"),
    ] {
        let file = root.join("usr/share/bash-completion/completions").join(program);
        let replies = run::capture(
            run::command("bash").args(["-euc", COMPLETE, "bash"]).arg(file).args([program, beginning]),
        )?;
        ensure!(replies.trim() == option, "{program} {beginning}: {replies:?}");
        for (folder, name) in [
            ("zsh/vendor-completions", format!("_{program}")),
            ("fish/vendor_completions.d", format!("{program}.fish")),
        ] {
            let text = read(&root.join("usr/share").join(folder).join(name))?;
            let option = option.trim_start_matches('-');
            ensure!(text.contains(option), "{folder} does not know --{option} of {program}");
        }
    }
    Ok(String::new())
}

/// The same bytes, built once more at another path, from nothing that the first build has made.
fn reproducible(cache: &Cache, source: &Source, packages: &Packages, stock: &Stock) -> Result<String> {
    let again = source.build(cache, "package/at/another/path", &Part::ALL, Some(stock), None)?;
    let mut bytes = 0;
    for (one, other) in packages.all.iter().zip(&again) {
        ensure!(one.file_name() == other.file_name(), "{} and {}", one.display(), other.display());
        let read = |path: &Path| fs::read(path).with_context(|| format!("failed to read {}", path.display()));
        let (one_bytes, other_bytes) = (read(one)?, read(other)?);
        ensure!(one_bytes == other_bytes, "{} and {} differ", one.display(), other.display());
        bytes += one_bytes.len();
    }
    Ok(format!("{} packages, {bytes} bytes", again.len()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_of_options_are_read_from_the_tables() {
        let tables = "\tfsparam_file_or_string(\"source\", X),\n\tfsparam_string(\"digest\", X),\n\
                      \tfsparam_flag_no(\"acl\", X),\nmodule_param_named(require, require, bool, 0644);\n";
        assert_eq!(super::names(tables), ["digest", "noacl", "acl", "require"]);
    }
}
