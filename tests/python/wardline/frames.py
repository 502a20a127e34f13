"""Frames. PROTOCOL.md 2.4."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from .codes import Code, need


class Kind(IntEnum):
    PUBLISH = 0
    DIRECT = 1
    REQUEST = 2
    REPLY = 3
    STREAM = 4


class Flag(IntFlag):
    END = 1
    ENVELOPE = 2
    SEALED = 4
    VERDICT = 8
    LINE = 16
    BRIDGED = 32


FRAME = struct.Struct("<IBBHIIQQQQ")
FRAME_BYTES = 48
CLASS_MAX = 3
MID_MAX = 2**63 - 1
SERIAL_MASK = 0x00FF_FFFF
ENVELOPE_BYTES = 176


@dataclass
class Frame:
    kind: int
    payload: bytes = b""
    klass: int = 0
    flags: int = 0
    topic: int = 0
    ttl_ms: int = 0
    peer: int = 0
    mid: int = 0
    offset: int = 0
    corr: int = 0

    def encode(self) -> bytes:
        head = (len(self.payload), self.kind, self.klass, self.flags, self.topic, self.ttl_ms)
        return FRAME.pack(*head, self.peer, self.mid, self.offset, self.corr) + self.payload


def decode_frames(body: bytes, to_relay: bool) -> list[Frame]:
    frames = []
    need(body != b"", Code.BAD_LENGTH, "no frame")
    at = 0
    while at < len(body):
        need(len(body) - at >= FRAME_BYTES, Code.BAD_LENGTH, "half a header")
        length, kind, klass, flags, topic, ttl_ms, peer, mid, offset, corr = FRAME.unpack_from(
            body, at
        )
        need(kind in list(Kind), Code.BAD_VALUE, "kind")
        need(klass <= CLASS_MAX, Code.BAD_VALUE, "class")
        at += FRAME_BYTES
        need(len(body) - at >= length, Code.BAD_LENGTH, "half a payload")
        payload = body[at : at + length]
        at += length
        frame = Frame(kind, payload, klass, flags, topic, ttl_ms, peer, mid, offset, corr)
        check_frame(frame, to_relay)
        frames.append(frame)
    return frames


def check_frame(frame: Frame, to_relay: bool) -> None:
    kind, flags = frame.kind, frame.flags
    allowed = Flag.ENVELOPE | Flag.SEALED | Flag.BRIDGED
    if kind == Kind.STREAM:
        allowed |= Flag.END
    if kind == Kind.PUBLISH:
        allowed |= Flag.VERDICT if to_relay else Flag.LINE
    need(flags & ~int(allowed) == 0, Code.RESERVED_BITS, "flags")
    if flags & Flag.ENVELOPE:
        need(len(frame.payload) >= ENVELOPE_BYTES, Code.BAD_LENGTH, "no envelope")
    is_topic = kind == Kind.PUBLISH
    need((frame.topic & SERIAL_MASK != 0) if is_topic else frame.topic == 0, Code.BAD_VALUE)
    need((frame.peer == 0) == (to_relay and is_topic), Code.BAD_VALUE, "peer")
    if flags & Flag.LINE:
        need(frame.mid == 0, Code.BAD_VALUE, "mid")
    else:
        need(1 <= frame.mid <= MID_MAX, Code.BAD_VALUE, "mid")
    need(frame.offset == 0 or not to_relay, Code.BAD_VALUE, "offset")
    if kind in (Kind.REPLY, Kind.STREAM):
        need(1 <= frame.corr <= MID_MAX, Code.BAD_VALUE, "corr")
    else:
        need(frame.corr == 0, Code.BAD_VALUE, "corr")
