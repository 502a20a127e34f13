//! Both ends of a handshake by themselves, without a relay between.

use wardline_core::Instant;
use wardline_core::native::handshake::client::{Answered, Attempt, AwaitAccept, Connected};
use wardline_core::native::handshake::server::{Answer, AwaitAuth, AwaitHello, Established, Wants};
use wardline_core::native::handshake::{Accept, Auth, Challenge, Granted, Hello};
use wardline_core::native::{Ephemeral, SigningKey};

/// When everything happens.
pub(crate) const NOW: Instant = Instant::from_nanos(1);
const GRANTED: Granted =
    Granted { max_payload: 65_536, idle_ms: 300_000, msgs_per_s: 1_000, bytes_per_s: 1 << 23 };

/// Who both are.
pub(crate) struct Keys {
    pub(crate) client: SigningKey,
    pub(crate) server: SigningKey,
}

/// Two keys.
pub(crate) fn keys() -> Keys {
    Keys { client: SigningKey::from_seed(&[3; 32]), server: SigningKey::from_seed(&[4; 32]) }
}

/// What a client begins with.
fn attempt(keys: &Keys) -> Attempt<'_> {
    Attempt {
        key: &keys.client,
        pin: None,
        features: 0,
        recv_max: 65_584,
        resume: None,
        e_c: Ephemeral::from_entropy([1; 32]),
        n_c: [5; 16],
    }
}

/// The server's first step.
pub(crate) fn challenge(keys: &Keys, hello: &[u8]) -> (Challenge, AwaitAuth) {
    let admitted = AwaitHello::new().hello(hello).expect("good").address(Answer::Yes);
    let Wants::Full(unproven) = admitted.expect("yes").resume(None) else { unreachable!() };
    let e_s = Ephemeral::from_entropy([2; 32]);
    let budgeted = unproven.budget(Answer::Yes).expect("yes");
    budgeted.challenge(&keys.server.identity(), &e_s, &[6; 16], 0, 7)
}

/// The client's second step.
pub(crate) fn auth(keys: &Keys, challenge: &[u8]) -> (Auth, AwaitAccept) {
    let (_, wait) = attempt(keys).hello();
    let Ok(Answered::Challenged(challenged)) = wait.answer(challenge, NOW) else { unreachable!() };
    challenged.auth(0, 8, 9).expect("good")
}

/// The server's second step.
pub(crate) fn accept(keys: &Keys, wait: AwaitAuth, auth: &[u8]) -> (Accept, Established) {
    let claimed = wait.auth(auth).expect("good").budget(Answer::Yes).expect("yes");
    let verified = claimed.verify().expect("good");
    let allowed = verified.allow(Answer::Yes, Answer::Yes, Answer::Yes).expect("yes");
    allowed.accept(&keys.server, 1 << 56 | 1, GRANTED, NOW).expect("good")
}

/// All messages of a full handshake, and both ends after it.
pub(crate) fn connection(keys: &Keys) -> (Hello, Challenge, Auth, Accept, Connected, Established) {
    let (hello, _) = attempt(keys).hello();
    let (challenge, wait_s) = challenge(keys, hello.as_bytes());
    let (auth, wait_c) = auth(keys, challenge.as_bytes());
    let (accept, server) = accept(keys, wait_s, auth.as_bytes());
    let client = wait_c.accept(accept.as_bytes(), NOW).expect("good");
    (hello, challenge, auth, accept, client, server)
}
