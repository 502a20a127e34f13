"""What no honest end says: points that are no keys, bytes that were changed, proofs of others."""

from __future__ import annotations

import wardline
from wardline import AUTH, L_C, L_S, Client, Server, h, kh, sign


P = wardline.P
ORDER = 2**252 + 27742317777372353535851937790883648493


def y(number: int, sign_bit: int = 0) -> bytes:
    return (number | sign_bit << 255).to_bytes(32, "little")


def small_orders() -> list[bytes]:
    """The eight points whose order divides 8, by arithmetic: h(x) times the rest of the group."""
    found, number = {}, 0
    while len(found) < 8:
        number += 1
        point = lift(y(number))
        if point:
            torsion = times(ORDER, point)
            found[encode(torsion)] = None
    return sorted(found)


def lift(key: bytes) -> tuple[int, int] | None:
    """The point of an encoding, whatever its order."""
    number = int.from_bytes(key, "little") & (2**255 - 1)
    square = (number * number - 1) * pow(wardline.D * number * number + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    for x in (root, root * pow(2, (P - 1) // 4, P) % P):
        if x * x % P == square:
            return (x, number)
    return None


def times(scalar: int, point: tuple[int, int]) -> tuple[int, int]:
    out = (0, 1)
    while scalar:
        if scalar & 1:
            out = wardline.add_points(out, point)
        point, scalar = wardline.add_points(point, point), scalar >> 1
    return out


def encode(point: tuple[int, int]) -> bytes:
    return y(point[1], point[0] & 1)


# What is no public key: points of small order, y not below p, no point.
SMALL = small_orders()
NOT_CANONICAL = [y(P), y(P + 1), y(P, 1), y(2**255 - 1), y(P + 3)]
NO_POINT = [y(2), y(7)]
NOT_KEYS = SMALL + NOT_CANONICAL + NO_POINT


def flip(data: bytes, bit: int) -> bytes:
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def put(data: bytes, at: int, field: bytes) -> bytes:
    return data[:at] + field + data[at + len(field) :]


# X25519: what does not contribute, by its u, some with the top bit set or over p.
NOT_CONTRIBUTORY = [
    y(0),
    y(1),
    y(P - 1),
    y(P),
    y(P + 1),
    y(0, 1),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]


def with_order(signature: bytes) -> bytes:
    s = int.from_bytes(signature[32:], "little") + ORDER
    return signature[:32] + s.to_bytes(32, "little")


def auth(client: Client, *, seed: bytes = b"", signature: bytes = b"", **changes) -> bytes:
    """Another AUTH of a client that has said one: signed, by `seed`'s key, and tagged."""
    values = AUTH.decode(client.auth) | changes
    seed = seed or client.seed
    before = client.hello + client.challenge
    message = AUTH.encode(values)[:64]
    signed = signature or sign(seed, L_C, h(before, message))
    message += signed
    return message + kh(client.k_cc, h(before, message))


def accept(server: Server, client: Client, message: bytes, signed: bytes | None = None) -> bytes:
    """ACCEPT, signed unless `signed`, and tagged."""
    before = client.hello + client.challenge + client.auth
    signed = signed or sign(server.seed, L_S, h(before, message[:32]))
    message = message[:32] + signed
    return message + kh(client.k_cs, h(before, message))
