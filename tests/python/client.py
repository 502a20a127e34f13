"""A client of a running relay, on asyncio: sockets, clock and randomness around wardline.py."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time

import wardline
from wardline import Alerted, Client, Close, Code, Connection, Fault, Flag, Frame, Kind, Session, Type


class Refusal(Exception):
    """The relay said no to a question (Refused) or to a message (Nack)."""

    def __init__(self, fields: dict):
        super().__init__(f"{fields}")
        self.code = fields["code"]


class Ended(Exception):
    """The connection is over. `close`: the other end's CLOSE; None: it was cut."""

    def __init__(self, close: Close | None):
        super().__init__("cut" if close is None else f"CLOSE {close.code:02x} {close.detail}")
        self.close = close


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Agent:
    """One identity and device, on one connection at a time, with one session as long as it lasts.

    `frames` is what came for it, `told` what the relay said unasked.
    """

    def __init__(self, seed: bytes | None = None, *, server: bytes | None = None, device: int = 0):
        self.seed = seed or secrets.token_bytes(32)
        self.server, self.device = server, device or secrets.randbits(32)
        self.epoch_ms = now_ms()
        self.mids = itertools.count(secrets.randbelow(2**62) or 1)
        self.asks = itertools.count(1)
        self.session: Session | None = None
        # What this one asked, and whom; and who asked it what (2.4.2).
        self.requests: dict[int, int] = {}
        self.asked: set[tuple[int, int]] = set()
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.told: asyncio.Queue[tuple[str, dict]] = asyncio.Queue()
        self.writer: asyncio.StreamWriter | None = None

    @property
    def key(self) -> bytes:
        return wardline.public(self.seed)

    # Coming and going

    async def connect(self, host: str, port: int, *, resume: bool = False) -> None:
        """A handshake: a full one, or, with `resume`, whichever the relay chooses."""
        try:
            reader, half = await self.shake(host, port, resume)
        except Alerted as why:
            if why.alert["code"] != Code.PUZZLE_REQUIRED:
                raise
            # It solves what it is set when it comes again, after its backoff: once (2.2.3).
            await asyncio.sleep(0.5 + secrets.randbelow(1_000) / 1_000)
            reader, half = await self.shake(host, port, resume)
        self.session, self.server = half.session, half.session.server_id
        self.connection = Connection(self.session, is_client=True, now_ms=now_ms())
        self.waiting: dict[object, asyncio.Future] = {}
        self.answers: dict[int, asyncio.Queue] = {}
        self.over: Exception | None = None
        self.reading = asyncio.create_task(self.read(reader, half.reader.rest()))
        if self.session.resumed:
            await self.flush()
        else:
            # Handles that were known are void (2.2.10).
            self.requests.clear()
            self.asked.clear()

    async def shake(self, host: str, port: int, resume: bool) -> tuple[asyncio.StreamReader, Client]:
        half = self.half(resume)
        reader, self.writer = await asyncio.open_connection(host, port)
        try:
            self.writer.write(half.hello)
            while half.session is None:
                data = await reader.read(65_536)
                if not data:
                    raise Ended(None)
                self.writer.write(half.feed(data))
        except BaseException:
            self.writer.close()
            raise
        return reader, half

    def half(self, resume: bool) -> Client:
        return Client(
            self.seed,
            secrets.token_bytes(32),
            secrets.token_bytes(16),
            server=self.server,
            hint=self.server or bytes(32),
            device=self.device,
            epoch_ms=self.epoch_ms,
            resume=self.session if resume else None,
        )

    async def cut(self) -> None:
        """No CLOSE, no end of the stream: a reset."""
        self.writer.transport.abort()
        await self.reading

    async def close(self, code: int = Code.NORMAL) -> Close:
        """The other end's CLOSE. It must have taken all that was sent."""
        sent = self.connection.writer.seq
        self.connection.close(code)
        self.give()
        self.writer.write_eof()
        await self.reading
        if not isinstance(self.over, Ended) or self.over.close is None:
            raise self.over or Ended(None)
        if self.over.close.taken < sent:
            raise self.over
        return self.over.close

    # What comes

    async def read(self, reader: asyncio.StreamReader, data: bytes) -> None:
        close = None
        try:
            while True:
                for kind, *values in self.connection.feed(data, now_ms()):
                    if kind == "close":
                        close = values[0]
                        if not self.connection.closed_by_us:
                            self.connection.close()
                    else:
                        self.act(kind, *values)
                self.give()
                data = await reader.read(65_536)
                if not data:
                    break
        except Fault as why:
            self.over = why
            if not self.connection.closed_by_us:
                self.connection.close(*why.blame())
                self.give()
        except ConnectionError:
            pass
        finally:
            self.over = self.over or Ended(close)
            for future in self.waiting.values():
                if not future.done():
                    future.set_exception(self.over)
            for queue in self.answers.values():
                queue.put_nowait(("Over", {}))
            self.writer.close()

    def act(self, kind: str, *values) -> None:
        if kind == "ping" and not self.connection.closed_by_us:
            self.connection.send(Type.PONG, values[0])
        elif kind == "pong":
            self.resolve("pong", None)
        elif kind == "frames":
            for frame in values[0]:
                self.take(frame)
        elif kind == "control":
            name, fields = values
            if name == "Nack":
                self.requests.pop(fields["mid"], None)
                self.fail(fields["mid"], Refusal(fields))
                self.told.put_nowait((name, fields))
            elif name == "Verdict":
                self.resolve(fields["mid"], fields)
            elif fields.get("ask") in self.answers:
                self.answers[fields["ask"]].put_nowait((name, fields))
            elif name != "Credit" or (fields["peer"], fields["corr"]) in self.asked:
                self.told.put_nowait((name, fields))

    def take(self, frame: Frame) -> None:
        """One frame. An answer that was not asked for, or not of who gives it, is dropped."""
        if frame.kind in (Kind.REPLY, Kind.STREAM):
            if self.requests.get(frame.corr) != frame.peer:
                return
            if frame.kind == Kind.REPLY or frame.flags & Flag.END:
                del self.requests[frame.corr]
        elif frame.kind == Kind.REQUEST:
            self.asked.add((frame.peer, frame.mid))
        if frame.kind != Kind.REPLY or not self.resolve(frame.corr, frame):
            self.frames.put_nowait(frame)

    def wait_for(self, what: object) -> asyncio.Future:
        if self.over:
            raise self.over
        self.waiting[what] = asyncio.get_running_loop().create_future()
        return self.waiting[what]

    def resolve(self, what: object, value: object) -> bool:
        future = self.waiting.pop(what, None)
        if future is None or future.done():
            return False
        future.set_result(value)
        return True

    def fail(self, what: object, why: Exception) -> None:
        future = self.waiting.pop(what, None)
        if future is not None and not future.done():
            future.set_exception(why)

    # What goes

    def give(self) -> None:
        """Writes what the connection has for the other end."""
        if self.connection.out:
            self.writer.write(bytes(self.connection.out))
            self.connection.out.clear()

    def send(self, kind: Type, body: bytes = b"") -> None:
        if self.over:
            raise self.over
        self.connection.send(kind, body)
        self.give()

    async def flush(self) -> None:
        """Until the relay has taken, or refused, all that was sent (2.3.1, PONG)."""
        pong = self.wait_for("pong")
        self.send(Type.PING, secrets.token_bytes(8))
        await pong

    async def rekey(self) -> None:
        self.send(Type.REKEY)

    async def ask(self, name: str, /, **fields) -> list[tuple[str, dict]]:
        """All answers to a question; a Refusal if it is refused."""
        ask = next(self.asks) & 0xFFFF_FFFF
        queue = self.answers[ask] = asyncio.Queue()
        body = wardline.encode_control(name, True, ask=ask, **fields)
        self.send(Type.CONTROL, body)
        answers = []
        while True:
            answer, values = await queue.get()
            if answer == "Over":
                raise self.over
            if answer == "Refused":
                raise Refusal(values)
            answers.append((answer, values))
            if name not in ("Resolve", "Who") or answer == "Done":
                del self.answers[ask]
                return answers

    async def subscribe(self, name: str, start=("Now",), *, echo=False, presence=False) -> dict:
        fields = {"name": name.encode(), "from": start, "echo": echo, "presence": presence}
        return (await self.ask("Subscribe", **fields))[0][1]

    async def open(self, name: str) -> int:
        return (await self.ask("Open", name=name.encode()))[0][1]["topic"]

    def unsubscribe(self, topic: int) -> None:
        self.send(Type.CONTROL, wardline.encode_control("Unsubscribe", True, topic=topic))

    def frame(self, kind: Kind, payload: bytes, **fields) -> int:
        """Sends one frame; its number."""
        mid = next(self.mids)
        self.put(Frame(kind, payload, mid=mid, **fields))
        return mid

    def put(self, frame: Frame) -> None:
        if frame.kind == Kind.REQUEST:
            self.requests[frame.mid] = frame.peer
        elif frame.kind == Kind.REPLY or frame.flags & Flag.END:
            self.asked.discard((frame.peer, frame.corr))
        self.send(Type.FRAMES, frame.encode())

    def publish(self, topic: int, payload: bytes, **fields) -> int:
        return self.frame(Kind.PUBLISH, payload, topic=topic, **fields)

    async def publish_and_count(self, topic: int, payload: bytes) -> dict:
        """The relay's Verdict: the message's offset, and how many it was queued for."""
        mid = next(self.mids)
        verdict = self.wait_for(mid)
        frame = Frame(Kind.PUBLISH, payload, mid=mid, topic=topic, flags=Flag.VERDICT)
        self.send(Type.FRAMES, frame.encode())
        return await verdict

    def direct(self, peer: int, payload: bytes) -> int:
        return self.frame(Kind.DIRECT, payload, peer=peer)

    async def request(self, peer: int, payload: bytes) -> Frame:
        """The REPLY; a Refusal where the relay could not hand it on."""
        mid = next(self.mids)
        reply = self.wait_for(mid)
        self.put(Frame(Kind.REQUEST, payload, mid=mid, peer=peer))
        return await reply

    def reply(self, request: Frame, payload: bytes) -> int:
        return self.frame(Kind.REPLY, payload, peer=request.peer, corr=request.mid)
