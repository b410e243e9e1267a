"""Headers of our own, and what is believed of those that strangers send. Names are lower-case, as ASGI has them."""

import math
import re
from secrets import token_hex
from typing import Final

from everwarm_core.errors import InvalidParameter

REQUEST_ID_HEADER: Final = "x-request-id"
DEADLINE_HEADER: Final = "x-everwarm-deadline-ms"
POD_HEADER: Final = "x-everwarm-pod"
INFLIGHT_HEADER: Final = "x-everwarm-inflight"
SLOTS_HEADER: Final = "x-everwarm-slots"
IDLE_HEADER: Final = "x-everwarm-idle-only"
"""With any value: only on a slot that is free now, for the result may turn out to be of no use."""

MAX_DEADLINE_S: Final = 86_400.0  # a day: beyond any patience, and no float that asyncio cannot add

_SANE_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def new_request_id() -> str:
    """A random id for one request."""
    return f"req_{token_hex(16)}"


def sane_request_id(given: str) -> str:
    """*given* when it is harmless in logs and headers, else a new id."""
    return given if _SANE_ID.fullmatch(given) else new_request_id()


def parse_deadline_s(text: str) -> float:
    """The seconds that `x-everwarm-deadline-ms: text` grants, a day at most; raises InvalidParameter."""
    try:
        deadline_ms = float(text)
    except ValueError as error:
        raise InvalidParameter(DEADLINE_HEADER, f"{text[:40]!r} is no number of milliseconds") from error
    if not math.isfinite(deadline_ms) or deadline_ms < 0:
        raise InvalidParameter(DEADLINE_HEADER, f"{text[:40]!r} is no number of milliseconds from 0 on")
    return min(deadline_ms / 1000, MAX_DEADLINE_S)
