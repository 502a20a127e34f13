//! The line dialect: what a line is, and what its envelope looks like. Pure functions over bytes;
//! PROTOCOL.md section "The line dialect".

use core::net::{IpAddr, SocketAddr};

use crate::storage::copy;

/// What stands before the content of an envelope.
const OPEN: &[u8; 12] = b"{\"content\":\"";
/// What stands between the content and the sender.
const MIDDLE: &[u8] = b"\",\"remote_addr\":\"";
/// What ends it.
const CLOSE: &[u8] = b"\"}\n";

/// The longest `[v6]:port`: 8 groups of 4, 7 colons, 2 brackets, a colon and 5 digits.
const ADDR_MAX: usize = 39 + 2 + 1 + 5;
/// The longest end of an envelope.
const SUFFIX_MAX: usize = MIDDLE.len() + ADDR_MAX + CLOSE.len();

/// The warnings of the line dialect, texts that clients know.
pub mod warning {
    /// Over the rate.
    pub const RATE: &str = "Warning: You are sending messages too quickly. Please slow down.\n";
    /// Idle.
    pub const IDLE: &str = "Warning: You have been disconnected due to inactivity.\n";
    /// Shutdown.
    pub const SHUTDOWN: &str = "Warning: Server is shutting down.\n";
    /// A slow reader.
    pub const SLOW: &str = "Warning: You were disconnected because you read too slowly.\n";
    /// Not UTF-8.
    pub const UTF8: &str = "Warning: Your line is not UTF-8. You were disconnected.\n";
    /// HTTP.
    pub const HTTP: &str = "Warning: This port does not speak HTTP.\n";
    /// A line that was not finished.
    pub const UNFINISHED: &str = "Warning: You did not finish your line in time.\n";
    /// No memory for what was sent.
    pub const OVERLOADED: &str = "Warning: The relay is overloaded. You were disconnected.\n";
}

/// The end of every envelope of one sender: made once per connection and turn.
#[derive(Clone, Copy, Debug)]
pub struct Suffix {
    bytes: [u8; SUFFIX_MAX],
    len: usize,
}

impl Suffix {
    /// The end of the envelopes of `sender`. An IPv4 address mapped into IPv6 is IPv4.
    #[must_use]
    pub fn new(sender: SocketAddr) -> Self {
        let mut text = Text { bytes: [0; SUFFIX_MAX], len: 0 };
        text.put(MIDDLE);
        match sender.ip().to_canonical() {
            IpAddr::V4(ip) => {
                let mut dot: &[u8] = b"";
                for part in ip.octets() {
                    text.put(dot);
                    text.decimal(u32::from(part));
                    dot = b".";
                }
            }
            IpAddr::V6(ip) => {
                text.put(b"[");
                text.v6(ip.segments());
                text.put(b"]");
            }
        }
        text.put(b":");
        text.decimal(u32::from(sender.port()));
        text.put(CLOSE);
        Self { bytes: text.bytes, len: text.len }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A short text that is written without an allocator and without `core::fmt`.
#[derive(Debug)]
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..) {
            self.len = self.len.saturating_add(copy(room, bytes));
        }
    }

    pub(crate) fn decimal(&mut self, number: impl Into<u64>) {
        let mut rest = number.into();
        let mut digits = [0_u8; 20];
        let mut len = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0'.wrapping_add((rest % 10) as u8);
            rest /= 10;
            len = usize::saturating_add(len, 1);
            if rest == 0 {
                break;
            }
        }
        let from = digits.len().saturating_sub(len);
        self.put(digits.get(from..).unwrap_or_default());
    }

    fn hex(&mut self, group: u16) {
        let mut begun = false;
        for shift in [12_u32, 8, 4, 0] {
            let nibble = (group >> shift) & 0xF;
            begun = begun || nibble != 0 || shift == 0;
            if begun {
                self.put(&[hex_digit(nibble as u8)]);
            }
        }
    }

    /// RFC 5952: the longest run of two or more zero groups is `::`, the first one of equals.
    fn v6(&mut self, groups: [u16; 8]) {
        let (mut best_at, mut best_len) = (8_usize, 1_usize);
        let (mut at, mut len) = (0_usize, 0_usize);
        for (i, group) in groups.iter().enumerate() {
            if *group != 0 {
                len = 0;
                continue;
            }
            if len == 0 {
                at = i;
            }
            len = len.saturating_add(1);
            if len > best_len {
                (best_at, best_len) = (at, len);
            }
        }
        let best_end = best_at.saturating_add(best_len);
        let mut colon = false;
        for (i, group) in groups.iter().enumerate() {
            if i == best_at {
                self.put(b"::");
                colon = false;
            } else if i < best_at || i >= best_end {
                if colon {
                    self.put(b":");
                }
                self.hex(*group);
                colon = true;
            }
        }
    }
}

const fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0'.wrapping_add(nibble) } else { b'a'.wrapping_add(nibble.wrapping_sub(10)) }
}

/// Whether JSON wants `byte` escaped: the quote, the backslash, and everything below the space.
const fn special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Bytes that are looked at in one step: a vector register of every machine that has them.
const STEP: usize = 16;

/// Whether one of these is special. Without a branch inside, so that the compiler makes a vector
/// operation of it.
fn any_special(chunk: &[u8; STEP]) -> bool {
    chunk.iter().fold(false, |found, byte| found | special(*byte))
}

/// Where the first byte stands that JSON wants escaped, a line's end being one.
#[must_use]
pub fn find_special(bytes: &[u8]) -> Option<usize> {
    let (chunks, rest) = bytes.as_chunks::<STEP>();
    let mut before = 0_usize;
    for chunk in chunks {
        if any_special(chunk) {
            break;
        }
        before = before.saturating_add(STEP);
    }
    let chunk = bytes.get(before..).unwrap_or(rest);
    chunk.iter().position(|byte| special(*byte)).map(|at| before.saturating_add(at))
}

/// Whether none of `content` needs an escape.
#[must_use]
pub fn is_plain(content: &[u8]) -> bool {
    find_special(content).is_none()
}

/// How many bytes `content` has once it is escaped: one more for each byte that is special, and
/// four more for those that have no short form.
#[must_use]
pub fn escaped_len(content: &[u8]) -> usize {
    let (chunks, rest) = content.as_chunks::<STEP>();
    let mut more = rest.iter().fold(0_usize, |more, byte| more.saturating_add(extra_len(*byte)));
    for chunk in chunks {
        let specials = chunk.iter().fold(0_u8, |n, byte| n.wrapping_add(u8::from(special(*byte))));
        more = more.saturating_add(usize::from(specials));
        if chunk.iter().fold(false, |any, byte| any | (*byte < 0x20)) {
            let longs = chunk.iter().filter(|byte| is_long(**byte)).count();
            more = more.saturating_add(longs.saturating_mul(4));
        }
    }
    content.len().saturating_add(more)
}

/// Whether `byte` is special and has no short form.
fn is_long(byte: u8) -> bool {
    byte < 0x20 && !matches!(byte, 0x08 | 0x09 | 0x0A | 0x0C | 0x0D)
}

fn extra_len(byte: u8) -> usize {
    usize::from(special(byte)).saturating_add(usize::from(is_long(byte)).saturating_mul(4))
}

/// Writes `content` escaped to `out`; gives how many bytes that are.
fn escape_into(content: &[u8], out: &mut [u8]) -> usize {
    let mut done = 0_usize;
    let (chunks, rest) = content.as_chunks::<STEP>();
    for chunk in chunks {
        if any_special(chunk) {
            done = escape_each(chunk, out, done);
        } else if let Some(room) = out.get_mut(done..).and_then(|out| out.first_chunk_mut()) {
            *room = *chunk;
            done = done.saturating_add(STEP);
        }
    }
    escape_each(rest, out, done)
}

/// Bytes that a step has at most once it is escaped.
const STEP_ESCAPED: usize = STEP * 6;

fn escape_each(bytes: &[u8], out: &mut [u8], done: usize) -> usize {
    let mut text = [0_u8; STEP_ESCAPED];
    let mut len = 0_usize;
    for byte in bytes {
        // Both bytes are written in any case, and the second counts only for an escape: text is
        // full of quotes where no branch could be foretold.
        let short = ESCAPES.get(usize::from(*byte)).copied().unwrap_or(0);
        let escaped = short != 0;
        put(&mut text, len, if escaped { b'\\' } else { *byte });
        put(&mut text, len.wrapping_add(1), short);
        len = len.wrapping_add(1).wrapping_add(usize::from(escaped));
        if short == b'u' {
            for byte in [b'0', b'0', hex_digit(byte >> 4), hex_digit(byte & 0xF)] {
                put(&mut text, len, byte);
                len = len.wrapping_add(1);
            }
        }
    }
    let text = text.get(..len).unwrap_or_default();
    done.saturating_add(out.get_mut(done..).map_or(0, |room| copy(room, text)))
}

