"""Frames and control values by themselves, good and bad."""

from __future__ import annotations

import struct

import wardline
from recorder import Rng, Transcript, plain
from said.forging import NOT_CANONICAL, NOT_KEYS, SMALL, put
from said.values import frame, value
from wardline import Fault, Flag, Kind, decode_control, decode_frames, encode_control


def bad_control(to_relay: bool) -> list[bytes]:
    """A few values that are none."""
    if to_relay:
        return [
            bytes([7]),
            encode_control("Open", True, ask=1, name=b""),
            encode_control("Open", True, ask=1, name=b"$sys"),
            encode_control("Resolve", True, ask=1, identity=SMALL[0]),
            b"\x02\x81\x00\x01a",
            encode_control("Unsubscribe", True, topic=1) + b"\0",
        ]
    return [
        bytes([12]),
        encode_control("Gap", False, topic=1, **{"from": 5, "to": 5}, reason=0),
        encode_control("Taken", False, mid=1, seen=bytes(128), direct=0),
        encode_control("Identity", False, ask=1, handle=1, identity=NOT_CANONICAL[1], device=0),
    ]


def bad_frames(to_relay: bool) -> list[tuple[str, bytes]]:
    rng = Rng(f"bad frames {to_relay}")
    publish = {"kind": Kind.PUBLISH, "flags": 0, "mid": 5, "payload": b"abc"}
    direct = {"kind": Kind.DIRECT, "flags": 0, "payload": b""}

    def made(**changes) -> bytes:
        return frame(rng, to_relay, **changes).encode()

    good = made(**publish)
    mid = {"mid": 0}
    other = Flag.LINE if to_relay else Flag.VERDICT
    return [
        ("half a header", good[:48] + good[48:] + good[:47]),
        ("half a payload", good[:-1]),
        ("a payload that is longer", put(good, 0, struct.pack("<I", 2**32 - 1))),
        ("kind 5", put(good, 4, b"\5")),
        ("class 4", put(good, 5, b"\4")),
        ("the other direction's flag", made(**publish | {"flags": other})),
        ("offset, or no peer", made(**publish | ({"offset": 1} if to_relay else {"peer": 0}))),
        ("the second is bad", good + made(**publish | mid)),
        ("mid 0", made(**publish | mid)),
        ("mid 2^63", made(**publish | {"mid": 2**63})),
        ("peer", made(**(publish | {"peer": 1} if to_relay else direct | {"peer": 0}))),
        ("direct without peer", made(**direct | {"peer": 0})),
        ("direct with topic", made(**direct | {"topic": 1})),
        ("topic 0", made(**publish | {"topic": 0})),
        ("topic with serial 0", made(**publish | {"topic": 0x0700_0000})),
        ("corr of a PUBLISH", made(**publish | {"corr": 1})),
        ("corr of a REQUEST", made(kind=Kind.REQUEST, flags=0, corr=1)),
        ("REPLY without corr", made(kind=Kind.REPLY, flags=0, corr=0)),
        ("STREAM with corr 2^63", made(kind=Kind.STREAM, flags=0, corr=2**63)),
        ("ENVELOPE of 175", made(**publish | {"flags": Flag.ENVELOPE, "payload": bytes(175)})),
        ("LINE on DIRECT", made(**direct | {"flags": Flag.LINE, "mid": 0})),
        ("LINE with mid", made(**publish | {"flags": Flag.LINE, "mid": 1})),
        ("LINE of nobody", made(**publish | {"flags": Flag.LINE, "mid": 0, "peer": 0})),
        ("kind before length", put(good, 0, b"\xff\xff\xff\xff\x05")),
        ("length before flags", put(made(**publish | {"flags": 64}), 0, b"\xff\xff")),
        ("flags before room", made(**publish | {"flags": 64 | Flag.ENVELOPE})),
        ("room before fields", made(**publish | mid | {"flags": Flag.ENVELOPE})),
        ("flags before fields", made(**publish | mid | {"flags": 0x8000})),
    ]


def case(kind: str, to_relay: bool, body: bytes) -> list:
    decode = decode_frames if kind == "frames" else decode_control
    try:
        held = plain(decode(body, to_relay))
    except Fault as why:
        held = int(why.code)
    return [to_relay, body.hex(), held]


