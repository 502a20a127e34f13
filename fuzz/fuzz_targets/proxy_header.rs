//! Headers of proxies: what is a header is one whatever follows it, no part of it is enough, and
//! what is none never becomes one.
#![no_main]

use wardline_core::proxy::{HEADER_BYTES_MAX, NoHeader, SIGNATURE, read};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&[&SIGNATURE, bytes].concat());
});

fn check(bytes: &[u8]) {
    let said = read(bytes);
    if let Ok(Some(header)) = said {
        assert!((16..=HEADER_BYTES_MAX.min(bytes.len())).contains(&header.bytes));
    }
    let mut before = Ok(None);
    for len in 0..=bytes.len().min(HEADER_BYTES_MAX + 1) {
        let now = read(&bytes[..len]);
        match before {
            Ok(None) => {}
            Ok(Some(header)) => assert_eq!(now, Ok(Some(header))),
            Err(NoHeader) => assert_eq!(now, Err(NoHeader)),
        }
        if let Ok(Some(header)) = now {
            assert!(before.is_ok() && (before == now || header.bytes == len));
        }
        before = now;
    }
    assert_eq!(before, said);
}
