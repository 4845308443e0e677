// SPDX-License-Identifier: GPL-2.0
//! Registries that lie: manifests of their own making, blobs of other images, and two images that claim one pack.

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use tesserafs_format::limits::SIGNED_PREFIX;
use tesserafs_format::Digest;

use super::host::{said, sentence};
use super::images::PACKS;
use super::{Ground, Version, REPOSITORY};
use crate::mutate::parts::{self, sha256, Parts};
use crate::proxy::{Fault, Plan, Proxy, Rule, Speed};

/// The media type of manifests.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The media type of an image file that is not compressed.
const IMAGE: &str = "application/vnd.oci.image.layer.tesserafs.image.v1";

/// The manifest of a version in the registry, whether or not its tag is that of an index.
fn manifest(ground: &Ground, version: &Version) -> Result<Value> {
    let at = ground.registry.address();
    let document = |name: String| -> Result<Value> {
        let text =
            ground.programs.shell(&format!("skopeo inspect --raw --tls-verify=false docker://{name}"))?;
        serde_json::from_str(&text).context("a document that is no JSON")
    };
    let named = document(ground.name(at, version))?;
    let Some(entries) = named["manifests"].as_array() else { return Ok(named) };
    let own = entries.iter().find(|entry| entry["platform"]["os.features"] == json!(["tesserafs"]));
    let digest = own.and_then(|entry| entry["digest"].as_str()).context("an index without our manifest")?;
    document(format!("{at}/{REPOSITORY}@{digest}"))
}

/// A rule by which each manifest is this one.
fn instead(bytes: impl Into<Vec<u8>>) -> Rule {
    let fault = Fault::Answer(200, MANIFEST.to_owned(), bytes.into());
    Rule::new("/manifests/", fault).methods(&["GET", "HEAD"])
}

/// The layers of a manifest.
fn layers(manifest: &mut Value) -> Result<&mut Vec<Value>> {
    manifest["layers"].as_array_mut().context("a manifest without layers")
}

type Lie = fn(&mut Value, &Ground) -> Result<()>;

/// Manifests that are not those of the image; each is refused, and the right one is taken then.
pub(super) fn manifests(ground: &Ground) -> Result<String> {
    let version = &ground.images.versions[1];
    let lies: [(&str, Lie); 15] = [
        ("another image's ID", |manifest, ground| {
            let [own, other] = [&ground.images.versions[1].image_id, &ground.images.other.image_id];
            let text = manifest["annotations"].to_string();
            ensure!(text.contains(own.as_str()), "the annotations have no image ID: {text}");
            manifest["annotations"] = serde_json::from_str(&text.replace(own.as_str(), other))?;
            Ok(())
        }),
        ("a pack of another size", |manifest, _| {
            let size = &mut layers(manifest)?[0]["size"];
            *size = json!(size.as_u64().context("a layer without a size")? + 1);
            Ok(())
        }),
        ("a pack of no size", |manifest, _| {
            layers(manifest)?[0]["size"] = json!(-1);
            Ok(())
        }),
        ("a pack of all sizes", |manifest, _| {
            layers(manifest)?[0]["size"] = json!(u64::MAX);
            Ok(())
        }),
        ("an image of all sizes", |manifest, _| {
            layers(manifest)?.last_mut().context("no layer")?["size"] = json!(i64::MAX);
            Ok(())
        }),
        ("a pack of another image", |manifest, ground| {
            let (digest, bytes) = &ground.images.other.new_packs[0];
            let layer = &mut layers(manifest)?[0];
            layer["digest"] = json!(format!("sha256:{digest}"));
            layer["size"] = json!(bytes);
            Ok(())
        }),
        ("no pack", |manifest, _| {
            let layers = layers(manifest)?;
            let image = layers.pop().context("no layer")?;
            *layers = vec![image];
            Ok(())
        }),
        ("no image", |manifest, _| {
            layers(manifest)?.pop();
            Ok(())
        }),
        ("the packs in another order", |manifest, _| {
            layers(manifest)?.swap(0, 1);
            Ok(())
        }),
        ("a digest that is a path", |manifest, _| {
            layers(manifest)?[0]["digest"] = json!("sha256:../../../../../../../../tmp/tesserafs-was-here");
            Ok(())
        }),
        ("a digest of another kind", |manifest, _| {
            layers(manifest)?[0]["digest"] = json!(format!("md5:{}", "0".repeat(32)));
            Ok(())
        }),
        ("words for a terminal", |manifest, _| {
            layers(manifest)?[0]["mediaType"] =
                json!("\u{1b}]0;title\u{7}\u{1b}[2Jvnd.oci.image.layer.tesserafs.pack.v1");
            Ok(())
        }),
        ("a layer that is unknown", |manifest, _| {
            layers(manifest)?[0]["mediaType"] = json!("application/vnd.oci.image.layer.tesserafs.pack.v9");
            Ok(())
        }),
        ("ten thousand layers", |manifest, _| {
            let layers = layers(manifest)?;
            let first = layers[0].clone();
            layers.splice(0..0, std::iter::repeat_n(first, 10_000));
            Ok(())
        }),
        ("five megabytes", |manifest, _| {
            manifest["annotations"]["long"] = json!("x".repeat(5 << 20));
            Ok(())
        }),
    ];
    let proxy = Proxy::start(ground.registry.address(), Speed::default())?;
    let name = ground.name(proxy.address(), version);
    let mut sentences = Vec::new();
    let mut check = |what: &str, bytes: Vec<u8>| -> Result<()> {
        let host = ground.host()?;
        proxy.follow(Plan::Rules(vec![instead(bytes)]));
        let sentence = host.refused(&name).with_context(|| what.to_owned())?;
        proxy.follow(Plan::Honest);
        host.pull(version, &name).with_context(|| format!("after {what}"))?;
        sentences.push(format!("{what}: {sentence}"));
        Ok(())
    };
    for (what, lie) in lies {
        let mut manifest = manifest(ground, version)?;
        lie(&mut manifest, ground).with_context(|| what.to_owned())?;
        check(what, manifest.to_string().into_bytes())?;
    }
    check("no JSON", b"<html>\x1b[31mlog in</html>".to_vec())?;
    check("nothing", Vec::new())?;
    check("brackets", "[".repeat(1 << 20).into_bytes())?;
    ensure!(!std::path::Path::new("/tmp/tesserafs-was-here").exists(), "a file beside the store");
    Ok(format!("{} manifests; for one, {}", sentences.len(), sentences[0]))
}

