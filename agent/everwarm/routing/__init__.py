"""Which pod gets an utterance, and why.

`pick` and `budget` are pure, `loads` is plain bookkeeping, `router` puts them over a source of snapshots and waits.
"""

from everwarm.routing.pick import Choice, Reason, pick
from everwarm.routing.router import Route, Router

__all__ = ["Choice", "Reason", "Route", "Router", "pick"]
