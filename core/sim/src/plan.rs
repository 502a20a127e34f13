//! What a seed decides at its start: the limits, the network's habits and how often what happens.
//! Each seed leaves most of it out and overdoes the rest (swarm testing).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wardline_core::{
    Duration, LagRule, Limits, LineLimits, ProxyLimits, QuarantineLimits, Slowdown,
};

use crate::client::{Kind, Reading};
use crate::rng::Rng;

/// What can happen in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A client connects.
    Connect,
    /// A client writes to its socket.
    Write,
    /// The frontend receives.
    Receive,
    /// A client reads from its socket.
    Read,
    /// A socket that was full can take more.
    Writable,
    /// A send under way goes on, or ends.
    Complete,
    /// A client finishes writing.
    Fin,
    /// A client resets its connection.
    Reset,
    /// Time goes on.
    Time,
    /// An input is handed over with a clock that went back.
    Backwards,
    /// A timeout that nobody asked for.
    Spurious,
    /// A completion for a connection that is gone.
    Stale,
    /// A socket that was to be closed is closed.
    CloseDone,
    /// A probe is answered.
    Answer,
    /// The relay is asked for outputs.
    Drain,
}

/// All of [`Op`].
pub(crate) const OPS: [Op; 15] = [
    Op::Connect,
    Op::Write,
    Op::Receive,
    Op::Read,
    Op::Writable,
    Op::Complete,
    Op::Fin,
    Op::Reset,
    Op::Time,
    Op::Backwards,
    Op::Spurious,
    Op::Stale,
    Op::CloseDone,
    Op::Answer,
    Op::Drain,
];

/// The habits of the frontend and of the network below it.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    /// Outputs are taken one by one instead of by `pump`.
    pub(crate) by_hand: bool,
    /// How often, in percent, a step ends with a drain.
    pub(crate) drain_percent: u32,
    /// Sends that are under way for a while, in percent.
    pub(crate) under_way_percent: u32,
    /// A send under way ends only with its last byte.
    pub(crate) wait_all: bool,
    /// Sends that are shorter than the socket would have allowed, in percent.
    pub(crate) short_percent: u32,
    /// Whether what a peer acknowledged cannot be told.
    pub(crate) blind: bool,
    /// Closes that are not done at once, in percent.
    pub(crate) slow_close_percent: u32,
    /// Whether input may come in a while after a pause (a ring's buffers).
    pub(crate) overrun: bool,
    /// Most bytes between a socket and its peer.
    pub(crate) socket_bytes: usize,
    /// Most bytes that one receive brings.
    pub(crate) receive_bytes: usize,
    /// The largest step of time in milliseconds.
    pub(crate) leap_ms: u64,
}

/// A seed's decisions.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The relay's limits.
    pub(crate) limits: Limits,
    /// Topics with a listener.
    pub(crate) topics: usize,
    /// Clients at once.
    pub(crate) clients: usize,
    /// Where clients come from.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether the quarantine exempts all of them.
    pub(crate) exempt: bool,
    /// How many of those who connect do so through a proxy, in percent.
    pub(crate) proxied_percent: u32,
    /// Slots of each table of the quarantine.
    pub(crate) bans: usize,
    /// Slots of the wheel.
    pub(crate) wheel: usize,
    /// The frontend's habits.
    pub(crate) habits: Habits,
    /// How often each op happens.
    pub(crate) weights: [u32; OPS.len()],
    /// How often each kind of client comes.
    pub(crate) kinds: [u32; Kind::ALL.len()],
    /// How often each way to read comes.
    pub(crate) readings: [u32; Reading::ALL.len()],
    /// Whether clients are told to leave by the shutdown while all is in disorder.
    pub(crate) rude_shutdown: bool,
    /// Whether the end waits until everybody is idle.
    pub(crate) idle_end: bool,
}

impl Plan {
    /// Draws one.
    pub(crate) fn draw(rng: &mut Rng<'_>) -> Self {
        let most = if rng.one_in(3) { 56 } else { 12 };
        let clients = 8 + rng.up_to(most);
        let exempt = !rng.one_in(3);
        let mut limits = memory(rng);
        turns(rng, &mut limits);
        pressure(rng, &mut limits);
        limits.line = line(rng, &limits);
        limits.connections = (clients as u32 + 4).max(8);
        if rng.one_in(3) {
            limits.connections = (clients as u32 * 2 / 3).max(4);
        }
        limits.topics = 4;
        limits.report_messages = true;
        limits.quarantine = quarantine(rng);
        limits.proxy = ProxyLimits {
            waiting: rng.pick(&[1, 3, 1_024, 1_024]),
            waiting_each: rng.pick(&[1, 2, 1_024, 1_024]),
            header: Duration::from_millis(rng.pick(&[300, 5_000])),
        };
        let wait = u64::from(limits.receive_bytes / 2);
        limits.backlog_bytes = (wait + rng.pick(&[0, 0, 100, 4_000])) as u32;
        Self {
            topics: 1 + if rng.one_in(2) { 0 } else { rng.up_to(3) },
            clients,
            addresses: addresses(rng, clients, exempt),
            exempt,
            proxied_percent: rng.pick(&[0, 0, 0, 30, 90]),
            bans: rng.pick(&[8, 8, 16, 64]),
            wheel: rng.pick(&[2, 16, 256, 4_096]),
            habits: habits(rng),
            weights: weights(rng),
            kinds: kinds(rng),
            readings: readings(rng),
            rude_shutdown: rng.one_in(4),
            idle_end: rng.one_in(3),
            limits,
        }
    }
}

