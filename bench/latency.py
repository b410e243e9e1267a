"""How long an utterance takes, against faster-whisper on the same clips, one caller at a time.

Every way is a process of its own (`bench.way`), and all are asked for one utterance after the other, in turn: the ratio of
two medians then says something on a machine that is slow today. Everwarm is measured twice, its engine in process and
a whole platform through client, router and HTTP; what the way costs is the median of these two's differences, utterance by
utterance, when they alone take turns, since after five other decodes neither finds anything in the caches. Both are
started anew for each round of that, so that it is not the figure of one pair of processes. One thread each, int8, the same
weights; widths of the search as named.
The settings of the allocator and of OpenBLAS are those that each has for its users, and once more the other way round.
"""

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

import everwarm
from bench.corpus.load import Utterance, latency_set, load_corpus
from bench.report import Figure, Promise, Report, quantile
from bench.way import Answer, Setting, running_way
from everwarm.event_loop import new_event_loop
from everwarm_core.cpus import ONE_BLAS_THREAD
from everwarm_core.pod_environment import MALLOC
from tests.support.platform import running_platform

UTTERANCES: Final = 64
MODELS: Final = ("tiny.en", "base")
LIMITS: Final = {1: 0.27, 5: 0.32}  # x faster-whisper's median, by beams
HTTP_FACTOR: Final = 1.05
HTTP_S: Final = 0.0015
PAIR_ROUNDS: Final = 3  # each with processes of its own

REFERENCE: Final = "faster-whisper, cached"
ENGINE: Final = "Everwarm, in process"
HTTP: Final = "Everwarm, client and HTTP"
PAIRED: Final = ", the two alone in turn"

POD_SETTINGS: Final = {**MALLOC, **ONE_BLAS_THREAD}

Ask = Callable[[Path], Answer]


@dataclass(slots=True)
class Column:
    """What one way took for each utterance, in order, in seconds."""

    name: str
    ask: Ask
    took_s: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        """Of all utterances."""
        return statistics.median(self.took_s)


def run() -> Report:
    """Both models, both widths of the search."""
    clips = latency_set(load_corpus(), UTTERANCES)
    figures: list[Figure] = []
    promises: list[Promise] = []
    with tempfile.TemporaryDirectory() as folder:
        files = _written(clips, Path(folder))
        for model in MODELS:
            for beam in LIMITS:
                columns = _measured(Setting(model, "en", beam, threads=1), files, Path(folder))
                title = f"{model}, {'beam ' + str(beam) if beam > 1 else 'greedy'}"
                figures += _figures(title, columns)
                promises += _promises(title, beam, columns)
    seconds = [clip.seconds for clip in clips]
    note = f"{len(clips)} utterances of {min(seconds):.1f} to {max(seconds):.1f} s, median {statistics.median(seconds):.1f} s."
    return Report("Latency of an utterance", tuple(figures), tuple(promises), (note,))


def _written(clips: Sequence[Utterance], folder: Path) -> list[Path]:
    files = []
    for clip in clips:
        files.append(folder / f"{clip.id}.npy")
        np.save(files[-1], clip.audio)
    return files


def _measured(setting: Setting, files: Sequence[Path], folder: Path) -> dict[str, Column]:
    sys.stderr.write(f"bench: latency: {setting.model}, beam {setting.beam}\n")
    ways: list[tuple[str, str, Mapping[str, str]]] = [
        (REFERENCE, "cached", {}),
        (f"{REFERENCE}, our settings", "cached", POD_SETTINGS),
        (ENGINE, "engine", POD_SETTINGS),
        (f"{ENGINE}, nobody's settings", "engine", {}),
    ]
    if setting.beam > 1:  # at their users' defaults
        ways += [("a model per utterance", "per_utterance", {}), ("BatchedInferencePipeline", "batched", {})]
    with ExitStack() as running:
        asks: dict[str, Ask] = {
            name: running.enter_context(running_way(way, setting, environment)).ask
            for name, way, environment in ways
        }
        asks[HTTP] = running.enter_context(_platform(setting, folder))
        columns = [Column(name, ask) for name, ask in asks.items()]
        _ask_in_turn(columns, files)
    for _ in range(PAIR_ROUNDS):
        with (
            running_way("engine", setting, POD_SETTINGS) as alone,
            _platform(setting, folder) as by_http,
        ):
            pair = Column(ENGINE + PAIRED, alone.ask), Column(HTTP + PAIRED, by_http)
            _ask_in_turn(pair, files)
            columns += pair
    return _joined(columns)


def _joined(columns: Sequence[Column]) -> dict[str, Column]:
    """By name; those of one name, of several rounds, are one."""
    joined: dict[str, Column] = {}
    for column in columns:
        joined.setdefault(column.name, Column(column.name, column.ask)).took_s += column.took_s
    return joined


def _ask_in_turn(columns: Sequence[Column], files: Sequence[Path]) -> None:
    for file in files[:3]:
        for column in columns:
            column.ask(file)
    for number, file in enumerate(files):
        first = number % len(columns)  # whoever comes after a long decode finds the caches empty
        for column in (*columns[first:], *columns[:first]):
            column.took_s.append(column.ask(file).seconds)


@contextmanager
def _platform(setting: Setting, folder: Path) -> Iterator[Ask]:
    """A platform with one pod of two slots, so that each has one thread, asked by a client that routes by itself."""
    resource = (
        "{apiVersion: everwarm.dev/v1alpha1, kind: WhisperModel, metadata: {name: bench}, spec: {"
        f"model: {setting.model}, languages: [{setting.language}], slots: 2, decode: {{beamSize: {setting.beam}}}}}}}"
    )
    with (
        running_platform(resource, folder=folder) as platform,
        asyncio.Runner(loop_factory=new_event_loop) as runner,
    ):
        client = everwarm.Client(redis_url=platform.redis_url())
        runner.run(client.__aenter__())

        async def transcribe(samples: Path) -> Answer:
            audio = np.load(samples)
            loop = asyncio.get_running_loop()
            began = loop.time()
            found = await client.transcribe(audio, model=setting.model, language=setting.language)
            return Answer(loop.time() - began, found.text)

        try:
            yield lambda samples: runner.run(transcribe(samples))
        finally:
            runner.run(client.aclose())


def _figures(title: str, columns: Mapping[str, Column]) -> list[Figure]:
    reference = columns[REFERENCE]
    return [
        Figure(
            f"{title}: {name}",
            column.median_s * 1000,
            "ms",
            f"{column.median_s / reference.median_s:.3f} x; p95 {quantile(column.took_s, 0.95) * 1000:.0f} ms,"
            f" p99 {quantile(column.took_s, 0.99) * 1000:.0f} ms",
        )
        for name, column in columns.items()
    ]


def _promises(title: str, beam: int, columns: Mapping[str, Column]) -> list[Promise]:
    faster = columns[ENGINE].median_s / columns[REFERENCE].median_s
    ours, remote = (columns[name + PAIRED] for name in (ENGINE, HTTP))
    costs_s = (by_http - alone for alone, by_http in zip(ours.took_s, remote.took_s, strict=True))
    return [
        Promise(f"{title}: engine / faster-whisper, p50", faster, LIMITS[beam], "x"),
        Promise(
            f"{title}: client and HTTP over the engine, p50",
            statistics.median(costs_s) * 1000,
            max((HTTP_FACTOR - 1) * ours.median_s, HTTP_S) * 1000,
            "ms",
        ),
    ]
