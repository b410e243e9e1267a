"""The door for everything that is not Python: OpenAI's audio API in front of the router.

The gateway is an agent like any other. It decodes nothing and stores nothing: a body is passed on as the bytes it
came in, and kept just long enough to be sent to another pod when the first one fails.
"""

from everwarm.gateway.server import main, run_gateway

__all__ = ["main", "run_gateway"]
