"""Where an agent learns of pods when Redis cannot be reached at its start."""

import asyncio

import numpy as np
import pytest

import everwarm
from everwarm.errors import ModelNotFound, ModelNotWarm, RegistryUnavailable
from everwarm.sources import StaticSource
from everwarm_core.registry.records import PodState
from tests.fixtures.records import pod_record, running
from tests.fixtures.valkey import OwnedValkey
from tests.support.faulty_pods import announce, faulty_pod, record_of
from tests.support.pods import free_port
from tests.support.waiting import until

SPEECH = np.zeros(16_000, dtype=np.int16)


async def test_a_static_list_tells_which_pods_are_warm_and_for_what() -> None:
    async with faulty_pod("pod-a") as warm, faulty_pod("pod-b") as warming:
        warming.is_ready, warming.names = False, ("tiny",)
        nobody = f"http://127.0.0.1:{free_port()}"
        snapshot = await StaticSource([warm.url, warming.url + "/", nobody]).read_all()
        states = {
            lease.pod.id: (lease.pod.state, lease.pod.names, lease.pod.slots) for lease in snapshot.leases
        }
        assert states == {
            "pod-a": (PodState.WARM, ("base.en",), 2),
            "pod-b": (PodState.WARMING, ("tiny",), 2),
        }


async def test_a_static_list_is_asked_again_and_again() -> None:
    async with faulty_pod("pod-a") as pod:
        source = StaticSource([pod.url])
        async with running(source.run()):
            first = await source.changed(None)
            pod.is_ready = False
            second = await source.changed(first)
            while second.by_name:
                second = await source.changed(second)
        assert [lease.pod.state for lease in second.leases] == [PodState.WARMING]


async def test_a_client_uses_fallback_urls_while_redis_was_never_reached(own_valkey: OwnedValkey) -> None:
    own_valkey.kill()
    async with (
        faulty_pod("pod-static") as static,
        faulty_pod("pod-registered") as registered,
        everwarm.Client(own_valkey.url, fallback_urls=[static.url]) as client,
    ):
        assert (await client.transcribe(SPEECH, model="base.en")).text == "pod-static"
        own_valkey.start()
        await announce(own_valkey.url, [record_of(registered)])
        async with asyncio.timeout(20):
            while (await client.transcribe(SPEECH, model="base.en")).text != "pod-registered":
                pass
        asked = static.asked
        await client.transcribe(SPEECH, model="base.en")
        assert static.asked == asked


async def test_fallback_urls_alone_are_enough() -> None:
    async with faulty_pod("pod-a") as pod, everwarm.Client(fallback_urls=[pod.url]) as client:
        assert (await client.transcribe(SPEECH, model="base.en")).text == "pod-a"
        with pytest.raises(ModelNotFound):
            await client.transcribe(SPEECH, model="large")
        pod.is_ready = False
        await until(lambda: client.router is not None and not client.router.snapshot.by_name)  # type: ignore[union-attr]  # read before
        with pytest.raises(ModelNotWarm):
            await client.transcribe(SPEECH, model="base.en", deadline_s=0.3)


async def test_an_empty_registry_is_given_time_before_a_name_is_called_unknown(
    own_valkey: OwnedValkey,
) -> None:
    """A Redis that lost everything hears of all pods within a lease; a warm model must not be a 404 meanwhile."""
    async with (
        faulty_pod("pod-a") as pod,
        everwarm.Client(own_valkey.url) as client,
        asyncio.TaskGroup() as group,
    ):
        early = group.create_task(client.transcribe(SPEECH, model="base.en"))
        await until(lambda: client.router is not None and client.router.snapshot is not None)
        await announce(own_valkey.url, [record_of(pod), pod_record("pod-z", names=("tiny",))])
        assert (await early).text == "pod-a"


async def test_a_static_list_that_nobody_answers_is_unread_and_not_empty() -> None:
    source = StaticSource([f"http://127.0.0.1:{free_port()}"])
    with pytest.raises(RegistryUnavailable):
        await source.read_all()
    assert source.snapshot is None
