// SPDX-License-Identifier: GPL-2.0
//! Checks of licences that cargo-deny cannot make: which of them go together, and what the files of a package say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use serde::Deserialize;

use crate::{run, tools};

/// The part of cargo's description of packages that is looked at.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    license: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dep>,
}

#[derive(Debug, Deserialize)]
struct Dep {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    /// Nothing for what is linked; `build` and `dev` are not shipped.
    kind: Option<String>,
}

/// Fails where a package of the project links what its licence forbids, or a file of it has another licence; gives the
/// number of packages.
pub(crate) fn check(repository: &Path) -> Result<usize> {
    let mut count = 0;
    for workspace in [repository.to_path_buf(), repository.join("format/fuzz")] {
        let mut cargo = tools::cargo();
        cargo.current_dir(workspace).args(["metadata", "--format-version", "1", "--locked"]);
        let metadata: Metadata = serde_json::from_str(&run::capture(&mut cargo)?)
            .context("cargo describes the packages in words that are not known")?;
        let conflicts = metadata.conflicts();
        ensure!(conflicts.is_empty(), "{}", conflicts.join("\n"));
        for package in metadata.packages.iter().filter(|one| metadata.workspace_members.contains(&one.id)) {
            check_headers(repository, package)?;
            count += 1;
        }
    }
    Ok(count)
}

impl Metadata {
    /// Packages of the workspace that no later version of the GPL covers, and link what only that permits.
    fn conflicts(&self) -> Vec<String> {
        let packages: BTreeMap<&str, &Package> = self.packages.iter().map(|one| (&*one.id, one)).collect();
        let nodes: BTreeMap<&str, &Node> = self.resolve.nodes.iter().map(|one| (&*one.id, one)).collect();
        let members = self.workspace_members.iter().filter_map(|id| packages.get(&**id));
        let mut conflicts = Vec::new();
        for member in members.filter(|member| member.license.as_deref() == Some("GPL-2.0-only")) {
            let (mut seen, mut open) = (BTreeSet::new(), vec![&*member.id]);
            while let Some(id) = open.pop() {
                if !seen.insert(id) {
                    continue;
                }
                let license = packages.get(id).and_then(|package| package.license.as_deref());
                if license.is_some_and(needs_version_3) {
                    conflicts.push(format!(
                        "{} is GPL-2.0-only, and links {}, found under {}: it must be GPL-2.0-or-later",
                        member.name,
                        packages.get(id).map_or(id, |package| &package.name),
                        license.unwrap_or_default()
                    ));
                }
                let linked = |dep: &&Dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none());
                let deps = nodes.get(id).map_or(&[][..], |node| &node.deps);
                open.extend(deps.iter().filter(linked).map(|dep| &*dep.pkg));
            }
        }
        conflicts
    }
}

/// Whether every choice that a licence leaves needs version 3 of the GPL beside it.
fn needs_version_3(license: &str) -> bool {
    license
        .split(" OR ")
        .flat_map(|part| part.split('/'))
        .all(|choice| choice.contains("Apache-2.0") && !choice.contains("LLVM-exception"))
}

/// Fails where a file of a package has another licence than the package.
fn check_headers(repository: &Path, package: &Package) -> Result<()> {
    let license = package.license.as_deref().with_context(|| format!("{} has no licence", package.name))?;
    // The kernel's spelling, which its scripts know.
    let wanted = format!("// SPDX-License-Identifier: {}", license.replace("GPL-2.0-only", "GPL-2.0"));
    let folder = package.manifest_path.parent().context("a manifest lies in no folder")?;
    let mut git = run::command("git");
    git.arg("-C").arg(repository).args(["ls-files", "-z", "--"]).arg(folder.join("*.rs"));
    for name in run::capture(&mut git)?.split_terminator('\0') {
        let path = repository.join(name);
        // That of a package within this one, or a file that is gone since the commit.
        let within = path.ancestors().skip(1).find(|folder| folder.join("Cargo.toml").is_file());
        let (true, Ok(text)) = (within == Some(folder), std::fs::read_to_string(&path)) else { continue };
        let first = text.lines().next().unwrap_or_default();
        if first != wanted {
            bail!("{name}: found {first:?}, expected {wanted:?}, as {} is {license}", package.name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_left_unless_all_need_version_3() {
        assert!(needs_version_3("Apache-2.0"));
        assert!(!needs_version_3("MIT OR Apache-2.0") && !needs_version_3("MIT/Apache-2.0"));
        assert!(!needs_version_3("Apache-2.0 WITH LLVM-exception OR MIT"));
    }

    #[test]
    fn a_library_that_forbids_version_2_is_found_through_others() {
        let text = |license: &str, kind: &str| {
            format!(
                r#"{{"packages":[{{"id":"a","name":"tool","license":"{license}","manifest_path":"/a"}},
                    {{"id":"b","name":"between","license":"MIT","manifest_path":"/b"}},
                    {{"id":"c","name":"openssl","license":"Apache-2.0","manifest_path":"/c"}}],
                    "workspace_members":["a"],"resolve":{{"nodes":[
                    {{"id":"a","deps":[{{"pkg":"b","dep_kinds":[{{"kind":{kind}}}]}}]}},
                    {{"id":"b","deps":[{{"pkg":"c","dep_kinds":[{{"kind":null}}]}}]}},{{"id":"c","deps":[]}}]}}}}"#
            )
        };
        let conflicts =
            |license, kind| serde_json::from_str::<Metadata>(&text(license, kind)).unwrap().conflicts().len();
        assert_eq!(conflicts("GPL-2.0-only", "null"), 1);
        assert_eq!(conflicts("GPL-2.0-only", "\"dev\""), 0);
        assert_eq!(conflicts("GPL-2.0-or-later", "null"), 0);
    }

    #[test]
    fn the_project_keeps_to_its_licences() {
        check(&tools::repository()).unwrap();
    }
}
