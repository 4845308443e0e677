// SPDX-License-Identifier: GPL-2.0
//! Container images, made and unpacked by the programs that people have for that: `mkfs --oci` must see the trees that these see.
//!
//! The programs run in a root of their own, which sees the scratch folder at its place.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};

use crate::cache::{key, log_of, Cache};
use crate::chroot::Chroot;
use crate::debian::{self, Variant};
use crate::report::Report;
use crate::setup::{self, Need};
use crate::tools::Tools;
use crate::{readme, rootfs, run};

/// The group of these tests.
pub(crate) const GROUP: &str = "oci";

/// The programs; two of them share the code that unpacks layers, as docker once did.
const PACKAGES: &str = "buildah,podman,skopeo,umoci";

/// Where containers/storage keeps what it unpacks: in the scratch folder, by overlayfs, as on a host.
const STORAGE: &str = "[storage]\ndriver = \"overlay\"\n";

/// A tree of programs, with everything that a shell needs to run in it, and no more than that takes seconds.
const TREE: [&str; 7] = ["bin", "etc", "lib", "lib64", "usr/bin", "usr/lib", "usr/lib64"];

/// The image that the tree is built into, with a layer for each line.
const DOCKERFILE: &str = "\
FROM scratch
COPY tree/ /
RUN rm -rf /usr/lib/gcc /etc/apt && mkdir -p /opt/app && echo 'echo hello' >/opt/app/run && chmod 755 /opt/app/run
RUN echo changed >/etc/hostname; chmod 700 /opt; ln /opt/app/run /opt/app/again; rm /usr/bin/perl; mkdir /usr/bin/perl
ENTRYPOINT [\"/opt/app/run\"]
ENV A=b
";

/// Makes layouts, each with a layer more, of what layers can do to each other. Times are those of the layers.
const LAYERS: &str = r#"
umoci init --layout base
umoci new --image base:latest
layer() {
    find . -exec touch -hd "@$1" {} +
    layout=$2
    shift 2
    tar --no-recursion -cf ../layer.tar "$@"
    cd ..
    umoci raw add-layer --image "$layout:latest" layer.tar
    rm -r layer layer.tar
}
begin() { mkdir layer; cd layer; }
begin
mkdir -p bin d e/sub gone/deep plain directory
echo old >bin/app; echo a >a; echo b >b; ln a hard; echo x >d/x; echo y >d/y; echo z >e/z; echo z >e/sub/z
echo f >gone/deep/f; ln -s d/y link; ln -s bin lib; echo in >directory/in; echo 1 >file
chmod 700 plain; chown 3:4 plain; chmod 4755 bin/app; setfattr -n user.key -v value a
layer 1000 base --xattrs $(find .)
cp -r base second
begin
mkdir -p d e plain/deep never
echo 'other a' >a; touch .wh.b d/.wh.x e/.wh..wh..opq .wh.gone never/.wh.there; echo new >e/new; echo implied >plain/deep/new
chmod 1777 d
layer 2000 second a .wh.b d/.wh.x d e/.wh..wh..opq e/new plain/deep/new .wh.gone never/.wh.there
cp -r second third
begin
mkdir file; echo f >file/f; echo file >directory; echo 'b again' >b
layer 3000 third file file/f directory b
cp -r third through
begin
mkdir lib; echo t >lib/through
layer 4000 through lib/through
cp -r third links
begin
echo a >a; ln a link-to-a; tar -cf ../layer.tar a link-to-a; tar --delete -f ../layer.tar a; cd ..
umoci raw add-layer --image links:latest layer.tar
"#;

/// The root with the programs.
pub(crate) struct Programs {
    chroot: Chroot,
    scratch: PathBuf,
}

impl Programs {
    pub(crate) fn prepare(cache: &Cache, scratch: &Path) -> Result<Self> {
        let key = key(&[PACKAGES.as_bytes(), rootfs::SUITE.as_bytes()]);
        let root = cache.once(&format!("container-programs-{key}"), |folder| {
            setup::require_root("make a Debian root (mmdebstrap)")?;
            run::say(format_args!("making a Debian {} root with {PACKAGES}", rootfs::SUITE));
            let packages = format!("{PACKAGES},attr");
            debian::bootstrap(folder, rootfs::SUITE, Variant::Minimal, &packages, &log_of(folder))
        })?;
        cache.forget_others(&root, "container-programs-")?;
        let write = |name: &str, text: String| {
            std::fs::write(scratch.join(name), text).with_context(|| format!("failed to write {name}"))
        };
        let [graph, state] = ["graph", "run"].map(|name| scratch.join(name).display().to_string());
        write("storage.conf", format!("{STORAGE}graphroot = \"{graph}\"\nrunroot = \"{state}\"\n"))?;
        Ok(Self { chroot: Chroot::new(root, vec![scratch.to_owned()]), scratch: scratch.to_owned() })
    }

    /// Runs a script in the scratch folder, with the programs.
    pub(crate) fn shell(&self, script: &str) -> Result<String> {
        let mut command: Command = self.chroot.command("/usr/bin/env");
        let storage = self.scratch.join("storage.conf");
        command.arg(format!("CONTAINERS_STORAGE_CONF={}", storage.display()));
        // Layers that are being written, or were when the disk was full, go with the scratch folder.
        command.arg(format!("TMPDIR={}", self.scratch.display()));
        command.args(["bash", "-euc", &format!("cd {}\n{script}", self.scratch.display())]);
        run::capture(&mut command)
    }

    /// The tree that `umoci unpack` makes of an image that skopeo finds there.
    fn umoci(&self, name: &str, place: &str) -> Result<PathBuf> {
        self.shell(&format!(
            "skopeo copy -q {place} oci:{name}-layout:latest && umoci unpack --image {name}-layout:latest {name}-umoci"
        ))?;
        Ok(self.scratch.join(format!("{name}-umoci/rootfs")))
    }

    /// The root of a container of that image, as podman and buildah show it.
    fn podman(&self, name: &str, place: &str) -> Result<PathBuf> {
        // Where it shows whiteouts as names without a file, there is nothing to copy.
        self.shell(&format!(
            "skopeo copy -q {place} containers-storage:localhost/{name}:latest\n\
             container=$(buildah from -q localhost/{name})\n\
             root=$(buildah mount $container)\n\
             mkdir {name}-podman\n\
             if ! cp -a $root/. {name}-podman 2>errors && grep -v /never/there errors; then exit 1; fi\n\
             buildah rm $container >rubbish"
        ))?;
        Ok(self.scratch.join(format!("{name}-podman")))
    }
}

/// The differences between a container image and a tree, without the times themselves.
fn differences(tools: &Tools, image: &Path, tree: &Path) -> Result<Vec<String>> {
    let built = tree.with_extension("tess");
    tools.mkfs::<&str>(&built, tree, &[])?;
    let mut command = run::command(&tools.store);
    let output = run::output(command.arg("diff").args([image, &built]))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(text.lines().map(without_times).collect())
}

/// A line of `tesserafs diff` with `time` in place of both times.
fn without_times(line: &str) -> String {
    let Some((name, facts)) = line.strip_suffix(')').and_then(|line| line.split_once("  (")) else {
        return line.to_owned();
    };
    let facts: Vec<&str> =
        facts.split("; ").map(|fact| if fact.starts_with("time ") { "time" } else { fact }).collect();
    format!("{name} ({})", facts.join("; "))
}

/// Runs the tests.
pub(crate) fn test(cache: &Cache, report: &mut Report) -> Result<()> {
    setup::ensure(cache, &[Need::Machine])?;
    let scratch =
        tempfile::tempdir_in(cache.folder("scratch")?).context("failed to make a scratch folder")?;
    let scratch = scratch.path().canonicalize().context("no scratch folder")?;
    let programs = Programs::prepare(cache, &scratch)?;
    let tools = Tools::of_tests()?;
    context(cache, &scratch)?;
    report.test("oci/a-dockerfile-makes-the-tree-that-others-see", || built(&programs, &tools));
    report.test("oci/layers-do-to-each-other-what-they-do-for-others", || layered(&programs, &tools));
    report.test("oci/readme-is-typed", || {
        readme::typed_for_containers(&tools, &scratch, |line| programs.shell(line).map(drop))
    });
    Ok(())
}

/// Makes what a Dockerfile is built with.
fn context(cache: &Cache, scratch: &Path) -> Result<()> {
    std::fs::write(scratch.join("Dockerfile"), DOCKERFILE).context("failed to write a Dockerfile")?;
    let debian = rootfs::debian(cache)?;
    for name in TREE {
        let place = scratch.join("tree").join(name);
        let folder = place.parent().context("a name in no folder")?;
        std::fs::create_dir_all(folder).context("failed to make a folder")?;
        run::quiet(run::command("cp").arg("-a").arg(debian.join(name)).arg(&place))?;
    }
    Ok(())
}

/// An image that buildah makes of a Dockerfile and of a Debian tree.
fn built(programs: &Programs, tools: &Tools) -> Result<String> {
    let scratch = &programs.scratch;
    programs.shell(
        "buildah build -q --isolation chroot --layers --tag built . && buildah push -q built oci-archive:built.tar && \
         skopeo copy -q oci-archive:built.tar docker-archive:saved.tar:app:latest && skopeo copy -q oci-archive:built.tar dir:directory && \
         skopeo copy -q --dest-compress --dest-compress-format zstd:chunked oci-archive:built.tar dir:chunked",
    )?;
    let image = scratch.join("built.tess");
    let mut trees = Vec::new();
    for place in ["saved.tar", "directory", "chunked", "built.tar"] {
        let mut command = run::command(&tools.mkfs);
        command.args(["--json", "--force", "--oci"]).arg(scratch.join(place)).arg(&image);
        let said = run::capture(&mut command)?;
        let report: serde_json::Value = serde_json::from_str(&said).context("no report")?;
        trees.push(report["tree_id"].clone());
    }
    ensure!(trees.iter().all(|tree| *tree == trees[0]), "one image, several trees: {trees:?}");
    let place = "oci-archive:built.tar";
    let [umoci, podman] = [programs.umoci("built", place)?, programs.podman("built", place)?];
    let found = [differences(tools, &image, &umoci)?, differences(tools, &image, &podman)?];
    // The root is of the mode that podman gives any.
    ensure!(
        found == [vec![], vec!["M  . (mode 0755 -> 0555; time)".to_owned()]],
        "differences from umoci and from podman: {found:?}"
    );
    Ok(format!("in four forms, tree ID {}", trees[0]))
}

/// Images whose layers have one of everything.
fn layered(programs: &Programs, tools: &Tools) -> Result<String> {
    programs.shell(LAYERS)?;
    let podman_alone = [
        "M  . (mode 0755 -> 0555; time)",
        "M  e (time)",
        "M  never (time)",
        "M  plain (mode 0700 -> 0755; owner 3:4 -> 0:0; time)",
        "M  plain/deep (time)",
    ];
    let umoci_alone = ["D  never (directory)", "M  plain (time)", "M  plain/deep (time)"];
    let through =
        ["R  lib/through -> bin/through", "M  lib (type directory -> symlink; mode 0755 -> 0777; time)"];
    type More<'a> = &'a [&'a str];
    let cases: [(&str, More<'_>, Option<More<'_>>); 4] = [
        ("base", &[], Some(&["M  . (mode 0755 -> 0555; time)"])),
        ("third", &[], Some(&[])),
        ("through", &through, Some(&["M  lib (time)"])),
        // It cannot unpack such an image.
        ("links", &[], None),
    ];
    for (name, more_of_umoci, more_of_podman) in cases {
        let image = programs.scratch.join(format!("{name}.tess"));
        let layout = programs.scratch.join(name);
        run::capture(
            run::command(&tools.mkfs).arg("--oci").arg(format!("{}:latest", layout.display())).arg(&image),
        )?;
        let place = format!("oci:{}:latest", layout.display());
        let check = |who: &str, tree: &Path, alone: &[&str], more: &[&str]| -> Result<()> {
            let mut found = differences(tools, &image, tree)?;
            let mut expected: Vec<&str> = if name == "base" { Vec::new() } else { alone.to_vec() };
            expected.extend(more);
            found.sort();
            expected.sort_unstable();
            ensure!(found == expected, "{name}: differences from {who}: {found:#?}, expected {expected:#?}");
            Ok(())
        };
        check("umoci", &programs.umoci(name, &place)?, &umoci_alone, more_of_umoci)?;
        let podman = programs.podman(name, &place);
        match (podman, more_of_podman) {
            (Ok(podman), Some(more)) => check("podman", &podman, &podman_alone, more)?,
            (Ok(_), None) => bail!("{name}: podman unpacks it now: say what it makes of it"),
            (Err(error), Some(_)) => return Err(error),
            (Err(_), None) => {}
        }
    }
    Ok(format!("{} images", cases.len()))
}
