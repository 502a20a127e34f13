//! A client of the line dialect: blocking, and never for longer than it was told.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::PATIENCE;

/// How to connect.
#[derive(Debug)]
pub(crate) struct Dial {
    to: SocketAddr,
    from: Option<IpAddr>,
    receive_buffer_bytes: Option<usize>,
    client: Option<SocketAddr>,
}

impl Dial {
    pub(crate) fn new(to: SocketAddr) -> Self {
        Self { to, from: None, receive_buffer_bytes: None, client: None }
    }

    /// Comes from this address, with any port.
    #[cfg(target_os = "linux")]
    pub(crate) fn from(mut self, from: IpAddr) -> Self {
        self.from = Some(from);
        self
    }

    /// Lets the kernel hold only so much that was not read.
    pub(crate) fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer_bytes = Some(bytes);
        self
    }

    /// Is a proxy's connection, for that client.
    pub(crate) fn for_client(mut self, client: SocketAddr) -> Self {
        self.client = Some(client);
        self
    }

    pub(crate) fn connect(self) -> Client {
        let to = self.to;
        self.try_connect().unwrap_or_else(|e| panic!("cannot connect to {to}: {e}"))
    }

    pub(crate) fn try_connect(self) -> io::Result<Client> {
        let mut stream = dial(self.to, self.from, self.receive_buffer_bytes)?;
        let address = match self.client {
            Some(client) => {
                stream.write_all(&proxy_header(client, self.to))?;
                client
            }
            None => stream.local_addr()?,
        };
        Ok(Client { stream, address, unread: Vec::new(), taken: 0, ended: None })
    }
}

/// A socket of any dialect. Its port is no other's: left to itself, the kernel lets two sockets
/// have the same one when they go to different listeners, and tests tell clients apart by address.
pub(super) fn dial(
    to: SocketAddr,
    from: Option<IpAddr>,
    receive_buffer_bytes: Option<usize>,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    // Before it connects: the window is offered then.
    if let Some(bytes) = receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(&SocketAddr::new(from.unwrap_or(to.ip()), 0).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// What a proxy says first: PROXY, version 2, by another hand than the relay's.
pub(crate) fn proxy_header(client: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut addresses = Vec::new();
    let family = match (client.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            addresses.extend(from.octets());
            addresses.extend(to.octets());
            0x11
        }
        (IpAddr::V6(from), _) => {
            addresses.extend(from.octets());
            addresses.extend([0; 16]);
            0x21
        }
        (IpAddr::V4(_), IpAddr::V6(_)) => panic!("of two families"),
    };
    addresses.extend(client.port().to_be_bytes());
    addresses.extend(to.port().to_be_bytes());
    // What else a proxy may tell: its own kind, three bytes of it.
    addresses.extend([0xE0, 0, 3, b'a', b'b', b'c']);
    let mut header = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A\x21".to_vec();
    header.push(family);
    header.extend([0, u8::try_from(addresses.len()).expect("it is short")]);
    header.extend(addresses);
    header
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Eof,
    Reset,
}

/// What a client heard.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A whole line, with its newline.
    Line(String),
    /// The end, and what was left of a line.
    End(End, Vec<u8>),
    /// Nothing (more) in the time given.
    Silence,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    address: SocketAddr,
    unread: Vec<u8>,
    /// How much of `unread` was handed out.
    taken: usize,
    ended: Option<End>,
}

impl Client {
    /// Our end, as the relay sees it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What others are sent when this client says `content`.
    pub(crate) fn envelope(&self, content: &str) -> String {
        // serde_json escapes exactly what the dialect does: quote, backslash, and below 0x20.
        let content = serde_json::Value::from(content);
        format!("{{\"content\":{content},\"remote_addr\":\"{}\"}}\n", self.address)
    }

