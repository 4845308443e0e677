// SPDX-License-Identifier: GPL-2.0
//! The commands of README.md, as they stand there: what nobody types is wrong before long.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};

use crate::tools::{self, Tools};
use crate::{rootfs, run};

/// The text.
pub(crate) fn text() -> Result<String> {
    let path = tools::repository().join("README.md");
    std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

/// A section: what follows its heading, up to the next one.
pub(crate) fn section<'t>(text: &'t str, heading: &str) -> Result<&'t str> {
    let start = format!("\n## {heading}\n");
    let (_, rest) = text
        .split_once(&start)
        .with_context(|| format!("README.md has no section `{heading}`: its commands are typed by a test"))?;
    Ok(rest.split("\n## ").next().unwrap_or(rest))
}

/// The commands of a section: its indented lines, without the comments behind them.
pub(crate) fn commands(section: &str) -> Vec<&str> {
    let lines = section.lines().filter_map(|line| line.strip_prefix("    "));
    lines
        .map(|line| line.split("  #").next().unwrap_or(line).trim())
        .filter(|line| !line.is_empty())
        .collect()
}

/// Commands within sentences: what stands between backticks and begins like this.
#[cfg(test)]
pub(crate) fn mentioned<'t>(section: &'t str, beginning: &str) -> Vec<&'t str> {
    section.split('`').skip(1).step_by(2).filter(|span| span.starts_with(beginning)).collect()
}

/// Sections whose commands are typed, but for those of [`is_left_out`].
const TYPED: [&str; 5] = ["Look at it", "Five minutes", "Images that share", "What is inside", "Signing"];

/// Types the commands of these sections in a folder where `rootfs/` is a tree and `*.tar.*` archives of it.
pub(crate) fn typed(tools: &Tools) -> Result<String> {
    let scratch = tempfile::tempdir().context("failed to make a scratch folder")?;
    let folder = scratch.path();
    prepare(folder)?;
    let path = programs(tools, folder)?;
    let built = tools.mkfs.parent().context("a program in no folder")?;
    std::fs::create_dir(folder.join("target")).context("failed to create a folder")?;
    symlink(built, folder.join("target/release")).context("failed to link a folder")?;
    let text = text()?;
    let (mut count, mut left_out) = (0, 0);
    for heading in TYPED {
        for line in commands(section(&text, heading)?) {
            // The certificate is made for the kernel; whether it takes it, the machine's tests show.
            let command = line.split(" | keyctl ").next().unwrap_or(line);
            if is_left_out(command) {
                left_out += 1;
                continue;
            }
            let mut bash = run::command("bash");
            bash.current_dir(folder).env("PATH", &path).env("LC_ALL", "C.UTF-8");
            // Some print bytes that are no text.
            let output = run::output(bash.args(["-euo", "pipefail", "-c", command]))?;
            // It ends with 1 where there are differences.
            let compares = ["tesserafs diff ", "tesserafs sbom --check "];
            let is_done = output.status.success()
                || compares.iter().any(|verb| command.starts_with(verb)) && output.status.code() == Some(1);
            ensure!(
                is_done,
                "README.md, section `{heading}`: `{line}` ends with {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
            count += 1;
        }
    }
    for made in [
        "docs.tess",
        "rootfs.tess",
        "layer.tess",
        "box.tess",
        "copy/etc/os-release",
        "rootfs.tar",
        "rootfs.cdx.json",
        "rootfs.p7s",
    ] {
        ensure!(folder.join(made).exists(), "README.md: no command of it makes {made} any more");
    }
    Ok(format!("{count} commands, {left_out} left out that need the driver or cargo"))
}

/// The section about container images, whose commands need programs that not every machine has.
const CONTAINERS: &str = "From a container image";

/// Types the commands of that section in a folder with a `Dockerfile`; those that are not of this project are for `others`.
pub(crate) fn typed_for_containers(
    tools: &Tools,
    folder: &Path,
    others: impl Fn(&str) -> Result<()>,
) -> Result<String> {
    let path = programs(tools, folder)?;
    let text = text()?;
    let commands = commands(section(&text, CONTAINERS)?);
    for line in &commands {
        if line.starts_with("buildah ") {
            others(line)?;
        } else {
            let mut bash = run::command("bash");
            bash.current_dir(folder).env("PATH", &path).args(["-euo", "pipefail", "-c", line]);
            run::capture(&mut bash)
                .with_context(|| format!("README.md, section `{CONTAINERS}`: `{line}`"))?;
        }
    }
    Ok(format!("{} commands", commands.len()))
}

/// The section about registries, and the name that a registry has there.
const REGISTRIES: &str = "Through a registry";
const REGISTRY: &str = "registry.example/";

/// Types the commands of that section, with a registry at `server`.
pub(crate) fn typed_for_registries(tools: &Tools, folder: &Path, server: SocketAddr) -> Result<String> {
    let path = programs(tools, folder)?;
    let text = text()?;
    let typed = |line: &str| {
        let mut bash = run::command("bash");
        bash.current_dir(folder).env("PATH", &path).args(["-euo", "pipefail", "-c", line]);
        run::capture(&mut bash).with_context(|| format!("README.md, section `{REGISTRIES}`: `{line}`"))
    };
    // The section takes this for granted.
    let before = commands(section(&text, "Images that share")?);
    for line in before.iter().take_while(|line| !line.starts_with("tesserafs diff ")) {
        typed(line)?;
    }
    let has_fuse = Path::new("/dev/fuse").exists();
    let (mut count, mut left_out) = (0, 0);
    for line in commands(section(&text, REGISTRIES)?) {
        if !has_fuse && line.contains("mount ") {
            left_out += 1;
            continue;
        }
        let mut line = line.replace(REGISTRY, &format!("{server}/"));
        // The store of a host of its own.
        for verb in ["pull", "mount", "images", "rm", "gc", "fsck", "export"] {
            line = line.replace(&format!("tesserafs {verb}"), &format!("tesserafs {verb} --store store"));
        }
        typed(&line)?;
        count += 1;
    }
    typed("tesserafs unpack --packdir packs expected.tess tuesday.tess && cmp expected.tess tuesday-export.tess")?;
    Ok(format!("{count} commands, {left_out} left out that need FUSE"))
}

/// Links the programs in a folder of `folder`, under the names that people know; the search path with it.
fn programs(tools: &Tools, folder: &Path) -> Result<String> {
    let programs = folder.join(".bin");
    std::fs::create_dir(&programs).context("failed to create a folder")?;
    let names = ["mkfs.tesserafs", "fsck.tesserafs", "tesserafs"];
    for (program, name) in [&tools.mkfs, &tools.fsck, &tools.store].into_iter().zip(names) {
        symlink(program, programs.join(name)).with_context(|| format!("failed to link {name}"))?;
    }
    Ok(format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default()))
}

