"""One pod, played by a process: from being bound to the node until it is deleted.

`_live` is the order of things: the environment, a container, its end, back-off, the next container. Whatever
happens on the way changes a field and sets `_changed`; one task reports, so that statuses reach the API server in
order and only when they differ. The words of reasons and messages are the kubelet's.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.cluster.api import STRATEGIC_MERGE, Api
from tests.cluster.container_environment import POD_IP, NotThere, environment, mounts, relocate
from tests.cluster.process_container import Container, Probe, now
from tests.support.pods import free_port

Json = dict[str, Any]
Command = Callable[[Json], list[str]]

LONGEST_BACKOFF_S: Final = 300.0  # the kubelet's
LEAST_GRACE_S: Final = 2.0  # what preStop leaves to SIGTERM, however long it took
MISSING_RETRY_S: Final = 0.5


class ProcessPod:
    """`update` tells it what the API server says of the pod, `run` is its life."""

    def __init__(
        self,
        pod: Json,
        *,
        api: Api,
        http: aiohttp.ClientSession,
        folder: Path,
        command_for: Command,
        first_backoff_s: float,
    ) -> None:
        self._pod = pod
        self._api, self._http, self._folder = api, http, folder
        self._command_for, self._first_backoff_s = command_for, first_backoff_s
        (self._spec,) = pod["spec"]["containers"]
        self._ports = {port["containerPort"]: free_port() for port in self._spec.get("ports", ())}
        meta = pod["metadata"]
        self._path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        self._changed, self._leaving, self._gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._start_time = now()
        self._phase = "Pending"
        self._container_id = ""
        self._restarts = 0
        self._started = self._ready = False
        self._state: Json = {"waiting": {"reason": "ContainerCreating"}}
        self._last_state: Json = {}
        self._conditions: dict[str, Json] = {}
        self._sent: Json | None = None
        self.update(pod)

    # --- What the kubelet is told ----------------------------------------------------------------------------------

    def update(self, pod: Json | None) -> None:
        """The pod as it is now; None: it is gone, so there is no grace left to give."""
        if pod is None:
            self._gone.set()
            self._leaving.set()
            return
        self._pod = pod
        if "deletionTimestamp" in pod["metadata"]:
            self._leaving.set()
        self._changed.set()

    # --- Life ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run the container until the pod is to leave, then report its end and remove it."""
        async with asyncio.TaskGroup() as group:
            reports = group.create_task(self._report_changes())
            await self._live()
            reports.cancel()
        if not self._gone.is_set():
            failed = self._state.get("terminated", {}).get("exitCode", 0) != 0
            self._phase = "Failed" if failed else "Succeeded"
            await self._report()
            options = {"gracePeriodSeconds": 0, "preconditions": {"uid": self._pod["metadata"]["uid"]}}
            await self._api.insist("DELETE", self._path, options)

    async def _live(self) -> None:
        backoff_s = 0.0  # the first restart is at once
        for life in itertools.count():
            variables = await self._environment()
            if variables is None or self._leaving.is_set():
                return
            log = self._folder / f"{life}.log"
            container = await Container.start(self._command_for(self._pod), variables, log)
            self._restarts = life  # not before: it is told with the new container's id, as by the kubelet
            try:
                await self._live_once(container)
            finally:
                await container.kill()
            if self._leaving.is_set():
                return
            self._last_state, self._state = self._state, {"waiting": {"reason": "CrashLoopBackOff"}}
            self._changed.set()
            await _within(backoff_s, self._leaving)
            backoff_s = min(max(backoff_s * 2, self._first_backoff_s), LONGEST_BACKOFF_S)

    async def _live_once(self, container: Container) -> None:
        """From start to end, by itself, for its health or because the pod leaves."""
        self._container_id = container.id
        self._state = {"running": {"startedAt": container.started_at}}
        self._phase = "Running"
        started = asyncio.Event()
        self._changed.set()
        async with asyncio.TaskGroup() as group:
            ended = group.create_task(container.wait())
            leaving = group.create_task(self._leaving.wait())
            unhealthy = group.create_task(self._unhealthy(started))
            readiness = group.create_task(self._follow_readiness(started))
            await asyncio.wait({ended, leaving, unhealthy}, return_when=asyncio.FIRST_COMPLETED)
            unhealthy.cancel()  # a pod that leaves is not restarted for its health; its readiness is still followed
            if not ended.done():
                await self._stop(container)
            code = await ended
            leaving.cancel()
            readiness.cancel()
        self._started = self._ready = False
        policy = self._spec.get("terminationMessagePolicy")
        self._state = {"terminated": container.terminated(code, with_log=policy == "FallbackToLogsOnError")}
        self._changed.set()

    async def _stop(self, container: Container) -> None:
        """preStop, SIGTERM, grace, SIGKILL; nothing but the last when the pod is gone already."""
        meta = self._pod["metadata"]
        grace_s = float(
            meta.get("deletionGracePeriodSeconds", self._pod["spec"]["terminationGracePeriodSeconds"])
        )
        hook = self._spec.get("lifecycle", {}).get("preStop")
        if hook is not None:
            if "sleep" not in hook:
                raise ValueError(f"only a sleep before the stop is played: {hook}")
            pause_s = min(float(hook["sleep"]["seconds"]), grace_s)
            await _within(pause_s, self._gone)
            grace_s = max(grace_s - pause_s, LEAST_GRACE_S)
        async with asyncio.TaskGroup() as group:
            stopped = group.create_task(container.stop(grace_s))
            gone = group.create_task(self._gone.wait())
            await asyncio.wait({stopped, gone}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            stopped.cancel()
        await container.kill()

    # --- Probes ----------------------------------------------------------------------------------------------------

    async def _unhealthy(self, started: asyncio.Event) -> None:
        """Returns when the container is to be restarted; sets *started* once the startup probe holds."""
        if probe := self._probe("startupProbe"):
            verdicts: list[bool] = []

            def once(holds: bool) -> bool:  # noqa: FBT001
                verdicts.append(holds)
                return False

            await probe.follow(self._http, once)
            if not verdicts[0]:
                return
        self._started = True
        started.set()
        self._changed.set()
        if probe := self._probe("livenessProbe"):
            await probe.follow(self._http, lambda holds: holds)
        else:
            await asyncio.Event().wait()  # nothing can find it unhealthy

    async def _follow_readiness(self, started: asyncio.Event) -> None:
        await started.wait()

        def tell(holds: bool) -> bool:  # noqa: FBT001
            if holds != self._ready:
                self._ready = holds
                self._changed.set()
            return True

        if probe := self._probe("readinessProbe"):
            await probe.follow(self._http, tell)
        else:
            tell(True)

    def _probe(self, name: str) -> Probe | None:
        return Probe.of(self._spec[name], self._local_port) if name in self._spec else None

    def _local_port(self, port: int | str) -> int:
        """The port of this machine that stands for a container's, given by number or name."""
        if isinstance(port, str):
            port = next(entry["containerPort"] for entry in self._spec["ports"] if entry.get("name") == port)
        return self._ports[port]

    # --- Environment -----------------------------------------------------------------------------------------------

    async def _environment(self) -> dict[str, str] | None:
        """The container's variables, once all they need is there; None when the pod leaves before."""
        while not self._leaving.is_set():
            try:  # volumes come first, and what is missing of them keeps the pod where it was: only events say so
                mounted = await mounts(self._pod, self._spec, self._folder, self._api.get)
            except NotThere:
                await _within(MISSING_RETRY_S, self._leaving)
                continue
            try:
                values = await environment(self._pod, self._spec, self._api.get)
            except NotThere as missing:
                self._state = {"waiting": {"reason": "CreateContainerConfigError", "message": str(missing)}}
                self._changed.set()
                await _within(MISSING_RETRY_S, self._leaving)
                continue
            for port in itertools.islice(self._ports.values(), 1):
                values["EVERWARM_PORT"] = str(port)
                if "EVERWARM_POD_URL" in values:
                    values["EVERWARM_POD_URL"] = f"http://{POD_IP}:{port}"
            return {name: relocate(value, mounted) for name, value in values.items()}
        return None

    # --- Status ----------------------------------------------------------------------------------------------------

    async def _report_changes(self) -> None:
        while True:
            self._changed.clear()
            await self._report()
            await self._changed.wait()

    async def _report(self) -> None:
        """Patch the pod's status, if it is another than the one sent last."""
        status = self._status()
        if status != self._sent:
            patch = {"metadata": {"uid": self._pod["metadata"]["uid"]}, "status": status}
            await self._api.insist("PATCH", f"{self._path}/status", patch, kind=STRATEGIC_MERGE)
            self._sent = status

    def _status(self) -> Json:
        name = self._spec["name"]
        container = {
            "name": name,
            "image": self._spec["image"],
            "imageID": "",
            "containerID": self._container_id,
            "restartCount": self._restarts,
            "started": self._started,
            "ready": self._ready,
            "state": self._state,
            "lastState": self._last_state,
        }
        unready = None if self._ready else ("ContainersNotReady", f"containers with unready status: [{name}]")
        self._set_condition("PodScheduled", None)
        self._set_condition("Initialized", None)
        self._set_condition("ContainersReady", unready)
        self._set_condition("Ready", unready or self._closed_gates())
        return {
            "phase": self._phase,
            "startTime": self._start_time,
            "hostIP": POD_IP,
            "podIP": POD_IP,
            "podIPs": [{"ip": POD_IP}],
            "conditions": list(self._conditions.values()),
            "containerStatuses": [container],
        }

    def _closed_gates(self) -> tuple[str, str] | None:
        """Why the readiness gates keep the pod from being Ready, in the kubelet's words; None when they do not."""
        gates = [gate["conditionType"] for gate in self._pod["spec"].get("readinessGates", ())]
        said = {entry["type"]: entry["status"] for entry in self._pod.get("status", {}).get("conditions", ())}
        reasons = [
            f'the status of pod readiness gate "{gate}" is not "True", but {said[gate]}'
            if gate in said
            else f'corresponding condition of pod readiness gate "{gate}" does not exist.'
            for gate in gates
            if said.get(gate) != "True"
        ]
        return ("ReadinessGatesNotReady", ", ".join(reasons)) if reasons else None

    def _set_condition(self, kind: str, why_not: tuple[str, str] | None) -> None:
        before = self._conditions.get(kind, {})
        status = "False" if why_not else "True"
        since = before["lastTransitionTime"] if before.get("status") == status else now()
        # None removes what an earlier patch said.
        reason, message = why_not or (None, None)
        self._conditions[kind] = {
            "type": kind,
            "status": status,
            "lastTransitionTime": since,
            "reason": reason,
            "message": message,
        }


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Wait for *event*, but no longer than *seconds*."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
