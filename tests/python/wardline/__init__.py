"""The native dialect of the relay, both halves, as PROTOCOL.md section 2 has it.

Written from that document alone, to show that it is enough, and to be read beside it: a module a
section. No sockets, clocks or randomness here: bytes in, bytes out.
"""

from .client_half import *
from .codes import *
from .control import *
from .envelopes import *
from .frames import *
from .keys import *
from .messages import *
from .records import *
from .schedule import *
from .server_half import *
