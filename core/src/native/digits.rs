//! 32 bytes as people write them: 64 hexadecimal digits.

use core::fmt;
use core::str::FromStr;

use super::key::{Identity, KeyFault};

/// The digits of those bytes, in ASCII and lower case.
#[must_use]
pub fn to_digits(bytes: &[u8; 32]) -> [u8; 64] {
    let mut digits = [0; 64];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        for (digit, nibble) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = b"0123456789abcdef".get(usize::from(nibble)).copied().unwrap_or_default();
        }
    }
    digits
}

/// The bytes of 64 hexadecimal digits, of either case. None: it is something else.
#[must_use]
pub fn from_digits(text: &[u8]) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.try_into().ok()?;
    let value =
        |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        let [high, low] = *pair;
        *byte = value(high)? << 4 | value(low)?;
    }
    Some(bytes)
}

/// Why a text is not somebody's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityFault {
    /// It is not 64 hexadecimal digits.
    Digits,
    /// They are no key that somebody alone can sign with.
    Key(KeyFault),
}

impl fmt::Display for IdentityFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digits => f.write_str("must be a key: 64 hexadecimal digits"),
            Self::Key(fault) => write!(f, "is not a key: {}", fault.sentence()),
        }
    }
}

impl core::error::Error for IdentityFault {}

/// 64 digits, in lower case.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        core::str::from_utf8(&to_digits(self.as_bytes()))
            .map_or(Err(fmt::Error), |text| f.pad(text))
    }
}

/// 64 digits, with or without `ed25519:` before them.
impl FromStr for Identity {
    type Err = IdentityFault;

    fn from_str(text: &str) -> Result<Self, IdentityFault> {
        let digits = text.strip_prefix("ed25519:").unwrap_or(text);
        let bytes = from_digits(digits.as_bytes()).ok_or(IdentityFault::Digits)?;
        Self::new(&bytes).map_err(IdentityFault::Key)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;
    use std::string::ToString;

    use super::*;

    /// RFC 8032, 7.1, test 1.
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    #[test]
    fn identities_are_read_as_they_are_shown() {
        let identity: Identity = PUBLIC.parse().unwrap();
        assert_eq!(identity.to_string(), PUBLIC);
        assert_eq!(format!("{identity:?}"), PUBLIC);
        assert_eq!(format!("ed25519:{}", PUBLIC.to_uppercase()).parse(), Ok(identity));
        let small = format!("01{}", "0".repeat(62));
        let fault = small.parse::<Identity>().unwrap_err();
        assert!(fault.to_string().contains("small order"), "{fault}");
    }

    #[test]
    fn what_is_not_64_digits_is_nothing() {
        let (umlauts, spaced) = ("é".repeat(32), format!(" {PUBLIC}"));
        let signed = format!("+{}", &PUBLIC[1..]);
        for text in
            ["", "ed25519:", &PUBLIC[1..], &format!("{PUBLIC}0"), &umlauts, &spaced, &signed]
        {
            assert_eq!(text.parse::<Identity>(), Err(IdentityFault::Digits), "{text}");
        }
    }

    #[test]
    fn every_byte_comes_back() {
        for first in 0..=255_u8 {
            let bytes = core::array::from_fn(|at| first.wrapping_add(at as u8));
            assert_eq!(from_digits(&to_digits(&bytes)), Some(bytes));
        }
    }
}
