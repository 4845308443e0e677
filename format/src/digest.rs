// SPDX-License-Identifier: GPL-2.0 OR MIT

//! SHA-256 digests, and the type that says that bytes were compared with one.

use core::fmt;
use core::mem::size_of;

use zerocopy::little_endian::U64;
use zerocopy::IntoBytes as _;
use zerocopy_derive::{Immutable, IntoBytes};

use crate::limits::DIGEST_SIZE;
use crate::num::u64_from_usize;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; DIGEST_SIZE]);

/// Computes SHA-256: the kernel's library in the module, the `sha2` crate in the tools.
pub trait Sha256 {
    /// The digest of `bytes`.
    fn sha256(bytes: &[u8]) -> Digest;

    /// The digest of each, where a processor can compute two at once: they are equally long.
    fn sha256_2x(bytes: [&[u8]; 2]) -> [Digest; 2] {
        bytes.map(Self::sha256)
    }
}

impl Digest {
    /// Parses the 64 hexadecimal digits that [`Display`](fmt::Display) writes, in either case.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let mut digest = [0; DIGEST_SIZE];
        let mut rest = text;
        for byte in &mut digest {
            let ([high, low], next) = rest.split_first_chunk()?;
            *byte = (hex_digit(*high)? << 4) | hex_digit(*low)?;
            rest = next;
        }
        if !rest.is_empty() {
            return None;
        }
        Some(Self(digest))
    }

    /// The first eight bytes, for the `found` and `expected` of a [`FormatError`](crate::FormatError).
    pub const fn prefix(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// The bytes that the digest of a chunk is the SHA-256 of.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Halves {
    /// SHA-256 of the first half of the stored bytes; the byte in the middle of an odd number is in both.
    first: [u8; DIGEST_SIZE],
    /// SHA-256 of the last half.
    last: [u8; DIGEST_SIZE],
    /// How many stored bytes there are.
    stored_len: U64,
}

const _: () = assert!(size_of::<Halves>() == 72);

/// The digest of a chunk's stored bytes: over the digests of their halves, as a processor hashes two in not much more than
/// the time of one, and over their number, so that no other bytes have the same.
pub fn chunk_digest<H: Sha256>(stored: &[u8]) -> Digest {
    let half = stored.len().div_ceil(2);
    let (first, _) = stored.split_at_checked(half).unwrap_or_default();
    let (_, last) = stored.split_at_checked(stored.len().saturating_sub(half)).unwrap_or_default();
    let [first, last] = H::sha256_2x([first, last]);
    let halves = Halves { first: first.0, last: last.0, stored_len: u64_from_usize(stored.len()).into() };
    H::sha256(halves.as_bytes())
}

/// The value of a hexadecimal digit, in either case.
fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes that have the digest they should have.
///
/// # Invariants
///
/// The bytes were compared with a digest, and nobody else can write them while this lives.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'a>(&'a [u8]);

impl<'a> Verified<'a> {
    /// Compares `bytes` with `expected`; the digest that was found is the error.
    pub fn check<H: Sha256>(bytes: &'a [u8], expected: &Digest) -> Result<Self, Digest> {
        Self::compare(bytes, H::sha256(bytes), expected)
    }

    /// Compares the stored bytes of a chunk with its digest; the digest that was found is the error.
    pub fn check_chunk<H: Sha256>(stored: &'a [u8], expected: &Digest) -> Result<Self, Digest> {
        Self::compare(stored, chunk_digest::<H>(stored), expected)
    }

    /// `found` is a digest of `bytes`.
    fn compare(bytes: &'a [u8], found: Digest, expected: &Digest) -> Result<Self, Digest> {
        if found == *expected {
            // INVARIANT: just compared; the shared borrow keeps writers out.
            Ok(Self(bytes))
        } else {
            Err(found)
        }
    }

    /// The authentic bytes.
    pub const fn bytes(&self) -> &'a [u8] {
        self.0
    }
}
