"""docs/how-to/pipecat.md and examples/pipecat_bot.py, done as a reader would do them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pipecat.frames.frames import OutputAudioRawFrame
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from websockets.asyncio.client import connect

from tests.support.pages import ROOT, blocks, ran
from tests.support.platform import RunningPlatform
from tests.support.pods import free_port
from tests.support.speech import clips, words
from tests.support.waiting import until

pytestmark = [pytest.mark.weights, pytest.mark.slow]

CLIP = next(clip for clip in clips() if clip.path.stem == "appointment")


def test_every_block_of_the_page_does_what_the_page_says(platform: RunningPlatform) -> None:
    hears, rest, realtime = blocks("how-to/pipecat.md", "python", gateway=platform.url)
    assert words(ran([sys.executable, "-c", hears])) == words(CLIP.text)
    for stock in (rest, realtime):
        ran([sys.executable, "-c", stock])


@pytest.fixture
def bot(platform: RunningPlatform, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The example's bot, as its URL and the file with what it prints."""
    port, output = free_port(), tmp_path / "bot.out"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "examples" / "pipecat_bot.py"), str(port)],
            env={**os.environ, "EVERWARM_BASE_URL": platform.url},
            stdout=sink,
        )
    try:
        yield f"ws://127.0.0.1:{port}", output
    finally:
        process.terminate()
        assert process.wait(30) == 0


async def test_the_bot_writes_down_what_its_client_says(bot: tuple[str, Path]) -> None:
    url, output = bot
    samples = np.concatenate([CLIP.samples(), np.zeros(32_000, np.int16)])
    serializer = ProtobufFrameSerializer()
    async for client in connect(url):  # tries again until the bot listens
        for start in range(0, len(samples), 320):
            frame = OutputAudioRawFrame(samples[start : start + 320].tobytes(), 16_000, 1)
            message = await serializer.serialize(frame)
            assert message
            await client.send(message)
        await until(lambda: output.read_text(encoding="utf-8"), within_s=30)
        await client.close()
        break
    assert words(output.read_text(encoding="utf-8")) == words(CLIP.text)
