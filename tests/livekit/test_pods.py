"""Whether a pod can be had at all: the cheap question that decides for or against a local one."""

import time

import pytest

import everwarm
from everwarm.deadline import Deadline
from everwarm.errors import EverwarmError, ModelNotWarm, PodFailed, PodFull
from everwarm.livekit.pods import Utterance, found_no_pod, opened_pods
from everwarm.settings import AgentSettings
from everwarm_core.transcript import Transcript
from tests.fixtures.records import WAIT_S
from tests.support.pods import PodProcess, free_port
from tests.support.speech import clips, words
from tests.support.waiting import until

pytestmark = pytest.mark.weights


async def _why_none(settings: AgentSettings, model: str = "tiny.en", *, within_s: float = 20.0) -> str | None:
    async with opened_pods(settings, model, "en") as pods:
        return await pods.why_none(within_s=within_s)


async def test_a_registry_with_a_warm_pod_has_one(pod: PodProcess, valkey: str) -> None:
    assert await _why_none(AgentSettings(redis_url=valkey, namespace="livekit")) is None


async def test_a_name_that_no_pod_has_announced_is_told(pod: PodProcess, valkey: str) -> None:
    reason = await _why_none(AgentSettings(redis_url=valkey, namespace="livekit"), "huge")
    assert reason is not None
    assert "huge" in reason


async def test_a_registry_out_of_reach_is_told_within_the_bound() -> None:
    began = time.monotonic()
    settings = AgentSettings(redis_url=f"redis://127.0.0.1:{free_port()}")
    reason = await _why_none(settings, within_s=0.3)
    assert reason is not None
    assert "registry" in reason
    assert time.monotonic() - began < WAIT_S


async def test_a_ready_pod_at_the_base_url_is_one(pod: PodProcess) -> None:
    assert await _why_none(AgentSettings(base_url=pod.url)) is None


async def test_a_pod_that_serves_another_model_is_none(pod: PodProcess) -> None:
    reason = await _why_none(AgentSettings(base_url=pod.url), "huge")
    assert reason is not None
    assert "does not serve 'huge'" in reason


async def test_nobody_at_the_base_url_is_none() -> None:
    reason = await _why_none(AgentSettings(base_url=f"http://127.0.0.1:{free_port()}"))
    assert reason is not None
    assert "cannot be asked" in reason


async def test_a_glance_is_the_transcript_or_nothing(pod: PodProcess) -> None:
    there, nowhere = (AgentSettings(base_url=url) for url in (pod.url, f"http://127.0.0.1:{free_port()}"))
    clip = clips()[0]
    seen: list[Transcript] = []

    async def glance(settings: AgentSettings, language: str) -> Transcript | None:
        async with opened_pods(settings, "tiny.en", "en") as pods:
            utterance = Utterance(clip.samples(), "tiny.en", language, False, "r", Deadline.after(20))
            return await pods.glance(utterance)

    async def is_seen() -> bool:
        """A glance is given up after some seconds, which a busy machine may take."""
        if found := await glance(there, "en"):
            seen.append(found)
        return bool(seen)

    await until(is_seen, within_s=3 * WAIT_S)
    assert words(seen[0].text) == words(clip.text)
    assert [await glance(there, "fr"), await glance(nowhere, "en")] == [None, None]


async def test_a_connection_refused_says_that_there_is_no_pod() -> None:
    async with everwarm.Client(base_url=f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(PodFailed) as caught:  # in a second nobody is asked again
            await client.transcribe(clips()[0].path, model="tiny.en", deadline_s=1.0)
    assert found_no_pod(caught.value)


@pytest.mark.parametrize(
    ("error", "is_absence"),
    [(ModelNotWarm("base"), True), (PodFull(slots=1, queue=4), False), (PodFailed("pod", "it died"), False)],
)
def test_only_absence_is_a_reason_for_a_local_pod(error: EverwarmError, *, is_absence: bool) -> None:
    assert found_no_pod(error) is is_absence
