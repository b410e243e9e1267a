"""A caller in the cluster: realtime sessions through the gateway's Service, one utterance after the other, until SIGTERM.

Speaks at its own pace, with a second of silence behind each utterance, and goes on when its final is there. When the
session is closed or broken it connects again, and says again what has no final yet. One JSON object a line on stdout for
each utterance, as `load` has them, with how often it had to be said again; `took` counts from the last word.

Runs in the gateway's image, with the tests' own client and speech beside it.
"""

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from websockets.exceptions import WebSocketException

from everwarm.demo.wer import words
from tests.support.realtime import SILENCE, Event, RealtimeClient, Samples, at_24_khz, realtime

MOST_WRONG = 0.2  # words of an utterance, as in `load`
FINAL_S = (
    60.0  # from the first word to the final, however often it is said again; a caller would give up sooner
)
AGAIN_S = 0.2
COMPLETED = "conversation.item.input_audio_transcription.completed"
FAILED = "conversation.item.input_audio_transcription.failed"
SILENCE_S = len(SILENCE) / 24_000


@dataclass(slots=True)
class Utterance:
    """What is said, and what became of it. finals: items whose final has come, of all utterances."""

    text: str
    speech: Samples
    finals: set[str]
    began: float = field(default_factory=time.monotonic)
    tries: int = 0
    took_s: float = 0.0
    problem: str | None = None

    async def say(self, client: RealtimeClient) -> None:
        """Say it, and wait for its final."""
        self.tries += 1
        await client.speak(self.speech, SILENCE, pace=1.0)
        spoken = time.monotonic() - SILENCE_S
        event = await outcome(client)
        self.took_s = time.monotonic() - spoken
        if event["type"] != COMPLETED:
            self.problem = f"{event['type']}: {event['error']['message']}"
            return
        item_id, said, heard = event["item_id"], words(self.text), words(event["transcript"])
        if item_id in self.finals:
            self.problem = "a final came twice"
        elif len(set(said) - set(heard)) > MOST_WRONG * len(said):
            self.problem = "other words came back"
        self.finals.add(item_id)


async def outcome(client: RealtimeClient) -> Event:
    """The next final, or whatever came in its stead."""
    while True:
        event: Event = json.loads(await client.socket.recv())
        if event["type"] in (COMPLETED, FAILED, "error"):
            return event


@dataclass(slots=True)
class Caller:
    """Who speaks."""

    speech: tuple[tuple[str, Samples], ...]
    stop: asyncio.Event
    finals: set[str] = field(default_factory=set)

    async def call(self, url: str, model: str) -> None:
        """Speak until told to stop, and then to the end of what is being said."""
        waiting = itertools.cycle(self.speech)
        utterance = Utterance(*next(waiting), self.finals)
        while not self.stop.is_set():
            try:
                async with realtime(url, model=model) as client:
                    await client.update(transcription={"model": model, "language": "en"})
                    while not self.stop.is_set():
                        async with asyncio.timeout(FINAL_S):
                            await utterance.say(client)
                        tell(utterance)
                        utterance = Utterance(*next(waiting), self.finals)
            except (WebSocketException, OSError) as error:  # closed, broken, refused, or silent for too long
                if time.monotonic() - utterance.began > FINAL_S:
                    utterance.problem = f"no final in {FINAL_S:g} s: {type(error).__name__}: {error}"
                    tell(utterance)
                    utterance = Utterance(*next(waiting), self.finals)
                await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(AGAIN_S):
                await self.stop.wait()
        except TimeoutError:
            return


def tell(utterance: Utterance) -> None:
    """One line."""
    line = {
        "way": "realtime",
        "ended": time.time(),
        "took": utterance.took_s,
        "problem": utterance.problem,
        "again": max(0, utterance.tries - 1),
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Call by the variables of this pod."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    told = json.loads((Path(__file__).parent / "speech.json").read_text(encoding="utf-8"))
    speech = tuple(
        (text, at_24_khz(np.frombuffer((Path(__file__).parent / name).read_bytes(), "<i2")))
        for name, text in told.items()
    )
    await Caller(speech, stop).call(os.environ["GATEWAY_URL"], os.environ["MODEL"])


asyncio.run(main())
