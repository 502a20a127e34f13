//! One connection of the little relay: handshake, then records.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, mpsc};
use std::thread;

use wardline_core::Instant;
use wardline_core::native::handshake::server::{
    Answer, AwaitHello, Ended, FirstRecord, ProvenResume, Unproven, Wants,
};
use wardline_core::native::handshake::{Granted, Type};
use wardline_core::native::{Ephemeral, Next, Record, Records};

use super::world::{Conn, World};

const GRANTED: Granted =
    Granted { max_payload: 65_536, idle_ms: 300_000, msgs_per_s: 1_000, bytes_per_s: 8_388_608 };

pub(crate) fn serve(mut stream: TcpStream, world: &Mutex<World>) {
    stream.set_nodelay(true).unwrap();
    if let Some((handle, input)) = handshake(&mut stream, world) {
        let clean = records_of(&mut stream, world, handle, input);
        world.lock().unwrap().conns.remove(&handle);
        if clean {
            // The thread that writes ends it, once the last word is out.
            return;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

fn now() -> Instant {
    Instant::from_nanos(1)
}

fn clock_ms() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

fn entropy<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// Reads until `needs` says 0. None: the other end is gone.
fn read(
    stream: &mut TcpStream,
    input: &mut Vec<u8>,
    needs: impl Fn(&[u8]) -> Result<usize, Ended>,
) -> Option<()> {
    while needs(input).ok()? > 0 {
        more(stream, input)?;
    }
    Some(())
}

fn more(stream: &mut TcpStream, input: &mut Vec<u8>) -> Option<()> {
    let mut room = [0; 4_096];
    match stream.read(&mut room) {
        Ok(0) | Err(_) => None,
        Ok(got) => {
            input.extend_from_slice(&room[..got]);
            Some(())
        }
    }
}

type Begun = (u64, Vec<u8>);

fn handshake(stream: &mut TcpStream, world: &Mutex<World>) -> Option<Begun> {
    let mut input = Vec::new();
    let wait = AwaitHello::new();
    read(stream, &mut input, |bytes| wait.needs(bytes))?;
    let admitted = wait.hello(&input).ok()?.address(Answer::Yes).ok()?;
    input.drain(..Type::Hello.size());
    let wants = {
        let mut world = world.lock().unwrap();
        if let Some((code, retry_ms)) = world.knobs.alert {
            if world.knobs.alert_once {
                world.knobs.alert = None;
            }
            let ended = Ended { code, retry_ms };
            let _ = stream.write_all(ended.alert().as_bytes());
            return None;
        }
        let sid = admitted.wants();
        let session = world.sessions.iter().find(|each| Some(each.held.sid) == sid);
        let held = session.map(|session| session.held);
        admitted.resume(held.as_ref())
    };
    match wants {
        Wants::Resume(proven) => resume(stream, world, input, proven),
        Wants::Full(unproven) => full(stream, world, input, unproven),
    }
}

fn granted(world: &World) -> Granted {
    let max_payload = world.knobs.max_payload.unwrap_or(GRANTED.max_payload);
    Granted { max_payload, ..GRANTED }
}

fn full(
    stream: &mut TcpStream,
    world: &Mutex<World>,
    mut input: Vec<u8>,
    unproven: Unproven,
) -> Option<Begun> {
    let e_s = Ephemeral::from_entropy(entropy());
    let (challenge, wait) = {
        let world = world.lock().unwrap();
        let bits = world.knobs.puzzle_bits;
        let budgeted = unproven.budget(Answer::Yes).ok()?;
        budgeted.challenge(&world.key.identity(), &e_s, &entropy(), bits, clock_ms())
    };
    stream.write_all(challenge.as_bytes()).ok()?;
    read(stream, &mut input, |bytes| wait.needs(bytes))?;
    let verified = wait.auth(&input).ok()?.budget(Answer::Yes).ok()?.verify().ok()?;
    input.drain(..Type::Auth.size());
    let allowed = verified.allow(Answer::Yes, Answer::Yes, Answer::Yes).ok()?;
    let mut world = world.lock().unwrap();
    world.handles += 1;
    let handle = world.handles;
    let granted = granted(&world);
    let (accept, established) = allowed.accept(&world.key, handle, granted, now()).ok()?;
    stream.write_all(accept.as_bytes()).ok()?;
    let (client, device) = (established.client(), established.device());
    let session = world.session(client, device, established.epoch_ms(), established.held());
    world.fulls += 1;
    begin(stream, &mut world, handle, session, established.records());
    world.say_taken(handle);
    Some((handle, input))
}

fn resume(
    stream: &mut TcpStream,
    world: &Mutex<World>,
    mut input: Vec<u8>,
    proven: ProvenResume,
) -> Option<Begun> {
    let sid = *proven.sid();
    let (handle, granted) = {
        let mut world = world.lock().unwrap();
        world.handles += 1;
        (world.handles, granted(&world))
    };
    let (resumed, mut waiting) =
        proven.answer(Answer::Yes, handle, &entropy(), granted, now()).ok()?;
    stream.write_all(resumed.as_bytes()).ok()?;
    let (records, nonce) = loop {
        match waiting.record(now(), &input).ok()? {
            FirstRecord::More(still, _) => waiting = still,
            FirstRecord::Proved(proved, Next::Record(Record::Ping(nonce), _)) => {
                break (proved.records(), nonce);
            }
            FirstRecord::Proved(..) => panic!("a client sends PING at once"),
        }
        more(stream, &mut input)?;
    };
    input.drain(..40);
    let mut world = world.lock().unwrap();
    let session = world.sessions.iter().position(|each| each.held.sid == sid)?;
    // The old connection takes nothing more.
    world.conns.retain(|_, conn| {
        let old = conn.session == session;
        if old {
            let _ = conn.stream.shutdown(Shutdown::Both);
        }
        !old
    });
    world.resumes += 1;
    begin(stream, &mut world, handle, session, records);
    world.say_taken(handle);
    world.act(handle, &Record::Ping(nonce));
    Some((handle, input))
}

/// Its answers go out by a thread of their own, so that one who does not read holds up nobody.
fn begin(stream: &TcpStream, world: &mut World, handle: u64, session: usize, records: Records) {
    let (out, waiting) = mpsc::channel::<Vec<u8>>();
    let mut writing = stream.try_clone().unwrap();
    thread::spawn(move || {
        for bytes in waiting {
            if writing.write_all(&bytes).is_err() {
                return;
            }
        }
        let _ = writing.shutdown(Shutdown::Both);
    });
    let stream = stream.try_clone().unwrap();
    let (reads, opened, mute) = (Vec::new(), Vec::new(), false);
    let conn = Conn { stream, out, records, session, reads, opened, mute };
    world.conns.insert(handle, conn);
}

/// Reads records until the end. True: both have said CLOSE.
fn records_of(
    stream: &mut TcpStream,
    world: &Mutex<World>,
    handle: u64,
    mut input: Vec<u8>,
) -> bool {
    loop {
        let mut rest = 0;
        while rest == 0 {
            let mut world = world.lock().unwrap();
            let Some(conn) = world.conns.get_mut(&handle) else { return false };
            match conn.records.next(now(), &input) {
                Ok(Next::More(missing)) => rest = missing,
                Ok(Next::Record(record, len)) => {
                    let goes_on = world.act(handle, &record);
                    match record {
                        Record::Close(_) if goes_on => rest = usize::MAX,
                        Record::Close(_) => return true,
                        _ if !goes_on => return false,
                        _ => drop(input.drain(..len)),
                    }
                }
                Err(code) => panic!("a client's fault: {code:?}"),
            }
        }
        if more(stream, &mut input).is_none() {
            return false;
        }
        if rest == usize::MAX {
            // This relay does not answer a CLOSE, after which nothing may come.
            while more(stream, &mut Vec::new()).is_some() {}
            return false;
        }
    }
}
