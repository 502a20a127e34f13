"""Good frames and control values, whatever they hold."""

from __future__ import annotations

import wardline
from recorder import Rng
from wardline import Flag, Frame, Kind, public


def frame(rng: Rng, to_relay: bool, **changes) -> Frame:
    """A good one, whatever its fields."""
    kind = rng.pick(list(Kind))
    if "kind" in changes:
        kind = changes["kind"]
    flags = rng.pick([0, 0, Flag.SEALED, Flag.BRIDGED, Flag.SEALED | Flag.BRIDGED])
    if kind == Kind.STREAM:
        flags |= rng.pick([0, Flag.END])
    if kind == Kind.PUBLISH:
        flags |= rng.pick([0, Flag.VERDICT if to_relay else Flag.LINE])
    topic = kind == Kind.PUBLISH
    answers = kind in (Kind.REPLY, Kind.STREAM)
    values = {
        "kind": kind,
        "payload": rng.bytes(rng.pick([0, 1, 3, 40])),
        "klass": rng.below(4),
        "flags": flags,
        "topic": rng.within(1, 0xFFFFFF) | rng.below(256) << 24 if topic else 0,
        "ttl_ms": rng.pick([0, 1, 30_000, 0xFFFF_FFFF]),
        "peer": 0 if topic and to_relay else rng.within(1, 2**64 - 1),
        "mid": 0 if flags & Flag.LINE else rng.pick([1, rng.within(1, 2**63 - 1), 2**63 - 1]),
        "offset": 0 if to_relay else rng.pick([0, rng.below(2**64), 2**64 - 1]),
        "corr": rng.pick([1, rng.within(1, 2**63 - 1)]) if answers else 0,
    }
    return Frame(**(values | changes))


NAMES = [b"a", b"main", "tópico/ü".encode(), b"x" * 64, "日本".encode(), b"a$", b" "]


def value(rng: Rng, to_relay: bool, name: str | None = None, edge: int | None = None):
    """A control value's name and fields; `edge`: 0 the least, 1 the most, None anything."""
    table = wardline.TO_RELAY if to_relay else wardline.FROM_RELAY
    name = name or rng.pick(table)[0]
    spec = dict(table)[name]

    def number(bits: int) -> int:
        return {0: 0, 1: 2**bits - 1}.get(edge, rng.below(2 ** rng.within(1, bits)))

    fields = {}
    for key, form in wardline.fields_of(spec):
        if form in ("u16", "u32", "u64"):
            fields[key] = number(int(form[1:]))
        elif form == "u8":
            fields[key] = rng.below(4)
        elif form == "bool":
            fields[key] = bool(number(1))
        elif form == "name":
            fields[key] = rng.pick(NAMES)
        elif form == "bytes128":
            fields[key] = b"\1" + rng.bytes(127)
        elif form == "from":
            fields[key] = rng.pick(
                [("Now",), ("Offset", number(64), number(64)), ("Last", number(32))]
            )
        else:
            zeros = form == "key_or_zeros" and edge == 0
            fields[key] = bytes(32) if zeros else public(rng.bytes(32))
    if name == "Gap" and fields["from"] >= fields["to"]:
        fields["from"] = max(fields["from"], 1) - 1
        fields["to"] = fields["from"] + 1
    if name == "Taken" and fields["mid"] == 0:
        fields["seen"] = bytes(128)
    return name, fields
