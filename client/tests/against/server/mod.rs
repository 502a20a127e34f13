//! An honest little relay of the native dialect, with the core's half of the wire: a thread for
//! each connection, everything under one lock, and faults at chosen points.

mod connection;
mod world;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use wardline_client::{Code, Identity, SigningKey};

pub(crate) use world::{Cut, Stored, World};

/// A relay that runs until the test is over.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    world: Arc<Mutex<World>>,
}

impl Server {
    /// One with the key of that seed.
    pub(crate) fn start(seed: u8) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), seed)
    }

    pub(crate) fn start_at(addr: SocketAddr, seed: u8) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        let world = Arc::new(Mutex::new(World::new(SigningKey::from_seed(&[seed; 32]))));
        let accepting = world.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let world = accepting.clone();
                thread::spawn(move || connection::serve(stream, &world));
            }
        });
        Self { addr, world }
    }

    pub(crate) fn url(&self) -> String {
        format!("native://{}", self.addr)
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(crate) fn identity(&self) -> Identity {
        self.world().key.identity()
    }

    /// Another key from now on.
    pub(crate) fn change_key(&self, seed: u8) {
        self.world().key = SigningKey::from_seed(&[seed; 32]);
    }

    /// What was published to a topic, in order.
    pub(crate) fn log(&self, topic: &str) -> Vec<String> {
        let world = self.world();
        let Some(topic) = world.topics.iter().find(|each| each.name == topic) else {
            return Vec::new();
        };
        let text = |payload: &Vec<u8>| String::from_utf8_lossy(payload).into_owned();
        topic.log.iter().map(|stored| text(&stored.payload)).collect()
    }

    /// Sessions that were resumed, and those that were made.
    pub(crate) fn sessions(&self) -> (u32, u32) {
        let world = self.world();
        (world.resumes, world.fulls)
    }

    /// All connections are cut.
    pub(crate) fn cut(&self) {
        self.world().cut_all();
    }

    /// It is started anew: it knows no session and no topic, and its connections are cut.
    pub(crate) fn forget(&self) {
        let mut world = self.world();
        world.cut_all();
        world.sessions.clear();
        world.topics.clear();
    }

    /// All connections are closed with that code.
    pub(crate) fn close(&self, code: Code, retry_ms: u32) {
        self.world().close_all(code, retry_ms);
    }
}
