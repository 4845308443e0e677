// SPDX-License-Identifier: GPL-2.0-or-later

//! The meaning of the exit status.

/// The exit status of the program. A signal that ends it is reported as such: 128 + its number in a shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// The image is complete.
    Success,
    /// There is no image: something could not be read, written or represented.
    Failure,
    /// The command line makes no sense; nothing was touched.
    Usage,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        match code {
            ExitCode::Success => 0.into(),
            ExitCode::Failure => 1.into(),
            ExitCode::Usage => 2.into(),
        }
    }
}
