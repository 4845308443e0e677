// SPDX-License-Identifier: GPL-2.0-or-later

//! SELinux labels from file_contexts, compared with those of libselinux where its tools are installed.

mod common;

use std::os::unix::fs::symlink;
use std::process::Command;

use common::{read_image, Sandbox};

const CONTEXTS: &str = "\
# A policy in small.
/.*\tsystem_u:object_r:default_t:s0
/\t-d\tsystem_u:object_r:root_t:s0
/etc(/.*)?\tsystem_u:object_r:etc_t:s0
/etc/shadow.*\t--\tsystem_u:object_r:shadow_t:s0
/etc/shadow\\.dir\t-d\tsystem_u:object_r:shadow_dir_t:s0
/usr/(s)?bin/.*\t--\tsystem_u:object_r:bin_t:s0
/usr/bin/special\tsystem_u:object_r:special_t:s0
/usr/bin/spec.*\tsystem_u:object_r:wrong_t:s0
/usr/lib(64)?/.*\\.so(\\.[^/]*)*\tsystem_u:object_r:lib_t:s0
/var/[^/]+/tmp\t-d\tsystem_u:object_r:tmp_t:s0
/proc/.*\t<<none>>
";

#[test]
fn labels_are_those_of_the_policy() {
    let sandbox = Sandbox::new();
    sandbox.write("contexts", CONTEXTS);
    sandbox.write("contexts.subs_dist", "/run /var/run\n/opt/etc /etc\n");
    sandbox.write("contexts.local", "/srv/local -- system_u:object_r:local_t:s0\n");
    let files = [
        ("etc/shadow", "shadow_t"),
        ("etc/shadow.dir/f", "shadow_t"),
        ("etc/passwd", "etc_t"),
        ("usr/bin/special", "special_t"),
        ("usr/sbin/init", "bin_t"),
        ("usr/lib64/libc.so.6", "lib_t"),
        ("usr/lib/libcXso", "default_t"),
        ("opt/etc/f", "etc_t"),
        ("srv/local", "local_t"),
        ("var/x/tmp/f", "default_t"),
        ("new\nline/f", "default_t"),
    ];
    for (name, _) in files {
        sandbox.write(&format!("src/{name}"), name);
    }
    sandbox.write("src/proc/none", "");
    symlink("x", sandbox.path("src/etc/shadow-link")).unwrap();
    sandbox.mkfs(["--file-contexts", "contexts", "image", "src"]);
    let read = read_image(&sandbox.path("image"));
    let label =
        |name: &str| read.item(name).xattrs.iter().find(|xattr| xattr.0 == "security.selinux").cloned();
    let others = [
        ("/", "root_t"),
        ("var/x/tmp", "tmp_t"),
        ("etc/shadow.dir", "shadow_dir_t"),
        ("etc/shadow-link", "etc_t"),
    ];
    for (name, label_type) in files.iter().chain(&others) {
        let expected = format!("system_u:object_r:{label_type}:s0\0").into_bytes();
        assert_eq!(label(name).expect(name).1, expected, "{name}");
        let path = if *name == "/" { "/".to_owned() } else { format!("/{name}") };
        let mode = match read.item(name).kind {
            'd' => "dir",
            'l' => "symlink",
            _ => "file",
        };
        let contexts = sandbox.path("contexts");
        let mut command = Command::new("matchpathcon");
        command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").args(["-n", "-m", mode, "-f"]).arg(contexts);
        if let Some(output) = command.arg(&path).output().ok().filter(|output| output.status.success()) {
            let theirs = String::from_utf8_lossy(&output.stdout);
            assert_eq!(format!("{}\0", theirs.trim()).into_bytes(), expected, "{name}");
        }
    }
    assert_eq!(label("proc/none"), None);
    for (bad, what) in [("/a(\tx:y:z\n", "line 1"), ("\n/a -x x:y:z\n", "line 2"), ("/a\n", "line 1")] {
        sandbox.write("bad", bad);
        let error = sandbox.refused(1, ["--file-contexts", "bad", "image2", "src"]);
        assert!(error.contains(what), "{error}");
    }
}
