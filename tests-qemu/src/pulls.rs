// SPDX-License-Identifier: GPL-2.0
//! Images through registries ([`servers`] looks at these): pushed and pulled with each kind of access ([`access`]), copied by the programs of others
//! ([`interop`]), updated ([`update`]), past servers that fail ([`broken`]) and that lie ([`hostile`]).
//!
//! Whatever a server does, the store of a host holds no wrong byte, nothing is written beside it, a failure is one sentence,
//! and the next pull goes on: [`host`] checks that after each command.

mod access;
mod broken;
mod host;
mod hostile;
mod images;
mod interop;
mod servers;
mod update;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::registry::{Access, Programs, Registry};
use crate::report::Report;
use crate::setup::{self, Need};
use crate::tools::Tools;

use self::host::Host;
use self::images::{Images, Version};

/// The group of these tests.
pub(crate) const GROUP: &str = "registry";

/// The repository that the images are pushed to.
const REPOSITORY: &str = "tests/app";

/// What the tests stand on: an open registry that has all versions, each under its name.
struct Ground {
    tools: Tools,
    programs: Programs,
    scratch: PathBuf,
    images: Images,
    registry: Registry,
    /// Only a filter has all of the tests that repeat themselves.
    is_short: bool,
}

impl Ground {
    fn prepare(programs: Programs, scratch: PathBuf, is_short: bool) -> Result<Self> {
        let tools = Tools::of_tests()?;
        let images = Images::make(&tools, &scratch)?;
        let registry = Registry::start(&programs, &scratch.join("open"), None, Access::Open)?;
        let ground = Self { tools, programs, scratch, images, registry, is_short };
        let host = ground.host()?;
        for version in &ground.images.versions {
            let name = ground.name(ground.registry.address(), version);
            host.push(version, &name).with_context(|| format!("{name} cannot be pushed"))?;
        }
        Ok(ground)
    }

    /// A host with an empty store.
    fn host(&self) -> Result<Host<'_>> {
        Host::new(&self.tools, &self.scratch)
    }

    /// The reference of a version in the repository of the tests, at a server.
    fn name(&self, server: SocketAddr, version: &Version) -> String {
        format!("{server}/{REPOSITORY}:{}", version.name)
    }
}

/// Runs the tests.
pub(crate) fn test(cache: &Cache, report: &mut Report) -> Result<()> {
    setup::ensure(cache, &[Need::Machine])?;
    let scratch =
        tempfile::tempdir_in(cache.folder("scratch")?).context("failed to make a scratch folder")?;
    let path = scratch.path().canonicalize().context("no scratch folder")?;
    let programs = Programs::prepare(cache, &path)?;
    report.test(&format!("{GROUP}/each-server-asks-for-what-it-should"), || servers::ask(&programs, &path));
    type Test = fn(&Ground) -> Result<String>;
    let tests: [(&str, Test); 26] = [
        ("an-image-comes-back-as-it-was", access::plain),
        ("tls-and-a-password", access::password),
        ("tls-and-a-certificate-of-the-client", access::client_certificate),
        ("tokens-expire-in-the-middle", access::tokens),
        ("a-signer-is-asked-for-before-the-name-is-given", access::signer),
        ("another-host-gets-no-credentials", access::redirect),
        ("others-copy-and-nothing-is-lost", interop::copies),
        ("the-plain-image-comes-first-in-an-index", interop::index),
        ("an-ordinary-image-says-how-to-convert-it", interop::ordinary),
        ("an-update-fetches-what-is-new", update::chunks),
        ("a-delta-is-taken-where-it-is-smaller", update::delta),
        ("what-the-registry-has-is-not-pushed-again", update::push_again),
        ("twenty-at-once-fetch-each-byte-once", update::at_once),
        ("memory-does-not-grow-with-the-image", update::memory),
        ("each-fault-alone", broken::each),
        ("a-whole-blob-for-a-part-is-not-fetched-again", broken::whole),
        ("a-server-that-is-slow-to-answer-is-waited-for", broken::retry_after),
        ("what-came-before-a-failure-is-not-fetched-again", broken::goes_on),
        ("faults-at-random", broken::random),
        ("killed-at-any-moment", broken::killed),
        ("an-upload-that-is-cut-goes-on", broken::upload),
        ("a-full-disk-fails-the-pull-and-nothing-else", broken::full_disk),
        ("a-manifest-that-lies", hostile::manifests),
        ("the-blobs-of-another-image", hostile::blobs),
        ("two-images-claim-one-pack", hostile::impostor),
        ("readme-is-typed", readme),
    ];
    if !tests.iter().any(|(name, _)| report.wants(&format!("{GROUP}/{name}"))) {
        return Ok(());
    }
    let ground = Ground::prepare(programs, path, report.filter().is_none())?;
    for (name, test) in tests {
        report.test(&format!("{GROUP}/{name}"), || test(&ground));
    }
    Ok(())
}

/// The section of README.md about registries.
fn readme(ground: &Ground) -> Result<String> {
    let folder = ground.scratch.join("readme");
    std::fs::create_dir(&folder).context("failed to create a folder")?;
    crate::readme::typed_for_registries(&ground.tools, &folder, ground.registry.address())
}
