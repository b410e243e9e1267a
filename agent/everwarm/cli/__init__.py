"""The command `everwarm`: thin, over the local platform, the client, the registry and the demo.

Starting must be quick, so this package imports only what parses arguments; each command imports what it needs.
"""

from everwarm.cli.app import main

__all__ = ["main"]
