// SPDX-License-Identifier: GPL-2.0
//! The init of the test machine.
//!
//! Started by the kernel it mounts the pseudo file systems, runs the group of tests that the command
//! line names (`guest.group=`), sends one verdict and powers off; with `guest.bench` it measures
//! instead. In a machine that boots from an image systemd starts it (`appliance`). The same program is the helper that the tests start: `read` (one of several readers at once), `drain` (read the standard input to its end), those of [`races`], [`waits`], [`stores`], [`privilege`] and [`fstests`], `chroot` (run something in a root),
//! `user-namespace` (hold one open), and `measure` (one reader of a mounted tree, for the benchmark of servers on the host).

mod answers;
mod api;
mod appliance;
mod backing;
mod bench;
mod boot;
mod by_fuse;
mod cgroups;
mod compare;
mod containers;
mod demo;
mod faults;
mod flips;
mod fstests;
mod fuse;
mod keys;
mod kmsg;
mod leaks;
mod module;
mod mounts;
mod mutants;
mod observe;
mod packs;
mod paging;
mod policy;
mod privilege;
mod programs;
mod races;
mod readers;
mod security;
mod sharing;
mod signatures;
mod stores;
mod suite;
mod sys;
mod tools;
mod waits;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use tesserafs_guest::reading::HELPER;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        boot::init()
    }
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    match helper(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn helper(arguments: &[std::ffi::OsString]) -> Result<()> {
    match arguments.split_first() {
        Some((verb, rest)) if verb == "read" => readers::helper(rest),
        Some((verb, [])) if verb == "drain" => {
            std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).context("failed to read")?;
            Ok(())
        }
        Some((verb, [image, target, options])) if verb == "mount-as-user" => {
            privilege::mount_as_user(Path::new(image), Path::new(target), options, false)
        }
        Some((verb, [image, target, options])) if verb == "mount-in-namespace" => {
            privilege::mount_as_user(Path::new(image), Path::new(target), options, true)
        }
        Some((verb, [image, manifest])) if verb == "mount-by-fuse-in-namespace" => {
            by_fuse::mount_in_namespace(Path::new(image), Path::new(manifest))
        }
        Some((verb, [layers, target])) if verb == "list-overlay-in-namespace" => {
            privilege::list_overlay(layers, Path::new(target))
        }
        Some((verb, [image, options])) if verb == "mount-and-read" => {
            races::mount_and_read(Path::new(image), options.to_str().context("options that are no text")?)
        }
        Some((verb, [image, manifest])) if verb == "read-under-alarms" => {
            races::read_under_alarms(Path::new(image), Path::new(manifest))
        }
        Some((verb, rest)) if verb == "read-by-all-means" => races::read_by_all_means(rest),
        Some((verb, [manifest, root])) if verb == "read-and-grow" => {
            races::read_and_grow(Path::new(manifest), Path::new(root))
        }
        Some((verb, [file])) if verb == "open" => waits::open(Path::new(file)),
        Some((verb, [call, image, file, length])) if verb == "use-both" => {
            stores::helper(call, Path::new(image), Path::new(file), length)
        }
        Some((verb, [seconds])) if verb == "take-memory" => races::take_memory(seconds),
        Some((verb, [group, rest @ ..])) if verb == "within" => {
            cgroups::join(Path::new(group))?;
            helper(rest)
        }
        Some((verb, [file, offset])) if verb == "touch-mapped" => {
            fstests::touch_mapped(Path::new(file), offset)
        }
        Some((verb, rest)) if verb == "chroot" => programs::helper(rest),
        Some((verb, [])) if verb == "user-namespace" => api::namespace_helper(),
        Some((verb, [])) if verb == "appliance" => appliance::run(),
        Some((verb, [plan, measure, root])) if verb == HELPER => {
            bench::helper(Path::new(plan), measure, Path::new(root))
        }
        _ => anyhow::bail!("this is the init of a test machine, not a program of its own"),
    }
}
