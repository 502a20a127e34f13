//! A range of addresses in writing: `127.0.0.0/8`, `::1/128`, `192.0.2.7`.

use std::net::IpAddr;

use serde_json::Value;
use wardline_core::Network;

use crate::settings::Setting;

/// Reads a network; an address alone is the network of that address. A mapped IPv4 network is
/// taken for what it is compared as: IPv4.
///
/// # Errors
/// The operator's: a sentence that says what it must be.
pub fn parse_network(text: &str) -> Result<Network, String> {
    let no_network = || format!("must be a network such as 10.0.0.0/8, not {text:?}");
    let (addr, bits) = match text.split_once('/') {
        Some((addr, bits)) => (addr, Some(bits)),
        None => (text, None),
    };
    let addr: IpAddr = addr.parse().map_err(|_| no_network())?;
    let bits_max: u8 = if addr.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        // `+8` and `08` are numbers to Rust and typing errors to people.
        Some(bits) if bits.starts_with('+') || (bits.len() > 1 && bits.starts_with('0')) => {
            return Err(no_network());
        }
        Some(bits) => bits.parse::<u8>().map_err(|_| no_network())?,
        None => bits_max,
    };
    if bits > bits_max {
        return Err(format!("must have at most {bits_max} bits, in {text:?}"));
    }
    let first = first_of(addr, bits);
    if first != addr {
        return Err(format!("has bits after the prefix, {text:?}; did you mean {first}/{bits}?"));
    }
    match first.to_canonical() {
        IpAddr::V4(mapped) if bits > 96 => Ok(Network { ip: mapped.into(), bits: bits - 96 }),
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(Network { ip: first, bits }),
    }
}

impl Setting for Network {
    fn read(value: &Value) -> Result<Self, String> {
        let needs = "must be a network such as \"10.0.0.0/8\"";
        value.as_str().map_or_else(|| Err(needs.to_owned()), parse_network)
    }

    fn show(&self) -> Option<Value> {
        Some(Value::from(format!("{}/{}", self.ip, self.bits)))
    }
}

/// The first address of the network in which `addr` lies and which has so many bits.
fn first_of(addr: IpAddr, bits: u8) -> IpAddr {
    let bits = u32::from(bits);
    match addr {
        IpAddr::V4(addr) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            IpAddr::V4((addr.to_bits() & mask).into())
        }
        IpAddr::V6(addr) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            IpAddr::V6((addr.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_and_out() {
        let cases = [
            ("127.0.0.0/8", "127.255.0.1", true),
            ("127.0.0.0/8", "128.0.0.1", false),
            ("127.0.0.0/8", "::ffff:127.0.0.1", true),
            ("127.0.0.0/8", "::1", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("::/0", "2001:db8::1", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("::1/128", "::1", true),
            ("::1", "::2", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("10.0.0.0/9", "10.127.0.0", true),
            ("10.0.0.0/9", "10.128.0.0", false),
            ("::ffff:10.0.0.0/104", "10.9.9.9", true),
            ("::ffff:10.0.0.0/104", "11.0.0.0", false),
        ];
        for (text, addr, inside) in cases {
            let network = parse_network(text).unwrap();
            assert_eq!(network.contains(addr.parse().unwrap()), inside, "{addr} in {text}");
            assert_eq!(Network::read(&network.show().unwrap()), Ok(network));
        }
    }

    #[test]
    fn what_is_no_network() {
        let cases = [
            "",
            "/",
            "localhost",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0/8",
            "10.0.0.0 /8",
        ];
        for text in cases {
            assert!(parse_network(text).is_err(), "{text}");
        }
        let wrong = parse_network("10.1.2.3/8").unwrap_err();
        assert!(wrong.contains("did you mean 10.0.0.0/8?"), "{wrong}");
        assert!(Network::read(&Value::from(8)).is_err());
    }
}
