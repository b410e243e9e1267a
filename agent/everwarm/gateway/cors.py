"""Whether a browser hands our answers to pages of other origins: to none, unless their origins are configured.

Only `/v1/`: metrics and probes are nobody's business on the web. A preflight needs no key, for browsers send none with
it, and tells nothing but what may be sent. Cookies are never asked for, so any header may be sent and even `*` gives no
page more than it could have by itself: who shows no key gets no further than curl would.
"""

from collections.abc import Sequence
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

API: Final = "/v1/"
PREFLIGHT_AGE_S: Final = 3600  # browsers keep it for two hours at most
EXPOSED: Final = (
    "retry-after", "server-timing", "x-request-id", "x-should-retry",
    "x-everwarm-attempts", "x-everwarm-inflight", "x-everwarm-pod", "x-everwarm-slots",
    "x-ratelimit-limit-audio-seconds", "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-audio-seconds", "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-audio-seconds",
)  # fmt: skip


class Cors:
    """The ASGI middleware around *app*, which pages of *origins* may call."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        self._app = app
        self._shared = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=EXPOSED,
            max_age=PREFLIGHT_AGE_S,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        is_api = scope["type"] == "http" and scope["path"].startswith(API)
        await (self._shared if is_api else self._app)(scope, receive, send)
