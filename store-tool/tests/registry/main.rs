// SPDX-License-Identifier: GPL-2.0-or-later

//! A repository against a registry of the tests' own, which does wrong in all ways that servers and proxies do.

#[path = "../support/registry/mod.rs"]
mod registry;

mod auth;
mod garbage;
mod read;
mod redirect;
mod tls;
mod write;

use std::time::Duration;

use tesserafs_image::hash::sha256;
use tesserafs_image::Error;
use tesserafs_store::artifact::Blob;
use tesserafs_store::reference::Reference;
use tesserafs_store::registry::{Answer, Options, Repository};

use self::registry::Registry;

/// Options for servers that answer at once or never.
fn options() -> Options {
    Options {
        tries: 4,
        first_wait: Duration::from_millis(2),
        connect: Duration::from_secs(5),
        silence: Duration::from_secs(2),
        // No credentials of whoever runs the tests.
        authfile: Some("/dev/null".into()),
        plain_http: true,
        chunk: 1 << 20,
        ..Options::default()
    }
}

/// Options with credentials for a registry.
fn with_login(folder: &std::path::Path, host: &str, entry: &str) -> Options {
    let path = folder.join("auth.json");
    std::fs::write(&path, format!(r#"{{"auths":{{"{host}":{entry}}}}}"#)).expect("a file");
    Options { authfile: Some(path), ..options() }
}

/// The repository `team/app` of a registry.
fn open(registry: &Registry, options: &Options) -> Repository {
    let reference = Reference::parse(&format!("{}/team/app", registry.host())).expect("a reference");
    Repository::open(&reference, options).expect("a repository")
}

/// Bytes that look like nothing else.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// Puts a blob into the repository.
fn blob(registry: &Registry, bytes: &[u8]) -> Blob {
    registry.add_blob("team/app", bytes);
    Blob { digest: sha256(bytes), len: bytes.len() as u64 }
}

/// Reads a range, and checks each part that is handed out: nothing but bytes of the blob in their place.
fn read(
    repository: &Repository,
    blob: &Blob,
    range: std::ops::Range<u64>,
    all: &[u8],
) -> Result<(Answer, Vec<bool>), Error> {
    let mut got = vec![false; all.len()];
    let mut answer = Answer::Part;
    repository.read(blob, range, &mut |now, offset, bytes| {
        answer = now;
        let offset = offset as usize;
        assert_eq!(bytes, &all[offset..offset + bytes.len()], "bytes at {offset}");
        got[offset..offset + bytes.len()].fill(true);
        Ok(())
    })?;
    Ok((answer, got))
}

/// One line without escape sequences.
fn sentence(error: &Error) -> String {
    let said = error.to_string();
    assert!(tesserafs_image::text::is_plain(&said) && !said.contains('\n'), "{said}");
    said
}
