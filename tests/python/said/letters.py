"""Envelopes."""

from __future__ import annotations

import wardline
from recorder import Transcript, plain
from said.forging import NOT_KEYS, SMALL, flip, put, with_order
from said.values import frame
from wardline import Envelope, EnvelopeReceiver, Flag, Kind, Refused, public


NOW = 1_790_000_000_000


class Letters:
    """One receiver, and what comes to it."""

    def __init__(self, name: str, entries: int = 8, start_ms: int = NOW - 1_000):
        t = Transcript("envelopes", name)
        self.rng = t.rng
        self.seed = t.rng.bytes(32)
        self.key, self.device = public(self.seed), 7
        self.receiver = EnvelopeReceiver(self.key, self.device, start_ms, entries)
        self.sender = t.rng.bytes(32)
        self.letters: list[dict] = []
        t.data |= {
            "receiver": {
                "identity": self.key.hex(),
                "device": self.device,
                "start_ms": start_ms,
                "entries": entries,
            },
            "letters": self.letters,
        }

    def send(
        self,
        kind: Kind,
        counter: int,
        *,
        topic: bytes | None = None,
        seed: bytes | None = None,
        change=None,
        in_frame: dict | None = None,
        now_ms: int = NOW,
        answers: bool = False,
        read_as: bytes | None = None,
        payload: bytes | None = None,
        **changes,
    ) -> str:
        """Made, changed on the way by `change` and `in_frame`, and taken."""
        seed = seed or self.sender
        flags = Flag.ENVELOPE | changes.pop("seal", 0)
        the_frame = frame(self.rng, True, kind=kind, flags=flags, payload=b"")
        is_topic = kind == Kind.PUBLISH
        topic = topic or (b"main" if is_topic else None)
        values = {
            "kind": kind,
            "device": 3,
            "sender": public(seed),
            "audience": wardline.audience_of_topic(topic) if is_topic else self.key,
            "epoch_ms": NOW - 50_000,
            "counter": counter,
            "issued_ms": now_ms,
            "corr": the_frame.mid if kind == Kind.REQUEST else the_frame.corr,
            "flags": (1 if is_topic else 0)
            | (2 if flags & Flag.SEALED else 0)
            | (4 if flags & Flag.END else 0),
        }
        one = Envelope(**(values | changes))
        payload = self.rng.bytes(9) if payload is None else payload
        the_frame.payload = one.seal(seed, payload)
        letter = {"frame": plain(the_frame)[:-1], "payload": payload.hex()}
        free = {"device", "epoch_ms", "issued_ms", "to_device", "piece"}
        honest = not (changes.keys() - free)
        honest = honest and not (is_topic and one.to_device)
        if honest:
            letter["made"] = {
                "seed": seed.hex(),
                "topic": topic.decode() if is_topic else None,
                "to_device": one.to_device,
                "device": one.device,
                "epoch_ms": one.epoch_ms,
                "counter": counter,
                "issued_ms": one.issued_ms,
                "piece": one.piece,
            }
        letter["sealed"] = the_frame.payload.hex()
        if change:
            the_frame.payload = change(the_frame.payload)
            letter["comes"] = the_frame.payload.hex()
        for key, changed in (in_frame or {}).items():
            setattr(the_frame, key, changed)
        if in_frame:
            letter["frame"] = plain(the_frame)[:-1]
            letter.pop("made", None)
        self.receiver.open_requests = {the_frame.corr} if answers else set()
        read_as = read_as or topic
        read_as = read_as if the_frame.kind == Kind.PUBLISH else None
        letter |= {"topic": read_as.decode() if read_as else None, "answers": answers}
        letter["now_ms"] = now_ms
        try:
            self.receiver.take(the_frame, now_ms, read_as)
            letter["result"] = "fresh"
        except Refused as why:
            letter["result"] = str(why)
        self.letters.append(letter)
        return letter["result"]


def envelopes() -> None:
    one = Letters("every kind, sealed and not")
    for nth, kind in enumerate(Kind):
        assert one.send(kind, 2 * nth + 1) == "fresh"
        assert one.send(kind, 2 * nth + 2, seal=Flag.SEALED) == "fresh"
        assert one.send(kind, 2 * nth + 2, seal=Flag.SEALED) == "replayed"
    one = Letters("to a device")
    for counter, (device, want) in enumerate([(0, "fresh"), (7, "fresh"), (8, "audience")], 1):
        assert one.send(Kind.DIRECT, counter, to_device=device) == want
    for counter, device in enumerate([7, 8], 1):
        assert one.send(Kind.PUBLISH, counter, to_device=device) == "audience"
    envelope_pieces()
    envelope_window()
    envelope_time()
    envelope_form()
    envelope_table()


def envelope_pieces() -> None:
    one = Letters("the pieces of an answer and its end")
    for nth, flags in enumerate([0, 0, Flag.SEALED, Flag.END]):
        assert one.send(Kind.STREAM, nth + 1, seal=flags, piece=nth) == "fresh"
    ends = Flag.ENVELOPE | Flag.END
    assert one.send(Kind.STREAM, 9, piece=4, in_frame={"flags": ends}) == "kind"
    cut = {"flags": Flag.ENVELOPE}
    assert one.send(Kind.STREAM, 9, seal=Flag.END, piece=4, in_frame=cut) == "kind"
    assert one.send(Kind.STREAM, 9, piece=4, change=lambda m: flip(m, 108 * 8)) == "signature"
    assert one.send(Kind.STREAM, 9, piece=2**32 - 1) == "fresh"
    for kind in Kind:
        want = "fresh" if kind == Kind.STREAM else "form"
        assert one.send(kind, 10 + kind, piece=1) == want


