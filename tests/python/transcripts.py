"""Makes the transcripts that core/tests/transcripts replays through the relay's own halves.

    python3 transcripts.py FILE

One JSON object a line, the same bytes at every run. A transcript has `kind`, `name`, and what its
kind needs:

- `connections`: one after the other, each `client`, `server` (the secrets, nonces and limits of
  that half, as far as they are not zero; null where that half is not replayed, since no honest
  one would say this) and `steps`. A step happens `at` an end: it is given the bytes `in` (left
  out: what the other end gave last) or does something (`do`), and what it gives is `out`.
  `takes`: the records that it found; `session`: the id of the session that it now has; `end`:
  the code, or the word, it ends with; `now_ms`: when. Where a fault can be known before a message
  is whole, `in` ends with the byte that tells.
- `before`: the transcript whose steps come first, and `steps`, which go on with its connection.
- `cases`: bodies of records by themselves: whether they go to the relay, hexadecimal, and what
  they hold or their code.
- `letters`: envelopes, those who make them and those who take them.
"""

from __future__ import annotations

import json
import sys

from recorder import ALL
from said.again import rekeyed, resumed
from said.bodies import controls, frames
from said.handshakes import full, puzzled
from said.letters import envelopes
from said.records import records, refused_records
from said.refused_by_client import refused_by_the_client
from said.refused_by_server import refused_auth, refused_hello


def every() -> str:
    ALL.clear()
    for part in (full, puzzled, resumed, rekeyed, refused_hello, refused_auth):
        part()
    for part in (refused_by_the_client, records, refused_records, frames, controls, envelopes):
        part()
    lines = (json.dumps(one.data, separators=(",", ":"), ensure_ascii=True) for one in ALL)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with open(sys.argv[1], "w", encoding="ascii") as out:
        out.write(every())
