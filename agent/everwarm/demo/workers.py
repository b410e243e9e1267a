"""A worker as voice agents had it before Everwarm: `python -m everwarm.demo.workers before|cached NAME FOLDER`.

`before` makes a new model for every utterance, as the system this project was born from did; `cached` keeps one per
process under the key `{model}_{language}`, which was its repair. Both write that system's log lines in its order, and
the demo counts the loads from them. The only module of this package that may import faster-whisper; it is imported
by nobody and runs in processes of its own.
"""

import sys
import time
from typing import Final

import structlog
from faster_whisper import WhisperModel

from everwarm.demo.protocol import Answer, loaded_libraries, read_order, write
from everwarm_core.logs import Tag, configure_logging

LANGUAGE: Final = "en"
BEAM_SIZE: Final = 5  # the spec's default, so that all ways decode alike
CPU_THREADS: Final = 1  # as many as a pod of the demo gets

log = structlog.get_logger("everwarm.demo.workers")


class ModelFactory:
    """Makes models; with a cache, one per key for the life of the process."""

    def __init__(self, folder: str, *, has_cache: bool) -> None:
        self._folder = folder
        self._cache: dict[str, tuple[str, WhisperModel]] | None = {} if has_cache else None
        self._made = 0

    def get(self, model: str) -> WhisperModel:
        """The model to transcribe one utterance with."""
        key = f"{model}_{LANGUAGE}"
        if self._cache is not None and key in self._cache:
            instance, cached = self._cache[key]
            log.info("stt.reused", tag=Tag.CACHE, key=key, instance=instance)
            log.info("model.reused", tag=Tag.REUSE, model=model, language=LANGUAGE, instance=instance)
            return cached
        self._made += 1
        instance = f"{self._made}"
        log.info("stt.created", tag=Tag.CACHE, key=key, instance=instance)
        log.info("engine.created", tag=Tag.INIT, model=model, language=LANGUAGE, instance=instance)
        log.info("model.loading", tag=Tag.LOAD, model=model, language=LANGUAGE, instance=instance)
        started = time.perf_counter()
        made = WhisperModel(
            self._folder,
            device="cpu",
            compute_type="int8",
            cpu_threads=CPU_THREADS,
            num_workers=1,
            local_files_only=True,
        )
        log.info(
            "model.loaded",
            tag=Tag.LOAD,
            model=model,
            language=LANGUAGE,
            instance=instance,
            load_s=round(time.perf_counter() - started, 3),
        )
        if self._cache is not None:
            self._cache[key] = instance, made
        return made


def transcribe(factory: ModelFactory, model: str, path: str) -> Answer:
    """Get a model, as this way does, and transcribe the file at *path*."""
    started = time.perf_counter()
    segments, _ = factory.get(model).transcribe(path, language=LANGUAGE, beam_size=BEAM_SIZE)
    text = "".join(segment.text for segment in segments).strip()
    return Answer(time.perf_counter() - started, text, served_by="itself", libraries=loaded_libraries())


def main() -> None:
    """Serve orders until stdin ends."""
    way, model, folder = sys.argv[1:]
    configure_logging(json=True)
    factory = ModelFactory(folder, has_cache={"before": False, "cached": True}[way])
    sys.stdout.buffer.write(write(None))
    sys.stdout.buffer.flush()
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(write(transcribe(factory, model, read_order(line).path)))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
