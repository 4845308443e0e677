// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs fsck`: of the store. One image has fsck.tesserafs.

use clap::Args;
use serde_json::json;
use tesserafs_image::{text, Cancel};

use super::store::{self, StoreArgs};
use crate::chain;
use crate::store::{Checked, Problem};

const FSCK_HELP: &str = "\
Examples:
  tesserafs fsck
  tesserafs fsck --remove && tesserafs pull registry.example/app:1     what is broken is fetched again

It reads all files of the store and compares them with their digests, and looks whether each image has what it needs.
Whether an image itself keeps the rules of the format, fsck.tesserafs tells.

Exit status: 0 nothing is wrong, or what was is removed; 1 something is wrong; 2 trouble, and standard error says what.";

/// Checks the store
#[derive(Args, Debug)]
#[command(after_help = FSCK_HELP)]
pub(super) struct FsckArgs {
    /// Remove broken files, so that a pull fetches them again; it waits for processes that use the store
    #[arg(long)]
    remove: bool,

    /// A JSON object
    #[arg(long)]
    json: bool,

    /// Print errors only
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    store: StoreArgs,
}

impl FsckArgs {
    /// Whether something is wrong.
    pub(super) fn run(self) -> Result<bool, String> {
        let store = self.store.open()?;
        let mut problems = Vec::new();
        let mut found = |problem| problems.push(problem);
        let (checked, removed) = if self.remove {
            let collecting = store::collecting(&store)?;
            let checked = collecting.check(&Cancel::default(), &mut found);
            let checked = checked.map_err(|error| chain(&error))?;
            (checked, collecting.remove_broken(&problems).map_err(|error| chain(&error))?)
        } else {
            let using = store::using(&store)?;
            (using.check(&Cancel::default(), &mut found).map_err(|error| chain(&error))?, 0)
        };
        let report = if self.json {
            to_json(&problems, checked, removed)
        } else {
            self.lines(&problems, checked, removed)
        };
        store::print(&report)?;
        let errors = problems.iter().filter(|problem| problem.is_error && !(self.remove && problem.can_go()));
        Ok(errors.count() > 0)
    }

    fn lines(&self, problems: &[Problem], checked: Checked, removed: u64) -> String {
        let mut lines = String::new();
        for problem in problems.iter().filter(|problem| problem.is_error || !self.quiet) {
            let kind = if problem.is_error { "error" } else { "note" };
            lines.push_str(&format!("{kind}: {}: {}\n", text::path(&problem.path), problem.what));
        }
        if !self.quiet {
            let Checked { images, files, bytes } = checked;
            let errors = problems.iter().filter(|problem| problem.is_error).count();
            let bytes = text::size(bytes);
            lines.push_str(&format!("{images} images, {files} files, {bytes}: {errors} errors"));
            lines.push_str(&if self.remove {
                format!(", {removed} files removed\n")
            } else {
                "\n".to_owned()
            });
        }
        lines
    }
}

fn to_json(problems: &[Problem], checked: Checked, removed: u64) -> String {
    let one = |problem: &Problem| json!({ "path": text::path(&problem.path), "what": problem.what, "is_error": problem.is_error });
    store::json(&json!({
        "images": checked.images,
        "files": checked.files,
        "bytes": checked.bytes,
        "removed": removed,
        "problems": problems.iter().map(one).collect::<Vec<_>>(),
    }))
}
