"""Kubernetes quantities as numbers, so that `500m` and `0.5`, `1Gi` and `1024Mi` compare as what they mean.

The API server answers with the canonical form of what it was sent: a limit applied as `0.5` comes back as `500m`,
and only the value tells whether somebody changed it.
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from decimal import Decimal
from typing import Final

_QUANTITY: Final = re.compile(
    r"(?P<number>[+-]?(\d+\.?\d*|\.\d+))(?P<suffix>[eE][+-]?\d{1,3}|[KMGTPE]i|[numkMGTPE]?)"
)
_MULTIPLES: Final = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal("1e3"), "M": Decimal("1e6"), "G": Decimal("1e9"),
    "T": Decimal("1e12"), "P": Decimal("1e15"), "E": Decimal("1e18"),
    "Ki": Decimal(1 << 10), "Mi": Decimal(1 << 20), "Gi": Decimal(1 << 30),
    "Ti": Decimal(1 << 40), "Pi": Decimal(1 << 50), "Ei": Decimal(1 << 60),
}  # fmt: skip


def parse_quantity(value: object) -> Decimal | None:
    """The number that *value* stands for (`500m`, `1Gi`, `2`, 0.5); None when it is no quantity."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    matched = _QUANTITY.fullmatch(str(value).strip())
    if matched is None:
        return None
    number, suffix = Decimal(matched["number"]), matched["suffix"]
    multiple = _MULTIPLES.get(suffix)
    return number * (Decimal(f"1{suffix}") if multiple is None else multiple)
