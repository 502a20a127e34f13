//! What the tests against a server of their own, and those against the relay, read by.

use wardline_client::{Event, Message, Subscription};

pub(crate) async fn event(subscription: &mut Subscription) -> Event {
    subscription.recv().await.expect("an event")
}

/// The next event, which is a message.
pub(crate) async fn message(subscription: &mut Subscription) -> Message {
    match event(subscription).await {
        Event::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn text(subscription: &mut Subscription) -> String {
    String::from_utf8(message(subscription).await.payload).unwrap()
}
