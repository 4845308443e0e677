// SPDX-License-Identifier: GPL-2.0-or-later

//! The exit codes of fsck(8).

use std::ops::BitOr;
use std::process;

/// An exit code: a sum of conditions, as fsck(8) says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitCode(u8);

impl ExitCode {
    /// No errors.
    pub const CLEAN: ExitCode = ExitCode(0);
    /// Errors left uncorrected: nothing is ever repaired.
    pub const ERRORS: ExitCode = ExitCode(4);
    /// Operational error: the image, or a place to write to, could not be used.
    pub const OPERATIONAL: ExitCode = ExitCode(8);
    /// Usage or syntax error.
    pub const USAGE: ExitCode = ExitCode(16);
    /// Cancelled by the user.
    pub const CANCELLED: ExitCode = ExitCode(32);

    /// The tree was extracted or archived, and some of what the image holds of it could not be: a bit that fsck(8) leaves free.
    pub const NOT_RESTORED: ExitCode = ExitCode(64);

    /// The image is clean, but not canonical, which was asked. The same bit: nobody asks for both.
    pub const NOT_CANONICAL: ExitCode = ExitCode(64);

    /// The number that the process ends with.
    pub const fn value(self) -> u8 {
        self.0
    }
}

impl BitOr for ExitCode {
    type Output = ExitCode;

    fn bitor(self, other: ExitCode) -> ExitCode {
        ExitCode(self.0 | other.0)
    }
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        process::ExitCode::from(code.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_fsck() {
        let codes =
            [ExitCode::CLEAN, ExitCode::ERRORS, ExitCode::OPERATIONAL, ExitCode::USAGE, ExitCode::CANCELLED];
        assert_eq!(codes.map(ExitCode::value), [0, 4, 8, 16, 32]);
        assert_eq!((ExitCode::ERRORS | ExitCode::OPERATIONAL).value(), 12);
    }
}
