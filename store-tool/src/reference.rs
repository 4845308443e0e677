// SPDX-License-Identifier: GPL-2.0-or-later

//! References to images in registries, read as docker and podman read them.

use std::fmt;

use tesserafs_format::Digest;
use tesserafs_image::text;

/// The registry of a reference that names none.
const DEFAULT_HOST: &str = "docker.io";
/// The tag of a reference that has none.
const DEFAULT_TAG: &str = "latest";
/// Bytes of host and repository together, and of a tag.
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// An image in a registry: `HOST/REPOSITORY:TAG`, or `@sha256:HEX` behind the repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The registry, with its port if one is given; `docker.io` if no registry is.
    pub host: String,
    /// The repository, without slashes at its ends.
    pub repository: String,
    /// Which manifest of the repository.
    pub name: Name,
}

/// A name of a manifest in its repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// One that the registry can give to another manifest tomorrow.
    Tag(String),
    /// The digest of its bytes.
    Digest(Digest),
}

impl Reference {
    /// Reads a reference.
    ///
    /// `docker://` and `oci://` before it are tolerated. Of a reference with a tag and a digest, the digest counts, as docker has it.
    pub fn parse(reference: &str) -> Result<Self, String> {
        let refuse = |why: &str| format!("{} is not a reference: {why}", text::escape(reference.as_bytes()));
        let rest = ["docker://", "oci://"].iter().find_map(|prefix| reference.strip_prefix(prefix));
        let rest = rest.unwrap_or(reference);
        let (rest, digest) = match rest.split_once('@') {
            None => (rest, None),
            Some((rest, digest)) => {
                let digest = parse_digest(digest).ok_or_else(|| {
                    refuse("behind @ a digest is expected, sha256: and 64 lower-case hexadecimal digits")
                })?;
                (rest, Some(digest))
            }
        };
        // A colon before the last slash belongs to a port.
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((rest, tag)) if !tag.contains('/') => (rest, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(refuse(
                "a tag is 1 to 128 letters, digits, dots, hyphens and underscores, the first one no dot or hyphen",
            ));
        }
        let (host, repository) = match rest.split_once('/') {
            Some((first, repository)) if names_host(first) => (first, repository.to_owned()),
            _ => (DEFAULT_HOST, rest.to_owned()),
        };
        let host = if host == "index.docker.io" { DEFAULT_HOST } else { host };
        let official = host == DEFAULT_HOST && !repository.contains('/');
        let repository = if official { format!("library/{repository}") } else { repository };
        if !is_host(host) {
            return Err(refuse("the registry is a host name or an address, and perhaps a port"));
        }
        if !is_repository(&repository) || host.len() + repository.len() >= NAME_MAX {
            return Err(refuse(
                "a repository is names with slashes between; a name is lower-case letters and digits, and between them single \
                 dots, one or two underscores, or hyphens",
            ));
        }
        let name = digest.map_or_else(|| Name::Tag(tag.unwrap_or(DEFAULT_TAG).to_owned()), Name::Digest);
        Ok(Self { host: host.to_owned(), repository, name })
    }

    /// The same repository, another manifest.
    pub fn with_name(&self, name: Name) -> Self {
        Self { name, ..self.clone() }
    }

    /// The host that serves the registry: docker.io does not itself.
    pub fn api_host(&self) -> &str {
        if self.host == DEFAULT_HOST {
            "registry-1.docker.io"
        } else {
            &self.host
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, repository, name } = self;
        match name {
            Name::Tag(tag) => write!(f, "{host}/{repository}:{tag}"),
            Name::Digest(digest) => write!(f, "{host}/{repository}@sha256:{digest}"),
        }
    }
}

/// As it stands in the URL of a manifest.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => write!(f, "sha256:{digest}"),
        }
    }
}

impl Name {
    /// A tag, if it can be one.
    pub fn tag(tag: &str) -> Option<Self> {
        is_tag(tag).then(|| Self::Tag(tag.to_owned()))
    }
}

/// Reads `sha256:` and 64 lower-case digits, the one way to write a digest in OCI documents.
pub fn parse_digest(text: &str) -> Option<Digest> {
    let hex =
        text.strip_prefix("sha256:").filter(|hex| !hex.bytes().any(|byte| byte.is_ascii_uppercase()))?;
    Digest::from_hex(hex.as_bytes())
}

/// Whether the first part of a reference is a registry, and not the beginning of a repository of docker.io.
fn names_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.contains(|c: char| c.is_ascii_uppercase())
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    if let Some(port) = port {
        if !port.bytes().all(|byte| byte.is_ascii_digit()) || !port.parse::<u16>().is_ok_and(|port| port > 0)
        {
            return false;
        }
    }
    if let Some(address) = name.strip_prefix('[') {
        return address
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    name.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// Whether it is a repository, here and for every registry.
pub(crate) fn is_repository(repository: &str) -> bool {
    repository.split('/').all(is_component)
}

fn is_component(component: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    if !ends.is_some_and(|(first, last)| is_letter(*first) && is_letter(*last)) {
        return false;
    }
    // The characters that may stand between letters.
    bytes.split(|byte| is_letter(*byte)).all(|between| {
        matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|byte| *byte == b'-')
    })
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_docker_reads_them() {
        let hex = "0123456789abcdef".repeat(4);
        let by_digest = format!("quay.io/a/b@sha256:{hex}");
        let both = format!("quay.io/a/b:1@sha256:{hex}");
        for (reference, full) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("docker://me/app", "docker.io/me/app:latest"),
            ("index.docker.io/debian", "docker.io/library/debian:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:v1.2-3_4", "localhost:5000/app:v1.2-3_4"),
            ("oci://registry.example/a/b_c/d__e/f---g/h.i:x", "registry.example/a/b_c/d__e/f---g/h.i:x"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("Host/app", "Host/app:latest"),
            ("10.0.0.1/a", "10.0.0.1/a:latest"),
            (&by_digest, &by_digest),
            (&both, &by_digest),
        ] {
            let read = Reference::parse(reference).expect(reference);
            assert_eq!(read.to_string(), full, "{reference}");
            assert_eq!(Reference::parse(full), Ok(read), "{full}");
        }
        assert_eq!(Reference::parse("debian").expect("debian").api_host(), "registry-1.docker.io");
    }

    #[test]
    fn what_is_no_reference_is_refused_in_one_plain_line() {
        let long = format!("a.b/{}", "c".repeat(252));
        let tag = format!("a:{}", "t".repeat(129));
        for reference in [
            "",
            ":",
            "@",
            "/",
            "a/",
            "/a",
            "a//b",
            "a:",
            "A",
            "a/B",
            "a.b/",
            "a..b",
            "a.b/../c",
            "a.b/c/..",
            "-a",
            "a-",
            "a___b",
            "a._b",
            "a:-1",
            "a:.1",
            "a@sha256:12",
            "a@md5:12",
            "a b",
            "a.b:0/c",
            "a.b:99999/c",
            "a.b:x/c",
            "a.b:+1/c",
            ".a/b",
            "a.-b/c",
            "[::1/a",
            "[x]:1/a",
            "a.b/c?d",
            "a.b/c%2f",
            "a\u{1b}[m",
            "a.b/c\n",
            &long,
            &tag,
        ] {
            let said = Reference::parse(reference).expect_err(reference);
            assert!(text::is_plain(&said) && !said.contains('\n'), "{said}");
        }
    }
}
