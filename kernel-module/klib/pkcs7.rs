// SPDX-License-Identifier: GPL-2.0

//! PKCS#7 signatures.
//!
//! C header: [`include/linux/verification.h`](srctree/include/linux/verification.h)

use super::keyring::Keyring;
use kernel::prelude::*;

/// The keys that are trusted.
#[derive(Clone, Copy)]
pub(crate) enum TrustedKeys<'a> {
    /// The kernel's builtin and secondary trusted keyrings.
    System,
    /// One keyring.
    Keyring(&'a Keyring),
}

/// Verifies `signature`, a PKCS#7 message in DER without content, over `data`.
///
/// `EBADMSG` if it is no such message, or of other data; `ENOKEY` if no key of it is trusted;
/// `EKEYREJECTED` if the signature is wrong; `ENOPKG` if an algorithm is missing; `EOPNOTSUPP` if
/// the kernel cannot verify signatures at all.
#[cfg(CONFIG_SYSTEM_DATA_VERIFICATION)]
pub(crate) fn verify(data: &[u8], signature: &[u8], keys: TrustedKeys<'_>) -> Result {
    use crate::bindings;

    let keyring = match keys {
        // `VERIFY_USE_SECONDARY_KEYRING`: a number, not an address.
        TrustedKeys::System => core::ptr::without_provenance_mut(1),
        TrustedKeys::Keyring(keyring) => keyring.as_ptr(),
    };
    // SAFETY: Both slices are as long as is said; the keyring is valid, or a number that stands
    // for one; there is no callback.
    kernel::error::to_result(unsafe {
        bindings::verify_pkcs7_signature(
            data.as_ptr().cast(),
            data.len(),
            signature.as_ptr().cast(),
            signature.len(),
            keyring,
            bindings::key_being_used_for_VERIFYING_UNSPECIFIED_SIGNATURE,
            None,
            core::ptr::null_mut(),
        )
    })
}

/// As the kernel was built without `CONFIG_SYSTEM_DATA_VERIFICATION`: `EOPNOTSUPP`.
#[cfg(not(CONFIG_SYSTEM_DATA_VERIFICATION))]
pub(crate) fn verify(_data: &[u8], _signature: &[u8], _keys: TrustedKeys<'_>) -> Result {
    Err(EOPNOTSUPP)
}
