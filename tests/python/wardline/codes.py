"""Codes, and how things end. PROTOCOL.md 2.7."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """2.7"""

    NORMAL = 0x00
    GOING_AWAY = 0x01
    IDLE = 0x02
    HANDSHAKE_TIMEOUT = 0x03
    SUPERSEDED = 0x04
    BAD_MAGIC = 0x10
    BAD_VERSION = 0x11
    BAD_LENGTH = 0x12
    BAD_STATE = 0x13
    RESERVED_BITS = 0x14
    TOO_LARGE = 0x15
    BAD_UTF8 = 0x16
    LINE_TOO_LONG = 0x17
    WRONG_DIALECT = 0x18
    BAD_VALUE = 0x19
    AUTH_FAILED = 0x20
    REFUSED = 0x21
    TOO_MANY_SESSIONS = 0x22
    BAD_TAG = 0x30
    BAD_SEQ = 0x31
    CONTROL_FLOOD = 0x33
    RATE = 0x40
    QUARANTINED = 0x41
    OVERLOADED = 0x42
    SLOW_READER = 0x43
    TOO_MANY_CONNECTIONS = 0x44
    PUZZLE_REQUIRED = 0x45
    NO_ROUTE = 0x50
    FORBIDDEN = 0x51
    EXPIRED = 0x52
    DUPLICATE = 0x53
    BUSY = 0x54
    STALE = 0x55
    INTERNAL = 0x7F


class Fault(Exception):
    """What came is not what the document says; `code` is what the other end is told."""

    def __init__(self, code: Code, why: str = "", retry_ms: int = 0):
        super().__init__(f"{code.name} {why}".strip())
        self.code, self.retry_ms = code, retry_ms

    def blame(self) -> tuple[Code, int]:
        """What a CLOSE says of it: code and detail (2.3.2)."""
        return self.code, 0


class Unproven(Fault):
    """Found before the tag was known to be right: it may be anybody's on the path (2.3.2)."""

    def blame(self) -> tuple[Code, int]:
        named = self.code in (Code.BAD_TAG, Code.BAD_SEQ)
        return (self.code, 0) if named else (Code.BAD_TAG, int(self.code))


class Distrust(Exception):
    """The client ends: what the server says of itself is not what it may be (2.2.6)."""


class Alerted(Exception):
    """The server said ALERT: a hint that anybody can write (2.2.7)."""

    def __init__(self, alert: dict):
        super().__init__(f"alert {alert['code']:02x}")
        self.alert = alert


def need(what: bool, code: Code, why: str = "") -> None:
    if not what:
        raise Fault(code, why)


def need_proof(what: bool, code: Code, why: str = "") -> None:
    """The same of what no right tag covers."""
    if not what:
        raise Unproven(code, why)
