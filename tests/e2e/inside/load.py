"""An agent in the cluster: speech at a steady rate, by turns through the gateway and to the pods directly, until SIGTERM.

Runs in the gateway's image. One JSON object a line on stdout for each utterance that ended: how it went, the seconds it
took, and what was wrong with it, if anything. Open loop, as callers are: a slow answer delays no other utterance.
"""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import everwarm
from everwarm.demo.clips import Clip, load_clips
from everwarm.demo.wer import words
from everwarm_core import telemetry

MOST_WRONG = 0.2  # words of an utterance; another version may hear one word differently, and none may hear another text


async def main() -> None:
    """Send until told to stop, and then wait for what is under way."""
    model, rate_hz = os.environ["MODEL"], float(os.environ["RATE_HZ"])
    clip = next(clip for clip in load_clips() if clip.name == "appointment")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with (
        everwarm.Client() as direct,
        everwarm.Client(base_url=os.environ["GATEWAY_URL"]) as through_gateway,
        asyncio.TaskGroup() as utterances,
    ):
        ways = (("pods", direct), ("gateway", through_gateway))
        began, number = time.monotonic(), 0
        while not stop.is_set():
            way, client = ways[number % 2]
            utterances.create_task(utter(way, client, clip, model))
            number += 1
            try:
                async with asyncio.timeout(max(0.0, began + number / rate_hz - time.monotonic())):
                    await stop.wait()
            except TimeoutError:
                continue


async def utter(way: str, client: everwarm.Client, clip: Clip, model: str) -> None:
    """Send one utterance and say what became of it."""
    began, problem = time.monotonic(), None
    try:
        heard = await client.transcribe(Path(clip.path), model=model, language="en")
        said = words(clip.text)
        if len(set(said) - set(words(heard.text))) > MOST_WRONG * len(said):
            problem = "other words came back"
    except Exception as error:  # noqa: BLE001 - whatever it is, the utterance is lost
        problem = f"{type(error).__name__}: {error}"
    line = {"way": way, "ended": time.time(), "took": time.monotonic() - began, "problem": problem}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


exported = telemetry.start("everwarm-agent", version="0")
try:
    asyncio.run(main())
finally:
    exported.shutdown()
