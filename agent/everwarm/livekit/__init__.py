"""Everwarm for LiveKit Agents: an STT that holds no model and opens nothing until it is used.

    stt = everwarm.livekit.create_stt(model="base.en", language="en", fallback="local")

`STT` is livekit-agents' interface over `everwarm.Client`, for streams and for whole utterances; `create_stt` gives one
instance per model and language to a whole process, wrapped in a `StreamAdapter` when a VAD is given. Inside this package
`livekit` always means LiveKit's own packages.
"""

try:
    import livekit.agents as _livekit_agents  # noqa: F401  # the one place that says what is missing
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "livekit":
        raise
    raise ImportError(
        "everwarm.livekit needs livekit-agents, which is not installed: pip install 'everwarm[livekit]'",
        name=error.name,
    ) from error

from everwarm.livekit.factory import create_stt
from everwarm.livekit.stt import STT

__all__ = ["STT", "create_stt"]
