//! The hot paths of the native dialect.
//!
//! What comes in is sealed beforehand, always as much as the longer of the two runs needs: so the
//! clients' work is the same in both, and is not in the difference.

use std::hint::black_box;

use wardline_core::Duration;
use wardline_core::native::{ClientControl, FrameKind, Next, Record, Start, digest};

use super::units::ends::{NOW, connection, keys};
use super::units::hall::{Hall, Member, body};

const TOPIC: &str = "agents/everybody";
/// Frames of a full record.
const FRAMES: usize = 64;
/// Records that a laggard does not take.
const LAG_RECORDS: usize = 8;

/// A control value that subscribes to a topic.
pub(super) fn controls(times: u64) {
    let value = ClientControl::Subscribe {
        ask: 7,
        name: TOPIC,
        from: Start::Now,
        echo: true,
        presence: false,
    };
    let bytes = value.encode().expect("good");
    for _ in 0..times {
        assert_eq!(ClientControl::decode(black_box(bytes.as_bytes())), Ok(value));
    }
}

/// A record with so many frames is opened: its header, its tag, each frame's form.
pub(super) fn record_open(times: u64, frames: usize) {
    let (.., client, server) = connection(&keys());
    let body = body(&mut 1, (FrameKind::Publish, 1, 0), frames);
    let len = u32::try_from(body.len()).expect("a body");
    let header = client.records().sending.frames(len, &digest(&body)).expect("a record");
    let record = [&header[..], &body].concat();
    let fresh = server.records();
    for _ in 0..times {
        let mut records = fresh;
        let opened = records.next(NOW, black_box(&record));
        assert!(matches!(opened, Ok(Next::Record(Record::Frames(_), _))), "{opened:?}");
    }
}

/// Who publishes, to which number, in a hall where so many others read.
fn publisher(readers: u32) -> (Hall, Member, u32, Vec<Member>) {
    let mut hall = Hall::new();
    let mut member = hall.enter(0);
    let topic = hall.open(&mut member, TOPIC);
    let readers = (1..=readers).map(|number| {
        let mut reader = hall.enter(number);
        hall.subscribe(&mut reader, TOPIC);
        reader
    });
    let readers = readers.collect();
    hall.listen_to_nobody();
    (hall, member, topic, readers)
}

/// So many records of so many frames.
fn sealed(member: &mut Member, topic: u32, records: u64, frames: usize) -> Vec<Vec<u8>> {
    (0..records).map(|_| member.publish(topic, frames)).collect()
}

/// Frames of full records are kept for whoever comes later.
pub(super) fn frames_in(times: u64) {
    const TIMES_MAX: u64 = 400;
    let (mut hall, mut member, topic, _) = publisher(0);
    let records = sealed(&mut member, topic, TIMES_MAX, FRAMES);
    for record in &records[..times as usize] {
        hall.hear(member.conn, black_box(record));
        hall.drain();
    }
}

/// A frame goes out to so many readers, all at the head. `half`: of the longer run.
pub(super) fn native_turns(times: u64, half: u64, readers: u32) {
    let (mut hall, mut member, topic, _readers) = publisher(readers);
    let records = sealed(&mut member, topic, 2 * half, 1);
    let before = hall.sent();
    for record in &records[..times as usize] {
        hall.hear(member.conn, black_box(record));
        hall.drain();
    }
    // A record's header, a frame's, and 64 bytes.
    let each = 32 + 48 + 64;
    assert_eq!(hall.sent() - before, each * (times * u64::from(readers)) as usize);
}

/// Full records come in one by one. Who lags takes none of them, and then all together.
pub(super) fn lagging(times: u64, half: u64, somebody: bool) {
    let (mut hall, mut member, topic, readers) = publisher(u32::from(somebody));
    let records = sealed(&mut member, topic, 2 * half * LAG_RECORDS as u64, FRAMES);
    readers.iter().for_each(|reader| hall.stick(reader));
    let before = hall.sent();
    for records in records.chunks(LAG_RECORDS).take(times as usize) {
        for record in records {
            hall.hear(member.conn, black_box(record));
            hall.drain();
        }
        readers.iter().for_each(|reader| hall.catch_up(reader));
    }
    let frames = times as usize * LAG_RECORDS * FRAMES * (48 + 64);
    assert!(!somebody || hall.sent() - before > frames, "not all of it came");
}

/// A message from one peer to another.
pub(super) fn directs(times: u64) {
    const TIMES_MAX: u64 = 2_000;
    let mut hall = Hall::new();
    let (mut from, to) = (hall.enter(0), hall.enter(1));
    hall.listen_to_nobody();
    let records: Vec<_> = (0..TIMES_MAX).map(|_| from.direct(to.handle)).collect();
    let before = hall.sent();
    for record in &records[..times as usize] {
        hall.hear(from.conn, black_box(record));
        hall.drain();
    }
    assert_eq!(hall.sent() - before, (32 + 48 + 64) * times as usize);
}

/// A PING and its PONG.
pub(super) fn pings(times: u64) {
    const TIMES_MAX: u64 = 2_000;
    let mut hall = Hall::new();
    let mut member = hall.enter(0);
    hall.listen_to_nobody();
    let pings: Vec<_> = (0..TIMES_MAX).map(|nth| member.ping(nth)).collect();
    let before = hall.sent();
    for ping in &pings[..times as usize] {
        // As often as that may be asked.
        hall.wait(Duration::from_millis(10));
        hall.hear(member.conn, black_box(ping));
        hall.drain();
    }
    assert_eq!(hall.sent() - before, 40 * times as usize);
}