    /// Writes these bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap_or_else(|e| panic!("{} cannot write: {e}", self.address));
    }

    /// Whether it is let in: what it says comes to `host` then. Or it is told that its address is
    /// refused, or ends.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_let_in(&mut self, content: &str, host: &mut Self) -> bool {
        const LOOK: Duration = Duration::from_millis(20);
        let _ = self.try_send(format!("{content}\n").as_bytes());
        let said = self.envelope(content);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            while let Heard::Line(line) = host.hear(LOOK) {
                if line == said {
                    return true;
                }
            }
            match self.hear(LOOK) {
                Heard::Line(line) if line.contains("refused for a while") => return false,
                Heard::End(..) => return false,
                // What others say in the room.
                Heard::Line(_) | Heard::Silence => {}
            }
        }
        panic!("{} is neither let in nor refused", self.address);
    }

    /// Writes these bytes to a relay that may have closed.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says one line.
    pub(crate) fn say(&mut self, content: &str) {
        self.send(format!("{content}\n").as_bytes());
    }

    /// A second handle, to write from another thread.
    pub(crate) fn writer(&self) -> TcpStream {
        self.stream.try_clone().expect("a second handle")
    }

    /// Ends our direction; the other stays.
    pub(crate) fn finish_writing(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("still connected");
    }

    /// Ends the connection with a reset.
    pub(crate) fn abort(self) {
        let socket = Socket::from(self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("lingering can be set");
    }

    /// The next line, with its newline; a case that gets none fails.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        match self.hear(PATIENCE) {
            Heard::Line(line) => line,
            Heard::End(end, part) => {
                let part = shortened(&String::from_utf8_lossy(&part));
                panic!("{} expected a line, but: {end:?} after {part:?}", self.address)
            }
            Heard::Silence => panic!("{} expected a line, heard nothing", self.address),
        }
    }

    /// Demands that the next line is this one.
    #[track_caller]
    pub(crate) fn expect(&mut self, line: &str) {
        let heard = self.line();
        // A long line in a failure says nothing: show how it begins and differs.
        if heard != line {
            let same = heard.bytes().zip(line.bytes()).take_while(|(a, b)| a == b).count();
            panic!(
                "{}: expected {} bytes {:?}, heard {} bytes {:?}, alike for {same}",
                self.address,
                line.len(),
                shortened(line),
                heard.len(),
                shortened(&heard),
            );
        }
    }

    /// Demands that the next line is a warning, and returns it.
    #[track_caller]
    pub(crate) fn expect_warning(&mut self) -> String {
        let line = self.line();
        assert!(line.starts_with("Warning: "), "expected a warning, heard {}", shortened(&line));
        line
    }

    /// What comes next within this time.
    pub(crate) fn hear(&mut self, within: Duration) -> Heard {
        let deadline = Instant::now() + within;
        let mut searched = 0;
        loop {
            let waiting = &self.unread[self.taken..];
            if let Some(at) = waiting[searched..].iter().position(|&b| b == b'\n') {
                let line = waiting[..=searched + at].to_vec();
                self.taken += line.len();
                return Heard::Line(String::from_utf8(line).expect("the relay writes UTF-8"));
            }
            searched = waiting.len();
            if let Some(end) = self.ended {
                return Heard::End(end, self.take_unread());
            }
            if !self.fill(deadline) {
                return Heard::Silence;
            }
        }
    }

    /// Whether anything can be read by this time; it stays unread.
    pub(crate) fn hears_by(&mut self, deadline: Instant) -> bool {
        while self.taken == self.unread.len() {
            if self.ended.is_some() || !self.fill(deadline) {
                return false;
            }
        }
        true
    }

    /// All that comes until the connection ends, and how it does.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, End) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.ended {
                return (self.take_unread(), end);
            }
            assert!(self.fill(deadline), "{} was not closed in {PATIENCE:?}", self.address);
        }
    }

    /// The next bytes, at most so many, as soon as any come.
    pub(crate) fn some(&mut self, bytes_max: usize, within: Duration) -> Vec<u8> {
        let mut buffer = vec![0; bytes_max];
        self.stream.set_read_timeout(Some(within)).expect("a timeout can be set");
        assert_eq!(self.taken, self.unread.len(), "reads either lines or bytes");
        match self.stream.read(&mut buffer) {
            Ok(n) => buffer.truncate(n),
            Err(e) => panic!("{} cannot read: {e}", self.address),
        }
        buffer
    }

    /// Demands that the connection is closed without another byte.
    #[track_caller]
    pub(crate) fn expect_closed(&mut self) {
        let (rest, _) = self.rest();
        assert!(rest.is_empty(), "expected the end, heard {:?}", String::from_utf8_lossy(&rest));
    }

    /// Demands that the connection is closed after at most one warning, which is returned.
    #[track_caller]
    pub(crate) fn expect_closed_perhaps_warned(&mut self) -> String {
        let (rest, _) = self.rest();
        let rest = String::from_utf8(rest).expect("the relay writes UTF-8");
        let is_warning = rest.starts_with("Warning: ") && rest.find('\n') == Some(rest.len() - 1);
        assert!(rest.is_empty() || is_warning, "expected a warning and the end, heard {rest:?}");
        rest
    }

    /// Reads once; false when the time is over.
    fn fill(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero would mean for ever.
        let left = left.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left)).expect("a timeout can be set");
        if self.taken == self.unread.len() {
            self.unread.clear();
            self.taken = 0;
        }
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.ended = Some(End::Eof),
            Ok(n) => self.unread.extend(&buffer[..n]),
            Err(e) if is_timeout(&e) => return false,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.ended = Some(End::Reset),
        }
        true
    }

    fn take_unread(&mut self) -> Vec<u8> {
        let rest = self.unread.split_off(self.taken);
        self.unread.clear();
        self.taken = 0;
        rest
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}
