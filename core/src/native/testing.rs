//! What the tests of this folder share.

/// Numbers that follow from a seed (SplitMix64).
#[derive(Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.number().checked_rem(limit).unwrap_or(0)
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.number() as u8;
        }
    }
}

/// Bytes of a text in hexadecimal.
pub(crate) fn hex<const N: usize>(text: &str) -> [u8; N] {
    assert_eq!(text.len(), 2 * N, "{text}");
    core::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex"))
}

/// A fixed connection: the secrets, clocks and limits of the page's test vector.
pub(crate) mod pair {
    use crate::native::handshake::client::{
        Answered, Attempt, AwaitAccept, AwaitAnswer, Connected, Ended as ClientEnded, Resumption,
    };
    use crate::native::handshake::server::{
        Answer, AwaitAuth, AwaitHello, Ended, Established, Held, Waiting, Wants,
    };
    use crate::native::handshake::{Accept, Auth, Challenge, Granted, Hello, Resumed};
    use crate::native::{Ephemeral, SigningKey};
    use crate::time::Instant;

    pub(crate) const NOW: Instant = Instant::from_nanos(1_000);
    pub(crate) const HANDLE: u64 = 0x0100_0000_0A00_000B;
    pub(crate) const GRANTED: Granted = Granted {
        max_payload: 65_536,
        idle_ms: 300_000,
        msgs_per_s: 1_000,
        bytes_per_s: 8_388_608,
    };

    pub(crate) fn client_key() -> SigningKey {
        SigningKey::from_seed(&[3; 32])
    }

    pub(crate) fn server_key() -> SigningKey {
        SigningKey::from_seed(&[4; 32])
    }

    pub(crate) fn attempt<'a>(key: &'a SigningKey, resume: Option<&'a Resumption>) -> Attempt<'a> {
        Attempt {
            key,
            pin: None,
            features: 0,
            recv_max: 65_584,
            resume,
            e_c: Ephemeral::from_entropy([1; 32]),
            n_c: [if resume.is_some() { 0x0B } else { 5 }; 16],
        }
    }

    /// What a server answers to a HELLO, with everything allowed.
    pub(crate) enum Reply {
        Challenge(Challenge, AwaitAuth),
        Resumed(Resumed, Waiting),
    }

    pub(crate) fn serve_hello(
        bytes: &[u8],
        held: Option<&Held>,
        puzzle_bits: u8,
    ) -> Result<Reply, Ended> {
        let admitted = AwaitHello::new().hello(bytes)?.address(Answer::Yes)?;
        let asked = admitted.wants();
        let held = held.filter(|held| asked == Some(held.sid));
        match admitted.resume(held) {
            Wants::Resume(proven) => {
                let (resumed, waiting) =
                    proven.answer(Answer::Yes, HANDLE, &[0x0C; 16], GRANTED, NOW)?;
                Ok(Reply::Resumed(resumed, waiting))
            }
            Wants::Full(unproven) => {
                let budgeted = unproven.budget(Answer::Yes)?;
                let e_s = Ephemeral::from_entropy([2; 32]);
                let server = server_key().identity();
                let (challenge, wait) = budgeted.challenge(&server, &e_s, &[6; 16], puzzle_bits, 7);
                Ok(Reply::Challenge(challenge, wait))
            }
        }
    }

    pub(crate) fn serve_auth(
        wait: AwaitAuth,
        bytes: &[u8],
    ) -> Result<(Accept, Established), Ended> {
        let verified = wait.auth(bytes)?.budget(Answer::Yes)?.verify()?;
        let allowed = verified.allow(Answer::Yes, Answer::Yes, Answer::Yes)?;
        allowed.accept(&server_key(), HANDLE, GRANTED, NOW)
    }

    /// The client's answer to a CHALLENGE.
    pub(crate) fn client_auth(
        wait: AwaitAnswer<'_>,
        bytes: &[u8],
    ) -> Result<(Auth, AwaitAccept), ClientEnded> {
        match wait.answer(bytes, NOW)? {
            Answered::Challenged(challenged) => {
                let solution = match challenged.puzzle().solve(0, u32::MAX) {
                    crate::native::handshake::Solve::Found(solution) => solution,
                    crate::native::handshake::Solve::More(_) => unreachable!("2^32 tries"),
                };
                challenged.auth(solution, 8, 9)
            }
            Answered::Resumed(_) => panic!("nothing was to be resumed"),
        }
    }

    /// A whole full handshake: its four messages and both ends.
    pub(crate) struct Full {
        pub(crate) hello: Hello,
        pub(crate) challenge: Challenge,
        pub(crate) auth: Auth,
        pub(crate) accept: Accept,
        pub(crate) client: Connected,
        pub(crate) server: Established,
    }

    pub(crate) fn full() -> Full {
        let key = client_key();
        let (hello, wait_c) = attempt(&key, None).hello();
        let Ok(Reply::Challenge(challenge, wait_s)) = serve_hello(hello.as_bytes(), None, 0) else {
            panic!("no challenge")
        };
        let (auth, wait_c) = client_auth(wait_c, challenge.as_bytes()).expect("auth");
        let (accept, server) = serve_auth(wait_s, auth.as_bytes()).expect("accept");
        let client = wait_c.accept(accept.as_bytes(), NOW).expect("connected");
        Full { hello, challenge, auth, accept, client, server }
    }

    /// A whole resume of it.
    pub(crate) struct Again {
        pub(crate) hello: Hello,
        pub(crate) resumed: Resumed,
        pub(crate) client: Connected,
        pub(crate) waiting: Waiting,
    }

    pub(crate) fn resume(full: &Full) -> Again {
        let key = client_key();
        let resumption = full.client.resumption();
        let (hello, wait) = attempt(&key, Some(&resumption)).hello();
        let held = full.server.held();
        let Ok(Reply::Resumed(resumed, waiting)) = serve_hello(hello.as_bytes(), Some(&held), 0)
        else {
            panic!("not resumed")
        };
        let Ok(Answered::Resumed(client)) = wait.answer(resumed.as_bytes(), NOW) else {
            panic!("not resumed")
        };
        Again { hello, resumed, client, waiting }
    }
}
