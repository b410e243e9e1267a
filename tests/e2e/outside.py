"""An agent outside the cluster: LiveKit's stream of speech, in a thread of its own, for as long as the story plays.

It reaches the gateway through `kubectl port-forward`, which holds on to one pod and ends with it; then another one is
begun at the same port. What is decoded when that happens, the STT sends again by itself: the stream stays open.
"""

import asyncio
import itertools
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

import numpy as np
from livekit.agents import APIConnectOptions
from livekit.agents.stt import RecognizeStream, SpeechEventType

from everwarm.livekit import STT
from tests.cluster.clients import find_kubectl
from tests.e2e.kubectl import Json, Kubectl
from tests.support.frames import FRAMES_PER_S, frames
from tests.support.pods import free_port
from tests.support.speech import SAMPLE_RATE, Clip, words

FINAL_S = 60.0
AGAIN_S = 0.2
MOST_WRONG = 0.2  # words of an utterance, as inside the cluster
SILENCE = np.zeros(SAMPLE_RATE, np.int16)
SILENCE_S = len(SILENCE) / SAMPLE_RATE


@contextmanager
def forwarded(kubectl: Kubectl, service: str) -> Iterator[str]:
    """The URL at which *service* is reached from outside inside `with`, whichever of its pods come and go."""
    port, stop = free_port(), threading.Event()
    command = kubectl.command(find_kubectl(), "port-forward", f"service/{service}", f"{port}:8080")
    running: list[subprocess.Popen[bytes]] = []

    def keep() -> None:
        while not stop.is_set():
            running[:] = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
            running[0].wait()
            stop.wait(AGAIN_S)

    thread = threading.Thread(target=keep, name="port-forward")
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop.set()
        while thread.is_alive():  # it may be about to begin another one
            for process in running:
                process.kill()
            thread.join(AGAIN_S)


@contextmanager
def livekit_agent(url: str, *, model: str, clips: Sequence[Clip]) -> Iterator[list[Json]]:
    """What an agent that says *clips* in turn has to tell of its utterances, as scripts inside do; it speaks inside `with`."""
    told: list[Json] = []
    stop = threading.Event()

    def run() -> None:
        try:
            asyncio.run(_speak_on(url, model, clips, told.append, stop))
        except Exception as error:  # noqa: BLE001 - whatever ends the agent, the story is to know
            told.append(_line(0.0, f"the agent ended: {type(error).__name__}: {error}"))

    thread = threading.Thread(target=run, name="livekit-agent")
    thread.start()
    try:
        yield told
    finally:
        stop.set()
        thread.join()


async def _speak_on(
    url: str, model: str, clips: Sequence[Clip], tell: Callable[[Json], None], stop: threading.Event
) -> None:
    async with AsyncExitStack() as stack:
        stt = await stack.enter_async_context(STT(model=model, language="en", base_url=url))
        options = APIConnectOptions(max_retry=3, timeout=FINAL_S)
        stream = await stack.enter_async_context(stt.stream(conn_options=options))
        for clip in itertools.cycle(clips):
            if stop.is_set():
                return
            tell(await _said(stream, clip))


async def _said(stream: RecognizeStream, clip: Clip) -> Json:
    """Say *clip* at its own pace; what became of it."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number, frame in enumerate(frames(np.concatenate([clip.samples(), SILENCE])), 1):
        stream.push_frame(frame)
        await asyncio.sleep(max(0.0, began + number / FRAMES_PER_S - loop.time()))
    spoken = loop.time() - SILENCE_S
    finals = []
    try:
        async with asyncio.timeout(FINAL_S):
            async for event in stream:
                if event.type is SpeechEventType.FINAL_TRANSCRIPT:
                    finals.append(event.alternatives[0].text)
                if event.type is SpeechEventType.END_OF_SPEECH:
                    break
    except TimeoutError:
        return _line(FINAL_S, f"no final in {FINAL_S:g} s")
    said = set(words(clip.text))
    if len(finals) != 1:
        problem = f"{len(finals)} finals came"
    elif len(said - set(words(finals[0]))) > MOST_WRONG * len(said):
        problem = "other words came back"
    else:
        problem = None
    return _line(loop.time() - spoken, problem)


def _line(took: float, problem: str | None) -> Json:
    return {"way": "livekit", "ended": time.time(), "took": took, "problem": problem}