def envelope_window() -> None:
    one = Letters("a window of 1024")
    for counter in (0, 1, 2, 1, 5_000, 3_977, 3_976, 3_977, 4_999, 2**64 - 1, 2**64 - 1, 5_001):
        one.send(Kind.DIRECT, counter)
    one.send(Kind.DIRECT, 2**64 - 1_024)
    one.send(Kind.DIRECT, 2**64 - 1_025)
    one = Letters("each device, sender and audience has its own")
    other = one.rng.bytes(32)
    for _ in range(2):
        one.send(Kind.DIRECT, 1)
        one.send(Kind.DIRECT, 1, device=4)
        one.send(Kind.DIRECT, 1, seed=other)
        one.send(Kind.PUBLISH, 1)
        one.send(Kind.PUBLISH, 1, topic=b"other")
    one = Letters("an epoch only grows")
    epochs = [NOW, NOW - 1, NOW, NOW + 1, NOW, NOW + 300_000, NOW + 300_001, NOW + 1]
    for epoch_ms in epochs:
        one.send(Kind.DIRECT, 9, epoch_ms=epoch_ms)
    one.send(Kind.DIRECT, 10, epoch_ms=NOW + 300_000)
    one = Letters("what is not signed marks nothing")
    one.send(Kind.DIRECT, 1, change=lambda m: flip(m, 112 * 8))
    one.send(Kind.DIRECT, 1)


def envelope_time() -> None:
    one = Letters("clocks apart", start_ms=1)
    for counter, apart in enumerate([-300_001, -300_000, -1, 0, 1, 300_000, 300_001], 1):
        one.send(Kind.DIRECT, counter, issued_ms=NOW + apart)
    one = Letters("before the start")
    for counter, issued in enumerate([NOW - 1_001, NOW - 1_000, NOW - 999], 1):
        for kind in Kind:
            for answers in (False, True):
                number = 100 * counter + kind * 2 + answers
                one.send(kind, number, issued_ms=issued, answers=answers)


def envelope_form() -> None:
    one = Letters("form and place")
    for at in (0, 1, 2, 3, 104, 108, 111):
        for bit in (0, 7):
            one.send(Kind.REQUEST, 1, change=lambda m, at=at, b=bit: flip(m, at * 8 + b))
    for at in (4, 8, 40, 71, 72, 80, 88, 96, 112, 143, 144, 175, 176):
        one.send(Kind.DIRECT, 1, change=lambda m, at=at: flip(m, at * 8))
    one.send(Kind.DIRECT, 1, change=lambda m: m[:176])
    one.send(Kind.DIRECT, 1, change=lambda m: m[:175])
    one.send(Kind.DIRECT, 1, change=lambda m: m + b"x")
    one.send(Kind.DIRECT, 1, in_frame={"flags": 0})
    one.send(Kind.DIRECT, 1, in_frame={"flags": Flag.ENVELOPE | Flag.SEALED})
    one.send(Kind.DIRECT, 1, in_frame={"kind": Kind.REQUEST})
    one.send(Kind.REQUEST, 1, in_frame={"mid": 77})
    one.send(Kind.REPLY, 1, in_frame={"corr": 77})
    one.send(Kind.DIRECT, 1, audience=public(one.rng.bytes(32)))
    one.send(Kind.DIRECT, 1, flags=1)
    one.send(Kind.PUBLISH, 1, flags=0)
    one.send(Kind.PUBLISH, 1, audience=one.key)
    one.send(Kind.PUBLISH, 1, read_as=b"another")
    one.send(Kind.DIRECT, 1, payload=b"")
    one = Letters("keys and signatures that are none")
    for key in NOT_KEYS:
        one.send(Kind.DIRECT, 1, sender=key)
    for small in SMALL:
        one.send(Kind.DIRECT, 1, change=lambda m, r=small: put(m, 112, r))
    one.send(Kind.DIRECT, 1, change=lambda m: put(m, 112, with_order(m[112:176])))


def envelope_table() -> None:
    one = Letters("a table of two", entries=2)
    seeds = [one.rng.bytes(32) for _ in range(3)]
    script = [(0, 1, 10), (1, 1, 20), (2, 1, 15), (0, 1, 10), (0, 2, 11), (1, 2, 21), (2, 2, 16)]
    script += [(2, 1, 15), (0, 3, 30), (1, 3, 29), (2, 3, 28), (0, 4, 31), (1, 4, 40), (1, 1, 20)]
    for who, counter, at in script:
        one.send(Kind.DIRECT, counter, seed=seeds[who], issued_ms=NOW + at)
    one = Letters("a table of one, which forgets", entries=1)
    seeds = [one.rng.bytes(32) for _ in range(4)]
    for nth in range(12):
        issued_ms = NOW + nth * 3 - one.rng.below(5)
        one.send(Kind.DIRECT, nth + 1, seed=seeds[nth % 4 if nth % 3 else 0], issued_ms=issued_ms)
