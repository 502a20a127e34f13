//! The client against a little relay that is honest, forgets, cuts and refuses.

mod close;
mod expired;
mod flow;
#[path = "../common/heard.rs"]
mod heard;
mod known;
mod peers;
mod reconnect;
mod server;

use std::future::Future;
use std::time::Duration;

use heard::{event, message, text};
use server::Server;
use wardline_client::{Builder, Client, Code, Event, Server as Known, SigningKey};

/// Runs a test's future on a runtime of one thread; half a minute is for ever.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(30), test).await.expect("it hangs");
    });
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// A client to be, of whoever is there.
fn builder(url: &str, seed: u8) -> Builder {
    Client::builder(url).key(key(seed)).server(Known::FirstUse)
}

async fn client(server: &Server, seed: u8) -> Client {
    builder(&server.url(), seed).connect().await.expect("connected")
}

/// A client is cut, and stays away until [`back`].
fn away(server: &Server, client: &Client) {
    let mut world = server.world();
    world.knobs.alert = Some((Code::Overloaded, 0));
    let conn = world.conns.remove(&client.handle()).unwrap();
    conn.stream.shutdown(std::net::Shutdown::Both).unwrap();
}

/// Who is away may come back.
fn back(server: &Server) {
    server.world().knobs.alert = None;
}

/// Waits until it holds.
async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
