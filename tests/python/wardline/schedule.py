"""What both ends derive, and the puzzle. PROTOCOL.md 2.2.2, 2.2.3."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .keys import dk, h, kh


@dataclass
class Session:
    """What both ends know once they trust each other."""

    handle: int
    sid: bytes
    k_c2s: bytes
    k_s2c: bytes
    rms: bytes
    limits: dict
    recv_max: int
    features: int
    client_id: bytes
    server_id: bytes
    resumed: bool = False


def session_keys(ms: bytes, thf: bytes, handle: int) -> dict:
    out = dk("wardline 2026-11 v1 session", ms, thf, length=104)
    k_c2s, k_s2c, rms, r = out[:32], out[32:64], out[64:96], out[96:]
    return {"k_c2s": k_c2s, "k_s2c": k_s2c, "rms": rms, "sid": struct.pack("<Q", handle) + r}


def handshake_keys(dh: bytes, th1: bytes) -> tuple[bytes, bytes, bytes]:
    out = dk("wardline 2026-11 v1 handshake", dh, th1, length=96)
    return out[:32], out[32:64], out[64:]


def resume_proof(rms: bytes, hello: bytes) -> bytes:
    return kh(dk("wardline 2026-11 v1 resume proof", rms), hello[:112])


def resume_keys(rms: bytes, thr: bytes) -> tuple[bytes, bytes, bytes]:
    out = dk("wardline 2026-11 v1 resume", rms, thr, length=96)
    return out[:32], out[32:64], out[64:]


def rekeyed(key: bytes, sid: bytes) -> bytes:
    return dk("wardline 2026-11 v1 rekey", key, sid)


def is_solved(n_s: bytes, client_id: bytes, solution: int, bits: int) -> bool:
    digest = h(n_s, client_id, struct.pack("<Q", solution))
    return int.from_bytes(digest, "big") >> (256 - bits) == 0


def solve(n_s: bytes, client_id: bytes, bits: int) -> int:
    solution = 0
    while not is_solved(n_s, client_id, solution, bits):
        solution += 1
    return solution


PUZZLE_BITS_MAX = 22
