// SPDX-License-Identifier: GPL-2.0-or-later

//! The image that becomes of an archive.

#![allow(dead_code, reason = "each program uses a part")]

use crate::archive::Archive;
use crate::common::{read_image, Read, Sandbox};

impl Archive {
    /// The image of the archive.
    pub(crate) fn image(&self) -> Read {
        self.image_and_report(&[]).0
    }

    /// The image of the archive that is built with these options, and the report.
    pub(crate) fn image_and_report(&self, options: &[&str]) -> (Read, String) {
        let sandbox = Sandbox::new();
        sandbox.write("a.tar", self.end());
        let report = sandbox.mkfs(options.iter().chain(&["--tar", "a.tar", "image"]));
        (read_image(&sandbox.path("image")), report)
    }

    /// Why there is none.
    pub(crate) fn refusal(&self) -> String {
        self.refusal_with(&[])
    }

    /// Why there is none with these options.
    pub(crate) fn refusal_with(&self, options: &[&str]) -> String {
        let sandbox = Sandbox::new();
        sandbox.write("a.tar", self.end());
        let error = sandbox.refused(1, options.iter().chain(&["--tar", "a.tar", "image"]));
        assert_eq!(sandbox.names(), ["a.tar"]);
        error
    }
}
