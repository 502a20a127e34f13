//! What a seed decides at its start. As in the simulation of lines, each seed leaves most of it out
//! and overdoes the rest.

use wardline_core::{Duration, LagRule, Limits, LineLimits, NativeLimits, QuarantineLimits};

use super::struck::PUZZLE_BITS;
use crate::rng::Rng;

/// A seed's decisions.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) limits: Limits,
    /// Relays, with clients of both dialects; the first one is home to all topics.
    pub(crate) shards: usize,
    /// Native clients, clients of lines, and clients that mean no good.
    pub(crate) agents: usize,
    pub(crate) texts: usize,
    pub(crate) wild: usize,
    /// Slots: of subscriptions, sessions, handshakes, digests.
    pub(crate) subs: usize,
    pub(crate) entries: usize,
    pub(crate) half_open: usize,
    pub(crate) digests: usize,
    /// Names of topics that are used, the first ones with a listener of lines.
    pub(crate) names: usize,
    /// Bytes of a payload at most, most of the time.
    pub(crate) payload: usize,
    /// Most bytes between a socket and its peer, and in one receive.
    pub(crate) socket_bytes: usize,
    pub(crate) receive_bytes: usize,
    /// In percent: sends under way for a while, sends that are short, steps that end with a drain,
    /// closes that are not done at once.
    pub(crate) under_way: u32,
    pub(crate) short: u32,
    pub(crate) drain: u32,
    pub(crate) slow_close: u32,
    /// What a peer acknowledged cannot be told.
    pub(crate) blind: bool,
    /// Addresses are subject to the quarantine; and how many there are.
    pub(crate) strict: bool,
    /// The operator knows some who mean no good, and each fault of theirs is a strike.
    pub(crate) known_wild: bool,
    /// How many come through a proxy, in percent.
    pub(crate) proxied: u32,
    pub(crate) hosts: u64,
    /// How often what happens, in a thousand steps.
    pub(crate) often: Often,
    /// The largest ordinary step of time in milliseconds.
    pub(crate) tick_ms: u64,
}

/// How often what happens, in ten thousand steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Often {
    pub(crate) reset: u32,
    pub(crate) fin: u32,
    pub(crate) flip: u32,
    pub(crate) leap: u32,
    pub(crate) race: u32,
    pub(crate) restart: u32,
    pub(crate) rights: u32,
    pub(crate) replay: u32,
    pub(crate) close: u32,
    pub(crate) noise: u32,
    pub(crate) lazy: u32,
}

impl Plan {
    /// Draws one.
    pub(crate) fn draw(rng: &mut Rng<'_>) -> Self {
        // Now and then more than fit a page of answers.
        let many = if rng.one_in(12) { 20 } else { rng.pick(&[0, 3, 13]) };
        let agents = if many == 20 { 20 } else { 3 + rng.up_to(many) };
        let shards = if rng.one_in(2) { rng.pick(&[2, 2, 3, 4]) } else { 1 };
        let texts = if shards > 1 { rng.pick(&[2, 4, 6]) } else { rng.pick(&[0, 1, 2, 4]) };
        let strict = rng.one_in(3);
        let known_wild = strict && rng.one_in(2);
        let wild = if known_wild { 2 } else { rng.pick(&[0, 0, 1, 3]) };
        let names = if many == 20 { 1 } else { 1 + rng.up_to(6) };
        let often = often(rng);
        let mut limits = limits(rng, names);
        if shards > 1 {
            // What waits for another shard has a quarter of the blocks.
            let most = limits.blocks / 4 * limits.block_bytes;
            limits.line.envelope_bytes_max = limits.line.envelope_bytes_max.min(most);
        }
        let plenty = !rng.one_in(3);
        if known_wild {
            limits.quarantine.threshold_points = 25;
        }
        Self {
            shards,
            agents,
            texts,
            wild,
            subs: if plenty { 200 } else { 2 + rng.up_to(agents * 2) },
            entries: if plenty { 64 } else { 2 + rng.up_to(agents) },
            half_open: if rng.one_in(4) { 2 } else { 90 },
            digests: rng.pick(&[1, 4, 64]),
            names,
            payload: rng.pick(&[20, 60, 300, 1_010]),
            socket_bytes: rng.pick(&[100, 300, 1_000, 4_000, 64_000, 64_000]),
            receive_bytes: rng.pick(&[2, 30, 100, 1_000, 64_000, 64_000]),
            under_way: rng.pick(&[0, 0, 30, 100]),
            short: rng.pick(&[0, 0, 10, 50]),
            drain: rng.pick(&[100, 100, 70, 30]),
            slow_close: rng.pick(&[0, 30, 100]),
            blind: rng.one_in(4),
            strict,
            known_wild,
            proxied: rng.pick(&[0, 0, 30, 90]),
            hosts: 1 + rng.below(4),
            often,
            tick_ms: rng.pick(&[1, 5, 30, 200]),
            limits,
        }
    }
}