def frames() -> None:
    for to_relay in (True, False):
        way = "to the relay" if to_relay else "from the relay"
        rng = Rng(f"frames {to_relay}")
        for kind in Kind:
            cases = []
            for flags in [*(1 << bit for bit in range(16)), 0, 7, 38, 63]:
                for line in {0, flags & Flag.LINE}:
                    mid = 0 if line else 9
                    payload = rng.bytes(176 if flags & Flag.ENVELOPE else 1)
                    one = frame(rng, to_relay, kind=kind, flags=flags, mid=mid, payload=payload)
                    cases.append(case("frames", to_relay, one.encode()))
            for count in range(1, 5):
                some = b"".join(frame(rng, to_relay).encode() for _ in range(count))
                cases.append(case("frames", to_relay, some))
            for klass in range(5):
                one = frame(rng, to_relay, kind=kind, klass=klass)
                cases.append(case("frames", to_relay, one.encode()))
            entry("frames", f"{kind.name} {way}, each flag and class", cases)
        cases = [case("frames", to_relay, body) for _, body in bad_frames(to_relay)]
        entry("frames", f"{way}, bad ones", cases + [case("frames", to_relay, b"")])


def entry(kind: str, name: str, cases: list) -> None:
    t = Transcript(kind, name)
    t.data["cases"] = cases


def controls() -> None:
    for to_relay in (True, False):
        table = wardline.TO_RELAY if to_relay else wardline.FROM_RELAY
        way = "to the relay" if to_relay else "from the relay"
        for name, _ in table:
            rng = Rng(f"control {name} {to_relay}")
            cases = []
            for edge in (0, 1, None, None, None, None):
                body = encode_control(name, to_relay, **value(rng, to_relay, name, edge)[1])
                cases.append(case("control", to_relay, body))
            cases += [case("control", to_relay, body[:-1]), case("control", to_relay, body + b"\0")]
            cases += [case("control", not to_relay, body)]
            cases += [case("control", to_relay, b"\x80\x00" + body[1:])]
            entry("control", f"{name} {way}", cases)
        cases = [case("control", to_relay, body) for body in bad_control(to_relay)]
        entry("control", f"{way}, bad ones", cases + worse_control(to_relay))


def worse_control(to_relay: bool) -> list:
    bodies = []
    if to_relay:
        texts = ["", "*", "a>b", "+", "#", "a\n", "a\x7f", "a\x85", "$", "n" * 65, "ü" * 33]
        texts += ["a\x00"] + ["ü" * 32, "a$b", "\xa0", "\u2028", "é"]
        for text in texts:
            bodies.append(encode_control("Open", True, ask=1, name=text.encode()))
        bodies.append(encode_control("Open", True, ask=1, name=b"\xff\xfe"))
        bodies.append(b"\x02\x01\x41" + b"n" * 65)
        for key in NOT_KEYS:
            bodies.append(encode_control("Resolve", True, ask=1, identity=key))
        subscribe = b"\x00\x01\x01a"
        bodies += [subscribe + rest for rest in (b"\x00\x02\x00", b"\x00\x00\x02", b"\x03\x00\x00")]
        bodies += [subscribe + b"\x02" + number + b"\0\0" for number in LEBS]
    else:
        for number in range(6):
            gap = {"topic": 1, "from": 1, "to": 2, "reason": number}
            bodies.append(encode_control("Gap", False, **gap))
        for first, end in ((0, 0), (1, 0), (0, 1), (2**64 - 1, 2**64 - 1), (2**64 - 2, 2**64 - 1)):
            gap = {"topic": 1, "from": first, "to": end, "reason": 0}
            bodies.append(encode_control("Gap", False, **gap))
        for mid, seen in ((0, b"\1"), (0, b"\0" * 127 + b"\x80"), (1, b"\xfe"), (1, b"\xff" * 128)):
            bodies.append(
                encode_control("Taken", False, mid=mid, seen=seen.ljust(128, b"\0"), direct=0)
            )
        for length in (0, 127, 129):
            bodies.append(
                encode_control("Taken", False, mid=1, seen=b"\1".ljust(length, b"\0"), direct=0)
            )
        for key in NOT_KEYS + [bytes(32)]:
            fields = {"ask": 1, "handle": 1, "identity": key, "device": 0}
            bodies.append(encode_control("Identity", False, **fields))
        bodies += [b"\x02\x01" + number for number in LEBS]
        refused = b"\x03\x01%s\x00"
        shorts = (b"\xff\xff\x03", b"\xff\xff\x04", b"\x80\x80\x80\x00")
        bodies += [refused % number for number in shorts]
    return [case("control", to_relay, body) for body in bodies]


# A u32 in LEB128: good, over-long, too big, unended.
LEBS = [
    b"\xff\xff\xff\xff\x0f",
    b"\x80\x00",
    b"\x81\x80\x80\x80\x00",
    b"\xff\xff\xff\xff\x10",
    b"\xff\xff\xff\xff\x1f",
    b"\x80\x80\x80\x80\x80\x00",
    b"\xff\xff\xff\xff\xff",
]
