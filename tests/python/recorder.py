"""Drives both halves of the dialect and writes down what they say: see transcripts.py."""

from __future__ import annotations

from blake3 import blake3

import wardline
from wardline import Alerted, Client, Close, Code, Connection, Distrust, Fault, Frame, Server
from wardline import Session, Type

SEED = b"wardline transcripts 1"
LIMITS_USUAL = (65_536, 300_000, 1_000, 8_388_608)
HANDLE = 0x0100_0000_0A00_000B


class Rng:
    """Numbers that follow from a seed and a name: a transcript does not depend on the others."""

    def __init__(self, name: str):
        self.name, self.count = name.encode(), 0

    def bytes(self, length: int) -> bytes:
        self.count += 1
        text = SEED + b"|" + self.name + b"|" + str(self.count).encode()
        return blake3(text).digest(length=length)

    def below(self, limit: int) -> int:
        return int.from_bytes(self.bytes(16), "little") % limit

    def within(self, least: int, most: int) -> int:
        return least + self.below(most - least + 1)

    def pick(self, choices):
        return choices[self.below(len(choices))]


ALL: list["Transcript"] = []


class Transcript:
    """Both halves at work, and what they say written down."""

    def __init__(self, kind: str, name: str):
        self.rng = Rng(f"{kind} {name}")
        self.data = {"kind": kind, "name": name}
        self.old_client: Session | None = None
        self.old_server: Session | None = None
        ALL.append(self)

    # Beginning

    def begin(self, *, muted: tuple[str, ...] = (), resume: bool = False, **changes) -> None:
        """A new connection. `changes`: of the client's or the server's arguments, by name."""
        rng = self.rng
        server = {
            "seeds": [rng.bytes(32)],
            "secret": rng.bytes(32),
            "n_s": rng.bytes(16),
            "puzzle_bits": 0,
            "time_ms": 1_790_000_000_000 + rng.below(10**9),
            "handle": HANDLE + rng.below(1 << 20),
            "limits": LIMITS_USUAL,
            "refuses": {},
        }
        client = {
            "seed": rng.bytes(32),
            "secret": rng.bytes(32),
            "n_c": rng.bytes(16),
            "pin": None,
            "features": 0,
            "device": rng.below(1 << 32),
            "recv_max": 65_584,
            "epoch_ms": 1_790_000_000_000 + rng.below(10**9),
        }
        if resume:
            server["seeds"] = [bytes.fromhex(seed) for seed in self.server_seeds]
            client["seed"] = self.client_seed
        for name, value in changes.items():
            half = client if name in client else server
            assert name in half, name
            half[name] = value
        self.client_seed, self.muted = client["seed"], muted
        self.half = {"client": self.make_client(client, resume), "server": None}
        self.half["server"] = self.make_server(server, resume)
        self.connection: dict[str, Connection | None] = {"client": None, "server": None}
        self.last: dict[str, bytes] = {"client": b"", "server": b""}
        self.given: dict[str, bytes | None] = {"client": None, "server": None}
        self.steps: list[dict] = []
        self.now_ms = 0
        client["resume"] = resume
        self.server_seeds = plain(server["seeds"])
        server["holds"] = bool(self.half["server"].held)
        halves = {"client": client, "server": server}
        for name, half in halves.items():
            # What is left out is zero, or not there.
            half = plain({key: value for key, value in half.items() if value})
            halves[name] = None if name in muted else half
        connections = self.data.setdefault("connections", [])
        connections.append(halves | {"steps": self.steps})

    def make_client(self, values: dict, resume: bool) -> Client:
        values = dict(values)
        pin = values.pop("pin")
        seed, secret, n_c = (values.pop(name) for name in ("seed", "secret", "n_c"))
        hint = pin or bytes(32)
        old = self.old_client if resume else None
        return Client(seed, secret, n_c, server=pin, hint=hint, resume=old, **values)

    def make_server(self, values: dict, resume: bool) -> Server:
        values = dict(values)
        seeds, secret, n_s = (values.pop(name) for name in ("seeds", "secret", "n_s"))
        held = (self.old_server,) if resume and self.old_server else ()
        return Server(seeds, secret, n_s, held=held, **values)

    def usual(self) -> None:
        """The handshake that most begin with: written once, as a transcript of its own."""
        own, self.rng = self.rng, Rng("usual")
        self.handshake()
        self.rng = own
        base = next((one for one in ALL if one.data["name"] == "usual"), None)
        if not base:
            base = Transcript("full", "usual")
            base.data["connections"] = self.data["connections"]
            ALL.insert(0, ALL.pop())
        assert base.data["connections"] == self.data["connections"]
        self.steps = []
        self.data = {key: self.data[key] for key in ("kind", "name")}
        self.data |= {"before": "usual", "steps": self.steps}
        self.server_seeds = base.data["connections"][0]["server"]["seeds"]

    # Steps

    def note(self, at: str, step: dict) -> None:
        if at in self.muted:
            self.given[at] = None
            return
        if self.now_ms:
            step["now_ms"] = self.now_ms
        self.steps.append({"at": at} | step)
        self.given[at] = bytes.fromhex(step["out"]) if "out" in step else None

    def hello(self, changed: bytes | None = None) -> None:
        """The client begins. `changed`: what comes at the server instead."""
        out = self.half["client"].hello
        self.note("client", {"do": ["hello"], "out": out.hex()})
        self.last["client"] = out if changed is None else changed

    def step_in(self, at: str, data: bytes | None) -> tuple[bytes, dict]:
        other = "server" if at == "client" else "client"
        given, data = self.given[other], self.last[other] if data is None else data
        return data, {} if given == data else {"in": data.hex()}

    def shake(self, at: str, data: bytes | None = None) -> None:
        """A handshake's message comes, whole or not: byte by byte."""
        data, step = self.step_in(at, data)
        half, out = self.half[at], b""
        for end in range(len(data)):
            try:
                out += half.feed(data[end : end + 1])
            except (Fault, Distrust, Alerted) as why:
                if end + 1 < len(data):
                    step = {"in": data[: end + 1].hex()}
                step |= self.ended(half, why)
                break
        else:
            if half.session:
                step["session"] = half.session.sid.hex()
                self.connection[at] = Connection(half.session, at == "client", self.now_ms)
            if out:
                step["out"] = out.hex()
        self.note(at, step)
        self.last[at] = bytes.fromhex(step.get("out", ""))

    def ended(self, half: Client | Server, why: Exception) -> dict:
        if isinstance(why, Alerted):
            names = ("code", "ver_min", "ver_max", "retry_ms")
            return {"end": "alert", "alert": [why.alert[name] for name in names]}
        if isinstance(why, Distrust):
            return {"end": str(why)}
        assert isinstance(why, Fault)
        step = {"end": int(why.code)}
        if isinstance(half, Server):
            step["out"] = half.alert(why.code, why.retry_ms).hex()
        return step

    def handshake(self, **changes) -> None:
        """All of a full handshake or of a resume that goes well."""
        self.begin(**changes)
        self.hello()
        self.shake("server")
        self.shake("client")
        if not self.half["client"].session:
            self.shake("server")
            self.shake("client")
        self.remember()

    def remember(self) -> None:
        client, server = self.half["client"].session, self.half["server"].session
        assert client == server and client, "both have the same session"
        self.old_client, self.old_server = client, server

    def send(self, at: str, what: str, *values) -> bytes:
        """An end says something; afterwards `take` is the other end's turn."""
        end = self.connection[at]
        if what in ("ping", "pong"):
            end.send(Type.PING if what == "ping" else Type.PONG, values[0])
        elif what == "close":
            end.close(*values)
        elif what == "rekey":
            end.send(Type.REKEY)
        elif what == "control":
            end.send(Type.CONTROL, wardline.encode_control(values[0], at == "client", **values[1]))
        elif what == "frames":
            end.send(Type.FRAMES, b"".join(frame.encode() for frame in values[0]))
        out, end.out = bytes(end.out), bytearray()
        self.note(at, {"do": [what, *map(plain, values)], "out": out.hex()})
        self.last[at] = out
        return out

    def take(self, at: str, data: bytes | None = None) -> None:
        """Records come, byte by byte."""
        data, step = self.step_in(at, data)
        end, takes = self.connection[at], []
        for place in range(len(data)):
            try:
                before = end.reader.seq
                for taken in end.feed(data[place : place + 1], self.now_ms):
                    takes.append(plain(taken[:1] if taken[0] == "pong" else taken))
                if end.reader.seq != before and end.closed_by_us and not end.closed_by_them:
                    takes.append(["dropped"])
            except Fault as why:
                if place + 1 < len(data):
                    step = {"in": data[: place + 1].hex()}
                step["end"] = int(why.code)
                blame = why.blame()
                break
        self.note(at, step | {"takes": takes})
        self.last[at] = b""
        # A session that was resumed, and not proved, says nothing (2.2.8).
        is_proved = at == "client" or not self.half[at].session.resumed or end.reader.seq > 0
        if "end" in step and not end.closed_by_us and is_proved:
            self.send(at, "close", *blame)

    def say(self, at: str, what: str, *values) -> None:
        """Said and taken."""
        self.send(at, what, *values)
        self.take("server" if at == "client" else "client")

    def farewell(self, first: str = "client", *values) -> None:
        other = "server" if first == "client" else "client"
        self.say(first, "close", *(values or (Code.NORMAL,)))
        self.say(other, "close", Code.NORMAL)


def plain(value):
    """As JSON has it."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, Close):
        return [int(value.code), value.detail, value.retry_ms, value.taken]
    if isinstance(value, Frame):
        head = [value.kind, value.klass, value.flags, value.topic, value.ttl_ms]
        head += [value.peer, value.mid, value.offset, value.corr]
        return [*map(int, head), value.payload.hex()]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    return int(value)