fn memory(rng: &mut Rng<'_>) -> Limits {
    let block_bytes = rng.pick(&[128, 128, 160, 256, 512, 2_048]);
    let blocks = 8 + rng.pick(&[0, 4, 16, 40, 40, 120, 400]) + rng.below(8) as u32;
    let segment_bytes = (block_bytes * rng.pick(&[1, 2, 3, 8, 32])).min(16 << 10);
    let segments = rng.pick(&[0, 1, 2, 4, 16, 64]) + rng.below(3) as u32;
    let few = segment_bytes * segments < 256;
    let quiet_log_bytes =
        if few { 32 << 10 } else { rng.pick(&[0, block_bytes, block_bytes * 4, 32 << 10]) };
    Limits { block_bytes, blocks, segment_bytes, segments, quiet_log_bytes, ..Limits::DEFAULT }
}

fn turns(rng: &mut Rng<'_>, limits: &mut Limits) {
    limits.topic_turn_bytes = rng.pick(&[1, 200, 2_000, 128 << 10, 128 << 10]);
    limits.share_bytes = rng.pick(&[1, 64, 500, 2_000]);
    limits.receive_bytes = limits.share_bytes.max(rng.pick(&[16, 200, 1_000, 4_000]));
    limits.turn_sent_bytes = rng.pick(&[1, 500, 4 << 20, 4 << 20]);
    let small = limits.pool_bytes() <= 16 << 10;
    let least = if small { 1 } else { 60 };
    limits.send_bytes = rng.pick(&[7, 64, 300, 4_096, 128 << 10, 128 << 10]).max(least);
    limits.slow_send_bytes = rng.pick(&[1, 20, 100, 1_000, 16 << 10]).max(least);
}

fn pressure(rng: &mut Rng<'_>, limits: &mut Limits) {
    let ms = Duration::from_millis;
    limits.lag_rule = rng.pick(&[LagRule::Cut, LagRule::Gap, LagRule::Gap, LagRule::Pace]);
    let pool = limits.pool_bytes();
    limits.lag_bytes = rng.pick(&[0, 0, 150, 500, 2_000, pool / 2, pool * 2]);
    limits.progress = ms(rng.pick(&[500, 3_000, 10_000]));
    limits.progress_blind = limits.progress.times(3);
    limits.pace = ms(rng.pick(&[200, 2_000, 10_000]));
    limits.pace_delay = ms(rng.pick(&[1, 20, 100]));
    limits.unfinished = ms(rng.pick(&[300, 3_000, 10_000]));
    limits.linger = ms(rng.pick(&[10, 500, 2_000]));
    limits.drain = ms(rng.pick(&[50, 2_000, 10_000]));
    limits.drain_spread = ms(rng.pick(&[0, 150, 2_000, 10_000]));
    limits.drain_at_once = rng.pick(&[1, 1, 3, 256]);
    limits.warnings_per_second = rng.pick(&[0, 1, 10, 1_000]);
}

fn line(rng: &mut Rng<'_>, limits: &Limits) -> LineLimits {
    // What one log holds: some blocks, then segments. A message must fit.
    let quiet = limits.quiet_log_bytes.min(limits.block_bytes * limits.blocks / 2);
    let log = quiet + limits.segment_bytes * limits.segments;
    let quarter = u32::try_from(limits.pool_bytes() / 4).unwrap_or(u32::MAX);
    let most = quarter.min(log / 2);
    let delay = Duration::from_millis(rng.pick(&[1, 10, 50]));
    let mut slowdown = |one_in| {
        let threshold_messages = rng.pick(&[0, 3, 20]);
        rng.one_in(one_in).then_some(Slowdown { threshold_messages, delay })
    };
    let (throttle, flow_control) = (slowdown(5), slowdown(8));
    LineLimits {
        line_bytes_max: rng.pick(&[64, 64, 100, 300, 1_000, 4_000]),
        envelope_bytes_max: rng.pick(&[128, 200, 300, 1_000, 5_000]).min(most),
        messages_per_minute: rng.pick(&[0, 0, 0, 10, 60, 300, 6_000]),
        idle: Duration::from_millis(rng.pick(&[0, 2_000, 30_000, 300_000])),
        listening_is_activity: !rng.one_in(4),
        coalesce: Duration::from_millis(rng.pick(&[0, 0, 0, 1, 10, 50])),
        throttle,
        flow_control,
        disconnect_threshold_messages: rng.one_in(6).then(|| rng.pick(&[0, 2, 10])),
    }
}

