"""Hashes, keys and signatures. PROTOCOL.md 2, 2.2.4.

The arithmetic is the curve's own, for what libraries do not tell.
"""

from __future__ import annotations

import hmac

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def h(*parts: bytes) -> bytes:
    return blake3(b"".join(parts)).digest()


def kh(key: bytes, *parts: bytes) -> bytes:
    return blake3(b"".join(parts), key=key).digest()[:16]


def dk(context: str, *parts: bytes, length: int = 32) -> bytes:
    return blake3(b"".join(parts), derive_key_context=context).digest(length=length)


def same(a: bytes, b: bytes) -> bool:
    return hmac.compare_digest(a, b)


# 2.2.4: public keys. The arithmetic is the curve's own, for what libraries do not tell.

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def add_points(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    return (
        (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P,
    )


def is_key(key: bytes) -> bool:
    """A point in its one encoding, and not of small order."""
    number = int.from_bytes(key, "little")
    y, sign = number & (2**255 - 1), number >> 255
    if len(key) != 32 or y >= P:
        return False
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square:
        return False
    if x & 1 != sign:
        x = -x % P
    point = (x, y)
    for _ in range(3):
        point = add_points(point, point)
    return point != (0, 1)


def public(seed: bytes) -> bytes:
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def sign(seed: bytes, label: bytes, message: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).sign(label + message)


def verify(key: bytes, label: bytes, message: bytes, signature: bytes) -> bool:
    """Strictly. The library compares R as encoded bytes and bounds S; small orders it lets pass."""
    if not is_key(key) or not is_key(signature[:32]):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, label + message)
        return True
    except InvalidSignature:
        return False


def agree(secret: bytes, other: bytes) -> bytes | None:
    """None where the other's key does not contribute."""
    try:
        ours = X25519PrivateKey.from_private_bytes(secret)
        return ours.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError:
        return None


def ephemeral(secret: bytes) -> bytes:
    key = X25519PrivateKey.from_private_bytes(secret).public_key()
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def label(text: str) -> bytes:
    return (b"\xf5" + text.encode()).ljust(32, b"\0")


L_C = label("wardline v1 client auth")
L_S = label("wardline v1 server auth")
L_E = label("wardline v1 envelope")
