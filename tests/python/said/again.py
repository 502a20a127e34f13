"""Resumes, and changes of keys."""

from __future__ import annotations

import wardline
from recorder import HANDLE, Rng, Transcript, plain
from said.forging import flip
from said.handshakes import chat
from said.values import frame, value
from wardline import Code, Type, Writer, public


def resumed() -> None:
    def first(name: str, **changes) -> Transcript:
        t = Transcript("resumed", name)
        if changes:
            t.handshake(**changes)
        else:
            t.usual()
        return t

    def again(t: Transcript, **changes) -> None:
        t.handshake(resume=True, **changes)
        assert t.half["client"].session.resumed
        t.say("client", "ping", t.rng.bytes(8))
        t.say("server", "pong", bytes.fromhex(t.steps[-1]["takes"][0][1]))

    for name, changes in [
        ("at once", {}),
        ("with another handle", {"handle": 77}),
        ("with other limits", {"limits": (5, 6, 7, 8)}),
        ("with features offered", {"features": 9}),
        ("with another recv_max, which is not said", {"recv_max": 2_000}),
        ("of another device, which is not said", {"device": 3}),
        ("under a puzzle, which is not set", {"puzzle_bits": 12}),
    ]:
        t = first(name)
        again(t, **changes)
        t.farewell("server", Code.GOING_AWAY)
    t = first("three times")
    for _ in range(3):
        again(t, handle=HANDLE + t.rng.below(99))
        chat(t)
    t = first("after rekeys, which do not touch rms")
    for at in ("client", "server", "server"):
        t.say(at, "rekey")
    again(t)
    t.say("client", "rekey")
    t.say("client", "ping", t.rng.bytes(8))
    again(t)
    rng = Rng("resumed pin")
    seed = rng.bytes(32)
    t = first("with a pin", seeds=[seed], pin=public(seed))
    again(t, pin=public(seed))
    t = first("the first record need not be a PING")
    t.handshake(resume=True)
    t.say("client", "frames", [frame(t.rng, True)])
    t.say("server", "control", *value(t.rng, False))
    resumed_refused(first)


def resumed_refused(first) -> None:
    t = first("the server does not know it: a full one with the same HELLO")
    t.old_server = None
    t.handshake(resume=True)
    assert not t.half["client"].session.resumed
    t.farewell()
    for bit in (0, 64, 127):
        t = first(f"a wrong proof, bit {bit}: a full one")
        t.begin(resume=True)
        t.hello(flip(t.half["client"].hello, 112 * 8 + bit))
        t.shake("server")
        assert t.half["server"].hello and not t.half["server"].session
        # The client's transcript is another than the server's, so its tag is wrong.
        t.shake("client")
        t.shake("server")
        t.shake("client")
    t = first("of another sid: a full one")
    t.begin(resume=True, muted=("client",))
    t.hello(flip(t.half["client"].hello, 96 * 8 + 70))
    t.shake("server")
    for name, changes in [
        ("banned meanwhile", {"resume": (Code.REFUSED, 0)}),
        ("the address is in quarantine", {"address": (Code.QUARANTINED, 60_000)}),
    ]:
        t = first(name)
        t.begin(resume=True, refuses=changes)
        t.hello()
        t.shake("server")
        t.shake("client")
    t = first("another server answers with CHALLENGE")
    t.begin(resume=True)
    t.half["server"].seeds = [t.rng.bytes(32)]
    t.half["server"].held = ()
    server = t.data["connections"][-1]["server"]
    server["seeds"] = plain(t.half["server"].seeds)
    del server["holds"]
    t.hello()
    t.shake("server")
    t.shake("client")
    for bit in (0, 8 * 8, 16 * 8, 40 * 8, 48 * 8, 63 * 8 + 7):
        t = first(f"RESUMED with bit {bit} wrong")
        t.begin(resume=True)
        t.hello()
        t.shake("server")
        bad = flip(t.last["server"], bit)
        t.shake("client", bad)
    t = first("RESUMED with handle 0, rightly tagged")
    t.begin(resume=True, handle=0, muted=("server",))
    t.hello()
    t.shake("server")
    t.shake("client")
    t = first("a first record with the old connection's key")
    old = t.connection["client"].writer
    t.begin(resume=True)
    t.hello()
    t.shake("server")
    t.shake("client")
    t.take("server", Writer(old.key, old.sid).write(Type.PING, bytes(8)))
    for kind, length in [(Type.FRAMES, 257), (Type.FRAMES, 65_584), (Type.CONTROL, 257)]:
        t = first(f"a first record, {kind.name}, of {length} bytes")
        t.begin(resume=True)
        t.hello()
        t.shake("server")
        t.shake("client")
        t.take("server", wardline.RECORD.pack(kind, 0, 0, length, 0))
    t = first("a first record of 256 bytes")
    t.handshake(resume=True)
    t.say("client", "frames", [frame(t.rng, True, payload=bytes(256 - 48))])
    t.say("client", "frames", [frame(t.rng, True, payload=bytes(65_536))])
    t = first("a HELLO that is played back moves nothing: its keys are nobody's")
    t.handshake(resume=True)
    ping = t.send("client", "ping", bytes(8))
    t.take("server")
    replayed = t.half["client"].hello
    t.begin(resume=True, muted=("client",))
    t.hello(replayed)
    t.shake("server")
    t.take("server", ping)


