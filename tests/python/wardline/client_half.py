"""The client's half of the handshake. PROTOCOL.md 2.2.6."""

from __future__ import annotations

from .codes import Alerted, Code, Distrust, need
from .keys import L_C, L_S, agree, ephemeral, h, is_key, kh, public, same, sign, verify
from .messages import ACCEPT, ALERT, AUTH, CHALLENGE, HELLO, LIMITS, RESUMED, VERSION
from .messages import MessageReader
from .schedule import PUZZLE_BITS_MAX, Session, handshake_keys, resume_keys, resume_proof
from .schedule import session_keys, solve


class Client:
    """The client's half: send `hello`, then `feed` what comes until it gives a session."""

    def __init__(
        self,
        seed: bytes,
        secret: bytes,
        n_c: bytes,
        *,
        server: bytes | None = None,
        hint: bytes = bytes(32),
        features: int = 0,
        device: int = 0,
        recv_max: int = 65_584,
        epoch_ms: int = 0,
        resume: Session | None = None,
    ):
        self.seed, self.secret, self.server, self.resume = seed, secret, server, resume
        self.features, self.device = features, device
        self.recv_max, self.epoch_ms = recv_max, epoch_ms
        if resume:
            self.server = resume.server_id
        fields = {"ver_min": 1, "reserved": bytes(3), "features": features, "proof": bytes(16)}
        fields |= {"e_c": ephemeral(secret), "n_c": n_c, "hint": hint}
        fields["resume_sid"] = resume.sid if resume else bytes(16)
        self.hello = HELLO.encode(fields)
        if resume:
            self.hello = self.hello[:112] + resume_proof(resume.rms, self.hello)
        self.reader = MessageReader()
        self.auth = b""
        self.session: Session | None = None

    def feed(self, data: bytes) -> bytes:
        """What to send. Afterwards `session` is there, or something else is awaited."""
        now = [ACCEPT] if self.auth else [CHALLENGE] + [RESUMED] * bool(self.resume)
        got = self.reader.feed(data, *now, ALERT)
        if got is None:
            return b""
        layout, message = got
        values = layout.decode(message)
        if layout is ALERT:
            raise Alerted(values)
        if layout is CHALLENGE:
            out = self.on_challenge(message, values)
            return out + (self.feed(b"") if self.reader.held else b"")
        if layout is ACCEPT:
            self.on_accept(message, values)
        if layout is RESUMED:
            self.on_resumed(message, values)
        return b""

    def on_challenge(self, message: bytes, values: dict) -> bytes:
        need(values["reserved1"] == b"\0", Code.RESERVED_BITS)
        self.challenge, self.challenged = message, values
        server_id, ours = values["server_id"], public(self.seed)
        trust(self.server in (None, server_id), "wrong server")
        trust(is_key(server_id), "server key")
        trust(server_id != ours, "own key")
        trust(values["features"] & ~self.features == 0, "features")
        trust(values["ver_min"] <= VERSION <= values["ver_max"], "version")
        trust(values["puzzle_bits"] <= PUZZLE_BITS_MAX, "puzzle")
        dh = agree(self.secret, values["e_s"])
        trust(dh is not None, "not contributory")
        th1 = h(self.hello, message)
        self.k_cc, self.k_cs, self.ms = handshake_keys(dh, th1)
        fields = {
            "solution": solve(values["n_s"], ours, values["puzzle_bits"]),
            "client_id": ours,
            "device": self.device,
            "recv_max": self.recv_max,
            "epoch_ms": self.epoch_ms,
            "sig_c": bytes(64),
            "mac_c": bytes(16),
        }
        before = self.hello + message
        auth = AUTH.encode(fields)[:64]
        auth += sign(self.seed, L_C, h(before, auth))
        self.auth = auth + kh(self.k_cc, h(before, auth))
        return self.auth

    def on_accept(self, message: bytes, values: dict) -> None:
        before, server_id = self.hello + self.challenge + self.auth, self.challenged["server_id"]
        trust(same(values["mac_s"], kh(self.k_cs, h(before, message[:96]))), "not proved")
        trust(verify(server_id, L_S, h(before, message[:32]), values["sig_s"]), "not proved")
        need(values["handle"] != 0, Code.BAD_VALUE, "handle")
        self.session = Session(
            handle=values["handle"],
            limits={name: values[name] for name in LIMITS},
            recv_max=self.recv_max,
            features=self.challenged["features"],
            client_id=public(self.seed),
            server_id=server_id,
            **session_keys(self.ms, h(before, message), values["handle"]),
        )

    def on_resumed(self, message: bytes, values: dict) -> None:
        old = self.resume
        thr = h(self.hello, message[:48])
        k_rs, k_c2s, k_s2c = resume_keys(old.rms, thr)
        trust(same(values["mac_s"], kh(k_rs, thr)), "not proved")
        need(values["handle"] != 0, Code.BAD_VALUE, "handle")
        self.session = Session(
            handle=values["handle"],
            sid=old.sid,
            k_c2s=k_c2s,
            k_s2c=k_s2c,
            rms=old.rms,
            limits={name: values[name] for name in LIMITS},
            recv_max=old.recv_max,
            features=old.features,
            client_id=old.client_id,
            server_id=old.server_id,
            resumed=True,
        )


def trust(what: bool, why: str) -> None:
    if not what:
        raise Distrust(why)
