"""Control values. PROTOCOL.md 2.5."""

from __future__ import annotations

from .codes import Code, need
from .keys import is_key


# A place in the list is a variant's number.

TO_RELAY = [
    ("Subscribe", "ask:u32 name:name from:from echo:bool presence:bool"),
    ("Unsubscribe", "topic:u32"),
    ("Open", "ask:u32 name:name"),
    ("Resolve", "ask:u32 identity:key"),
    ("Identify", "ask:u32 handle:u64"),
    ("Who", "ask:u32 topic:u32 after:u64"),
    ("Credit", "peer:u64 corr:u64 bytes:u32"),
]
FROM_RELAY = [
    ("Taken", "mid:u64 seen:bytes128 direct:u64"),
    ("Subscribed", "ask:u32 topic:u32 epoch:u64 next:u64 oldest:u64"),
    ("Opened", "ask:u32 topic:u32"),
    ("Refused", "ask:u32 code:u16 retry_ms:u32"),
    ("Nack", "mid:u64 code:u16 retry_ms:u32"),
    ("Verdict", "mid:u64 offset:u64 readers:u32"),
    ("Gap", "topic:u32 from:u64 to:u64 reason:u8"),
    ("Identity", "ask:u32 handle:u64 identity:key_or_zeros device:u32"),
    ("Done", "ask:u32 next:u64"),
    ("Joined", "topic:u32 handle:u64"),
    ("Left", "topic:u32 handle:u64"),
    ("Credit", "peer:u64 corr:u64 bytes:u32"),
]
STARTS = [("Now", []), ("Offset", ["epoch", "offset"]), ("Last", ["count"])]
NAME_BYTES_MAX = 64
GAP_REASON_MAX = 3


def leb128(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def is_name(name: bytes) -> bool:
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return False
    plain = not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or c in "*>+#" for c in text)
    return 1 <= len(name) <= NAME_BYTES_MAX and plain and not text.startswith("$")


class Values:
    """Reads the fields of a control value one after the other."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        need(len(self.data) - self.at >= count, Code.BAD_VALUE, "too short")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, bits: int) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            need(value < 1 << bits, Code.BAD_VALUE, "too big")
            if byte < 0x80:
                return value
            need(shift < bits, Code.BAD_VALUE, "over-long")

    def field(self, form: str):
        if form in ("u16", "u32", "u64"):
            return self.number(int(form[1:]))
        if form == "u8":
            return self.take(1)[0]
        if form == "bool":
            value = self.take(1)[0]
            need(value <= 1, Code.BAD_VALUE, "bool")
            return bool(value)
        if form == "name":
            name = self.take(self.number(32))
            need(is_name(name), Code.BAD_VALUE, "name")
            return name
        if form == "bytes128":
            need(self.number(32) == 128, Code.BAD_VALUE, "seen")
            return self.take(128)
        if form in ("key", "key_or_zeros"):
            key = self.take(32)
            zeros = form == "key_or_zeros" and key == bytes(32)
            need(zeros or is_key(key), Code.BAD_VALUE, "identity")
            return key
        assert form == "from"
        variant = self.number(32)
        need(variant < len(STARTS), Code.BAD_VALUE, "from")
        name, fields = STARTS[variant]
        return (name, *(self.number(32 if name == "Last" else 64) for _ in fields))


def encode_field(form: str, value) -> bytes:
    if form in ("u16", "u32", "u64"):
        return leb128(value)
    if form in ("u8", "bool"):
        return bytes([value])
    if form in ("name", "bytes128"):
        return leb128(len(value)) + value
    if form in ("key", "key_or_zeros"):
        return value
    names = [name for name, _ in STARTS]
    return leb128(names.index(value[0])) + b"".join(leb128(number) for number in value[1:])


def fields_of(spec: str) -> list[list[str]]:
    return [one.split(":") for one in spec.split()]


def encode_control(name: str, to_relay: bool, /, **values) -> bytes:
    table = TO_RELAY if to_relay else FROM_RELAY
    number = [one for one, _ in table].index(name)
    forms = fields_of(table[number][1])
    return leb128(number) + b"".join(encode_field(form, values[key]) for key, form in forms)


def decode_control(body: bytes, to_relay: bool) -> tuple[str, dict]:
    table = TO_RELAY if to_relay else FROM_RELAY
    reader = Values(body)
    number = reader.number(32)
    need(number < len(table), Code.BAD_VALUE, "variant")
    name, spec = table[number]
    values = {key: reader.field(form) for key, form in fields_of(spec)}
    need(encode_control(name, to_relay, **values) == body, Code.BAD_VALUE, "another encoding")
    if name == "Gap":
        need(values["from"] < values["to"], Code.BAD_VALUE, "an empty gap")
        need(values["reason"] <= GAP_REASON_MAX, Code.BAD_VALUE, "reason")
    if name == "Taken":
        first = values["seen"][0] & 1
        need(first == 1 if values["mid"] else not any(values["seen"]), Code.BAD_VALUE, "seen")
    return name, values
