"""Envelopes. PROTOCOL.md 2.6."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from .frames import ENVELOPE_BYTES, Flag, Frame, Kind
from .keys import L_E, dk, h, sign, verify


ENVELOPE = struct.Struct("<BBBBI32s32sQQQQII")
TOPIC, SEALED, END = 1, 2, 4
CLOCK_MS = 300_000
WINDOW = 1024


class Refused(Exception):
    """An envelope that the receiver does not take."""


def audience_of_topic(name: bytes) -> bytes:
    return dk("wardline 2026-11 v1 topic", name)


@dataclass
class Envelope:
    kind: int
    device: int
    sender: bytes
    audience: bytes
    epoch_ms: int
    counter: int
    issued_ms: int
    corr: int = 0
    to_device: int = 0
    flags: int = 0
    piece: int = 0

    def header(self) -> bytes:
        head = ENVELOPE.pack(
            1,
            self.flags,
            self.kind,
            0,
            self.device,
            self.sender,
            self.audience,
            self.epoch_ms,
            self.counter,
            self.issued_ms,
            self.corr,
            self.to_device,
            self.piece,
        )
        return head

    def seal(self, seed: bytes, payload: bytes) -> bytes:
        """The envelope and what it holds: a frame's payload."""
        return self.header() + sign(seed, L_E, self.header() + h(payload)) + payload


@dataclass
class Remembered:
    epoch_ms: int
    top: int
    seen: set
    newest_ms: int
    floor_ms: int


@dataclass
class EnvelopeReceiver:
    """2.6.2 and 2.6.3, for one identity and device."""

    identity: bytes
    device: int
    start_ms: int
    entries_max: int = 1024
    dropped_ms: int = 0
    table: dict = field(default_factory=dict)
    open_requests: set = field(default_factory=set)

    def take(self, frame: Frame, now_ms: int, topic: bytes | None = None) -> tuple[Envelope, bytes]:
        """The envelope and its payload, marked; or Refused."""
        if not frame.flags & Flag.ENVELOPE:
            raise Refused("missing")
        if len(frame.payload) < ENVELOPE_BYTES:
            raise Refused("form")
        header, signature = frame.payload[:112], frame.payload[112:ENVELOPE_BYTES]
        payload = frame.payload[ENVELOPE_BYTES:]
        ver, flags, kind, reserved, device, sender, audience, *rest = ENVELOPE.unpack(header)
        epoch_ms, counter, issued_ms, corr, to_device, piece = rest
        place = (corr, to_device, flags, piece)
        one = Envelope(kind, device, sender, audience, epoch_ms, counter, issued_ms, *place)
        self.check_form(one, ver, reserved)
        self.check_frame(one, frame, topic)
        if abs(now_ms - issued_ms) > CLOCK_MS:
            raise Refused("clock")
        if epoch_ms - now_ms > CLOCK_MS:
            raise Refused("epoch")
        self.check_memory(one)
        if not verify(sender, L_E, header + h(payload), signature):
            raise Refused("signature")
        self.mark(one)
        return one, payload

    def check_form(self, one: Envelope, ver: int, reserved: int) -> None:
        if ver != 1 or reserved or one.flags & ~(TOPIC | SEALED | END):
            raise Refused("form")
        if one.piece and one.kind != Kind.STREAM:
            raise Refused("form")

    def check_frame(self, one: Envelope, frame: Frame, topic: bytes | None) -> None:
        corr = frame.mid if frame.kind == Kind.REQUEST else frame.corr
        sealed, end = bool(frame.flags & Flag.SEALED), bool(frame.flags & Flag.END)
        if one.kind != frame.kind or bool(one.flags & SEALED) != sealed:
            raise Refused("kind")
        if bool(one.flags & END) != end:
            raise Refused("kind")
        if one.corr != corr:
            raise Refused("corr")
        is_topic = frame.kind == Kind.PUBLISH
        audience = audience_of_topic(topic) if is_topic and topic is not None else self.identity
        if bool(one.flags & TOPIC) != is_topic or one.audience != audience:
            raise Refused("audience")
        if one.to_device not in (0, 0 if is_topic else self.device):
            raise Refused("audience")

    def check_memory(self, one: Envelope) -> None:
        is_answer = one.kind in (Kind.REPLY, Kind.STREAM) and one.corr in self.open_requests
        if one.issued_ms <= self.start_ms and not is_answer:
            raise Refused("before what is known")
        entry = self.table.get((one.sender, one.device, one.audience))
        if one.issued_ms <= (entry.floor_ms if entry else self.dropped_ms):
            raise Refused("before what is known")
        if entry and one.epoch_ms < entry.epoch_ms:
            raise Refused("epoch")
        if one.counter == 0:
            raise Refused("stale")
        if entry is None or one.epoch_ms > entry.epoch_ms:
            return
        if one.counter in entry.seen:
            raise Refused("replayed")
        if one.counter + WINDOW <= entry.top:
            raise Refused("stale")

    def mark(self, one: Envelope) -> None:
        key = (one.sender, one.device, one.audience)
        entry = self.table.get(key)
        if entry is None:
            if len(self.table) >= self.entries_max:
                oldest = min(self.table, key=lambda each: self.table[each].newest_ms)
                self.dropped_ms = max(self.dropped_ms, self.table.pop(oldest).newest_ms)
            floor = self.dropped_ms
            entry = self.table[key] = Remembered(one.epoch_ms, 0, set(), one.issued_ms, floor)
        if one.epoch_ms > entry.epoch_ms:
            entry.epoch_ms, entry.top, entry.seen = one.epoch_ms, 0, set()
        entry.top = max(entry.top, one.counter)
        entry.seen = {each for each in entry.seen | {one.counter} if each + WINDOW > entry.top}
        entry.newest_ms = max(entry.newest_ms, one.issued_ms)
