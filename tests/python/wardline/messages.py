"""The six messages of the handshake. PROTOCOL.md 2.2.1."""

from __future__ import annotations

import struct

from .codes import Code, need


MAGIC = b"\xf5\x57\x44\x4c"
VERSION = 1
LIMITS = ["max_payload", "idle_ms", "msgs_per_s", "bytes_per_s"]


class Layout:
    """One kind of message: its fields by name; those called `reserved` are zero."""

    def __init__(self, number: int, size: int, form: str, fields: str):
        self.number, self.size, self.form = number, size, struct.Struct("<" + form)
        self.fields = fields.split()
        assert self.form.size + 8 == size and len(self.fields) == form.count(" ") + 1

    def encode(self, values: dict, version: int = VERSION) -> bytes:
        zeros = {"reserved": b"\0" * 8}
        body = self.form.pack(*((zeros | values)[name] for name in self.fields))
        return MAGIC + struct.pack("<BBH", self.number, version, self.size) + body

    def decode(self, data: bytes) -> dict:
        values = dict(zip(self.fields, self.form.unpack(data[8:])))
        need(not any(values.pop("reserved", b"")), Code.RESERVED_BITS)
        return values


HELLO = Layout(
    1, 128, "B 3s I 32s 16s 32s 16s 16s", "ver_min reserved features e_c n_c hint resume_sid proof"
)
CHALLENGE = Layout(
    2,
    112,
    "I B B B 1s 32s 16s 32s Q 8s",
    "features puzzle_bits ver_min ver_max reserved1 e_s n_s server_id time_ms reserved",
)
AUTH = Layout(
    3, 144, "Q 32s I I Q 64s 16s", "solution client_id device recv_max epoch_ms sig_c mac_c"
)
ACCEPT = Layout(4, 112, "Q I I I I 64s 16s", " ".join(["handle", *LIMITS, "sig_s mac_s"]))
RESUMED = Layout(5, 64, "Q 16s I I I I 16s", " ".join(["handle n_s", *LIMITS, "mac_s"]))
ALERT = Layout(0x7F, 24, "H B B I 8s", "code ver_min ver_max retry_ms reserved")


class MessageReader:
    """Makes messages whole, and judges each as its bytes come."""

    def __init__(self):
        self.held = bytearray()

    def feed(self, data: bytes, *allowed: Layout) -> tuple[Layout, bytes] | None:
        """The next message, if `data` makes it whole; the rest is kept."""
        self.held += data
        held = bytes(self.held[:8])
        need(held[:4] == MAGIC[: len(held)], Code.BAD_MAGIC)
        if len(held) < 5:
            return None
        layout = next((one for one in allowed if one.number == held[4]), None)
        need(layout is not None, Code.BAD_STATE, "type")
        need(len(held) < 6 or held[5] == VERSION, Code.BAD_VERSION)
        size = layout.size.to_bytes(2, "little")
        need(len(held) < 8 or held[6:] == size, Code.BAD_LENGTH)
        if len(self.held) < layout.size:
            return None
        whole = bytes(self.held[: layout.size])
        del self.held[: layout.size]
        return layout, whole

    def rest(self) -> bytes:
        """What came after the last message: records."""
        return bytes(self.held)
