// SPDX-License-Identifier: GPL-2.0
//! Registries that anybody may use, and those that ask for a password, a token or a certificate.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::{Ground, REPOSITORY};
use crate::proxy::{Fault, Plan, Proxy, Rule, Speed};
use crate::registry::{login, Access, Authority, Registry, Tls, Tokens};
use crate::run;
use crate::sign;

/// Each version, and an image in one file, by names and by digest.
pub(super) fn plain(ground: &Ground) -> Result<String> {
    let host = ground.host()?;
    let at = ground.registry.address();
    for version in &ground.images.versions {
        host.pull(version, &ground.name(at, version))?;
    }
    let names = host.names()?.len();
    ensure!(names == ground.images.versions.len(), "{names} names");
    // One blob, without packs.
    let version = &ground.images.versions[0];
    let mut alone = version.clone();
    alone.image.clone_from(&version.one_file);
    let name = format!("{at}/{REPOSITORY}:one-file");
    host.push(&alone, &name)?;
    host.pull(&alone, &name)?;
    run::quiet(&mut host.in_store("fsck")).context("the store")?;
    Ok(format!("{} images", names + 1))
}

pub(super) fn password(ground: &Ground) -> Result<String> {
    let folder = ground.scratch.join("password");
    std::fs::create_dir(&folder).context("failed to create a folder")?;
    let authority = Authority::new(&folder, "authority")?;
    let tls = Tls { authority: &authority, asks_clients: false };
    let registry = Registry::start(&ground.programs, &folder, Some(tls), Access::Basic)?;
    let login = login(&folder.join("auth.json"), &[registry.address()])?;
    let version = &ground.images.versions[1];
    let name = ground.name(registry.address(), version);
    let host = ground.host()?.with(&[&"--ca", &authority.certificate()]).set("REGISTRY_AUTH_FILE", &login);
    host.push(version, &name)?;
    host.pull(version, &name)?;
    let stranger = ground.host()?.set("REGISTRY_AUTH_FILE", &login).refused(&name)?;
    let nobody = ground.host()?.with(&[&"--ca", &authority.certificate()]).refused(&name)?;
    std::fs::write(&login, std::fs::read_to_string(&login)?.replace("\"auth\":\"", "\"auth\":\"dDp4"))
        .context("failed to write a wrong password")?;
    let wrong = ground.host()?.with(&[&"--ca", &authority.certificate()]);
    let wrong = wrong.set("REGISTRY_AUTH_FILE", &login).refused(&name)?;
    Ok(format!("refused: {stranger} / {nobody} / {wrong}"))
}

pub(super) fn client_certificate(ground: &Ground) -> Result<String> {
    let folder = ground.scratch.join("client");
    std::fs::create_dir(&folder).context("failed to create a folder")?;
    let authority = Authority::new(&folder, "authority")?;
    let tls = Tls { authority: &authority, asks_clients: true };
    let registry = Registry::start(&ground.programs, &folder, Some(tls), Access::Open)?;
    let own = authority.certify(&folder, "client", false)?;
    let version = &ground.images.versions[0];
    let name = ground.name(registry.address(), version);
    let host = ground.host()?.with(&[
        &"--ca",
        &authority.certificate(),
        &"--client-cert",
        &own.certificate,
        &"--client-key",
        &own.key,
    ]);
    host.push(version, &name)?;
    host.pull(version, &name)?;
    ground.host()?.with(&[&"--ca", &authority.certificate()]).refused(&name)
}

