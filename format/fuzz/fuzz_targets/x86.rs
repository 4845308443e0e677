// SPDX-License-Identifier: GPL-2.0-or-later

//! The x86 filter, on any bytes.
//!
//! Invariant: encoding and decoding undo each other, in either order; a beginning of what was encoded decodes to the
//! beginning, but for its last bytes; bytes that are not worth it may be filtered all the same. No panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tesserafs_format::x86;
use tesserafs_fuzz::input::Input;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let cut = usize::from(input.u16());
    let bytes = input.0;
    let mut there = bytes.to_vec();
    let calls = x86::encode(&mut there);
    let mut beginning = there[..cut.min(there.len())].to_vec();
    x86::decode(&mut there);
    assert!(there == bytes, "decoded otherwise than it was encoded");
    x86::decode(&mut beginning);
    let sure = beginning.len().saturating_sub(x86::UNSURE as usize);
    assert!(beginning[..sure] == bytes[..sure], "another beginning");
    let mut back = bytes.to_vec();
    x86::decode(&mut back);
    x86::encode(&mut back);
    assert!(back == bytes, "encoded otherwise than it was decoded");
    // The cheap count of opcodes finds all that have the calls.
    assert!(x86::may_be_worthwhile(bytes) || !x86::is_worthwhile(calls, bytes.len()));
});