def rekeyed() -> None:
    for name, script in [
        ("by the client", "cC"),
        ("by the server", "sS"),
        ("by both", "csCS"),
        ("crossing", "ccsCSc"),
        ("many times by the client", "c" * 9 + "CS"),
        ("many times by the server", "s" * 9 + "CS"),
        ("in turns", "cCsScCsScCsS"),
        ("before anything", "cs"),
        ("with a chat between", "c*s*c*"),
        ("and closed", "csCS."),
    ]:
        t = Transcript("rekeyed", name)
        t.usual()
        play(t, script)
    t = Transcript("rekeyed", "on a resumed connection, where keys begin anew")
    t.handshake()
    play(t, "ccs")
    t.handshake(resume=True)
    play(t, "Ccs*")
    for at, other in (("client", "server"), ("server", "client")):
        t = Transcript("rekeyed", f"the old key after the {at}'s REKEY")
        t.usual()
        t.say(at, "rekey")
        old = t.half[at].session
        writer = Writer(old.k_c2s if at == "client" else old.k_s2c, old.sid)
        writer.seq = 1
        t.take(other, writer.write(Type.PING, bytes(8)))
        t = Transcript("rekeyed", f"the {at}'s REKEY under the next key already")
        t.usual()
        writer = t.connection[at].writer
        key = writer.key
        writer.key = wardline.rekeyed(key, writer.sid)
        forged = writer.write(Type.REKEY)
        t.take(other, forged)
    aged()


def play(t: Transcript, script: str) -> None:
    for sign_ in script:
        if sign_ in "cs":
            t.say("client" if sign_ == "c" else "server", "rekey")
        elif sign_ in "CS":
            t.say("client" if sign_ == "C" else "server", "control", *value(t.rng, sign_ == "C"))
        elif sign_ == "*":
            chat(t)
        else:
            t.farewell()


def aged() -> None:
    """A key's time, and 90 s more at who receives."""
    hour = 3_600_000
    for name, ages in [
        ("a key of an hour and 90 s", [hour + 90_000]),
        ("a key of a moment more", [hour + 90_001]),
        ("a REKEY begins its time anew", [hour, "rekey", 2 * hour, 2 * hour + 90_001]),
        ("a REKEY that is too late", [hour + 90_000, 2 * hour, "rekey"]),
    ]:
        t = Transcript("rekeyed", name)
        t.usual()
        for age in ages:
            if age == "rekey":
                t.say("client", "rekey")
            else:
                t.now_ms = age
                t.send("client", "control", *value(t.rng, True))
                t.take("server")
            if "end" in t.steps[-2 if len(t.steps) > 1 else -1]:
                break
