"""The server's half of the handshake. PROTOCOL.md 2.2.5, 2.2.8."""

from __future__ import annotations

from .codes import Code, Fault, need
from .keys import L_C, L_S, agree, ephemeral, h, is_key, kh, public, same, sign, verify
from .messages import ACCEPT, ALERT, AUTH, CHALLENGE, HELLO, LIMITS, RESUMED, VERSION
from .messages import MessageReader
from .schedule import Session, handshake_keys, is_solved, resume_keys, resume_proof, session_keys


class Server:
    """The server's half: `feed` what comes, send what it gives. A Fault becomes an `alert`.

    `held`: the sessions that can be resumed. `refuses`: what the relay around it says no to.
    """

    def __init__(
        self,
        seeds: list[bytes],
        secret: bytes,
        n_s: bytes,
        *,
        handle: int,
        limits: tuple[int, int, int, int],
        time_ms: int = 0,
        puzzle_bits: int = 0,
        held: tuple[Session, ...] = (),
        refuses: dict[str, tuple[Code, int]] | None = None,
    ):
        self.seeds, self.secret, self.n_s, self.handle = seeds, secret, n_s, handle
        self.limits = dict(zip(LIMITS, limits))
        self.time_ms, self.puzzle_bits, self.held = time_ms, puzzle_bits, held
        self.refuses = refuses or {}
        self.reader = MessageReader()
        self.hello = b""
        self.session: Session | None = None

    def feed(self, data: bytes) -> bytes:
        got = self.reader.feed(data, AUTH if self.hello else HELLO)
        if got is None:
            return b""
        layout, message = got
        values = layout.decode(message)
        if layout is AUTH:
            return self.on_auth(message, values)
        need(1 <= values["ver_min"] <= VERSION, Code.BAD_VALUE, "ver_min")
        self.ask("address")
        self.hello = message
        out = self.on_resume(values) or self.on_hello(values)
        if self.session is None and self.reader.held:
            out += self.feed(b"")
        return out

    def ask(self, what: str) -> None:
        """What the relay around it may refuse, at its place in the order of 2.2.5."""
        if what in self.refuses:
            code, retry_ms = self.refuses[what]
            raise Fault(code, what, retry_ms)

    def on_resume(self, values: dict) -> bytes | None:
        old = next((one for one in self.held if one.sid == values["resume_sid"]), None)
        if not old or not same(values["proof"], resume_proof(old.rms, self.hello)):
            return None
        self.ask("resume")
        fields = self.limits | {"handle": self.handle, "n_s": self.n_s, "mac_s": bytes(16)}
        resumed = RESUMED.encode(fields)[:48]
        thr = h(self.hello, resumed)
        k_rs, k_c2s, k_s2c = resume_keys(old.rms, thr)
        self.session = Session(
            handle=self.handle,
            sid=old.sid,
            k_c2s=k_c2s,
            k_s2c=k_s2c,
            rms=old.rms,
            limits=self.limits,
            recv_max=old.recv_max,
            features=old.features,
            client_id=old.client_id,
            server_id=old.server_id,
            resumed=True,
        )
        return resumed + kh(k_rs, thr)

    def on_hello(self, values: dict) -> bytes:
        self.ask("budget")
        keys = {public(seed): seed for seed in self.seeds}
        self.seed = keys.get(values["hint"], self.seeds[0])
        self.e_c = values["e_c"]
        self.challenge = CHALLENGE.encode(
            {
                "features": 0,
                "puzzle_bits": self.puzzle_bits,
                "ver_min": VERSION,
                "ver_max": VERSION,
                "reserved1": b"\0",
                "e_s": ephemeral(self.secret),
                "n_s": self.n_s,
                "server_id": public(self.seed),
                "time_ms": self.time_ms,
            }
        )
        return self.challenge

    def on_auth(self, auth: bytes, values: dict) -> bytes:
        client_id, before = values["client_id"], self.hello + self.challenge
        solved = is_solved(self.n_s, client_id, values["solution"], self.puzzle_bits)
        need(solved, Code.PUZZLE_REQUIRED)
        self.ask("budget of AUTH")
        dh = agree(self.secret, self.e_c)
        need(dh is not None, Code.AUTH_FAILED, "e_c")
        k_cc, k_cs, ms = handshake_keys(dh, h(before))
        tagged = same(values["mac_c"], kh(k_cc, h(before, auth[:128])))
        need(tagged, Code.AUTH_FAILED, "mac_c")
        need(is_key(client_id), Code.AUTH_FAILED, "client_id")
        need(client_id != public(self.seed), Code.AUTH_FAILED, "client_id is server_id")
        signed = verify(client_id, L_C, h(before, auth[:64]), values["sig_c"])
        need(signed, Code.AUTH_FAILED, "sig_c")
        need(values["recv_max"] >= 1024, Code.BAD_VALUE, "recv_max")
        for what in ("permission", "ban", "sessions"):
            self.ask(what)
        fields = self.limits | {"handle": self.handle, "sig_s": bytes(64), "mac_s": bytes(16)}
        before += auth
        accept = ACCEPT.encode(fields)[:32]
        accept += sign(self.seed, L_S, h(before, accept))
        accept += kh(k_cs, h(before, accept))
        self.session = Session(
            handle=self.handle,
            limits=self.limits,
            recv_max=values["recv_max"],
            features=0,
            client_id=client_id,
            server_id=public(self.seed),
            **session_keys(ms, h(before, accept), self.handle),
        )
        return accept

    def alert(self, code: Code, retry_ms: int = 0) -> bytes:
        fields = {"code": code, "ver_min": VERSION, "ver_max": VERSION, "retry_ms": retry_ms}
        return ALERT.encode(fields)
