"""Handshakes that the client ends."""

from __future__ import annotations

import struct

import wardline
from recorder import LIMITS_USUAL, Rng, Transcript
from said.forging import NOT_KEYS, SMALL, accept, flip, put, with_order
from wardline import ALERT, RESUMED, Code, public


def refused_by_the_client() -> None:
    def one(name: str, change, **changes) -> None:
        t = Transcript("refused", f"CHALLENGE: {name}")
        t.begin(muted=("server",), **changes)
        t.hello()
        t.shake("server")
        t.shake("client", change(t.last["server"], t))

    rng = Rng("refused pin")
    one("wrong server", lambda m, t: m, pin=public(rng.bytes(32)))
    one("wrong server, no key either", lambda m, t: put(m, 64, SMALL[0]), pin=public(rng.bytes(32)))
    for nth, key in enumerate(NOT_KEYS):
        one(f"server_id is no key, {nth}", lambda m, t, k=key: put(m, 64, k))
    one("our own key", lambda m, t: put(m, 64, public(t.half["client"].seed)))
    one("a feature not offered", lambda m, t: put(m, 8, b"\1"))
    one("one feature of two not offered", lambda m, t: put(m, 8, b"\3"), features=1)
    for low, high in ((2, 2), (2, 255), (0, 0), (1, 0)):
        one(f"versions {low} to {high}", lambda m, t, r=(low, high): put(m, 13, bytes(r)))
    for bits in (23, 64, 255):
        one(f"{bits} bits", lambda m, t, b=bits: put(m, 12, bytes([b])))
    for at in (15, 104, 111):
        one(f"reserved byte {at}", lambda m, t, at=at: put(m, at, b"\1"))
    for at in range(4):
        one(f"magic, byte {at}", lambda m, t, at=at: flip(m, at * 8))
    for number in (0, 1, 3, 4, 5, 0x7E):
        one(f"type {number}", lambda m, t, n=number: put(m, 4, bytes([n])))
    one("version 2", lambda m, t: put(m, 5, b"\2"))
    for length in (0, 111, 144):
        one(f"length {length}", lambda m, t, n=length: put(m, 6, struct.pack("<H", n)))
    one("RESUMED, not asked for", lambda m, t: RESUMED.encode(resumed_values()))
    refused_accept()
    alerts()


def resumed_values() -> dict:
    limits = dict(zip(wardline.LIMITS, LIMITS_USUAL))
    return limits | {"handle": 1, "n_s": bytes(16), "mac_s": bytes(16)}




def refused_accept() -> None:
    def one(name: str, change, **changes) -> None:
        t = Transcript("refused", f"ACCEPT: {name}")
        t.begin(muted=("server",), **changes)
        t.hello()
        for at in ("server", "client", "server"):
            t.shake(at)
        t.shake("client", change(t.last["server"], t.half["server"], t.half["client"]))

    one("handle 0", lambda m, s, c: m, handle=0)
    for bit in (0, 127):
        one(f"tag, bit {bit}", lambda m, s, c, b=bit: flip(m, 96 * 8 + b))
    for at in (8, 16, 20, 24, 28, 32):
        one(f"byte {at}, not tagged anew", lambda m, s, c, at=at: flip(m, at * 8))
    for bit in (0, 256):
        one(
            f"signature, bit {bit}, tagged anew",
            lambda m, s, c, b=bit: accept(s, c, m, flip(m[32:96], b)),
        )
    one("signature with S + L", lambda m, s, c: accept(s, c, m, with_order(m[32:96])))
    one("magic", lambda m, s, c: flip(m, 1))
    for number in (0, 1, 2, 3, 5):
        one(f"type {number}", lambda m, s, c, n=number: put(m, 4, bytes([n])))
    one("version 0", lambda m, s, c: put(m, 5, b"\0"))
    one("length 113", lambda m, s, c: put(m, 6, b"\x71\0"))


def alerts() -> None:
    cases = [(code, 0, 1, 1) for code in Code]
    cases += [(0x1234, 5, 1, 1), (Code.BAD_VERSION, 0, 2, 7), (Code.RATE, 0xFFFF_FFFF, 0, 0)]
    for code, retry_ms, low, high in cases:
        t = Transcript("refused", f"ALERT {int(code):#x} {retry_ms} {low} {high}")
        t.begin(muted=("server",))
        t.hello()
        values = {"code": code, "retry_ms": retry_ms, "ver_min": low, "ver_max": high}
        t.shake("client", ALERT.encode(values))
    t = Transcript("refused", "ALERT: reserved bytes")
    t.begin(muted=("server",))
    t.hello()
    t.shake("client", put(ALERT.encode(values), 23, b"\1"))
    t = Transcript("refused", "ALERT: after AUTH")
    t.begin(muted=("server",))
    t.hello()
    t.shake("server")
    t.shake("client")
    t.shake("client", ALERT.encode(values))
