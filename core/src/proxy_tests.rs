extern crate std;
use std::vec::Vec;

use super::*;

const PROXY: u8 = 0x21;
const LOCAL: u8 = 0x20;

/// A header that says it has `rest`.
fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
    bytes.extend(rest);
    bytes
}

const V4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0xD9, 0x03, 0x22, 0xB8];

fn v6() -> Vec<u8> {
    let mut rest = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets().to_vec();
    rest.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    rest.extend([0xD9, 0x03, 0x22, 0xB8]);
    rest
}

fn with(front: &[u8], more: usize) -> Vec<u8> {
    let mut rest = front.to_vec();
    rest.resize(front.len() + more, 0xEE);
    rest
}

fn client(text: &str) -> Option<SocketAddr> {
    Some(text.parse().unwrap())
}

#[test]
fn what_each_header_says() {
    let most = HEADER_BYTES_MAX - 16;
    let four = client("192.0.2.7:55555");
    let six = client("[2001:db8::7]:55555");
    let table = [
        ("TCP over IPv4", header(PROXY, 0x11, &V4), four),
        ("with more behind it", header(PROXY, 0x11, &with(&V4, 40)), four),
        ("as long as can be", header(PROXY, 0x11, &with(&V4, most - 12)), four),
        ("TCP over IPv6", header(PROXY, 0x21, &v6()), six),
        ("with more behind it", header(PROXY, 0x21, &with(&v6(), most - 36)), six),
        ("LOCAL", header(LOCAL, 0x00, &[]), None),
        ("LOCAL with an address", header(LOCAL, 0x11, &V4), None),
        ("LOCAL with half an address", header(LOCAL, 0x11, &V4[..5]), None),
        ("LOCAL of a family that is none", header(LOCAL, 0xFF, &[1]), None),
        ("not known", header(PROXY, 0x00, &[]), None),
        ("not known, as long as can be", header(PROXY, 0x00, &with(&[], most)), None),
        ("IPv4, not known over what", header(PROXY, 0x10, &V4), None),
        ("not known, TCP", header(PROXY, 0x01, &V4), None),
        ("UDP over IPv4", header(PROXY, 0x12, &V4), None),
        ("UDP over IPv6", header(PROXY, 0x22, &v6()), None),
        ("a UNIX socket", header(PROXY, 0x31, &with(&[], 216)), None),
        ("a UNIX socket of datagrams", header(PROXY, 0x32, &with(&[], 216)), None),
    ];
    for (what, bytes, client) in table {
        let whole = Header { bytes: bytes.len(), client };
        assert_eq!(read(&bytes), Ok(Some(whole)), "{what}");
        // What follows is not looked at, and no part of it is enough.
        assert_eq!(read(&with(&bytes, 3)), Ok(Some(whole)), "{what}");
        for len in 0..bytes.len() {
            assert_eq!(read(&bytes[..len]), Ok(None), "{what}, {len} bytes");
        }
    }
}

#[test]
fn what_is_no_header() {
    let table = [
        ("version 1", b"PROXY TCP4 192.0.2.7 198.51.100.1 55555 8888\r\n".to_vec()),
        ("version 3", header(0x31, 0x11, &V4)),
        ("version 0", header(0x01, 0x11, &V4)),
        ("a third command", header(0x22, 0x11, &V4)),
        ("the last command", header(0x2F, 0x00, &[])),
        ("a fourth family", header(PROXY, 0x41, &with(&[], 40))),
        ("a third transport", header(PROXY, 0x13, &V4)),
        ("no address", header(PROXY, 0x11, &[])),
        ("IPv4, a byte short", header(PROXY, 0x11, &V4[..11])),
        ("IPv6, a byte short", header(PROXY, 0x21, &v6()[..35])),
        ("an address of IPv4 for one of IPv6", header(PROXY, 0x21, &V4)),
        ("a byte too long", header(PROXY, 0x11, &with(&V4, HEADER_BYTES_MAX - 16 - 11))),
        ("LOCAL, a byte too long", header(LOCAL, 0x00, &with(&[], HEADER_BYTES_MAX - 15))),
        ("the longest that can be said", header(LOCAL, 0x00, &with(&[], 0xFFFF))),
    ];
    for (what, bytes) in table {
        assert_eq!(read(&bytes), Err(NoHeader), "{what}");
        // It is known by its first sixteen bytes, and what was no header never becomes one.
        assert_eq!(read(&bytes[..16]), Err(NoHeader), "{what}");
        let mut known = false;
        for len in 0..bytes.len().min(64) {
            let said = read(&bytes[..len]);
            assert!(said == Err(NoHeader) || (said == Ok(None) && !known), "{what}, {len} bytes");
            known |= said.is_err();
        }
    }
}

#[test]
fn each_bit_of_the_signature_counts() {
    let good = header(PROXY, 0x11, &V4);
    for bit in 0..12 * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(read(&bad), Err(NoHeader));
        // At once.
        assert_eq!(read(&bad[..=bit / 8]), Err(NoHeader));
        assert_eq!(read(&bad[..bit / 8]), Ok(None));
    }
}

#[test]
fn every_command_family_and_length() {
    let lens = [0, 1, 11, 12, 13, 35, 36, 37, 215, 216, 519, 520, 521, 536, 4_096, 0xFFFF];
    for (command, family, len) in (0..=255_u8)
        .flat_map(|command| (0..=255_u8).map(move |family| (command, family)))
        .flat_map(|(command, family)| lens.map(|len| (command, family, len)))
    {
        let mut fixed = header(command, family, &[]);
        fixed[14..16].copy_from_slice(&u16::to_be_bytes(len));
        let said = read(&fixed);
        let needed = match family {
            0x11 => 12,
            0x21 => 36,
            _ => 0,
        };
        let known = family >> 4 <= 3 && family & 15 <= 2;
        let good = len <= 520
            && match command {
                LOCAL => true,
                PROXY => known && len >= needed,
                _ => false,
            };
        let whole = Header { bytes: 16, client: None };
        let wanted = match (good, len) {
            (false, _) => Err(NoHeader),
            (true, 0) => Ok(Some(whole)),
            (true, _) => Ok(None),
        };
        assert_eq!(said, wanted, "{command:#x} {family:#x} {len}");
    }
}
