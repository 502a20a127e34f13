//! How much of what was sent a peer has not acknowledged.

use std::os::fd::{AsRawFd, BorrowedFd};

/// `SIOCOUTQ` of tcp(7), which has the number of the terminals' request.
const SIOCOUTQ: libc::Ioctl = libc::TIOCOUTQ as libc::Ioctl;

/// Bytes in the socket's send queue that the peer has not acknowledged.
pub(crate) fn unacknowledged(socket: BorrowedFd<'_>) -> Option<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int to where it is told, and that is one.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCOUTQ, &raw mut bytes) };
    if done == 0 { u32::try_from(bytes).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_a_peer_did_not_read_is_seen_and_goes_when_it_reads() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let addr = listener.local_addr().expect("bound");
        let mut client = TcpStream::connect(addr).expect("a peer");
        let (mut server, _) = listener.accept().expect("accepted");
        server.set_nonblocking(true).expect("nonblocking");
        assert_eq!(unacknowledged(server.as_fd()), Some(0));
        let mut sent = 0;
        while let Ok(len) = server.write(&[7; 65_536]) {
            sent += len;
        }
        let missing = unacknowledged(server.as_fd()).expect("a TCP socket");
        assert!(missing > 0 && missing as usize <= sent, "{missing} of {sent}");
        client.read_exact(&mut vec![0; sent]).expect("all of it");
        for _ in 0..1_000 {
            if unacknowledged(server.as_fd()) == Some(0) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("read, and not acknowledged");
    }
}
