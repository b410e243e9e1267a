"""Everwarm for Pipecat: a speech-to-text service that holds no model and opens nothing until its pipeline starts.

    stt = everwarm.pipecat.STTService(model="base.en", language="en", base_url="http://gateway:8080")

`STTService` is Pipecat's segmented interface over `everwarm.Client`: a VAD in the pipeline cuts utterances, and each
goes to a pod that is already warm. Inside this package `pipecat` always means Pipecat's own package.
"""

try:
    import pipecat as _pipecat  # noqa: F401  # the one place that says what is missing
except ModuleNotFoundError as error:
    if error.name != "pipecat":
        raise
    raise ImportError(
        "everwarm.pipecat needs pipecat-ai, which is not installed: pip install 'everwarm[pipecat]'",
        name=error.name,
    ) from error

from everwarm.pipecat.stt import STTService

__all__ = ["STTService"]
