"""wardline.py against the page's vector and others' vectors."""

from __future__ import annotations

import hashlib
import json
import unittest
from pathlib import Path

from said import forging
import wardline
from wardline import Client, Code, Connection, Distrust, Fault, Server, Type

HANDLE = 0x0100_0000_0A00_000B
LIMITS = (65_536, 300_000, 1_000, 8_388_608)


def full(pin: bytes | None = None) -> tuple[Client, Server, bytes]:
    client = Client(
        b"\3" * 32, b"\1" * 32, b"\5" * 16, server=pin, device=8, recv_max=65_584, epoch_ms=9
    )
    server = Server([b"\4" * 32], b"\2" * 32, b"\6" * 16, handle=HANDLE, limits=LIMITS, time_ms=7)
    auth = client.feed(server.feed(client.hello))
    client.feed(server.feed(auth))
    return client, server, auth


class Vector(unittest.TestCase):
    """PROTOCOL.md 2.2.9."""

    def test_full(self):
        client, server, auth = full()
        self.assertEqual(auth[128:].hex(), "7bf97980419e837defc56ea0ca51382b")
        self.assertEqual(client.session.sid.hex(), "0b00000a00000001ce8cb3c2161deabc")
        self.assertEqual(client.session, server.session)
        ping = Connection(client.session, is_client=True).writer.write(Type.PING, b"\x0d" * 8)
        self.assertEqual(ping[16:32].hex(), "02aea48c83fc748a4b2164d077eccca7")

    def test_resume(self):
        client, server, _ = full()
        again = Client(b"\3" * 32, b"\1" * 32, b"\x0b" * 16, resume=client.session)
        held = (server.session,)
        other = Server(
            [b"\4" * 32], b"\2" * 32, b"\x0c" * 16, handle=HANDLE, limits=LIMITS, held=held
        )
        again.feed(other.feed(again.hello))
        self.assertEqual(again.hello[112:].hex(), "765592e939c803812ad593d42517520b")
        self.assertEqual(again.session.k_c2s[:8].hex(), "0064a559d17100bc")
        self.assertEqual(again.session, other.session)

    def test_a_changed_byte_is_noticed(self):
        """Whichever byte of whichever message it is: nobody has a session who should not."""
        for message in range(4):
            for at in range((128, 112, 144, 112)[message]):
                with self.subTest(message=message, at=at):
                    self.changed(message, at)

    def changed(self, message: int, at: int) -> None:
        client = Client(b"\3" * 32, b"\1" * 32, b"\5" * 16)
        server = Server([b"\4" * 32], b"\2" * 32, b"\6" * 16, handle=1, limits=LIMITS)
        data = client.hello
        with self.assertRaises((Fault, Distrust, wardline.Alerted)):
            for nth in range(4):
                if nth == message:
                    data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                data = (client if nth % 2 else server).feed(data)
                if not data and nth < 3:
                    raise Fault(Code.BAD_LENGTH, "waits for more")
        self.assertFalse(client.session)


def point(key: bytes) -> tuple[int, int]:
    """The point of an encoding, canonical or not."""
    x, y = forging.lift(key)
    return (-x % wardline.P, y) if x & 1 != key[31] >> 7 else (x, y)


def minus(a: tuple[int, int]) -> tuple[int, int]:
    return (-a[0] % wardline.P, a[1])


BASE = point(forging.y(4 * pow(5, -1, wardline.P) % wardline.P))


def equations(key: bytes, message: bytes, signature: bytes) -> tuple[bool, bool]:
    """Whether S B = R + k A holds, and whether eight times that does."""
    times, add = forging.times, wardline.add_points
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    k = int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % forging.ORDER
    rest = add(add(times(s, BASE), minus(times(k, point(key)))), minus(point(r)))
    return rest == (0, 1), times(8, rest) == (0, 1)