/// Whether a command asks the driver, or cargo, who has built what is tried here.
fn is_left_out(command: &str) -> bool {
    command.starts_with("mount ")
        || command.starts_with("cargo ")
        || command.contains("/sys/module/tesserafs/")
}

/// The tree and the archives that README.md takes for granted.
fn prepare(folder: &Path) -> Result<()> {
    let root = folder.join("rootfs");
    for name in ["etc", "srv/data"] {
        std::fs::create_dir_all(root.join(name)).with_context(|| format!("failed to create {name}"))?;
    }
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.join(name), bytes).with_context(|| format!("failed to write {name}"))
    };
    write("rootfs/etc/os-release", b"ID=example\n")?;
    write("rootfs/srv/data/prose", &rootfs::prose(1, 300_000))?;
    write("rootfs/srv/data/noise", &rootfs::noise(2, 200_000))?;
    let tar =
        |arguments: &[&str]| run::capture(run::command("tar").current_dir(folder).args(arguments)).map(drop);
    tar(&["-czf", "box.tar.gz", "rootfs"])?;
    tar(&["-C", "rootfs", "-cf", "layer.tar", "."])?;
    let plain = std::fs::read(folder.join("layer.tar")).context("failed to read an archive")?;
    let mut packed = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
    if let Err(code) = zstd_safe::compress(&mut packed, &plain, 3) {
        bail!("failed to compress an archive: {}", zstd_safe::get_error_name(code));
    }
    write("layer.tar.zst", &packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_without_comments_and_neighbours() {
        let text = "# x\n\n    before\n\n## One\n\nText, `cargo xtask fuzz --minutes N` too.\n\n    do it          # why\n    a | (b && c)\n\n## Two\n\n    after\n";
        let one = section(text, "One").unwrap();
        assert_eq!(commands(one), ["do it", "a | (b && c)"]);
        assert_eq!(mentioned(one, "cargo xtask"), ["cargo xtask fuzz --minutes N"]);
        assert!(section(text, "Three").is_err());
    }

    #[test]
    fn the_doors_come_first_and_are_short() {
        let text = text().unwrap();
        let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(headings[..3], ["Look at it", "Install it", "Hack on it"]);
        for door in &headings[..3] {
            let lines = commands(section(&text, door).unwrap()).len();
            assert!((1..=5).contains(&lines), "{door} has {lines} commands");
        }
        let installs = commands(section(&text, "Install it").unwrap());
        for line in installs.iter().filter(|line| line.starts_with("cargo install ")) {
            let path = line.split("--path ").nth(1).unwrap();
            assert!(tools::repository().join(path).join("Cargo.toml").is_file(), "{line}");
        }
    }
}
