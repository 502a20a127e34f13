//! What is said: message `n` is a function of `n`, and so is the envelope that everybody else must
//! get of it. Made without a line of the core's code, so that one checks the other.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::storage::CLIENTS;

/// Bytes of the longest content and its line end.
pub const LINE_BYTES_MAX: usize = 720;
/// Bytes of the longest envelope.
pub const ENVELOPE_BYTES_MAX: usize = 1_500;

/// Where client `index` is, one in eight by IPv6.
pub fn address(index: usize) -> SocketAddr {
    let ip = if index == 7 {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xDB8, 0, 0, 7, 0, 0, 1))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 0, index as u8, 1))
    };
    SocketAddr::new(ip, 4_000 + index as u16)
}

/// The same as it reads in an envelope.
fn address_text(index: usize) -> &'static [u8] {
    match index {
        0 => b"10.0.0.1:4000",
        1 => b"10.0.1.1:4001",
        2 => b"10.0.2.1:4002",
        3 => b"10.0.3.1:4003",
        4 => b"10.0.4.1:4004",
        5 => b"10.0.5.1:4005",
        6 => b"10.0.6.1:4006",
        _ => b"[2001:db8::7:0:0:1]:4007",
    }
}

/// Messages are numbered by chapter, so that there is a first one of each.
const CHAPTER: u64 = 1 << 20;

/// Who speaks in a chapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chapter {
    /// All, in runs of one to three messages, so that a sender's own lie between others'.
    All,
    /// Only client 0.
    One,
    /// All but clients 2 and 6.
    Six,
    /// All again.
    AllAgain,
    /// All but clients 2 and 6 again.
    SixAgain,
}

impl Chapter {
    /// Its first message.
    pub const fn start(self) -> u64 {
        self as u64 * CHAPTER
    }
}

/// Who says message `n`.
pub fn author(n: u64) -> usize {
    const TURNS: [u8; 16] = [0, 0, 0, 1, 2, 2, 3, 3, 3, 4, 5, 5, 6, 6, 6, 7];
    const OTHERS: [u8; 7] = [0, 1, 3, 3, 4, 5, 7];
    const ONE: u64 = Chapter::One as u64;
    const SIX: u64 = Chapter::Six as u64;
    const SIX_AGAIN: u64 = Chapter::SixAgain as u64;
    match n / CHAPTER {
        ONE => return 0,
        SIX | SIX_AGAIN => {
            let turn = n % OTHERS.len() as u64;
            return OTHERS.get(turn as usize).copied().map_or(0, usize::from);
        }
        _ => {}
    }
    let turn = TURNS.get((n % 16) as usize).copied().map_or(0, usize::from);
    (turn + (n / 16 % CLIENTS as u64) as usize) % CLIENTS
}

/// Bytes that are put one after another.
#[derive(Debug)]
pub struct Bytes<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Bytes<N> {
    /// None yet.
    pub const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    /// What was put.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Puts more; what does not fit is lost, which the checks then see.
    pub fn put(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(room) = self.bytes.get_mut(self.len) {
                *room = *byte;
                self.len += 1;
            }
        }
    }

    fn put_number(&mut self, number: u64) {
        if number >= 10 {
            self.put_number(number / 10);
        }
        self.put(&[b'0' + (number % 10) as u8]);
    }
}

/// Puts the line of message `n`, without its end, by handing out pieces that are either plain or
/// to be escaped as the second one says.
fn pieces(n: u64, put: &mut dyn FnMut(&[u8], &[u8])) {
    let mut number = Bytes::<20>::new();
    number.put_number(n);
    put(number.as_slice(), number.as_slice());
    let plain = match n % 13 {
        0 => 600,
        1 => 0,
        k => (n * 7 + k) % 61,
    };
    for i in 0..plain {
        let letter = [b'a' + ((n + i) % 26) as u8];
        put(&letter, &letter);
    }
    if n.is_multiple_of(5) {
        put(b"\"", b"\\\"");
        put(b"\\", b"\\\\");
        put(b"\t", b"\\t");
        put(&[0x01], b"\\u0001");
        put(&[0x1F], b"\\u001f");
        put("é😀".as_bytes(), "é😀".as_bytes());
    }
}

/// Puts the line of message `n` with its end, of which there are two kinds.
pub fn put_line<const N: usize>(n: u64, out: &mut Bytes<N>) {
    pieces(n, &mut |bytes, _| out.put(bytes));
    out.put(if n.is_multiple_of(3) { b"\r\n" } else { b"\n" });
}

/// The envelope of message `n`.
pub fn envelope(n: u64) -> Bytes<ENVELOPE_BYTES_MAX> {
    let mut out = Bytes::new();
    out.put(b"{\"content\":\"");
    pieces(n, &mut |_, escaped| out.put(escaped));
    out.put(b"\",\"remote_addr\":\"");
    out.put(address_text(author(n)));
    out.put(b"\"}\n");
    out
}
