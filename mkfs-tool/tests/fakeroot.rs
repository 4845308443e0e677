// SPDX-License-Identifier: GPL-2.0-or-later

//! Builders that have no privileges give files their owners in a library that stands between a program and libc: fakeroot,
//! pseudo. An image has what that library says, not what the disk says.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use common::{read_image, Sandbox};

/// A library as small as can be that does to the calls of mkfs what fakeroot does: everything belongs to 0:42, and has a
/// capability.
const PRELOAD: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>

static int owned(int status, struct stat *st) {
    st->st_uid = 0;
    st->st_gid = 42;
    return status;
}

int fstatat(int dir, const char *path, struct stat *st, int flags) {
    int (*next)(int, const char *, struct stat *, int) = dlsym(RTLD_NEXT, "fstatat");
    return owned(next(dir, path, st, flags), st);
}

int fstatat64(int dir, const char *path, struct stat64 *st, int flags) {
    return fstatat(dir, path, (struct stat *)st, flags);
}

int fstat(int fd, struct stat *st) {
    int (*next)(int, struct stat *) = dlsym(RTLD_NEXT, "fstat");
    return owned(next(fd, st), st);
}

int fstat64(int fd, struct stat64 *st) {
    return fstat(fd, (struct stat *)st);
}

ssize_t llistxattr(const char *path, char *list, size_t size) {
    (void)path;
    if (size < 10) {
        errno = ERANGE;
        return -1;
    }
    memcpy(list, "user.fake", 10);
    return 10;
}

ssize_t lgetxattr(const char *path, const char *name, void *value, size_t size) {
    (void)path, (void)name, (void)size;
    memcpy(value, "yes", 3);
    return 3;
}
"#;

#[test]
fn owners_and_xattrs_are_those_that_a_preloaded_library_tells() {
    let sandbox = Sandbox::new();
    let source = sandbox.write("fake.c", PRELOAD);
    let library = sandbox.path("fake.so");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).output();
    if !compiled.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("no C compiler; this test needs one: {compiled:?}");
        return;
    }
    sandbox.write("src/d/f", "x");
    let status = sandbox.command(["-q", "image", "src"]).env("LD_PRELOAD", &library).status().unwrap();
    assert!(status.success());
    let read = read_image(&sandbox.path("image"));
    for (name, item) in &read.items {
        assert_eq!((item.uid, item.gid), (0, 42), "{name}");
        assert_eq!(item.xattrs, [("user.fake".to_owned(), b"yes".to_vec())], "{name}");
    }
}

#[test]
fn fakeroot_gives_owners_devices_and_capabilities() {
    if Command::new("fakeroot").arg("--version").output().is_err() {
        eprintln!("no fakeroot; this test needs it");
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("src/f", "x");
    // The program may lie where another user must not look.
    let program = sandbox.path("mkfs");
    fs::copy(env!("CARGO_BIN_EXE_mkfs-tesserafs"), &program).unwrap();
    let script = "chown 0:42 src/f && chown 7:8 src && mknod src/null c 1 3 && mknod src/gone c 0 0 && \
                  ./mkfs -q --devices=skip out/image src";
    fs::create_dir(sandbox.path("out")).unwrap();
    let mut command = Command::new("fakeroot");
    if fs::metadata(sandbox.path("src")).unwrap().uid() == 0 {
        // root needs no fakeroot, and has its own files in any case.
        for name in [".", "src", "src/f", "out"] {
            std::os::unix::fs::chown(sandbox.path(name), Some(65534), Some(65534)).unwrap();
        }
        command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "fakeroot"]);
    }
    let output = command.args(["sh", "-c", script]).current_dir(sandbox.path(".")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = read_image(&sandbox.path("out/image"));
    let keys: Vec<&str> = read.items.keys().map(|name| &**name).collect();
    assert_eq!(keys, ["/", "f", "gone"]);
    let owner = |name: &str| (read.item(name).uid, read.item(name).gid);
    assert_eq!((owner("/"), owner("f"), read.item("gone").kind), ((7, 8), (0, 42), 'w'));
}
