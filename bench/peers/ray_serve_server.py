# mypy: ignore-errors
# The line above: this runs in the peer's own environment, and ours has none of the libraries it imports.
"""faster-whisper behind Ray Serve, its models loaded by `serve.multiplexed`; a script of Ray's own environment.

Written as Ray's pages on multiplexing and on FastAPI ingress show it. A replica loads a model when the first request
that names it arrives, so ready means that requests are taken, not that a model is loaded: that is how multiplexing
works, and what a first request costs is for the benchmark to show. Blocking calls go to a thread, so the features of
one utterance are computed while another is decoded. Ray's own settings are its defaults; only what the benchmark must
fix is set: addresses, folders, replicas and threads.
"""

import argparse
import asyncio
import os
import secrets
import signal
import tempfile

import numpy as np
import ray
from fastapi import FastAPI, HTTPException, Request
from faster_whisper import WhisperModel
from ray import serve

LOOPBACK = "127.0.0.1"
api = FastAPI()


@serve.deployment
@serve.ingress(api)
class Transcriber:
    """Transcribes with the model that the request's header `serve_multiplexed_model_id` names."""

    def __init__(self, folders: dict[str, str], threads: int, beam_size: int, language: str) -> None:
        self.folders = folders
        self.threads = threads
        self.beam_size = beam_size
        self.language = language

    @serve.multiplexed(max_num_models_per_replica=3)
    async def get_model(self, model_id: str) -> WhisperModel:
        """The model called *model_id*, loaded at its first use."""
        return await asyncio.to_thread(
            WhisperModel,
            self.folders[model_id],
            device="cpu",
            compute_type="int8",
            cpu_threads=self.threads,
        )

    @api.get("/health")
    async def health(self) -> dict[str, str]:
        """Answered by a replica, so requests are taken."""
        return {"status": "ok"}

    @api.post("/transcribe")
    async def transcribe(self, request: Request) -> dict[str, str]:
        """The text of the samples in the body."""
        model_id = serve.get_multiplexed_model_id()
        if model_id not in self.folders:
            raise HTTPException(404, f"no model {model_id!r}")
        model = await self.get_model(model_id)
        return {"text": await asyncio.to_thread(self.decode, model, await request.body())}

    def decode(self, model: WhisperModel, pcm: bytes) -> str:
        """Blocks until *pcm* is transcribed."""
        samples = np.frombuffer(pcm, dtype="<i2").astype(np.float32) / 32768
        segments, _ = model.transcribe(samples, language=self.language, beam_size=self.beam_size)
        return "".join(segment.text for segment in segments).strip()


def main() -> None:
    """Start Ray and Serve on loopback and serve until told to end."""
    parser = argparse.ArgumentParser(description="faster-whisper behind Ray Serve")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--weights", required=True, help="folder of a CTranslate2 Whisper model")
    parser.add_argument("--model-id", required=True, help="what requests call this model")
    parser.add_argument("--replicas", type=int, required=True, help="processes, each with the model")
    parser.add_argument("--threads", type=int, required=True, help="of each replica")
    parser.add_argument("--beam-size", type=int, required=True)
    parser.add_argument("--language", required=True)
    given = parser.parse_args()

    # Ray makes a token for its cluster and keeps it in the home folder unless it is given one.
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    ray.init(
        address="local",
        num_cpus=given.replicas * given.threads,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=tempfile.gettempdir(),
    )
    # Ray's native handler of SIGTERM would abort the process, and leave its children to notice.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": LOOPBACK, "port": given.port})
        serve.run(
            Transcriber.options(
                num_replicas=given.replicas, ray_actor_options={"num_cpus": given.threads}
            ).bind({given.model_id: given.weights}, given.threads, given.beam_size, given.language),
            blocking=True,
        )
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