fn put(text: &mut [u8; STEP_ESCAPED], at: usize, byte: u8) {
    if let Some(room) = text.get_mut(at) {
        *room = byte;
    }
}

/// What follows the backslash in a byte's escape: as JSON has it, short where there is a short
/// form, else a `u` and four digits in lower case; 0: it has none.
#[allow(clippy::indexing_slicing, reason = "when it is compiled")]
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0_u8;
    while byte < 0x20 {
        table[byte as usize] = b'u';
        byte = byte.wrapping_add(1);
    }
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0A] = b'n';
    table[0x0C] = b'f';
    table[0x0D] = b'r';
    table
};

/// What stands of a line in a whole envelope of ours: its content, still escaped.
#[cfg(feature = "native-sessions")]
pub(crate) fn escaped_content(envelope: &[u8]) -> Option<&[u8]> {
    let rest = envelope.strip_prefix(OPEN)?.strip_suffix(CLOSE)?;
    // No address has a quote: the last one ends what stands before it.
    let quote = memchr::memrchr(b'"', rest)?;
    rest.get(..=quote)?.strip_suffix(MIDDLE)
}

/// How many bytes what we escaped has without its escapes.
#[cfg(feature = "native-sessions")]
pub(crate) fn unescaped_len(escaped: &[u8]) -> usize {
    let (mut len, mut rest) = (escaped.len(), escaped);
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (_, escape) = unescape_one(rest.get(at..).unwrap_or_default());
        len = len.saturating_sub(escape.saturating_sub(1));
        rest = rest.get(at.saturating_add(escape)..).unwrap_or_default();
    }
    len
}

/// What we escaped as it was before; in `room`, which is to hold as much, if there is anything to
/// be undone.
#[cfg(feature = "native-sessions")]
pub(crate) fn unescape<'a>(escaped: &'a [u8], room: &'a mut [u8]) -> &'a [u8] {
    if memchr::memchr(b'\\', escaped).is_none() {
        return escaped;
    }
    let (mut done, mut rest) = (0_usize, escaped);
    while !rest.is_empty() {
        let at = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
        let (plain, tail) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        done = done.saturating_add(copy(room.get_mut(done..).unwrap_or_default(), plain));
        rest = tail;
        if !tail.is_empty() {
            let (byte, escape) = unescape_one(tail);
            done = done.saturating_add(copy(room.get_mut(done..).unwrap_or_default(), &[byte]));
            rest = tail.get(escape..).unwrap_or_default();
        }
    }
    room.get(..done).unwrap_or_default()
}

/// The byte of the escape that `tail` begins with, and how long that is.
#[cfg(feature = "native-sessions")]
fn unescape_one(tail: &[u8]) -> (u8, usize) {
    let digit = |at: usize| match tail.get(at) {
        Some(digit @ b'0'..=b'9') => digit.wrapping_sub(b'0'),
        Some(digit) => digit.wrapping_sub(b'a').wrapping_add(10) & 0xF,
        None => 0,
    };
    match tail.get(1).copied().unwrap_or(0) {
        b'u' => ((digit(4) << 4) | digit(5), 6),
        b'b' => (0x08, 2),
        b't' => (b'\t', 2),
        b'n' => (b'\n', 2),
        b'f' => (0x0C, 2),
        b'r' => (b'\r', 2),
        byte => (byte, 2),
    }
}

/// An envelope that was measured and not yet written.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    content: &'a [u8],
    suffix: &'a Suffix,
    plain: bool,
    len: usize,
}

impl<'a> Envelope<'a> {
    /// Measures the envelope of a line. `content` is UTF-8, without its ending.
    #[must_use]
    pub fn new(content: &'a [u8], suffix: &'a Suffix) -> Self {
        let plain = is_plain(content);
        if plain { Self::plain(content, suffix) } else { Self::escaped(content, suffix) }
    }

    /// The same for a line that has nothing to escape.
    #[must_use]
    pub fn plain(content: &'a [u8], suffix: &'a Suffix) -> Self {
        Self::of(content, content.len(), true, suffix)
    }

    /// The same for any line.
    #[must_use]
    pub fn escaped(content: &'a [u8], suffix: &'a Suffix) -> Self {
        Self::of(content, escaped_len(content), false, suffix)
    }

    fn of(content: &'a [u8], escaped: usize, plain: bool, suffix: &'a Suffix) -> Self {
        let len = OPEN.len().saturating_add(escaped).saturating_add(suffix.len);
        Self { content, suffix, plain, len }
    }