/// Right manifests, and blobs that belong to another image.
pub(super) fn blobs(ground: &Ground) -> Result<String> {
    let version = &ground.images.versions[1];
    let others = manifest(ground, &ground.images.other)?;
    let digest = |value: &Value| value.as_str().map(ToOwned::to_owned).context("a blob without a digest");
    let other_layers = others["layers"].as_array().context("no layers")?;
    let [other_pack, other_image] = [other_layers.first(), other_layers.last()];
    let other_pack = digest(&other_pack.context("no pack")?["digest"])?;
    let other_image = digest(&other_image.context("no image")?["digest"])?;
    let own = manifest(ground, version)?;
    let mut wanted = Vec::new();
    for layer in own["layers"].as_array().context("no layers")? {
        wanted.push(digest(&layer["digest"])?);
    }
    let config = digest(&own["config"]["digest"])?;
    let proxy = Proxy::start(ground.registry.address(), Speed::default())?;
    let name = ground.name(proxy.address(), version);
    let mut sentence = String::new();
    for (blob, other) in wanted.iter().map(|blob| (blob, &other_pack)).chain([
        (wanted.last().context("no layer")?, &other_image),
        (&config, &other_image),
        (&config, &other_pack),
    ]) {
        let host = ground.host()?;
        let other = format!("/v2/{REPOSITORY}/blobs/{other}");
        proxy.follow(Plan::Rules(vec![Rule::new(blob, Fault::Other(other))]));
        sentence = host.refused(&name)?;
        proxy.follow(Plan::Honest);
        host.pull(version, &name)?;
    }
    Ok(sentence)
}