fn often(rng: &mut Rng<'_>) -> Often {
    let mut some = |most: u32| if rng.one_in(2) { 0 } else { 1 + rng.below(most.into()) as u32 };
    Often {
        reset: some(120),
        fin: some(40),
        flip: some(60),
        leap: some(60),
        race: some(80),
        restart: some(60),
        rights: some(100),
        replay: some(60),
        close: some(60),
        noise: some(60),
        lazy: some(5_000),
    }
}

fn limits(rng: &mut Rng<'_>, names: usize) -> Limits {
    let ms = Duration::from_millis;
    let block_bytes = rng.pick(&[128, 256, 256, 512, 2_048]);
    let blocks = 16_000 / block_bytes + 16 + rng.pick(&[0, 20, 100, 400]);
    let segment_bytes = (block_bytes * rng.pick(&[1, 4, 16])).min(16 << 10);
    let segments = rng.pick(&[0, 2, 8, 40]);
    let share_bytes = rng.pick(&[1, 64, 500, 2_000]);
    let receive_bytes = share_bytes.max(rng.pick(&[16, 200, 1_000, 4_000, 64_000]));
    let small = rng.one_in(2);
    let mut limits = Limits {
        connections: 60,
        topics: names as u32 + 1 - u32::from(small && names > 3),
        block_bytes,
        blocks,
        segment_bytes,
        segments,
        quiet_log_bytes: rng.pick(&[32 << 10, 32 << 10, block_bytes * 24]),
        topic_turn_bytes: rng.pick(&[1, 300, 4_000, 128 << 10, 128 << 10]),
        share_bytes,
        receive_bytes,
        backlog_bytes: receive_bytes / 2 + rng.pick(&[0, 100, 4_000]),
        turn_sent_bytes: rng.pick(&[500, 4 << 20, 4 << 20]),
        send_bytes: rng.pick(&[60, 300, 4_096, 128 << 10, 128 << 10]),
        slow_send_bytes: rng.pick(&[60, 300, 1_000, 16 << 10]),
        lag_rule: rng.pick(&[LagRule::Cut, LagRule::Gap]),
        progress: ms(rng.pick(&[500, 3_000, 10_000])),
        linger: ms(rng.pick(&[10, 500, 2_000])),
        drain: ms(rng.pick(&[50, 2_000])),
        unfinished: ms(rng.pick(&[1_000, 10_000])),
        report_messages: true,
        line: lines(rng),
        native: native(rng),
        quarantine: QuarantineLimits { connections_per_prefix: 256, ..Limits::DEFAULT.quarantine },
        ..Limits::DEFAULT
    };
    let pool = limits.pool_bytes();
    limits.lag_bytes = rng.pick(&[0, 300, 1_500, pool / 2, pool * 2]);
    limits.progress_blind = limits.progress.times(3);
    limits
}

fn lines(rng: &mut Rng<'_>) -> LineLimits {
    LineLimits {
        line_bytes_max: 400,
        envelope_bytes_max: rng.pick(&[200, 600, 1_000]),
        messages_per_minute: 0,
        idle: Duration::ZERO,
        coalesce: Duration::from_millis(rng.pick(&[0, 0, 10])),
        ..Limits::DEFAULT.line
    }
}

fn native(rng: &mut Rng<'_>) -> NativeLimits {
    let ms = Duration::from_millis;
    NativeLimits {
        payload_bytes_max: 1_024,
        messages_per_second: rng.pick(&[0, 0, 5, 100]),
        bytes_per_second: rng.pick(&[0, 0, 2_000, 1 << 20]),
        identity_messages_per_second: rng.pick(&[0, 0, 6, 100]),
        identity_bytes_per_second: rng.pick(&[0, 0, 2_500, 1 << 20]),
        deliveries_per_second: rng.pick(&[0, 0, 10, 1_000]),
        retention_bytes: rng.pick(&[0, 500, 3_000, 20_000]),
        retention: ms(rng.pick(&[200, 3_000, 60_000])),
        resume: ms(rng.pick(&[500, 5_000, 60_000])),
        resume_total: ms(rng.pick(&[2_000, 100_000, 86_400_000])),
        sessions_per_identity: rng.pick(&[1, 2, 4]),
        subscriptions: rng.pick(&[2, 64]),
        puzzle_bits: rng.pick(&[0, 0, 3]),
        puzzle_bits_loaded: rng.pick(&[0, 6]),
        puzzle_bits_struck: PUZZLE_BITS,
        handshakes_per_second: rng.pick(&[2, 1_000]),
        handshakes_per_parent_second: rng.pick(&[2, 1_000]),
        handshakes_total_per_second: rng.pick(&[20, 1_000]),
        half_open_per_prefix: rng.pick(&[1, 4, 32]),
        first_byte: ms(rng.pick(&[300, 2_000])),
        handshake: ms(rng.pick(&[500, 5_000])),
        ping: ms(rng.pick(&[2_000, 30_000])),
        silence: ms(90_000),
        direct_bytes: rng.pick(&[300, 2_000, 20_000]),
        decide: ms(rng.pick(&[50, 3_000])),
    }
}
