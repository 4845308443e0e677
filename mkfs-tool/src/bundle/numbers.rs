// SPDX-License-Identifier: GPL-2.0-or-later

//! Numbers of seven bits a byte, the lowest first.

/// Appends a number.
pub(super) fn put(section: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        section.push(number as u8 | 0x80);
        number >>= 7;
    }
    section.push(number as u8);
}

/// The same for numbers of either sign: small ones are short.
pub(super) fn put_signed(section: &mut Vec<u8>, number: i64) {
    put(section, ((number << 1) ^ (number >> 63)) as u64);
}

/// The bytes of a section that are not read yet.
pub(super) struct Fields<'s>(pub(super) &'s [u8]);

impl Fields<'_> {
    /// The next number; none where there is none.
    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// The same of either sign.
    pub(super) fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let all = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX];
        let mut section = Vec::new();
        all.iter().for_each(|number| put(&mut section, *number));
        let signed = [0, -1, 1, i64::MIN, i64::MAX];
        signed.iter().for_each(|number| put_signed(&mut section, *number));
        let mut fields = Fields(&section);
        assert!(all.iter().all(|number| fields.number() == Some(*number)));
        assert!(signed.iter().all(|number| fields.signed() == Some(*number)));
        assert_eq!(fields.number(), None);
        assert_eq!(Fields(&[0x80; 11]).number(), None);
    }
}
