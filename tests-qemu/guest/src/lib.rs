// SPDX-License-Identifier: GPL-2.0
//! Definitions that host and guest share: how a tree is described, what the guest is to do, what it answers.
//!
//! The same [`manifest`] code describes the source tree on the host and the mounted image in the
//! guest, so that a comparison of the two is a comparison of the file systems and of nothing else.

pub mod cases;
pub mod manifest;
pub mod message;
pub mod plan;
pub mod reading;
pub mod tree;
