// SPDX-License-Identifier: GPL-2.0
//! A tree with SELinux labels, and a policy that tells its files apart.

use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{lsetxattr, XattrFlags};
use tesserafs_guest::plan::{Labels, LABEL_OPEN, LABEL_SECRET};

use crate::tools::Tools;
use crate::{run, trees};

/// Everybody may read open files, and nobody secret ones. Permissions that the policy does not know are
/// allowed.
const POLICY: &str = "\
class process
class file
sid kernel
sid file
sid unlabeled
class process { transition dyntransition }
class file { read }
type kernel_t;
type open_t;
type secret_t;
role system_r;
role system_r types kernel_t;
allow kernel_t { kernel_t open_t } : file read;
user system_u roles system_r;
sid kernel system_u:system_r:kernel_t
sid file system_u:object_r:open_t
sid unlabeled system_u:object_r:open_t
fs_use_xattr tesserafs system_u:object_r:open_t;
";

/// Makes the tree in `folder`, and its image and the policy in `contents`.
pub(crate) fn stage(tools: &Tools, contents: &Path, folder: &Path) -> Result<Labels> {
    for (name, label) in [("open", LABEL_OPEN), ("secret", LABEL_SECRET)] {
        let path = folder.join(name);
        std::fs::write(&path, name).with_context(|| format!("failed to write {name}"))?;
        // As SELinux's own programs write it: with the end of a C string.
        let label = [label.as_bytes(), b"\0"].concat();
        lsetxattr(&path, "security.selinux", &label, XattrFlags::empty()).context("failed to set a label")?;
    }
    let image = trees::image(tools, contents, "labels", folder, &[])?;
    let text = folder.with_extension("policy");
    std::fs::write(&text, POLICY).context("failed to write the policy")?;
    let policy = "labels.policy";
    let compiled = run::capture(
        run::command("checkpolicy").args(["-U", "allow", "-o"]).arg(contents.join(policy)).arg(&text),
    );
    std::fs::remove_file(&text).context("failed to remove the policy's text")?;
    compiled.context("failed to compile the policy")?;
    Ok(Labels { image, policy: policy.to_owned() })
}
