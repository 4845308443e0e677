// SPDX-License-Identifier: GPL-2.0
//! `cargo xtask`: everything of the project that needs a kernel, a virtual machine or root.
//!
//! In the order in which a test run uses them: what the machine lacks ([`setup`], and what to type where that fails: [`advice`]), the kernel
//! ([`kernel`], [`linked`], [`stock`] with [`chroot`]), the module ([`module`], and what it is built against: [`build_folder`]; for another architecture: [`cross`]), real input ([`rootfs`], [`releases`], [`trees`], [`sign`], [`corrupt`], [`stores`], [`stage`]),
//! the machine ([`lab`], [`drivers`], [`initramfs`], [`qemu`], [`console`]), one that boots from an image ([`appliance`], [`verified_boot`]), registries ([`registry`], [`container_layout`]) and what lies between them and their clients ([`proxy`], [`http`]); then the verbs ([`test`], [`fuzz`], [`demo`] with [`clock`], [`bench`],
//! [`install`], [`package`]).

mod advice;
mod answers;
mod appliance;
mod audit;
mod bench;
mod build_folder;
mod cache;
mod cases;
mod chroot;
mod cli;
mod clock;
mod console;
mod container_images;
mod container_layout;
mod corrupt;
mod cross;
mod debian;
mod demo;
mod disk;
mod drivers;
mod erofs;
mod fuzz;
mod http;
mod initramfs;
mod install;
mod kernel;
mod lab;
mod labels;
mod layers;
mod licences;
mod linked;
mod module;
mod mutate;
mod package;
mod packs;
mod proxy;
mod pulls;
mod qemu;
mod readme;
mod registry;
mod releases;
mod report;
mod reproducible;
mod rootfs;
mod run;
mod setup;
mod sign;
mod stage;
mod stock;
mod stores;
mod test;
mod tools;
mod trees;
mod verified_boot;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {}", advice::told(&error));
            ExitCode::FAILURE
        }
    }
}
