// SPDX-License-Identifier: GPL-2.0
//! The requests of programs to an image that a daemon serves: the tests that the kernel driver passes, too.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};
use tesserafs_guest::plan::{Image, Plan};

use super::different::{ANSWERS, ON_IMAGE};
use super::{ByFuse, TARGET};
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::suite::Suite;
use crate::{answers, api, compare, fstests, programs, sys};

/// The user who runs the programs that are set-user-ID.
const USER: u32 = 2000;

pub(super) fn tests(suite: &mut Suite, plan: &Plan) {
    let small = &plan.small;
    on(suite, "mmap", small, |mount| api::mapping(plan, mount));
    on(suite, "splice-and-direct-io", small, api::direct);
    on(suite, "writes-are-refused", small, |mount| api::refused_writes(mount).map(|()| String::new()));
    suite.test("set-user-id", || set_user_id(plan));
    suite.test("answers-as-by-the-kernel", || all_answers(plan));
    let cases = on_disk(&plan.cases.image);
    let mounted = || Ok(ByFuse::new(&cases)?.mount);
    fstests::on_image(suite, mounted, ON_IMAGE);
    fstests::on_overlay(suite, mounted);
}

/// The tests that need the Debian root.
pub(super) fn tests_of_all(suite: &mut Suite, plan: &Plan) {
    let root = &plan.root;
    on(suite, "telldir", root, |mount| api::telldir(plan, mount));
    on(suite, "lookup-in-a-big-directory", root, |mount| api::lookups(plan, mount));
    on(suite, "seek-hole", root, api::seek);
    on(suite, "random-reads", root, api::random_reads);
    on(suite, "programs-with-mounts-in-their-root", root, |mount| programs::run_all(mount.path()));
    suite.test("overlay-on-top", || {
        let served = ByFuse::new(&on_disk(&root.image))?;
        let daemon = served.daemon;
        let note = compare::overlay_on_top(root, served.mount)?;
        super::ended(daemon)?;
        Ok(note)
    });
}

/// A test of a mounted image.
fn on(suite: &mut Suite, name: &str, image: &Image, ask: impl Fn(&Mount) -> Result<String>) {
    suite.test(name, || {
        drop_caches()?;
        let served = ByFuse::new(&on_disk(&image.image))?;
        let note = ask(&served.mount)?;
        served.unmount()?;
        Ok(note)
    });
}

/// A program of root's that is set-user-ID is one, if root mounts the image, unless root says `nosuid`; what `noexec` says
/// counts, too.
fn set_user_id(plan: &Plan) -> Result<String> {
    let image = on_disk(&plan.small.image);
    for (arguments, expected) in [(&[][..], Some(0)), (&["-o", "nosuid"][..], Some((USER & 0xff) as i32))] {
        let served = ByFuse::at(&image, Path::new(TARGET), arguments)?;
        let program = served.path().join("special/setuid");
        let mode = std::fs::metadata(&program).context("failed to look at the program")?.mode();
        ensure!(mode & 0o4000 != 0, "the program is not set-user-ID");
        let mut command = Command::new(program);
        sys::as_user(&mut command, USER);
        let status = command.status().context("failed to run the program")?;
        ensure!(status.code() == expected, "with {arguments:?} it ends with {status}");
        served.unmount()?;
    }
    let served = ByFuse::at(&image, Path::new(TARGET), &["-o", "noexec"])?;
    match Command::new(served.path().join("special/setuid")).status() {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {}
        other => bail!("with noexec, running a program gives {other:?}"),
    }
    served.unmount()?;
    Ok(String::new())
}

/// Asks both, and fails where FUSE answers neither as the kernel driver nor as is expected.
fn all_answers(plan: &Plan) -> Result<String> {
    let image = on_disk(&plan.answers.image.image);
    let kernel = Mount::image(&image, Path::new("/mnt/image"), "").context("failed to mount the image")?;
    let fuse = ByFuse::new(&image)?;
    let mut wrong = Vec::new();
    let (by_kernel, by_fuse) = (answers::about(kernel.path()), answers::about(fuse.path()));
    for ((question, kernel), (_, fuse)) in by_kernel.iter().zip(&by_fuse) {
        let expected = ANSWERS.iter().find(|(other, _, _)| other == question);
        let is_right = match expected {
            None => kernel == fuse,
            Some((_, answer, _)) => fuse == answer && fuse != kernel,
        };
        if !is_right {
            wrong.push(format!("{question}: by FUSE {fuse}, by the kernel {kernel}"));
        }
    }
    for (question, _, _) in ANSWERS {
        let asked = by_fuse.iter().filter(|(other, _)| other == question).count();
        ensure!(asked == 1, "`{question}` is asked {asked} times");
    }
    kernel.unmount()?;
    fuse.unmount()?;
    ensure!(wrong.is_empty(), "{} answers are not right:\n{}", wrong.len(), wrong.join("\n"));
    Ok(format!("{} of {} as by the kernel", by_fuse.len() - ANSWERS.len(), by_fuse.len()))
}
