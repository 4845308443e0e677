// SPDX-License-Identifier: GPL-2.0
//! The meaning of another program's failure, and the words to type then: one sentence instead of its last lines.

use std::io::ErrorKind;

/// The advice where a disk is full.
pub(crate) const ROOM: &str =
    "make room there, or name a folder on another disk: TESSERAFS_CACHE=DIR cargo xtask ...";

/// A cause that many programs run into, each in words of its own.
struct Cause {
    /// Their words, in lower case.
    said: &'static [&'static str],
    /// The meaning, and the words to type. Before it comes the line that was said.
    means: &'static str,
}

/// The first cause counts of which a line tells, from the first line on: a program that goes on complains of more.
const CAUSES: &[Cause] = &[
    Cause {
        said: &["no space left on device", "not enough free space", "have enough free space", "quota exceeded"],
        means: "the disk is full; make room there, or name a folder on another disk: TESSERAFS_CACHE=DIR cargo \
                xtask ...",
    },
    Cause {
        said: &[
            "temporary failure resolving",
            "could not resolve",
            "couldn't resolve",
            "failed to lookup address",
            "name or service not known",
            "network is unreachable",
            "cannot initiate the connection",
            "could not connect",
            "couldn't connect",
            "unable to connect",
            "failed to connect",
            "connection refused",
            "connection timed out",
        ],
        means: "there is no network, or the server does not answer; connect this machine, or name another mirror of \
                Debian: TESSERAFS_DEBIAN_MIRROR=ADDRESS cargo xtask ...",
    },
    Cause {
        said: &["404  not found", "404  file not found", "error 404", "hash sum mismatch", "file has unexpected size"],
        means: "the mirror does not have a file any more that its lists name; type `apt-get update` and the same again, \
                or name another mirror: TESSERAFS_DEBIAN_MIRROR=ADDRESS cargo xtask ...",
    },
    Cause {
        said: &["unable to locate package", "has no installation candidate", "' was not found"],
        means: "the archive has no such package, or not this version; type `apt-get update`, and see that \
                /etc/apt/sources.list.d names a complete Debian archive, or name one: \
                TESSERAFS_DEBIAN_MIRROR=ADDRESS cargo xtask ...",
    },
    Cause {
        said: &["does not have a release file", "no longer has a release file"],
        means: "the mirror does not have this suite; name another mirror: TESSERAFS_DEBIAN_MIRROR=ADDRESS cargo xtask ...",
    },
    Cause {
        said: &["is not valid yet", "release file for", "no_pubkey", "the following signatures"],
        means: "the archive's signature is not valid here and now; see that `date` is right, and install \
                debian-archive-keyring",
    },
    Cause {
        said: &["could not get lock", "unable to acquire the dpkg frontend lock", "unable to lock"],
        means: "another run of apt is at work; wait until it ends, and type the same again",
    },
    Cause {
        said: &["dpkg was interrupted"],
        means: "an installation was interrupted; type `dpkg --configure -a`, and the same again",
    },
    Cause {
        said: &["unshare failed", "unshare: cannot", "unshare(clone", "mount: permission denied"],
        means: "root may not mount anything here, as in a container; use a machine, or a container with \
                `--privileged`",
    },
];

/// The meaning of the first known complaint in the words of a program, with that line; nothing if none is known.
pub(crate) fn advice(said: &str) -> Option<String> {
    said.lines().find_map(|line| {
        let lower = line.to_lowercase();
        let cause = CAUSES.iter().find(|cause| cause.said.iter().any(|words| lower.contains(words)))?;
        Some(format!("{} (found: {})", cause.means, line.trim()))
    })
}

/// An error with its causes, and what to do about a disk that this program itself found full.
pub(crate) fn told(error: &anyhow::Error) -> String {
    let is_full = |cause: &(dyn std::error::Error + 'static)| {
        let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        matches!(kind, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    };
    if error.chain().any(is_full) {
        format!("{error:#}: {ROOM}")
    } else {
        format!("{error:#}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of programs in such a case.
    const SAID: [(&str, &str); 11] = [
        ("Err:1 http://deb.debian.org/debian bookworm InRelease\n  Temporary failure resolving 'deb.debian.org'\n\
          E: Unable to locate package bc", "no network"),
        ("E: Failed to fetch http://127.0.0.1:8765/dists/x/InRelease  Could not connect to 127.0.0.1:8765 (127.0.0.1). \
          - connect (111: Connection refused)", "no network"),
        ("warning: spurious network error (3 tries remaining): [6] Couldn't resolve host name (Could not resolve host: \
          index.crates.io)", "no network"),
        ("E: Failed to fetch http://127.0.0.1:8765/pool/gone_1.0_amd64.deb  404  File not found [IP: 127.0.0.1 8765]\n\
          E: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?", "`apt-get update`"),
        ("E: Unable to locate package gone", "no such package"),
        ("E: Version '2' for 'gone' was not found", "not this version"),
        ("tar: usr/lib: Cannot write: No space left on device", "TESSERAFS_CACHE="),
        ("E: You don't have enough free space in /var/cache/apt/archives/.", "the disk is full"),
        ("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (apt-get)", "another run of apt"),
        ("E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem.", "dpkg --configure -a"),
        ("unshare: unshare failed: Operation not permitted", "--privileged"),
    ];

    #[test]
    fn each_cause_is_one_sentence_with_what_to_type() {
        for (said, means) in SAID {
            let advice = advice(said).unwrap_or_else(|| panic!("nothing is known of {said}"));
            assert!(advice.contains(means), "{said}\n{advice}");
            assert_eq!(advice.lines().count(), 1, "{advice}");
        }
        assert_eq!(advice("error[E0308]: mismatched types"), None);
    }

    #[test]
    fn a_full_disk_of_our_own_is_told_with_what_to_type() {
        let full = anyhow::Error::from(std::io::Error::from_raw_os_error(28)).context("failed to write /c/x");
        assert!(told(&full).starts_with("failed to write /c/x: No space left"), "{}", told(&full));
        assert!(told(&full).contains("TESSERAFS_CACHE=DIR"));
        assert_eq!(told(&anyhow::anyhow!("one").context("two")), "two: one");
    }
}
