// SPDX-License-Identifier: GPL-2.0
//! Modules of the kernel itself that the guest loads first, where they are not built in.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

use crate::run;

/// The modules that the tests use: disks, and the filesystems and devices that images lie on, lie under, or
/// are compared with.
const WANTED: [&str; 11] =
    ["virtio_blk", "ext4", "xfs", "btrfs", "erofs", "squashfs", "overlay", "loop", "dm_mod", "nfsd", "nfsv4"];

/// Unpacks into `scratch` those of [`WANTED`] that are modules in this folder, with the modules that they
/// need. Returns the path in the guest and the file of each.
///
/// The guest loads them in the order of their names.
pub(crate) fn unpack(modules: &Path, scratch: &Path) -> Result<Vec<(String, PathBuf)>> {
    let read = |name: &str| {
        let path = modules.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
    };
    let (dependencies, built_in) = (read("modules.dep")?, read("modules.builtin")?);
    let mut files = Vec::new();
    for (index, module) in order(&dependencies, &built_in, &WANTED)?.into_iter().enumerate() {
        let file = scratch.join(format!("{index:02}-{}.ko", name(module)));
        decompress(&modules.join(module), &file)?;
        files.push((format!("lib/modules/{index:02}-{}.ko", name(module)), file));
    }
    Ok(files)
}

/// The modules to load for these, each after those that it needs.
fn order<'d>(dependencies: &'d str, built_in: &str, wanted: &[&str]) -> Result<Vec<&'d str>> {
    // Lines are `module: modules that it needs`.
    let lines: HashMap<String, (&str, &str)> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(module, needs)| (name(module), (module, needs)))
        .collect();
    let mut order = Vec::new();
    for wanted in wanted {
        match lines.get(*wanted) {
            Some((module, _)) => add(module, &lines, &mut order),
            None => {
                let found = built_in.lines().any(|module| name(module) == *wanted);
                ensure!(found, "the kernel has no {wanted}, built in or as a module");
            }
        }
    }
    Ok(order)
}

/// Adds a module after those that it needs.
fn add<'d>(module: &'d str, lines: &HashMap<String, (&'d str, &'d str)>, order: &mut Vec<&'d str>) {
    if order.contains(&module) {
        return;
    }
    let needs = lines.get(&name(module)).map_or("", |(_, needs)| needs);
    for need in needs.split_whitespace() {
        add(need, lines, order);
    }
    order.push(module);
}

/// The kernel's name of a module that lies there.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// The kernel need not know how a module is compressed.
fn decompress(module: &Path, target: &Path) -> Result<()> {
    let file = File::create(target).with_context(|| format!("failed to create {}", target.display()))?;
    run::run(run::command("xz").arg("-dc").arg(module).stdout(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/lib/raid6/raid6_pq.ko.xz:\n\
        kernel/fs/btrfs/btrfs.ko.xz: kernel/crypto/xor.ko.xz kernel/lib/raid6/raid6_pq.ko.xz\n\
        kernel/crypto/xor.ko.xz: kernel/lib/low.ko.xz\n\
        kernel/lib/low.ko.xz:\n\
        kernel/drivers/md/dm-verity.ko.xz: kernel/lib/low.ko.xz\n";

    #[test]
    fn what_a_module_needs_comes_before_it() {
        let order = order(DEPENDENCIES, "kernel/fs/ext4/ext4.ko\n", &["dm_verity", "ext4", "btrfs"]).unwrap();
        let names: Vec<String> = order.into_iter().map(name).collect();
        assert_eq!(names, ["low", "dm_verity", "xor", "raid6_pq", "btrfs"]);
    }

    #[test]
    fn what_a_kernel_has_not_is_named() {
        let error = order(DEPENDENCIES, "", &["xfs"]).unwrap_err().to_string();
        assert!(error.contains("xfs"), "{error}");
    }
}
