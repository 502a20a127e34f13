//! The header by which a proxy says for whom it connects: the PROXY protocol, version 2.
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, 2.2. Version 1, which is text, is
//! not understood.
//!
//! ```text
//!  0          12        13       14      16                        16 + length
//!  | signature | 2 | cmd | family | length | from | to | ports | ... |
//! ```

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// What each header begins with.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What stands in every header.
const FIXED_BYTES: usize = 16;
/// The longest header that is taken. One is to fit a segment of TCP, and 536 bytes are the least
/// that fits any. Beside the longest addresses (UNIX sockets, 216) that leaves 304 for what else
/// proxies tell, of which nothing is looked at.
pub const HEADER_BYTES_MAX: usize = 536;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its length: what follows is the client's.
    pub bytes: usize,
    /// The client's address. None: the connection is the proxy's own (LOCAL), or one whose client
    /// has no address that is understood here, so that the proxy's stands for it.
    pub client: Option<SocketAddr>,
}

/// The bytes are no header, or one that is longer than is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHeader;

/// Reads the header that `bytes` begin with; none while it is not whole.
///
/// # Errors
/// The proxy's: of a wrong signature with its first byte, of all else with the sixteenth.
pub fn read(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    if bytes.iter().zip(SIGNATURE).any(|(byte, wanted)| *byte != wanted) {
        return Err(NoHeader);
    }
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let [.., command, family, high, low] = *fixed;
    let len = usize::from(u16::from_be_bytes([high, low]));
    let header = FIXED_BYTES.saturating_add(len);
    if header > HEADER_BYTES_MAX {
        return Err(NoHeader);
    }
    let addresses = match (command, family >> 4, family & 15) {
        // LOCAL: whatever else it says is passed over.
        (0x20, _, _) => 0,
        (0x21, 1, 1) => 12,
        (0x21, 2, 1) => 36,
        // Not known, UNIX sockets, or UDP.
        (0x21, 0..=3, 0..=2) => 0,
        _ => return Err(NoHeader),
    };
    if len < addresses {
        return Err(NoHeader);
    }
    let Some(rest) = rest.get(..len) else { return Ok(None) };
    let client = match addresses {
        12 => from_v4(rest),
        36 => from_v6(rest),
        _ => None,
    };
    Ok(Some(Header { bytes: header, client }))
}

fn from_v4(rest: &[u8]) -> Option<SocketAddr> {
    let [a, b, c, d, _, _, _, _, high, low, ..] = *rest.first_chunk::<12>()?;
    let port = u16::from_be_bytes([high, low]);
    Some(SocketAddr::from((Ipv4Addr::new(a, b, c, d), port)))
}

fn from_v6(rest: &[u8]) -> Option<SocketAddr> {
    let (from, rest) = rest.split_first_chunk::<16>()?;
    let (_to, rest) = rest.split_first_chunk::<16>()?;
    let port = u16::from_be_bytes(*rest.first_chunk()?);
    Some(SocketAddr::from((Ipv6Addr::from(*from), port)))
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
