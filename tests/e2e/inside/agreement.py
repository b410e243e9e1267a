"""Compares, ten times a second, what Kubernetes and the registry say of each pod: Ready, and warm for all its keys.

Runs in the gateway's image, with a ServiceAccount that may list pods and an agent's way to the registry. A disagreement
that has lasted for more than a second is said when it ends, one JSON object a line: the pod and its age, from when to
when, and who said what. Ends by SIGTERM, with those that still stand and the number of looks.
"""

import asyncio
import json
import os
import signal
import ssl
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import aiohttp
from redis.asyncio import Redis
from redis.exceptions import RedisError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PERIOD_S = 0.1
TOLERATED_S = 1.0
SELECTOR = "app.kubernetes.io/name=everwarm-stt"
READY = "Ready"


class Pod(NamedTuple):
    """A pod as the API server has it; *born* in Unix seconds."""

    name: str
    born: float
    is_ready: bool


async def main() -> None:
    """Look until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    tls = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    headers = {"authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"}
    redis = Redis.from_url(os.environ["EVERWARM_REDIS_URL"], decode_responses=True, socket_timeout=2)
    since: dict[str, tuple[float, Pod]] = {}
    looks = 0
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=tls)) as session:
        while not stop.is_set():
            began = time.time()
            async with asyncio.TaskGroup() as both:
                asked_ready = both.create_task(ready_pods(session))
                asked_warm = both.create_task(warm_pods(redis))
            ready, warm = asked_ready.result(), asked_warm.result()
            looks += 1
            if ready is not None and warm is not None:
                differing = {uid for uid, pod in ready.items() if pod.is_ready != (uid in warm)}
                for uid in differing - since.keys():
                    since[uid] = (began, ready[uid])
                for uid in since.keys() - differing:
                    tell(*since.pop(uid), until=began)
            try:
                async with asyncio.timeout(max(0.0, began + PERIOD_S - time.time())):
                    await stop.wait()
            except TimeoutError:
                continue
    for began, pod in since.values():
        tell(began, pod, until=time.time())
    say({"looks": looks})
    await redis.aclose()


async def ready_pods(session: aiohttp.ClientSession) -> dict[str, Pod] | None:
    """The pods that are there, by UID; None when the API server does not answer."""
    path = f"/api/v1/namespaces/{os.environ['EVERWARM_NAMESPACE']}/pods"
    try:
        async with session.get(
            f"https://kubernetes.default.svc{path}", params={"labelSelector": SELECTOR}
        ) as answer:
            listed = (await answer.json())["items"]
    except (aiohttp.ClientError, TimeoutError):
        return None
    return {
        pod["metadata"]["uid"]: Pod(
            name=pod["metadata"]["name"],
            born=datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp(),
            is_ready=any(
                each["type"] == READY and each["status"] == "True"
                for each in pod["status"].get("conditions", ())
            ),
        )
        for pod in listed
    }


async def warm_pods(redis: Redis) -> set[str] | None:
    """The pods that the registry holds warm; None when it does not answer."""
    prefix = f"everwarm:{{{os.environ['EVERWARM_NAMESPACE']}}}:"
    try:
        seconds, micros = await redis.time()
        now = int(seconds) * 1000 + int(micros) // 1000
        uids = [str(uid) for uid in await redis.zrangebyscore(f"{prefix}pods", now, "+inf")]
        states = [await redis.hmget(f"{prefix}pod:{uid}", ["state"]) for uid in uids]
    except (RedisError, OSError):
        return None
    return {uid for uid, (state,) in zip(uids, states, strict=True) if state == "warm"}


def tell(began: float, pod: Pod, *, until: float) -> None:
    """Say a disagreement, if it lasted."""
    if until - began > TOLERATED_S:
        age = round(began - pod.born, 1)
        say({"pod": pod.name, "age": age, "from": began, "until": until, "ready": pod.is_ready})


def say(line: dict[str, object]) -> None:
    """One line."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


asyncio.run(main())
