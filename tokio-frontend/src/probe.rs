//! How much of what was sent a peer has not acknowledged.
//!
//! On Linux the kernel's socket diagnostics say it (netlink, `sock_diag(7)`), asked for exactly one
//! connection: the same figure as the ioctl `SIOCOUTQ`, without unsafe code. Elsewhere, and where a
//! sandbox forbids netlink, nobody can tell, and the core is told so.

use std::net::SocketAddr;

/// Asks the kernel.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    #[cfg(all(target_os = "linux", not(wardline_portable)))]
    inner: linux::Diag,
}

impl Probe {
    /// Bytes that the peer of the connection from `local` to `remote` has not acknowledged.
    #[cfg(all(target_os = "linux", not(wardline_portable)))]
    pub(crate) fn unacknowledged(&mut self, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
        self.inner.ask(local, remote)
    }

    /// Nobody can tell.
    #[cfg(not(all(target_os = "linux", not(wardline_portable))))]
    #[allow(clippy::unused_self, reason = "as on Linux")]
    pub(crate) fn unacknowledged(&mut self, _: SocketAddr, _: SocketAddr) -> Option<u32> {
        None
    }
}

#[cfg(all(target_os = "linux", not(wardline_portable)))]
mod linux {
    use std::net::{IpAddr, SocketAddr};

    use rustix::fd::OwnedFd;
    use rustix::net::netlink::{self, SocketAddrNetlink};
    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
    };

    /// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
    const BY_FAMILY: u16 = 20;
    /// `NLM_F_REQUEST` of linux/netlink.h.
    const REQUEST: u16 = 1;
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    const IPPROTO_TCP: u8 = 6;
    /// nlmsghdr and inet_diag_req_v2 of linux/inet_diag.h.
    const HEADER: usize = 16;
    const QUESTION: usize = HEADER + 8 + 48;
    /// Where an answer holds the sequence number and the write queue: the header, 4 bytes, the
    /// socket's id, then expires and rqueue.
    const SEQUENCE: usize = 8;
    const WQUEUE: usize = HEADER + 4 + 48 + 8;

    #[derive(Debug, Default)]
    pub(super) struct Diag {
        socket: Option<OwnedFd>,
        refused: bool,
        sequence: u32,
    }

    impl Diag {
        pub(super) fn ask(&mut self, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
            if self.refused {
                return None;
            }
            if self.socket.is_none() {
                self.socket = open();
                self.refused = self.socket.is_none();
            }
            let socket = self.socket.as_ref()?;
            self.sequence = self.sequence.wrapping_add(1);
            let question = question(self.sequence, local, remote);
            let kernel = SocketAddrNetlink::new(0, 0);
            sendto(socket, &question, SendFlags::empty(), &kernel).ok()?;
            // The kernel has answered by the time that the question is taken. An answer to an
            // older question is passed over.
            let mut answer = [0_u8; 1024];
            for _ in 0..4 {
                let (len, _) = recv(socket, &mut answer, RecvFlags::DONTWAIT).ok()?;
                let answer = answer.get(..len)?;
                if number(answer, SEQUENCE)? == self.sequence {
                    let kind = answer.get(4..6)?;
                    let ours = kind == BY_FAMILY.to_ne_bytes();
                    return if ours { number(answer, WQUEUE) } else { None };
                }
            }
            None
        }
    }

    fn open() -> Option<OwnedFd> {
        socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::SOCK_DIAG),
        )
        .ok()
    }

    fn number(bytes: &[u8], at: usize) -> Option<u32> {
        let (number, _) = bytes.get(at..)?.split_first_chunk::<4>()?;
        Some(u32::from_ne_bytes(*number))
    }

    fn question(sequence: u32, local: SocketAddr, remote: SocketAddr) -> [u8; QUESTION] {
        let v4 = remote.is_ipv4();
        let mut out = Question { bytes: [0; QUESTION], len: 0 };
        out.put(&(QUESTION as u32).to_ne_bytes());
        out.put(&BY_FAMILY.to_ne_bytes());
        out.put(&REQUEST.to_ne_bytes());
        out.put(&sequence.to_ne_bytes());
        out.put(&[0; 4]);
        out.put(&[if v4 { AF_INET } else { AF_INET6 }, IPPROTO_TCP, 0, 0]);
        out.put(&u32::MAX.to_ne_bytes());
        out.put(&local.port().to_be_bytes());
        out.put(&remote.port().to_be_bytes());
        for addr in [local, remote] {
            match addr.ip() {
                IpAddr::V4(ip) => {
                    out.put(&ip.octets());
                    out.put(&[0; 12]);
                }
                IpAddr::V6(ip) => out.put(&ip.octets()),
            }
        }
        // Any interface, any cookie.
        out.put(&0_u32.to_ne_bytes());
        out.put(&[0xFF; 8]);
        out.bytes
    }

    struct Question {
        bytes: [u8; QUESTION],
        len: usize,
    }

    impl Question {
        fn put(&mut self, bytes: &[u8]) {
            let end = self.len + bytes.len();
            self.bytes[self.len..end].copy_from_slice(bytes);
            self.len = end;
        }
    }

    #[cfg(test)]
    mod tests {
        use std::io::{Read, Write};
        use std::net::{TcpListener, TcpStream};

        use super::*;

        fn pair(listen: &str) -> (TcpStream, TcpStream) {
            let listener = TcpListener::bind(listen).expect("a listener");
            let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("a peer");
            (listener.accept().expect("accepted").0, client)
        }

        #[test]
        fn what_a_peer_did_not_read_is_seen_and_goes_when_it_reads() {
            let mut diag = Diag::default();
            for listen in ["127.0.0.1:0", "[::1]:0"] {
                let (mut server, mut client) = pair(listen);
                let (local, remote) =
                    (server.local_addr().expect("bound"), server.peer_addr().expect("connected"));
                server.set_nonblocking(true).expect("nonblocking");
                assert_eq!(diag.ask(local, remote), Some(0), "nothing was sent to {listen}");
                let mut sent = 0;
                while let Ok(len) = server.write(&[7; 65_536]) {
                    sent += len;
                }
                let missing = diag.ask(local, remote).expect("netlink");
                assert!(missing > 0 && missing as usize <= sent, "{missing} of {sent}");
                let mut all = vec![0; sent];
                client.read_exact(&mut all).expect("all of it");
                let mut left = missing;
                for _ in 0..1_000 {
                    left = diag.ask(local, remote).expect("netlink");
                    if left == 0 {
                        break;
                    }
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                assert_eq!(left, 0);
                drop((server, client));
                // A connection that is none is not guessed.
                assert_eq!(diag.ask(local, SocketAddr::new(remote.ip(), 1)), None);
            }
        }
    }
}