fn quarantine(rng: &mut Rng<'_>) -> QuarantineLimits {
    QuarantineLimits {
        threshold_points: rng.pick(&[10, 15, 40, 100]),
        point: Duration::from_millis(rng.pick(&[500, 6_000])),
        cooldown: Duration::from_millis(rng.pick(&[1_000, 600_000])),
        connects_per_minute: rng.pick(&[15, 60, 1_000]),
        connections_per_prefix: rng.pick(&[3, 256, 256]),
    }
}

fn addresses(rng: &mut Rng<'_>, clients: usize, exempt: bool) -> Vec<IpAddr> {
    // Who is not exempt needs somewhere else to come from once he is banned.
    let many = if exempt { 1 + rng.up_to(6) } else { 4 + rng.up_to(clients * 2) };
    let networks = rng.pick(&[1, 4, 60]);
    (0..many)
        .map(|n| {
            let (net, host) = (rng.below(networks) as u8, n as u8);
            match rng.below(6) {
                0 => IpAddr::V6(Ipv4Addr::new(10, 1, net, host).to_ipv6_mapped()),
                1 => {
                    let group = u16::from(net);
                    IpAddr::V6(Ipv6Addr::new(0x2001, 0xDB8, 7, group, 0, 0, 0, u16::from(host)))
                }
                _ => IpAddr::V4(Ipv4Addr::new(10, 0, net, host)),
            }
        })
        .collect()
}

fn habits(rng: &mut Rng<'_>) -> Habits {
    Habits {
        by_hand: rng.one_in(4),
        drain_percent: rng.pick(&[100, 100, 80, 40, 15]),
        under_way_percent: rng.pick(&[0, 0, 30, 100, 100]),
        wait_all: rng.one_in(3),
        short_percent: rng.pick(&[0, 10, 60]),
        blind: rng.one_in(4),
        slow_close_percent: rng.pick(&[0, 30, 100]),
        overrun: rng.one_in(3),
        socket_bytes: rng.pick(&[1, 50, 300, 1_000, 1_000, 4_000, 64_000]),
        receive_bytes: rng.pick(&[1, 7, 60, 1_000, 64_000]),
        leap_ms: rng.pick(&[2, 50, 50, 400, 3_000]),
    }
}

fn weights(rng: &mut Rng<'_>) -> [u32; OPS.len()] {
    OPS.map(|op| match op {
        Op::Connect => rng.pick(&[20, 60]),
        Op::Write => rng.pick(&[100, 200]),
        Op::Receive => rng.pick(&[200, 300]),
        Op::Read => rng.pick(&[40, 150, 300]),
        Op::Writable => rng.pick(&[30, 100]),
        Op::Complete => rng.pick(&[30, 100, 200]),
        Op::Fin => rng.pick(&[0, 4, 14]),
        Op::Reset => rng.pick(&[0, 2, 10]),
        Op::Time => rng.pick(&[20, 60, 150]),
        Op::Backwards => rng.pick(&[0, 10]),
        Op::Spurious => rng.pick(&[2, 10]),
        Op::Stale => rng.pick(&[0, 10, 30]),
        Op::CloseDone | Op::Answer => rng.pick(&[10, 40]),
        Op::Drain => rng.pick(&[10, 60]),
    })
}

fn kinds(rng: &mut Rng<'_>) -> [u32; Kind::ALL.len()] {
    let wild = !rng.one_in(4);
    Kind::ALL.map(|kind| match kind {
        Kind::Talker => 40,
        Kind::Flood => rng.pick(&[0, 5, 30]),
        Kind::Listener => rng.pick(&[5, 30]),
        Kind::Escapes => 8,
        Kind::Garbage | Kind::LongLines | Kind::Endless | Kind::Http | Kind::HalfLine => {
            if wild {
                rng.pick(&[0, 2, 8])
            } else {
                0
            }
        }
    })
}

fn readings(rng: &mut Rng<'_>) -> [u32; Reading::ALL.len()] {
    Reading::ALL.map(|reading| match reading {
        Reading::All => 40,
        Reading::Some => rng.pick(&[0, 20]),
        Reading::OneByte => rng.pick(&[0, 4]),
        Reading::Never => rng.pick(&[0, 5, 20]),
    })
}
