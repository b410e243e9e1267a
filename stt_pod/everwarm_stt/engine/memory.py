"""Memory that only some decodes need, given back after them (docs/adr/0007)."""

import ctypes
from contextlib import suppress


def give_back_free_memory() -> None:
    """Have malloc return what it holds free; takes milliseconds. Nothing happens beside glibc."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
