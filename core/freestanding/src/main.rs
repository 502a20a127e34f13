//! The core without an operating system below it: no std, no libc, no heap, static memory, 64 KiB
//! of RAM for eight connections.
//!
//! The program links the core, relays messages between eight clients that are arrays, and checks
//! every byte that they get against a description of what must come. It shows, too, how a device
//! that is a client keeps what must outlive its power. It prints a line per check
//! and exits 0; at the first thing that is not so it says what, and exits 1.
#![no_std]
#![no_main]

mod clients;
mod epoch;
mod machine;
mod script;
mod storage;
mod world;

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use wardline_core::{Duration, Refusal};

use clients::Takes;
use machine::{STACK_BYTES, exit, print, print_number, stack_used};
use script::Chapter;
use storage::CLIENTS;
use world::World;

const RATE: &[u8] = b"Warning: You are sending messages too quickly. Please slow down.\n";
const SLOW: &[u8] = b"Warning: You were disconnected because you read too slowly.\n";
const SHUTDOWN: &[u8] = b"Warning: Server is shutting down.\n";
const LONG: &[u8] = b"Warning: Your line is over the limit of 1024 bytes and was not relayed.\n";

/// The program, on its own stack.
extern "C" fn main() -> ! {
    let Some(storage) = storage::lend() else { fail("the memory is lent twice") };
    let mut world = World::new(storage);
    world.begin(Chapter::All);
    everybody_connects(&mut world);
    messages_go_round(&mut world);
    lines_come_in_pieces(&mut world);
    long_lines_are_skipped(&mut world);
    who_is_too_fast_is_told(&mut world);
    the_slow_reader_is_cut(&mut world);
    the_hostile_address_is_refused(&mut world);
    newcomers_take_the_free_places(&mut world);
    broken_sockets_are_closed(&mut world);
    the_drain_ends_all(&mut world);
    epoch::it_never_goes_back();
    the_stack_was_enough();
    exit(0)
}

/// Ends the program: something is not so.
pub fn fail(what: &str) -> ! {
    print("FAILED: ");
    print(what);
    print("\n");
    exit(1)
}

fn claim(holds: bool, what: &str) {
    if !holds {
        fail(what);
    }
}

fn passed(what: &str) {
    print("ok: ");
    print(what);
    print("\n");
}

/// Nobody got a wrong byte; everybody whom nothing holds up has read all that was said.
fn everybody_has_everything(world: &mut World) {
    let next = world.next;
    for (me, client) in world.clients.iter() {
        claim(client.wrong == 0, "a client got bytes that it should not have");
        if client.conn.is_none() || client.takes.is_stuck() || client.finished {
            continue;
        }
        claim(client.is_between(), "a client got half a message");
        while client.next < next && script::author(client.next) == me {
            client.next += 1;
        }
        claim(client.next == next, "a client did not get every message");
    }
    claim(world.clients.strangers == 0, "the relay spoke of connections that are gone");
}

fn everybody_connects(world: &mut World) {
    let takes = [
        Takes::All,
        Takes::Some(1),
        Takes::Some(7),
        Takes::Later,
        Takes::Some(100),
        Takes::All,
        Takes::Later,
        Takes::Some(333),
    ];
    for (index, takes) in takes.into_iter().enumerate() {
        world.connect(index, takes);
    }
    let ninth = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9)), 9);
    claim(world.accept(ninth) == Err(Refusal::TooManyConnections), "a ninth client is taken");
    claim(world.relay.connections() == CLIENTS as u32, "not all clients are there");
    passed("eight clients are taken, a ninth is not");
}

fn messages_go_round(world: &mut World) {
    for _ in 0..4_000 {
        world.say_next(usize::MAX);
        world.pass(Duration::from_millis(250));
    }
    everybody_has_everything(world);
    claim(world.relay.stats().published.value() == 4_000, "not every message was taken");
    claim(world.relay.memory_used() == (0, 0), "memory is held for nothing");
    passed("4,000 messages reach everybody else in order, through full and slow sockets");
}

fn lines_come_in_pieces(world: &mut World) {
    for most in [1, 2, 3, 64, 255, 256, 257, 1] {
        for _ in 0..26 {
            world.say_next(most);
            world.pass(Duration::from_millis(250));
        }
    }
    everybody_has_everything(world);
    claim(world.relay.memory_used() == (0, 0), "memory is held for nothing");
    passed("lines that come in pieces of 1 to 257 bytes are made whole");
}

fn long_lines_are_skipped(world: &mut World) {
    let author = script::author(world.next);
    if let Some(client) = world.clients.at(author) {
        client.warning = LONG;
    }
    for _ in 0..100 {
        world.say(author, &[b'x'; 200], usize::MAX);
    }
    claim(world.relay.memory_used() == (0, 0), "an over-long line is kept");
    world.say(author, b"\n", usize::MAX);
    world.say_next(usize::MAX);
    everybody_has_everything(world);
    let warnings = world.clients.at(author).map_or(0, |client| client.warnings);
    claim(warnings == 1, "the sender of a line over the limit is not warned once");
    passed("a line over the limit is skipped, its sender is warned and stays");
}

fn who_is_too_fast_is_told(world: &mut World) {
    world.pass(Duration::from_secs(60));
    world.begin(Chapter::One);
    let hasty = script::author(world.next);
    for _ in 0..300 {
        world.say_next(usize::MAX);
    }
    if let Some(client) = world.clients.at(hasty) {
        client.warning = RATE;
        client.warnings = 0;
    }
    for _ in 0..12 {
        world.say(hasty, b"too much\n", usize::MAX);
    }
    let warnings = world.clients.at(hasty).map_or(0, |client| client.warnings);
    claim(warnings == 10, "not ten warnings in a second");
    claim(world.relay.stats().over_rate.value() == 12, "a message over the rate is relayed");
    world.pass(Duration::from_secs(60));
    everybody_has_everything(world);
    passed("300 messages a minute are taken, one more is answered by a warning");
}