/// A pull that takes longer than a token lasts.
pub(super) fn tokens(ground: &Ground) -> Result<String> {
    let mut notes = Vec::new();
    for (is_told, name) in [(true, "told"), (false, "found out")] {
        let folder = ground.scratch.join(format!("tokens-{is_told}"));
        std::fs::create_dir(&folder).context("failed to create a folder")?;
        let tokens = Tokens::start(&folder, 3, is_told)?;
        let registry = Registry::start(&ground.programs, &folder, None, Access::Token(&tokens))?;
        // The first pack takes more than four seconds, and by one connection the others are asked for behind it.
        let speed = Speed { delay: Duration::from_millis(5), bits_per_second: Some(8_000_000) };
        let proxy = Proxy::start(registry.address(), speed)?;
        let login = login(&folder.join("auth.json"), &[proxy.address()])?;
        let host = ground.host()?.set("REGISTRY_AUTH_FILE", login);
        let version = &ground.images.versions[2];
        let reference = ground.name(proxy.address(), version);
        host.push(version, &reference).with_context(|| format!("lifetime {name}: push"))?;
        let pushed = tokens.issued();
        proxy.take();
        let host = host.with(&[&"--connections", &"1"]);
        host.pull(version, &reference).with_context(|| format!("lifetime {name}: pull"))?;
        let traffic = proxy.take();
        let pulled = tokens.issued() - pushed;
        let refused = traffic.requests.iter().filter(|seen| seen.status == Some(401)).count();
        // One for all threads each time, and one for each of those that had asked already.
        ensure!((2..=8).contains(&pulled), "{pulled} tokens for one pull, lifetime {name}");
        ensure!(refused <= 20, "{refused} requests with a token that had expired, lifetime {name}");
        notes.push(format!("{name}: {pulled} tokens, {refused} times 401"));
    }
    Ok(notes.join("; "))
}

/// The signature is looked at before the image gets its name.
pub(super) fn signer(ground: &Ground) -> Result<String> {
    let folder = ground.scratch.join("signer");
    std::fs::create_dir(&folder).context("failed to create a folder")?;
    let tree = folder.join("tree");
    std::fs::create_dir(&tree).context("failed to create a folder")?;
    std::fs::write(tree.join("file"), "signed").context("failed to write a file")?;
    let image = folder.join("signed.tess");
    let cache = crate::cache::Cache::open()?;
    let signers = sign::signers(&cache)?;
    let options = sign::options(&signers.rsa)?;
    ground.tools.mkfs(&image, &tree, &options)?;
    let version = super::Version { image: image.clone(), one_file: image, ..ground.images.other.clone() };
    let name = format!("{}/{REPOSITORY}:signed", ground.registry.address());
    ground.host()?.push(&version, &name)?;
    let stranger = ground.host()?.with(&[&"--cert", &signers.stranger.certificate]).refused(&name)?;
    ground.host()?.with(&[&"--cert", &signers.rsa.certificate]).pull(&version, &name)?;
    let unsigned = ground.name(ground.registry.address(), &ground.images.versions[0]);
    let none = ground.host()?.with(&[&"--cert", &signers.rsa.certificate]).refused(&unsigned)?;
    Ok(format!("refused: {stranger} / {none}"))
}

/// A registry that keeps its blobs at another host, as those of clouds do.
pub(super) fn redirect(ground: &Ground) -> Result<String> {
    let folder = ground.scratch.join("redirect");
    std::fs::create_dir(&folder).context("failed to create a folder")?;
    let registry = Registry::start(&ground.programs, &folder, None, Access::Basic)?;
    let open = ground.registry.address();
    let [front, storage] =
        [Proxy::start(registry.address(), Speed::default())?, Proxy::start(open, Speed::default())?];
    let login = login(&folder.join("auth.json"), &[front.address(), storage.address()])?;
    let host = ground.host()?.set("REGISTRY_AUTH_FILE", login);
    let version = &ground.images.versions[2];
    let name = ground.name(front.address(), version);
    host.push(version, &name)?;
    front.take();
    front.follow(Plan::Rules(vec![Rule::blobs(Fault::Redirect(storage.address()))]));
    host.pull(version, &name)?;
    let [asked, got] = [front.take(), storage.take()];
    ensure!(got.requests.iter().all(|seen| !seen.is_authorized), "credentials went to another host");
    ensure!(asked.requests.iter().any(|seen| seen.is_authorized), "nothing was asked with a password");
    let blobs: std::collections::BTreeSet<&str> =
        asked.of("GET", "/blobs/").map(|seen| &*seen.target).collect();
    let redirected = asked.of("GET", "/blobs/").count();
    // Threads that ask for parts of one blob at once may each be redirected.
    ensure!(redirected <= blobs.len() + 8, "{redirected} requests for {} blobs were redirected", blobs.len());
    let bytes = got.bytes("GET", "/blobs/");
    let all = version.all_bytes()?;
    ensure!(bytes <= all + all / 10 + 4096, "{bytes} bytes, expected {all}");
    Ok(format!(
        "{} blobs, {redirected} redirects, {} requests at the other host",
        blobs.len(),
        got.requests.len()
    ))
}
