# mypy: ignore-errors
# The line above: this runs in the peer's own environment, and ours has none of the libraries it imports.
"""faster-whisper behind LitServe; a script of LitServe's own environment.

Written as LitServe's pages show it: the model is loaded in `setup`, once in each worker, before the server answers
`/health` with 200. The settings are LitServe's defaults; only what the benchmark must fix is set: address, workers
and threads, and a time limit that no queue of the benchmark reaches (the default, 30 s, would count as lost requests).
LitServe cleans up after Ctrl-C only and would leave its workers behind at SIGTERM, so SIGTERM is made to mean Ctrl-C.
"""

import argparse
import signal
from typing import Annotated

import litserve
import numpy as np
from fastapi import Body
from faster_whisper import WhisperModel

REQUEST_TIMEOUT_S = 300


class Transcriber(litserve.LitAPI):
    """Transcribes the samples in the body with one model."""

    def __init__(self, weights: str, threads: int, beam_size: int, language: str) -> None:
        super().__init__(api_path="/transcribe")
        self.weights = weights
        self.threads = threads
        self.beam_size = beam_size
        self.language = language

    def setup(self, device: str) -> None:
        """Load the model; called once in each worker."""
        self.model = WhisperModel(self.weights, device=device, compute_type="int8", cpu_threads=self.threads)

    def decode_request(
        self, request: Annotated[bytes, Body(media_type="application/octet-stream")]
    ) -> np.ndarray:
        """The samples as faster-whisper takes them."""
        return np.frombuffer(request, dtype="<i2").astype(np.float32) / 32768

    def predict(self, samples: np.ndarray) -> str:
        """The text of *samples*."""
        segments, _ = self.model.transcribe(samples, language=self.language, beam_size=self.beam_size)
        return "".join(segment.text for segment in segments).strip()

    def encode_response(self, text: str) -> dict[str, str]:
        """The answer's body."""
        return {"text": text}


def main() -> None:
    """Serve on loopback until told to end."""
    parser = argparse.ArgumentParser(description="faster-whisper behind LitServe")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--weights", required=True, help="folder of a CTranslate2 Whisper model")
    parser.add_argument("--replicas", type=int, required=True, help="worker processes, each with the model")
    parser.add_argument("--threads", type=int, required=True, help="of each worker")
    parser.add_argument("--beam-size", type=int, required=True)
    parser.add_argument("--language", required=True)
    given = parser.parse_args()

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = litserve.LitServer(
        Transcriber(given.weights, given.threads, given.beam_size, given.language),
        accelerator="cpu",
        workers_per_device=given.replicas,
        timeout=REQUEST_TIMEOUT_S,
    )
    server.run(host="127.0.0.1", port=given.port, generate_client_file=False)


if __name__ == "__main__":
    main()