fn the_slow_reader_is_cut(world: &mut World) {
    let (stuck, halfway) = (2, 6);
    for index in [stuck, halfway] {
        if let Some(client) = world.clients.at(index) {
            client.takes = if index == stuck { Takes::Once(5) } else { Takes::Never };
            client.warning = SLOW;
            client.warnings = 0;
        }
    }
    world.begin(Chapter::Six);
    let cut_before = world.relay.stats().cut.value();
    for _ in 0..200 {
        let cut = world.relay.stats().cut.value() - cut_before;
        if cut == 2 {
            break;
        }
        world.say_next(usize::MAX);
        world.pass(Duration::from_millis(50));
    }
    claim(world.relay.stats().cut.value() - cut_before == 2, "a reader that is stuck is not cut");
    for index in [stuck, halfway] {
        if let Some(client) = world.clients.at(index) {
            claim(!client.is_between(), "a reader that is cut does not stand inside a message");
            client.takes = Takes::Some(11);
        }
        world.settle();
        let warnings = world.clients.at(index).map_or(0, |client| client.warnings);
        claim(warnings == 1, "a reader that is cut is not told");
    }
    claim(world.clients.cancelled == 1, "the send under way was not cancelled");
    everybody_has_everything(world);
    world.hang_up_finished();
    claim(world.relay.connections() == 6, "a reader that was cut is still there");
    claim(world.relay.memory_used() == (0, 0), "memory is held for nobody");
    passed("a reader that is stuck is cut after the message it was in, and nobody else notices");
}

fn the_hostile_address_is_refused(world: &mut World) {
    let hostile = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5)), port);
    let mut refused = None;
    for port in 1..60 {
        world.pass(Duration::from_secs(5));
        match world.accept(hostile(port)) {
            Ok(conn) => {
                world.relay.handle_input(world.now, conn, b"\xFF\xFE\n");
                world.relay.handle_closed(world.now, conn);
                world.settle();
            }
            Err(refusal) => {
                refused = Some(refusal);
                break;
            }
        }
    }
    let Some(Refusal::Quarantined(span)) = refused else {
        fail("an address that sends what is not UTF-8 again and again is not refused")
    };
    claim(span.as_secs() >= 240, "it is refused for less than four minutes");
    claim(world.accept(hostile(60_000)).is_err(), "it comes in from another port");
    let neighbour = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 6)), 1);
    match world.accept(neighbour) {
        Ok(conn) => world.relay.handle_closed(world.now, conn),
        Err(_) => fail("its neighbour is refused"),
    }
    // Those who are there go on speaking, or they would be closed for being idle.
    for _ in 0..=span.as_secs() / 60 {
        for _ in 0..14 {
            world.say_next(usize::MAX);
        }
        world.pass(Duration::from_secs(60));
    }
    match world.accept(hostile(2)) {
        Ok(conn) => world.relay.handle_closed(world.now, conn),
        Err(_) => fail("it is refused for longer than it was told"),
    }
    world.settle();
    everybody_has_everything(world);
    passed("an address that offends is refused from any port, for as long as it was told");
}

fn newcomers_take_the_free_places(world: &mut World) {
    world.begin(Chapter::AllAgain);
    for index in [2, 6] {
        world.connect(index, Takes::Some(64));
    }
    for _ in 0..100 {
        world.say_next(usize::MAX);
        world.pass(Duration::from_millis(50));
    }
    everybody_has_everything(world);
    passed("newcomers take the places, and read from where they came in");
}

fn broken_sockets_are_closed(world: &mut World) {
    // One is noticed by a send that fails, the other by whoever reads it.
    let (writing, reading) = (2, 6);
    if let Some(client) = world.clients.at(writing) {
        client.takes = Takes::Fails;
    }
    if let Some(conn) = world.clients.at(reading).and_then(|client| client.conn) {
        world.relay.handle_broken(world.now, conn);
    }
    world.begin(Chapter::SixAgain);
    for _ in 0..14 {
        world.say_next(usize::MAX);
    }
    everybody_has_everything(world);
    claim(world.relay.connections() == 6, "a connection with a broken socket is still there");
    passed("connections with broken sockets are closed");
}

fn the_drain_ends_all(world: &mut World) {
    for _ in 0..3 {
        world.say_next(usize::MAX);
    }
    let mut connected = 0;
    for (_, client) in world.clients.iter() {
        client.warning = SHUTDOWN;
        client.warnings = 0;
        connected += usize::from(client.conn.is_some());
    }
    claim(connected == CLIENTS - 2, "somebody is missing");
    world.relay.handle_shutdown(world.now);
    world.settle();
    let late = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
    claim(world.accept(late) == Err(Refusal::ShuttingDown), "the drain takes newcomers");
    let mut told = 0;
    for (_, client) in world.clients.iter() {
        told += usize::from(client.finished && client.warnings == 1);
        claim(client.wrong == 0, "a client got bytes that it should not have");
    }
    claim(told == connected, "not everybody was told of the shutdown");
    world.hang_up_finished();
    claim(world.relay.connections() == 0, "somebody is left");
    claim(world.relay.memory_used() == (0, 0), "memory is held for nobody");
    passed("the drain flushes, warns and closes everybody");
}

fn the_stack_was_enough() {
    let used = stack_used();
    print("stack: ");
    print_number(used);
    print(" of ");
    print_number(STACK_BYTES);
    print(" bytes used\n");
    claim(used < STACK_BYTES, "the stack was used to its last byte");
    passed("the stack was enough");
}
