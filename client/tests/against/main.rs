//! The client against a little relay that is honest, forgets, cuts and refuses.

mod close;
mod flow;
mod known;
mod peers;
mod reconnect;
mod server;

use std::future::Future;
use std::time::Duration;

use server::Server;
use wardline_client::{Client, Event, Message, SigningKey, Subscription};

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

async fn client(server: &Server, seed: u8) -> Client {
    Client::connect(&server.url(), key(seed)).await.expect("connected")
}

async fn event(subscription: &mut Subscription) -> Event {
    subscription.recv().await.expect("an event")
}

/// The next event, which is a message.
async fn message(subscription: &mut Subscription) -> Message {
    match event(subscription).await {
        Event::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

async fn text(subscription: &mut Subscription) -> String {
    String::from_utf8(message(subscription).await.payload).unwrap()
}

/// Waits until it holds.
async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