class Keys(unittest.TestCase):
    """The vectors that core/tests/ed25519_vectors.rs takes, too."""

    @classmethod
    def setUpClass(cls):
        path = Path(__file__).parent / "../../core/tests/data/keys.json"
        cls.all = json.loads(path.read_text())

    def each(self, name: str):
        for one in self.all[name]:
            yield {key: bytes.fromhex(value) for key, value in one.items() if key in self.HEX}

    HEX = {"seed", "key", "message", "signature", "secret", "public", "shared"}

    def test_rfc_8032(self):
        for one in self.each("rfc_8032"):
            seed, key, message = one["seed"], one["key"], one["message"]
            self.assertEqual(wardline.public(seed), key)
            self.assertEqual(wardline.sign(seed, b"", message), one["signature"])
            self.assertTrue(wardline.is_key(key))
            self.assertTrue(wardline.verify(key, b"", message, one["signature"]))
            self.assertFalse(wardline.verify(key, b"", message + b"x", one["signature"]))
            high = forging.with_order(one["signature"])
            self.assertFalse(wardline.verify(key, b"", message, high))

    def test_speccheck(self):
        """Each case is what it is said to be, by arithmetic; strictly, one is good."""
        holds = [(True, True)] * 4 + [(False, True)] * 2 + [(True, True)] * 2
        holds += [(False, False), (True, True), (False, True), (True, True)]
        for nth, one in enumerate(self.each("speccheck")):
            with self.subTest(nth=nth):
                key, message, signature = one["key"], one["message"], one["signature"]
                self.assertEqual(equations(key, message, signature), holds[nth])
                in_range = int.from_bytes(signature[32:], "little") < forging.ORDER
                self.assertEqual(in_range, nth not in (6, 7))
                self.assertEqual(wardline.is_key(key), nth not in (0, 1, 10, 11))
                good = wardline.verify(key, b"", message, signature)
                self.assertEqual(good, self.all["speccheck"][nth]["good"])

    def test_small_orders(self):
        """What arithmetic finds is what the literature lists."""
        self.assertEqual(self.all["small_orders"], [key.hex() for key in forging.SMALL])
        for key in forging.NOT_KEYS:
            self.assertFalse(wardline.is_key(key), key.hex())

    def test_rfc_7748(self):
        for one in self.each("x25519"):
            self.assertEqual(wardline.agree(one["secret"], one["public"]), one["shared"])
        k = u = b"\x09".ljust(32, b"\0")
        for count in range(1, 1_001):
            k, u = wardline.agree(k, u), k
            if str(count) in self.all["x25519_iterated"]:
                self.assertEqual(k.hex(), self.all["x25519_iterated"][str(count)])

    def test_secrets_that_are_zero(self):
        for key in self.all["x25519_zero"]:
            self.assertIsNone(wardline.agree(b"\7" * 32, bytes.fromhex(key)))
        for key in self.all["x25519_only_unmasked"]:
            self.assertIsNotNone(wardline.agree(b"\7" * 32, bytes.fromhex(key)))


class Rejections(unittest.TestCase):
    def test_a_key_ends(self):
        """Its last record is its REKEY."""
        client, server, _ = full()
        for records, good in ((2**32 - 1, True), (2**32, False)):
            sender = Connection(client.session, is_client=True)
            receiver = Connection(server.session, is_client=False)
            receiver.reader.key_records = records
            record = sender.writer.write(Type.REKEY)
            if good:
                self.assertEqual(list(receiver.feed(record)), [("rekey",)])
                self.assertEqual(receiver.reader.key_records, 0)
            else:
                with self.assertRaises(Fault) as raised:
                    list(receiver.feed(record))
                self.assertEqual(raised.exception.code, Code.BAD_STATE)

    def test_pieces(self):
        """However a stream is cut, the same comes out."""
        client, server, _ = full()
        sender = Connection(client.session, is_client=True)
        sender.send(Type.PING, bytes(8))
        sender.send(Type.REKEY)
        sender.send(Type.CONTROL, wardline.encode_control("Open", True, ask=1, name=b"a"))
        sender.close()
        stream, whole = bytes(sender.out), None
        for size in (len(stream), 1, 7, 31, 33):
            receiver, got = Connection(server.session, is_client=False), []
            for at in range(0, len(stream), size):
                got += receiver.feed(stream[at : at + size])
            whole = whole or got
            self.assertEqual(got, whole)
            self.assertEqual(receiver.taken, 4)


if __name__ == "__main__":
    unittest.main()
