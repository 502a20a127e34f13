"""Handshakes that the server ends."""

from __future__ import annotations

import struct

import wardline
from recorder import Transcript
from said.forging import NOT_CONTRIBUTORY, NOT_KEYS, SMALL, auth, flip, put, with_order
from wardline import L_C, Client, Code, h, public, sign


def refused_hello() -> None:
    def one(name: str, change, **changes) -> None:
        t = Transcript("refused", f"HELLO: {name}")
        t.begin(muted=("client",), **changes)
        t.hello(change(t.half["client"].hello))
        t.shake("server")

    for at in range(4):
        one(f"magic, byte {at}", lambda m, at=at: flip(m, at * 8 + 3))
    one("a line", lambda m: b'{"hello": 1}\n')
    one("HTTP", lambda m: b"GET / HTTP/1.1\r\n\r\n")
    for number in (0, 2, 3, 4, 5, 6, 0x7F, 0xFF):
        one(f"type {number}", lambda m, n=number: put(m, 4, bytes([n])))
    for version in (0, 2, 3, 255):
        one(f"version {version}", lambda m, v=version: put(m, 5, bytes([v])))
    for length in (0, 127, 129, 112, 32_768, 65_535):
        one(f"length {length}", lambda m, n=length: put(m, 6, struct.pack("<H", n)))
    for at in (9, 10, 11):
        one(f"reserved byte {at}", lambda m, at=at: put(m, at, b"\x80"))
    for lowest in (0, 2, 255):
        one(f"ver_min {lowest}", lambda m, v=lowest: put(m, 8, bytes([v])))
    one("reserved before ver_min", lambda m: put(m, 8, b"\0\1"))
    for what, code, retry_ms in [
        ("address", Code.QUARANTINED, 60_000),
        ("address", Code.TOO_MANY_CONNECTIONS, 0),
        ("budget", Code.OVERLOADED, 0xFFFF_FFFF),
    ]:
        t = Transcript("refused", f"HELLO: the {what} {code.name}")
        t.begin(refuses={what: (code, retry_ms)})
        t.hello()
        t.shake("server")
        t.shake("client")
    t = Transcript("refused", "HELLO: followed by what is no AUTH")
    t.begin(muted=("client",))
    t.hello()
    t.shake("server", t.last["client"])
    t.shake("server", t.half["client"].hello)


def refused_auth() -> None:
    def one(name: str, change, **changes) -> None:
        t = Transcript("refused", f"AUTH: {name}")
        t.begin(muted=("client",), **changes)
        t.hello()
        t.shake("server")
        t.shake("client")
        t.shake("server", change(t.half["client"], t))

    for at in range(4):
        one(f"magic, byte {at}", lambda c, t, at=at: flip(c.auth, at * 8))
    for number in (0, 1, 2, 4, 5, 0x7F):
        one(f"type {number}", lambda c, t, n=number: put(c.auth, 4, bytes([n])))
    for version in (0, 2):
        one(f"version {version}", lambda c, t, v=version: put(c.auth, 5, bytes([v])))
    for length in (0, 143, 145, 400):
        one(f"length {length}", lambda c, t, n=length: put(c.auth, 6, struct.pack("<H", n)))
    for bit in (0, 127):
        one(f"tag, bit {bit}", lambda c, t, b=bit: flip(c.auth, 128 * 8 + b))
    for at in (8, 16, 48, 52, 56, 64, 127):
        one(f"byte {at}, not tagged anew", lambda c, t, at=at: flip(c.auth, at * 8))
    for bit in (0, 255, 256, 510):
        one(
            f"signature, bit {bit}, tagged anew",
            lambda c, t, b=bit: auth(c, signature=flip(c.auth[64:128], b)),
        )
    one("signature with S + L", lambda c, t: auth(c, signature=with_order(c.auth[64:128])))
    one("signature by another key", lambda c, t: by_another(c, t))
    for small in SMALL:
        one(
            f"signature with R {small.hex()}",
            lambda c, t, r=small: auth(c, signature=r + c.auth[96:128]),
        )
    for nth, key in enumerate(NOT_KEYS):
        one(f"client_id is no key, {nth}", lambda c, t, k=key: auth(c, client_id=k))
    one("client_id is server_id", lambda c, t: itself(c, t.half["server"].seed))
    for recv_max in (0, 1_023):
        one(f"recv_max {recv_max}", lambda c, t, n=recv_max: auth(c, recv_max=n))
    one("recv_max 1023 and a wrong tag", lambda c, t: flip(auth(c, recv_max=1_023), 1_150))
    refused_by_the_relay()
    not_contributory()


def itself(client: Client, seed: bytes) -> bytes:
    return auth(client, client_id=public(seed), seed=seed)


def by_another(client: Client, t: Transcript) -> bytes:
    before = client.hello + client.challenge
    signed = sign(t.rng.bytes(32), L_C, h(before, client.auth[:64]))
    return auth(client, signature=signed)


def refused_by_the_relay() -> None:
    for what, code, retry_ms in [
        ("budget of AUTH", Code.OVERLOADED, 1_000),
        ("permission", Code.REFUSED, 0),
        ("ban", Code.REFUSED, 300_000),
        ("ban", Code.PUZZLE_REQUIRED, 0),
        ("sessions", Code.TOO_MANY_SESSIONS, 5_000),
    ]:
        t = Transcript("refused", f"AUTH: {what} {code.name}")
        t.begin(refuses={what: (code, retry_ms)})
        for at in ("server", "client", "server", "client"):
            if not t.steps:
                t.hello()
            t.shake(at)


def not_contributory() -> None:
    for nth, key in enumerate(NOT_CONTRIBUTORY):
        assert wardline.agree(bytes(range(32)), key) is None, nth
        t = Transcript("refused", f"AUTH: e_c does not contribute, {nth}")
        t.begin(muted=("client",))
        t.hello(put(t.half["client"].hello, 16, key))
        t.shake("server")
        t.shake("client")
        t.shake("server")
        t = Transcript("refused", f"CHALLENGE: e_s does not contribute, {nth}")
        t.begin(muted=("server",))
        t.hello()
        t.shake("server")
        t.shake("client", put(t.last["server"], 16, key))
