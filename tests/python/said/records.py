"""Records of every type, and those that end a connection."""

from __future__ import annotations

import struct

import wardline
from recorder import Transcript
from said.bodies import bad_control, bad_frames
from said.forging import flip
from said.values import frame, value
from wardline import Code, Type, Writer


def records() -> None:
    for nth in range(12):
        t = Transcript("records", f"anything, {nth}")
        t.handshake()
        pinging = {"client": None, "server": None}
        for _ in range(14):
            at = t.rng.pick(["client", "server"])
            other = "server" if at == "client" else "client"
            what = t.rng.pick(["ping", "pong", "control", "frames", "rekey"])
            if what == "ping" and not pinging[at]:
                pinging[at] = t.rng.bytes(8)
                t.say(at, "ping", pinging[at])
            elif what == "pong" and pinging[other]:
                t.say(at, "pong", pinging[other])
                pinging[other] = None
            elif what == "control":
                t.say(at, "control", *value(t.rng, at == "client"))
            elif what == "frames":
                some = [frame(t.rng, at == "client") for _ in range(t.rng.within(1, 4))]
                t.say(at, "frames", some)
            elif what == "rekey":
                t.say(at, "rekey")
        t.farewell(t.rng.pick(["client", "server"]))
    for code in Code:
        t = Transcript("records", f"CLOSE {int(code):#x}")
        t.usual()
        t.say("server", "ping", bytes(8))
        t.farewell("server", code, t.rng.below(1 << 16), t.rng.below(1 << 32))
    t = Transcript("records", "CLOSE of a code that nobody knows")
    t.usual()
    t.take("client", t.connection["server"].writer.write(Type.CLOSE, b"\x34\x12" + bytes(14)))
    t = Transcript("records", "several at once")
    t.handshake()
    several = t.send("client", "ping", bytes(8)) + t.send("client", "rekey")
    several += t.send("client", "frames", [frame(t.rng, True)])
    t.take("server", several + t.send("client", "close", Code.NORMAL))
    t = Transcript("records", "after a CLOSE the rest is checked and dropped")
    t.handshake()
    late = t.send("client", "ping", bytes(8)) + t.send("client", "rekey")
    late += t.send("client", "control", *value(t.rng, True))
    late += t.send("client", "frames", [frame(t.rng, True)])
    t.say("server", "close", Code.GOING_AWAY, 1, 2)
    t.take("server", late)
    t.say("client", "close", Code.NORMAL)
    t = Transcript("records", "the largest body of frames, and no byte more")
    t.handshake(limits=(100, 0, 0, 0), recv_max=1_024)
    t.say("client", "frames", [frame(t.rng, True, payload=bytes(100))])
    t.say("server", "frames", [frame(t.rng, False, payload=bytes(1_024 - 48))])


LENGTHS_WRONG = {
    Type.PING: (0, 7, 9, 256),
    Type.PONG: (0, 7, 9),
    Type.CLOSE: (0, 15, 17),
    Type.REKEY: (1, 48),
    Type.CONTROL: (0, 257, 65_584),
    Type.FRAMES: (0, 1, 47),
}


