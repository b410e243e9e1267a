"""Whether a pod can be had at all: the cheap question that decides for or against a local one."""

import time

import pytest

import everwarm
from everwarm.deadline import Deadline
from everwarm.errors import EverwarmError, ModelNotWarm, PodFailed, PodFull
from everwarm.livekit.pods import Utterance, found_no_pod, opened_pods
from everwarm.settings import AgentSettings
from tests.support.pods import PodProcess, free_port
from tests.support.speech import clips, words

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
    assert time.monotonic() - began < 5.0


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
    glances = []
    for settings, language in ((there, "en"), (there, "fr"), (nowhere, "en")):
        async with opened_pods(settings, "tiny.en", "en") as pods:
            utterance = Utterance(clip.samples(), "tiny.en", language, False, "r", Deadline.after(20))
            glances.append(await pods.glance(utterance))
    first, *others = glances
    assert first is not None
    assert words(first.text) == words(clip.text)
    assert others == [None, None]


async def test_a_connection_refused_says_that_there_is_no_pod() -> None:
    async with everwarm.Client(base_url=f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(PodFailed) as caught:
            await client.transcribe(clips()[0].path, model="tiny.en", deadline_s=0.5)
    assert found_no_pod(caught.value)


@pytest.mark.parametrize(
    ("error", "is_absence"),
    [(ModelNotWarm("base"), True), (PodFull(slots=1, queue=4), False), (PodFailed("pod", "it died"), False)],
)
def test_only_absence_is_a_reason_for_a_local_pod(error: EverwarmError, *, is_absence: bool) -> None:
    assert found_no_pod(error) is is_absence