/// An image whose chunks verify, and whose pack has the digest of another image's pack: it must not get that name.
pub(super) fn impostor(ground: &Ground) -> Result<String> {
    let (victim, other) = (&ground.images.versions[0], &ground.images.other);
    let (digest, len) = &victim.new_packs[0];
    let (own_digest, own_len) = &other.new_packs[0];
    // The pack table says the victim's digest and length; all else is consistent.
    let image = std::fs::read(&other.image).context("failed to read an image")?;
    let mut parts = Parts::read(&image)?;
    let mut raw = [0; 32];
    for (place, pair) in raw.iter_mut().zip(digest.as_bytes().chunks(2)) {
        *place = u8::from_str_radix(std::str::from_utf8(pair)?, 16)?;
    }
    let pack = parts.packs.iter_mut().find(|pack| Digest(pack.digest).to_string() == *own_digest);
    let pack = pack.context("an image without its pack")?;
    pack.digest = raw;
    pack.bytes = (*len).into();
    let (mut forged, layout) = parts.lay_out()?;
    parts::digest(&mut forged, &layout)?;
    let image_id = Digest(sha256(forged.get(..SIGNED_PREFIX).context("no superblock")?)).to_string();
    // The bytes that its chunks have, as many as the victim's pack has.
    let packs = other.image.parent().context("an image in no folder")?.join(PACKS);
    let mut bytes = std::fs::read(packs.join(own_digest)).context("failed to read a pack")?;
    ensure!(own_len <= len, "the impostor's pack must be no longer: {own_len} of {len}");
    bytes.resize(usize::try_from(*len)?, 0);
    let forged_digest = Digest(sha256(&forged)).to_string();
    let original = manifest(ground, other)?;
    let image_digest = &original["annotations"]["org.tesserafs.image.digest"];
    let image_digest = image_digest.as_str().context("no digest of the image file")?;
    let text = original.to_string().replace(&other.image_id, &image_id).replace(own_digest.as_str(), digest);
    let mut lying: Value = serde_json::from_str(&text).context("a manifest that is no JSON")?;
    let count = layers(&mut lying)?.len();
    layers(&mut lying)?[0]["size"] = json!(len);
    // The file as it is.
    layers(&mut lying)?[count - 1] = json!({
        "mediaType": IMAGE, "digest": format!("sha256:{forged_digest}"), "size": forged.len()
    });
    let config = lying["config"]["digest"].as_str().context("no config")?.to_owned();
    // The config names the blobs, too.
    let config_text = ground.programs.shell(&format!(
        "skopeo inspect --config --raw --tls-verify=false docker://{}",
        ground.name(ground.registry.address(), other)
    ))?;
    let config_text = config_text
        .replace(image_digest, &format!("sha256:{forged_digest}"))
        .replace(own_digest.as_str(), digest);
    let forged_config = Digest(sha256(config_text.as_bytes())).to_string();
    lying["config"]["digest"] = json!(format!("sha256:{forged_config}"));
    lying["config"]["size"] = json!(config_text.len());
    ensure!(config != format!("sha256:{forged_config}"), "the config does not name the blobs");
    let blob =
        |digest: &str, bytes: Vec<u8>| Rule::new(digest, Fault::File(bytes.into())).methods(&["GET", "HEAD"]);
    let liar = Proxy::start(ground.registry.address(), Speed::default())?;
    liar.follow(Plan::Rules(vec![
        blob(&forged_digest, forged),
        blob(&forged_config, config_text.into_bytes()),
        blob(digest, bytes),
        instead(lying.to_string()),
    ]));
    let honest = ground.registry.address();
    // Before the victim is there, at the same time, and after it.
    let host = ground.host()?;
    let first = host.try_pull(&ground.name(liar.address(), other)).context("the impostor first")?;
    ensure!(liar.take().of("GET", digest).count() > 0, "its pack is not asked for: {}", said(&first));
    host.pull(victim, &ground.name(honest, victim)).context("the victim after it")?;
    let host = ground.host()?;
    let (one, other_end) = crate::run::both(
        || host.try_pull(&ground.name(liar.address(), other)),
        || host.try_pull(&ground.name(honest, victim)),
    )?;
    let (one, other_end) = (one?, other_end?);
    ensure!(other_end.status.success(), "both at once: {}", said(&other_end));
    host.compare(victim, &ground.name(honest, victim))?;
    let host = ground.host()?;
    host.pull(victim, &ground.name(honest, victim))?;
    let last = host.try_pull(&ground.name(liar.address(), other))?;
    host.compare(victim, &ground.name(honest, victim)).context("the victim before it")?;
    host.pull(other, &ground.name(honest, other)).context("the image whose name the impostor has")?;
    // All that the impostor itself shows has the digests of its image: it may be pulled, for itself alone.
    let mut notes = Vec::new();
    for (when, output) in [("before", first), ("meanwhile", one), ("after", last)] {
        let end = if output.status.success() { "pulled for itself".to_owned() } else { sentence(&output)? };
        notes.push(format!("{when}: {end}"));
    }
    Ok(notes.join("; "))
}
