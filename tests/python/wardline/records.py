"""Records, and both directions of a connection. PROTOCOL.md 2.3."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from .codes import Code, need, need_proof
from .control import decode_control
from .frames import FRAME_BYTES, decode_frames
from .keys import h, kh, same
from .schedule import Session, rekeyed


class Type(IntEnum):
    PING = 1
    PONG = 2
    CLOSE = 3
    REKEY = 4
    CONTROL = 5
    FRAMES = 0x10


RECORD = struct.Struct("<BBHIQ")
RECORD_BYTES = 32
CONTROL_MAX = 256
FIRST_MAX = 256
KEY_RECORDS_MAX = 2**32
KEY_AGE_MS = 3_600_000
KEY_GRACE_MS = 90_000
LENGTHS = {Type.PING: (8, 8), Type.PONG: (8, 8), Type.CLOSE: (16, 16), Type.REKEY: (0, 0)}
LENGTHS |= {Type.CONTROL: (1, CONTROL_MAX)}


def tag(key: bytes, header: bytes, sid: bytes, body: bytes) -> bytes:
    return kh(key, header[:16], sid, h(body) if body else bytes(32))


class Writer:
    """One direction's sending side."""

    def __init__(self, key: bytes, sid: bytes):
        self.key, self.sid, self.seq = key, sid, 0

    def write(self, kind: Type, body: bytes = b"") -> bytes:
        header = RECORD.pack(kind, 0, 0, len(body), self.seq)
        record = header + tag(self.key, header, self.sid, body) + body
        self.seq += 1
        if kind == Type.REKEY:
            self.key = rekeyed(self.key, self.sid)
        return record


class Reader:
    """One direction's receiving side. `frames_max` is the largest body of FRAMES; `first_max`:
    of the first record (2.2.8)."""

    def __init__(
        self, key: bytes, sid: bytes, frames_max: int, now_ms: int = 0, first_max: int = 2**32
    ):
        self.key, self.sid, self.frames_max, self.seq = key, sid, frames_max, 0
        self.first_max = first_max
        self.key_records, self.key_since = 0, now_ms
        self.held = bytearray()

    def feed(self, data: bytes, now_ms: int = 0):
        """Every record that `data` makes whole, as (type, body), until a Fault."""
        self.held += data
        while len(self.held) >= 16:
            kind, length = self.judge(bytes(self.held[:16]), now_ms)
            end = RECORD_BYTES + length
            if len(self.held) < end:
                return
            record = bytes(self.held[:end])
            body = record[RECORD_BYTES:]
            need_proof(same(record[16:32], tag(self.key, record, self.sid, body)), Code.BAD_TAG)
            del self.held[:end]
            self.seq += 1
            self.key_records += 1
            if kind == Type.REKEY:
                self.key = rekeyed(self.key, self.sid)
                self.key_records, self.key_since = 0, now_ms
            yield kind, body

    def judge(self, header: bytes, now_ms: int) -> tuple[Type, int]:
        kind, flags, reserved, length, seq = RECORD.unpack(header)
        need_proof(flags == 0 and reserved == 0, Code.RESERVED_BITS)
        need_proof(kind in list(Type), Code.BAD_STATE, "type")
        least, most = LENGTHS.get(kind, (FRAME_BYTES, self.frames_max))
        need_proof(length <= max(self.frames_max, most), Code.TOO_LARGE)
        need_proof(self.seq > 0 or length <= self.first_max, Code.TOO_LARGE, "the first")
        need_proof(least <= length <= most, Code.BAD_LENGTH)
        need_proof(seq == self.seq, Code.BAD_SEQ)
        need_proof(self.key_records < KEY_RECORDS_MAX, Code.BAD_STATE, "the key's records")
        age = now_ms - self.key_since
        need_proof(age <= KEY_AGE_MS + KEY_GRACE_MS, Code.BAD_STATE, "the key's age")
        return Type(kind), length


@dataclass
class Close:
    code: int
    detail: int = 0
    retry_ms: int = 0
    taken: int = 0

    def encode(self) -> bytes:
        return struct.pack("<HHIQ", self.code, self.detail, self.retry_ms, self.taken)

    @staticmethod
    def decode(body: bytes) -> "Close":
        return Close(*struct.unpack("<HHIQ", body))


class Connection:
    """Both directions of one connection after the handshake, at one end of it.

    `feed` gives what is to be acted upon, one tuple a record, in their order. A "ping" is to be
    answered with a PONG of its bytes, a "close" with `close`, unless ours is out.
    """

    def __init__(self, session: Session, is_client: bool, now_ms: int = 0):
        self.is_client = is_client
        ours, theirs = session.k_c2s, session.k_s2c
        frames_max = session.recv_max
        if not is_client:
            ours, theirs = theirs, ours
            frames_max = FRAME_BYTES + session.limits["max_payload"]
        self.writer = Writer(ours, session.sid)
        first_max = FIRST_MAX if session.resumed and not is_client else 2**32
        self.reader = Reader(theirs, session.sid, frames_max, now_ms, first_max)
        self.out = bytearray()
        self.taken = 0
        self.ping: bytes | None = None
        self.closed_by_us = self.closed_by_them = False

    def send(self, kind: Type, body: bytes = b"") -> None:
        assert not self.closed_by_us
        if kind == Type.PING:
            assert self.ping is None
            self.ping = body
        self.out += self.writer.write(kind, body)

    def close(self, code: int = Code.NORMAL, detail: int = 0, retry_ms: int = 0) -> None:
        self.send(Type.CLOSE, Close(code, detail, retry_ms, self.taken).encode())
        self.closed_by_us = True

    def feed(self, data: bytes, now_ms: int = 0):
        need_proof(not (self.closed_by_them and data), Code.BAD_STATE, "after CLOSE")
        for kind, body in self.reader.feed(data, now_ms):
            need_proof(not self.closed_by_them, Code.BAD_STATE, "after CLOSE")
            if kind == Type.CLOSE:
                close = Close.decode(body)
                need(close.taken <= self.writer.seq, Code.BAD_VALUE, "taken")
                self.taken += 1
                self.closed_by_them = True
                yield "close", close
            elif not self.closed_by_us:
                acted = self.act(kind, body)
                self.taken += 1
                yield acted
        need_proof(not (self.closed_by_them and self.reader.held), Code.BAD_STATE, "after CLOSE")

    def act(self, kind: Type, body: bytes) -> tuple:
        if kind == Type.PING:
            return "ping", body
        if kind == Type.PONG:
            need(body == self.ping, Code.BAD_STATE, "a PONG to no PING")
            self.ping = None
            return "pong", body
        if kind == Type.CONTROL:
            return "control", *decode_control(body, to_relay=not self.is_client)
        if kind == Type.FRAMES:
            return "frames", decode_frames(body, to_relay=not self.is_client)
        return ("rekey",)
