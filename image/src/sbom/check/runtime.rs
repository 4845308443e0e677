// SPDX-License-Identifier: GPL-2.0-or-later

//! Places where packages make files once they are installed, so that no list has them.

/// Directories: the databases of package managers themselves, caches and logs.
const DIRECTORIES: [&str; 16] = [
    "lib/apk",
    "usr/lib/apk",
    "usr/lib/sysimage/rpm",
    "usr/share/rpm",
    "var/cache",
    "var/lib/apt",
    "var/lib/dnf",
    "var/lib/dpkg",
    "var/lib/pacman",
    "var/lib/rpm",
    "var/lib/systemd",
    "var/lib/ucf",
    "var/lib/zypp",
    "var/log",
    "var/lib/pam",
    "etc/apk",
];

/// Files that maintainer scripts make.
const FILES: [&str; 14] = [
    "etc/group",
    "etc/group-",
    "etc/gshadow",
    "etc/gshadow-",
    "etc/ld.so.cache",
    "etc/machine-id",
    "etc/passwd",
    "etc/passwd-",
    "etc/shadow",
    "etc/shadow-",
    "etc/subgid",
    "etc/subgid-",
    "etc/subuid",
    "etc/subuid-",
];

/// Whether a file at this path is of that kind. Compiled Python and the links that npm makes of programs are so wherever they are.
pub(super) fn is_made(path: &[u8]) -> bool {
    let is_below =
        |dir: &&str| path.strip_prefix(dir.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'));
    if DIRECTORIES.iter().any(is_below) || FILES.iter().any(|file| file.as_bytes() == path) {
        return true;
    }
    let mut names = path.rsplit(|byte| *byte == b'/');
    let (name, parent, above) = (names.next(), names.next(), names.next());
    match (above, parent, name) {
        (_, Some(b"__pycache__"), Some(name)) => name.ends_with(b".pyc"),
        (_, Some(b"node_modules"), Some(name)) => name == b".package-lock.json",
        (Some(b"node_modules"), Some(b".bin"), _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_whole_names() {
        let made = |path: &str| is_made(path.as_bytes());
        assert!(
            made("var/lib/dpkg/status") && made("etc/passwd") && made("opt/x/__pycache__/a.cpython-313.pyc")
        );
        assert!(made("app/node_modules/.bin/x") && made("app/node_modules/.package-lock.json"));
        assert!(!made("var/lib/dpkgx/y") && !made("etc/passwd.old") && !made("var/cache") && !made("a.pyc"));
        assert!(!made("x/__pycache__/program"));
    }
}