def refused_records() -> None:
    def one(name: str, make, at: str = "server", **changes) -> None:
        """`make` gives what comes at an end, from the other one's writer."""
        t = Transcript("refused record", f"at the {at}: {name}")
        if changes:
            t.handshake(**changes)
        else:
            t.usual()
        t.say("client", "ping", bytes(8))
        other = "server" if at == "client" else "client"
        t.take(at, make(t.connection[other].writer, t))
        if t.connection[other].closed_by_us is False and t.last[at]:
            t.take(other)

    def front(writer, kind=Type.PING, flags=0, reserved=0, length=8, seq=None) -> bytes:
        seq = writer.seq if seq is None else seq
        return wardline.RECORD.pack(kind, flags, reserved, length, seq)

    for at in ("server", "client"):
        for bit in (0, 77, 127):
            one(f"tag, bit {bit}", lambda w, t, b=bit: flip(w.write(1, bytes(8)), 128 + b), at)
        one("a body changed", lambda w, t: flip(w.write(1, bytes(8)), 8 * 32 + 5), at)
        for seq in (0, 2, 2**63, 2**64 - 1):
            one(f"seq {seq} for 1 or 0", lambda w, t, n=seq: front(w, seq=n + (w.seq == n)), at)
        for bit in range(8):
            one(f"flag {bit}", lambda w, t, b=bit: front(w, flags=1 << b), at)
        for bit in (0, 7, 8, 15):
            one(f"reserved bit {bit}", lambda w, t, b=bit: front(w, reserved=1 << b), at)
        for kind in (0, 6, 0x0F, 0x11, 0xF5, 0xFF):
            one(f"type {kind:#x}", lambda w, t, k=kind: front(w, kind=k), at)
        for kind in Type:
            for length in (65_585, 2**31, 2**32 - 1):
                name = f"{kind.name} of {length} bytes"
                one(name, lambda w, t, k=kind, n=length: front(w, kind=k, length=n), at)
            for length in LENGTHS_WRONG[kind]:
                name = f"{kind.name} of {length} bytes"
                one(name, lambda w, t, k=kind, n=length: front(w, kind=k, length=n), at)
        one("flags before type", lambda w, t: front(w, flags=1, kind=0), at)
        one("type before length", lambda w, t: front(w, kind=0, length=2**32 - 1), at)
        one("length before seq", lambda w, t: front(w, length=9, seq=99), at)
        one("a PONG with other bytes", lambda w, t: w.write(Type.PONG, b"12345678"), at)
        one("CLOSE that counts too much", lambda w, t: closing(w, t, at, 1), at)
        one("CLOSE that counts all", lambda w, t: closing(w, t, at, 0), at)
        one("nothing after CLOSE", lambda w, t: more_than_a_close(t, at), at)
        one("its own record comes back", lambda w, t: reflected(t, at), at)
        for body in bad_control(at == "server"):
            one(f"control {body.hex()[:40]}", lambda w, t, b=body: w.write(Type.CONTROL, b), at)
        for name, body in bad_frames(at == "server")[:8]:
            one(f"frames {name}", lambda w, t, b=body: w.write(Type.FRAMES, b), at)
    lengths_of_small_limits(one, front)


def lengths_of_small_limits(one, front) -> None:
    """Where a type may be larger than FRAMES may."""
    small = {"limits": (2, 0, 0, 0)}
    for kind, length in [
        (Type.FRAMES, 51),
        (Type.PING, 50),
        (Type.PING, 51),
        (Type.CONTROL, 257),
        (Type.CLOSE, 49),
        (Type.REKEY, 51),
    ]:
        name = f"{kind.name} of {length} bytes where frames have 50"
        one(name, lambda w, t, k=kind, n=length: front(w, kind=k, length=n), **small)
    t = Transcript("records", "a control value larger than frames may be")
    t.handshake(limits=(2, 0, 0, 0))
    t.say("client", "control", "Open", {"ask": 1, "name": b"n" * 64})


def more_than_a_close(t: Transcript, at: str) -> bytes:
    other = "server" if at == "client" else "client"
    close = t.send(other, "close", Code.NORMAL)
    return close + t.connection[other].writer.write(Type.PING, bytes(8))


def closing(writer: Writer, t: Transcript, at: str, more: int) -> bytes:
    taken = t.connection[at].writer.seq + more
    return writer.write(Type.CLOSE, struct.pack("<HHIQ", 0, 0, 0, taken))


def reflected(t: Transcript, at: str) -> bytes:
    end = t.connection[at]
    writer = Writer(end.writer.key, end.writer.sid)
    writer.seq = end.reader.seq
    return writer.write(Type.PING, bytes(8))