    /// The line.
    pub(crate) fn content(&self) -> &'a [u8] {
        self.content
    }

    /// Its bytes, with the newline.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: an envelope has at least its frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Hands it out piece by piece.
    pub fn write(&self, mut out: impl FnMut(&[u8])) {
        out(OPEN);
        if self.plain {
            out(self.content);
        } else {
            for step in self.content.chunks(STEP) {
                let mut text = [0_u8; STEP_ESCAPED];
                let len = escape_each(step, &mut text, 0);
                out(text.get(..len).unwrap_or_default());
            }
        }
        out(self.suffix.as_bytes());
    }

    /// Writes it to `out`, which has exactly its length.
    pub fn fill(&self, out: &mut [u8]) {
        let suffix = self.suffix.as_bytes();
        let Some((open, rest)) = out.split_first_chunk_mut::<{ OPEN.len() }>() else { return };
        *open = *OPEN;
        let middle = rest.len().saturating_sub(suffix.len());
        let Some((content, end)) = rest.split_at_mut_checked(middle) else { return };
        if self.plain {
            copy(content, self.content);
        } else {
            escape_into(self.content, content);
        }
        copy(end, suffix);
    }
}

/// Whether a connection's first line is an HTTP request's: a web page must not be able to speak to
/// the relay. `METHOD SP target SP HTTP/`, or the preface of HTTP/2, which has the same form.
#[must_use]
pub fn is_http(line: &[u8]) -> bool {
    let method = line.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    if !(3..=16).contains(&method) || line.get(method) != Some(&b' ') {
        return false;
    }
    memchr::memchr_iter(b' ', line)
        .any(|at| line.get(at..).is_some_and(|rest| rest.starts_with(b" HTTP/")))
}

/// Whether a line that is over the limit, of which `begin` is the beginning, may be an HTTP
/// request's: a method and a space. No more can be asked of a line that is not kept.
#[must_use]
pub fn may_be_http(begin: &[u8]) -> bool {
    let method = begin.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    (3..=16).contains(&method) && begin.get(method) == Some(&b' ')
}

/// `line` without one carriage return at its end.
#[must_use]
pub fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The warning for a line over the limit, or whose envelope is over it.
pub(crate) fn too_long(text: &mut Text<112>, envelope: bool, limit: u32) {
    text.put(if envelope {
        b"Warning: Your line makes an envelope over the limit of ".as_slice()
    } else {
        b"Warning: Your line is over the limit of ".as_slice()
    });
    text.decimal(limit);
    text.put(b" bytes and was not relayed.\n");
}

/// The warning that tells a reader which messages of its topic are gone: `from` to `to`, not
/// itself.
pub(crate) fn gap(text: &mut Text<112>, from: u64, to: u64) {
    text.put(b"Warning: You read too slowly. Messages ");
    text.decimal(from);
    text.put(b" to ");
    text.decimal(to.saturating_sub(1));
    text.put(b" of the topic were dropped.\n");
}

#[cfg(test)]
mod tests {
    extern crate std;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::string::{String, ToString};
    use std::vec;
    use std::vec::Vec;

    use super::*;

    fn envelope(content: &[u8], sender: &str) -> Vec<u8> {
        let suffix = Suffix::new(sender.parse().expect("an address"));
        let envelope = Envelope::new(content, &suffix);
        let mut out = vec![0xEE; envelope.len()];
        envelope.fill(&mut out);
        let mut pieces = Vec::new();
        envelope.write(|bytes| pieces.extend_from_slice(bytes));
        assert_eq!(out, pieces);
        out
    }

    #[test]
    fn escapes_are_those_of_the_reference() {
        let all: Vec<u8> = (0..0x80_u8).filter(|b| *b != b'\n').collect();
        let text = String::from_utf8(envelope(&all, "127.0.0.1:9")).expect("UTF-8");
        assert!(text.starts_with(
            "{\"content\":\"\\u0000\\u0001\\u0002\\u0003\\u0004\\u0005\\u0006\\u0007\\b\\t\
             \\u000b\\f\\r\\u000e"
        ));
        assert!(text.contains("\\u001e\\u001f !\\\"#"));
        assert!(text.contains("[\\\\]"));
        assert!(text.ends_with("~\u{7f}\",\"remote_addr\":\"127.0.0.1:9\"}\n"));
        assert_eq!(
            envelope("é\u{2028}😀/".as_bytes(), "[::1]:65535"),
            "{\"content\":\"é\u{2028}😀/\",\"remote_addr\":\"[::1]:65535\"}\n".as_bytes()
        );
    }

