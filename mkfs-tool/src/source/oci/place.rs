// SPDX-License-Identifier: GPL-2.0-or-later

//! Which image is meant, and for which machine.

use std::env::consts::ARCH;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::path_of;

/// Where container images are, and which of them is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciImage {
    /// A directory or an archive; `-` is standard input.
    pub place: PathBuf,
    /// A name that the images there have, or a digest.
    pub reference: Option<String>,
    /// The machine that it is for.
    pub platform: Option<Platform>,
}

impl OciImage {
    /// Reads `PLACE[:REF]`. A file with all of that name is the place; else it ends at the first colon, as to skopeo.
    pub fn parse(text: &Path, platform: Option<Platform>) -> Self {
        let bytes = text.as_os_str().as_bytes();
        let colon = bytes.iter().position(|byte| *byte == b':').filter(|_| !text.exists());
        let (place, reference) = match colon {
            Some(colon) => (&bytes[..colon], Some(String::from_utf8_lossy(&bytes[colon + 1..]).into_owned())),
            None => (bytes, None),
        };
        Self { place: path_of(place).to_owned(), reference, platform }
    }
}

/// An operating system, an architecture and perhaps a variant, as Go and OCI name them: `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err("OS/ARCHITECTURE[/VARIANT] is wanted, as linux/arm64".into()),
        };
        if parts.iter().any(|part| part.is_empty()) {
            return Err("OS/ARCHITECTURE[/VARIANT] is wanted, as linux/arm64".into());
        }
        let variant = variant.map(str::to_owned);
        Ok(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl Platform {
    /// The machine that this program runs on.
    pub fn host() -> Self {
        let architecture = match ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: None }
    }

    /// The operating system.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The architecture.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The variant of the architecture.
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// Whether an image for that platform is meant. Where one of both says no variant, any will do.
    pub fn takes(&self, os: &str, architecture: &str, variant: Option<&str>) -> bool {
        let is_variant = variant.is_none() || self.variant.is_none() || self.variant.as_deref() == variant;
        self.os == os && self.architecture == architecture && is_variant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_ends_at_the_first_colon() {
        let parse = |text: &str| {
            let image = OciImage::parse(Path::new(text), None);
            (image.place.display().to_string(), image.reference)
        };
        assert_eq!(parse("layout"), ("layout".into(), None));
        assert_eq!(parse("layout:latest"), ("layout".into(), Some("latest".into())));
        let reference = "docker.io/library/debian:trixie".to_owned();
        assert_eq!(parse(&format!("a.tar:{reference}")), ("a.tar".into(), Some(reference)));
        assert_eq!(parse("-"), ("-".into(), None));
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("with:colon");
        std::fs::create_dir(&place).expect("a directory");
        assert_eq!(OciImage::parse(&place, None).place, place);
    }

    #[test]
    fn a_platform_takes_its_own() {
        let platform: Platform = "linux/arm64".parse().expect("a platform");
        assert!(platform.takes("linux", "arm64", Some("v8")) && platform.takes("linux", "arm64", None));
        assert!(!platform.takes("linux", "amd64", None) && !platform.takes("windows", "arm64", None));
        let platform: Platform = "linux/arm/v7".parse().expect("a platform");
        assert!(platform.takes("linux", "arm", Some("v7")) && !platform.takes("linux", "arm", Some("v6")));
        assert_eq!(platform.to_string(), "linux/arm/v7");
        for wrong in ["", "linux", "linux/", "/arm", "a/b/c/d", "linux//v8"] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
    }
}
