// SPDX-License-Identifier: GPL-2.0
//! Definitions that host and guest share for the cases of xfstests: bytes, names, modes, access control
//! lists.

/// The owner of most files of the cases: user and group.
pub const OWNER: u32 = 99;

/// Names of the one file with many.
pub const LINKS: u32 = 20;

/// Symlinks, each of which points to the one before.
pub const CHAIN: usize = 50;

/// Files of the directory with many.
pub const CROWD: usize = 1000;

/// Bytes of `data/file`.
pub const FILE: usize = 300_001;

/// Bytes of `data/eof`: two blocks without the last two sectors.
pub const EOF: usize = 8192 - 1024;

/// Bytes of each run of data in `data/sparse`, from one to the next, and of the file.
pub const RUN: usize = 65_536;
/// See [`RUN`].
pub const STRIDE: usize = 4 << 20;
/// See [`RUN`].
pub const SPARSE: usize = 6 * STRIDE + 777;

/// When `times/1960` was changed.
pub const YEAR_1960: i64 = -315_593_940;

/// Modes of the files in `modes`, which are named after them.
pub const MODES: [u32; 10] = [0o001, 0o010, 0o100, 0o002, 0o020, 0o200, 0o004, 0o040, 0o400, 0o000];

/// Names that look alike, and are different bytes: composed and decomposed letters, letters of two widths,
/// ligatures, and a slash that is none.
pub const ALIKE: [&[u8]; 11] = [
    b"french_caf\xc3\xa9",
    b"french_cafe\xcc\x81",
    b"chinese_\xef\xbd\xb6",
    b"chinese_\xe3\x82\xab",
    b"greek_\xcf\x93",
    b"greek_\xcf\x92\xcc\x81",
    b"greek_\xce\x8e",
    b"greek_\xce\xa5\xcc\x81",
    b"arabic_\xef\xb7\xba",
    b"arabic_\xd8\xb5\xd9\x84\xd9\x89",
    b"urk\xc0\xafmoo",
];

/// Attributes whose names have one CRC-32C, the first three, and two more.
pub const FIVE: [(&str, &[u8]); 5] = [
    ("user.foobar", b"123"),
    ("user.WvG1c1Td", b"qwerty"),
    ("user.J3__T_Km3dVsW_", b"hello"),
    ("user.something", b"pizza"),
    ("user.ping", b"pong"),
];

/// Attributes of which the first two names are longer than the third.
pub const THREE: [(&str, &[u8]); 3] =
    [("user.foo", b"bar"), ("user.ping", b"pong"), ("user.hello", b"there")];

/// The names of access control lists among the extended attributes.
pub const ACL_ACCESS: &str = "system.posix_acl_access";
/// See [`ACL_ACCESS`].
pub const ACL_DEFAULT: &str = "system.posix_acl_default";

/// The subject of an entry of an access control list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// The owner.
    Owner,
    /// A user.
    User(u32),
    /// The file's group.
    OwnGroup,
    /// A group.
    Group(u32),
    /// The limit of users and groups.
    Mask,
    /// Everybody else.
    Other,
}

/// An access control list as the attribute has it.
pub fn acl(entries: &[(For, u16)]) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    // The version.
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (whom, permissions) in entries {
        let (tag, id): (u16, u32) = match *whom {
            For::Owner => (0x01, NOBODY),
            For::User(id) => (0x02, id),
            For::OwnGroup => (0x04, NOBODY),
            For::Group(id) => (0x08, id),
            For::Mask => (0x10, NOBODY),
            For::Other => (0x20, NOBODY),
        };
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// A file of [`OWNER`] with a list, and who may read it: user, groups.
pub struct Listed {
    /// The name in `acl`.
    pub name: &'static str,
    /// The list.
    pub entries: &'static [(For, u16)],
    /// These may read it.
    pub readers: &'static [(u32, &'static [u32])],
    /// These may not.
    pub others: &'static [(u32, &'static [u32])],
}

/// One list for each rule of the algorithm.
pub const LISTED: [Listed; 7] = {
    use For::{Group, Mask, Other, OwnGroup, Owner, User};
    [
        Listed {
            name: "owner-only",
            entries: &[(Owner, 4), (OwnGroup, 0), (Other, 0)],
            readers: &[(OWNER, &[1])],
            others: &[(1, &[OWNER]), (1, &[1])],
        },
        Listed {
            name: "group-without-owner",
            entries: &[(Owner, 0), (OwnGroup, 4), (Other, 0)],
            readers: &[(1, &[OWNER]), (1, &[2, OWNER])],
            others: &[(OWNER, &[OWNER]), (1, &[1])],
        },
        Listed {
            name: "others-without-group",
            entries: &[(Owner, 0), (OwnGroup, 0), (Other, 4)],
            readers: &[(1, &[1])],
            others: &[(OWNER, &[1]), (1, &[OWNER]), (1, &[2, OWNER])],
        },
        Listed {
            name: "a-user",
            entries: &[(Owner, 0), (User(7), 4), (OwnGroup, 0), (Mask, 7), (Other, 0)],
            readers: &[(7, &[7]), (7, &[OWNER])],
            others: &[(8, &[8]), (OWNER, &[7])],
        },
        Listed {
            name: "a-group",
            entries: &[(Owner, 0), (OwnGroup, 0), (Group(7), 4), (Mask, 7), (Other, 0)],
            // One group that may is enough.
            readers: &[(8, &[7]), (8, &[8, 7]), (8, &[OWNER, 7])],
            others: &[(8, &[8]), (7, &[8]), (8, &[OWNER])],
        },
        Listed {
            name: "a-mask",
            entries: &[(Owner, 4), (User(7), 4), (OwnGroup, 4), (Group(8), 4), (Mask, 2), (Other, 4)],
            // The mask limits neither the owner nor the others.
            readers: &[(OWNER, &[1]), (9, &[9])],
            others: &[(7, &[9]), (9, &[8]), (9, &[OWNER])],
        },
        Listed {
            name: "a-user-without",
            entries: &[(Owner, 4), (User(7), 0), (OwnGroup, 4), (Mask, 4), (Other, 4)],
            // The entry of a user counts before those of the user's groups.
            readers: &[(8, &[8]), (8, &[OWNER])],
            others: &[(7, &[OWNER]), (7, &[7])],
        },
    ]
};

/// Bytes that look random, and are the same at every call: some that compress, some that do not.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // A page of noise, a page of words.
        match out.len() / 4096 % 2 {
            0 => out.extend_from_slice(&state.rotate_left(23).to_le_bytes()),
            _ => out.extend_from_slice(format!("{:03} ", state >> 54).as_bytes()),
        }
    }
    out.truncate(length);
    out
}

/// The bytes of `data/sparse`.
pub fn sparse() -> Vec<u8> {
    let mut out = vec![0; SPARSE];
    for (number, part) in out.chunks_mut(STRIDE).enumerate() {
        // The last run ends where the file does.
        let run = part.len().min(RUN);
        part[..run].copy_from_slice(&bytes(number as u64 + 1, run));
    }
    out
}