    #[cfg(feature = "native-sessions")]
    #[test]
    fn what_was_escaped_is_found_and_undone() {
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        let mut draw = |end: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % end
        };
        let specials: Vec<char> = (0..0x20_u8).map(char::from).chain("\"\\u".chars()).collect();
        let plain = ["x", "u", "\u{7f}", "\u{80}", "\u{2028}", "é", "😀", "\",\"remote_addr\":\""];
        for round in 0..20_000 {
            let (len, rare) = (draw(60), 1 + draw(30));
            let mut said = String::new();
            for _ in 0..len {
                match draw(rare) {
                    0 => said.push(specials[draw(specials.len() as u64) as usize]),
                    _ => said.push_str(plain[draw(plain.len() as u64) as usize]),
                }
            }
            let sender = if round % 2 == 0 { "127.0.0.1:9" } else { "[1:2::3]:65535" };
            let whole = envelope(said.as_bytes(), sender);
            let escaped = escaped_content(&whole).expect("an envelope");
            assert_eq!(escaped.len(), escaped_len(said.as_bytes()));
            assert_eq!(unescaped_len(escaped), said.len());
            let mut room = vec![0xEE; said.len()];
            assert_eq!(unescape(escaped, &mut room), said.as_bytes(), "{said:?}");
        }
        for broken in [&b""[..], b"x\n", b"{\"content\":\"x\"}\n", &envelope(b"x", "[::]:1")[1..]] {
            assert_eq!(escaped_content(broken), None);
        }
    }

    #[test]
    fn is_plain_sees_every_special_byte_at_every_place() {
        for len in 0..70 {
            assert!(is_plain(&vec![b'x'; len]));
            for at in 0..len {
                for byte in [0, 0x1F, b'"', b'\\', b'\r'] {
                    let mut bytes = vec![b'x'; len];
                    bytes[at] = byte;
                    assert!(!is_plain(&bytes), "{byte} at {at} of {len}");
                }
            }
        }
        assert!(is_plain("é\u{7f}\u{80}😀 ~".repeat(9).as_bytes()));
    }

    #[test]
    fn addresses_read_as_std_prints_them() {
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        for round in 0..20_000_u32 {
            let mut groups = [0_u16; 8];
            for group in &mut groups {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let drawn = (seed >> 33) as u32;
                *group = if drawn.is_multiple_of(3) { 0 } else { (drawn >> (drawn % 16)) as u16 };
            }
            groups[0] |= 0x2000;
            let v6 = SocketAddr::from((Ipv6Addr::from(groups), (round % 65_536) as u16));
            let v4 = SocketAddr::from((Ipv4Addr::from(seed as u32), (seed >> 48) as u16));
            for addr in [v6, v4] {
                let suffix = Suffix::new(addr);
                let text = core::str::from_utf8(suffix.as_bytes()).expect("ASCII");
                let want = std::format!("\",\"remote_addr\":\"{addr}\"}}\n");
                assert_eq!(text, want);
            }
        }
        let mapped: SocketAddr = "[::ffff:1.2.3.4]:5".parse().expect("an address");
        assert_eq!(Suffix::new(mapped).as_bytes(), b"\",\"remote_addr\":\"1.2.3.4:5\"}\n");
        let longest: SocketAddr =
            "[1111:2222:3333:4444:5555:6666:7777:8888]:65535".parse().expect("an address");
        assert!(Suffix::new(longest).as_bytes().ends_with(b"8888]:65535\"}\n"));
    }

    #[test]
    fn http_is_known_by_its_first_line() {
        for line in [
            "GET / HTTP/1.1",
            "POST /x?y=z HTTP/1.0\r",
            "OPTIONS * HTTP/1.1",
            "PRI * HTTP/2.0",
            "CONNECT a:1 HTTP/1.1",
        ] {
            assert!(is_http(line.as_bytes()), "{line}");
        }
        for line in ["GET", "GET ", "get / HTTP/1.1", "HELLO WORLD", "{\"a\":\" HTTP/\"}", ""] {
            assert!(!is_http(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn numbers_and_texts() {
        let mut text = Text::<112>::new();
        too_long(&mut text, false, 65_536);
        assert_eq!(
            text.as_bytes(),
            b"Warning: Your line is over the limit of 65536 bytes and was not relayed.\n"
        );
        let mut text = Text::<112>::new();
        gap(&mut text, 0, u64::MAX);
        let last = (u64::MAX - 1).to_string();
        assert!(core::str::from_utf8(text.as_bytes()).expect("ASCII").contains(&last));
    }
}
