// SPDX-License-Identifier: GPL-2.0
//! Other programs that copy images, which know nothing of these.

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::{Ground, REPOSITORY};
use crate::cache::Cache;
use crate::container_images;
use crate::container_layout;
use crate::registry::{Access, Registry};
use crate::run;

/// Copies between registries and layouts, by two versions of skopeo and by oras.
pub(super) fn copies(ground: &Ground) -> Result<String> {
    let second = Registry::start(&ground.programs, &ground.scratch.join("second"), None, Access::Open)?;
    let version = &ground.images.versions[2];
    let [from, to] = [ground.registry.address(), second.address()];
    let source = ground.name(from, version);
    let older = container_images::Programs::prepare(&Cache::open()?, &ground.scratch)?;
    let raw = |name: &str| {
        ground.programs.shell(&format!("skopeo inspect --raw --tls-verify=false docker://{name}"))
    };
    let original = raw(&source)?;
    // With all that an index names.
    let skopeo = "skopeo copy -q --all --src-tls-verify=false --dest-tls-verify=false";
    let mut count = 0;
    let mut check = |tag: &str| -> Result<()> {
        let name = format!("{to}/{REPOSITORY}:{tag}");
        ensure!(raw(&name)? == original, "{tag}: the manifest is another one");
        ground.host()?.pull(version, &name).with_context(|| tag.to_owned())?;
        count += 1;
        Ok(())
    };
    type Shell<'a> = (&'a str, &'a dyn Fn(&str) -> Result<String>);
    let shells: [Shell<'_>; 2] =
        [("old", &|script| older.shell(script)), ("new", &|script| ground.programs.shell(script))];
    for (age, shell) in shells {
        let base = format!("{to}/{REPOSITORY}:skopeo-{age}");
        shell(&format!("{skopeo} docker://{source} docker://{base}"))?;
        check(&format!("skopeo-{age}"))?;
        let layout = format!("oci:layout-{age}:x");
        shell(&format!("{skopeo} docker://{source} {layout} && {skopeo} {layout} docker://{base}-layout"))?;
        check(&format!("skopeo-{age}-layout"))?;
        let dir = format!("dir:dir-{age}");
        shell(&format!("{skopeo} docker://{source} {dir} && {skopeo} {dir} docker://{base}-dir"))?;
        check(&format!("skopeo-{age}-dir"))?;
        // And the one manifest that it takes for that of this machine.
        shell(&format!("{} docker://{source} docker://{base}-one", skopeo.replace(" --all", "")))?;
        ground.host()?.pull(version, &format!("{base}-one")).context("one manifest")?;
    }
    let base = format!("{to}/{REPOSITORY}");
    ground.programs.shell(&format!("oras cp --from-plain-http --to-plain-http {source} {base}:oras"))?;
    check("oras")?;
    ground.programs.shell(&format!(
        "oras cp --from-plain-http --to-oci-layout {source} layout-oras:x\n\
         oras cp --from-oci-layout --to-plain-http layout-oras:x {base}:oras-layout"
    ))?;
    check("oras-layout")?;
    Ok(format!("{count} copies"))
}

/// Makes an ordinary image beside one of ours, of the same tree.
fn ordinary_layout(ground: &Ground, name: &str) -> Result<String> {
    let tree = ground.scratch.join("tree");
    container_layout::make(&ground.scratch.join(name), &tree)?;
    Ok(format!("oci:{name}:{}", container_layout::NAME))
}

/// An index has both images; who does not know ours takes the other one.
pub(super) fn index(ground: &Ground) -> Result<String> {
    let layout = ordinary_layout(ground, "plain-first")?;
    let at = ground.registry.address();
    let version = &ground.images.versions[2];
    let name = format!("{at}/tests/both:index");
    let host = ground.host()?;
    let place = ground.scratch.join("plain-first");
    let mut push = host.push_command(version, &name)?;
    run::quiet(push.arg("--with").arg(format!("oci:{}:{}", place.display(), container_layout::NAME)))?;
    host.pull(version, &name)?;
    let shell = |script: String| ground.programs.shell(&script);
    let inspect =
        |name: &str, more: &str| shell(format!("skopeo inspect {more} --tls-verify=false docker://{name}"));
    let raw: Value = serde_json::from_str(&inspect(&name, "--raw")?).context("an index that is no JSON")?;
    let manifests = raw["manifests"].as_array().context("no index")?;
    ensure!(manifests.len() == 2, "{raw}");
    let features = |index: usize| manifests[index]["platform"]["os.features"].clone();
    ensure!(features(0).is_null() && features(1) == serde_json::json!(["tesserafs"]), "{raw}");
    let own = shell(format!("skopeo inspect --raw {layout} | sha256sum"))?;
    let digest = format!("sha256:{}", own.split(' ').next().unwrap_or_default());
    ensure!(manifests[0]["digest"] == digest.as_str(), "the first one is not the plain image: {raw}");
    // Programs of others choose the first one.
    let chosen: Value = serde_json::from_str(&inspect(&name, "")?).context("no JSON")?;
    ensure!(chosen["Layers"].as_array().is_some_and(|layers| layers.len() == 1), "skopeo takes {chosen}");
    let tags: Value = serde_json::from_str(&shell(format!(
        "skopeo list-tags --tls-verify=false docker://{at}/tests/both"
    ))?)
    .context("no JSON")?;
    let tags: Vec<&str> = tags["Tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut alone = Vec::new();
    for tag in tags.iter().filter(|tag| **tag != "index") {
        let text = inspect(&format!("{at}/tests/both:{tag}"), "--raw")?;
        if text.contains("layer.tesserafs.image") {
            ground.host()?.pull(version, &format!("{at}/tests/both:{tag}"))?;
            alone.push(*tag);
        }
    }
    ensure!(alone.len() == 1, "our manifest alone has the tags {alone:?}, of {tags:?}");
    // All of it goes with a copy of all.
    let second = Registry::start(&ground.programs, &ground.scratch.join("third"), None, Access::Open)?;
    let copy = format!("{}/tests/both:copy", second.address());
    shell(format!(
        "skopeo copy -q --all --src-tls-verify=false --dest-tls-verify=false docker://{name} docker://{copy}"
    ))?;
    ground.host()?.pull(version, &copy)?;
    let copy = format!("{}/tests/both:oras", second.address());
    shell(format!("oras cp --from-plain-http --to-plain-http {name} {copy}"))?;
    ground.host()?.pull(version, &copy)?;
    Ok(format!("tags {tags:?}"))
}

/// An image that is not ours.
pub(super) fn ordinary(ground: &Ground) -> Result<String> {
    let layout = ordinary_layout(ground, "ordinary")?;
    let name = format!("{}/tests/ordinary:latest", ground.registry.address());
    ground.programs.shell(&format!("skopeo copy -q --dest-tls-verify=false {layout} docker://{name}"))?;
    let sentence = ground.host()?.refused(&format!("docker://{name}"))?;
    ensure!(sentence.contains("mkfs.tesserafs --oci"), "it does not say how to convert: {sentence}");
    Ok(sentence)
}
