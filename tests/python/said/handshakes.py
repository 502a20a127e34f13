"""Handshakes that go well, and puzzles."""

from __future__ import annotations

import wardline
from recorder import Rng, Transcript
from said.forging import auth, put
from said.values import frame, value
from wardline import public


def chat(t: Transcript) -> None:
    """A little of everything, both ways."""
    rng = t.rng
    t.say("client", "ping", rng.bytes(8))
    t.say("server", "pong", bytes.fromhex(t.steps[-1]["takes"][0][1]))
    t.say("client", "frames", [frame(rng, True) for _ in range(rng.within(1, 3))])
    t.say("server", "control", *value(rng, False))
    t.say("server", "frames", [frame(rng, False) for _ in range(rng.within(1, 3))])
    t.say("client", "control", *value(rng, True))


def full() -> None:
    def one(name: str, **changes) -> None:
        t = Transcript("full", name)
        t.handshake(**changes)
        t.say("client", "ping", t.rng.bytes(8))
        t.farewell(t.rng.pick(["client", "server"]))

    one("plain")
    for device in (0, 1, 0x8000_0000, 0xFFFF_FFFF):
        one(f"device {device}", device=device)
    for features in (1, 0x8000_0000, 0xFFFF_FFFF):
        one(f"features {features:#x} offered, none chosen", features=features)
    for recv_max in (1_024, 1_025, 0xFFFF_FFFF):
        one(f"recv_max {recv_max}", recv_max=recv_max)
    for epoch_ms in (0, 1, 2**64 - 1):
        one(f"epoch {epoch_ms}", epoch_ms=epoch_ms)
    for limits in ((0, 0, 0, 0), (1, 2, 3, 4), (2**32 - 1,) * 4):
        one(f"limits {limits[0]}", limits=limits)
    for handle in (1, 0x00FF_FFFF, 0xFF00_0000_0000_0001, 2**64 - 1):
        one(f"handle {handle:#x}", handle=handle)
    one("a clock at 0", time_ms=0)
    one("a clock at the end", time_ms=2**64 - 1)
    hints()
    for count in range(4):
        t = Transcript("full", f"a chat {count}")
        t.handshake()
        chat(t)
        t.farewell("client" if count % 2 else "server")


def hints() -> None:
    rng = Rng("hints")
    seeds = [rng.bytes(32) for _ in range(3)]
    for nth in range(3):
        t = Transcript("full", f"the server's key {nth} is expected")
        t.handshake(seeds=seeds, pin=public(seeds[nth]))
        t.farewell()
    t = Transcript("full", "no key is expected, the first is used")
    t.handshake(seeds=seeds)
    t.farewell()
    t = Transcript("full", "an unknown hint: the server's first key")
    t.begin(seeds=seeds, muted=("client",))
    t.hello(put(t.half["client"].hello, 64, rng.bytes(32)))
    t.half["client"].hello = t.last["client"]
    for at in ("server", "client", "server", "client"):
        t.shake(at)
    t.remember()
    t.say("client", "ping", rng.bytes(8))


def puzzled() -> None:
    for bits in range(1, 13):
        t = Transcript("puzzled", f"{bits} bits")
        t.handshake(puzzle_bits=bits)
        t.say("client", "ping", t.rng.bytes(8))
        t = Transcript("puzzled", f"{bits} bits, not solved")
        t.begin(puzzle_bits=bits, muted=("client",))
        t.hello()
        t.shake("server")
        t.shake("client")
        client, n_s = t.half["client"], t.half["server"].n_s
        wrong = 0
        while wardline.is_solved(n_s, public(client.seed), wrong, bits):
            wrong += 1
        t.shake("server", auth(client, solution=wrong))
    t = Transcript("puzzled", "a solution of another nonce")
    t.begin(puzzle_bits=12, muted=("client",))
    t.hello()
    t.shake("server")
    t.shake("client")
    client, count = t.half["client"], 0
    while wardline.is_solved(t.half["server"].n_s, public(client.seed), count, 12) or (
        not wardline.is_solved(bytes(16), public(client.seed), count, 12)
    ):
        count += 1
    t.shake("server", auth(client, solution=count))
