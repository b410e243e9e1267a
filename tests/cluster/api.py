"""The API server as the process kubelet sees it: JSON in and out, and a watch that outlives outages."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from tests.cluster.control_plane import ControlPlane, Refused

Json = dict[str, Any]

MERGE: str = "application/merge-patch+json"
STRATEGIC_MERGE: str = (
    "application/strategic-merge-patch+json"  # merges lists such as conditions by their key
)
RETRY_S = 0.1
UNREACHABLE = (aiohttp.ClientError, TimeoutError, OSError)


class Api:
    """Requests as admin over *session*."""

    def __init__(self, control_plane: ControlPlane, session: aiohttp.ClientSession) -> None:
        self._url = control_plane.url
        self._tls = control_plane.tls
        self._session = session

    async def request(self, method: str, path: str, body: object = None, *, kind: str = MERGE) -> Json:
        """One request; *kind* is the content type of a PATCH. Raises Refused, or one of UNREACHABLE."""
        headers = {"content-type": kind if method == "PATCH" else "application/json"}
        data = None if body is None else json.dumps(body)
        async with self._session.request(
            method, self._url + path, data=data, headers=headers, ssl=self._tls
        ) as answer:
            document: Json = await answer.json(content_type=None)
            if answer.status >= 400:
                raise Refused(answer.status, document["message"])
            return document

    async def insist(self, method: str, path: str, body: object = None, *, kind: str = MERGE) -> Json | None:
        """`request`, again and again until the API server decides; None when the object is not there any more."""
        while True:
            try:
                return await self.request(method, path, body, kind=kind)
            except Refused as refused:
                if refused.status in {
                    404,
                    409,
                }:  # 409: another one has its name, as the UID in the request tells
                    return None
                if refused.status < 500 and refused.status != 429:
                    raise
            except UNREACHABLE:
                pass
            await asyncio.sleep(RETRY_S)  # an outage ends without a word

    async def get(self, path: str) -> Json | None:
        """An object, or None when there is none."""
        return await self.insist("GET", path)

    async def watch(self, path: str, selector: str) -> AsyncIterator[tuple[str, Json | None]]:
        """(UID, object) of what fits the field *selector*, now and at each change; (UID, None) once it is gone."""
        known: set[str] = set()
        while True:
            try:
                listed = await self.request("GET", f"{path}?fieldSelector={selector}")
                present = {item["metadata"]["uid"]: item for item in listed["items"]}
                for uid in known - set(present):
                    yield uid, None
                for uid, item in present.items():
                    yield uid, item
                known = set(present)
                version = listed["metadata"]["resourceVersion"]
                query = f"{path}?watch=1&fieldSelector={selector}&resourceVersion={version}"
                async with self._session.get(
                    self._url + query, ssl=self._tls, timeout=aiohttp.ClientTimeout(total=None)
                ) as stream:
                    async for line in stream.content:
                        event = json.loads(line)
                        if event["type"] == "ERROR":  # the version is too old
                            break
                        uid = event["object"]["metadata"]["uid"]
                        is_gone = event["type"] == "DELETED"
                        known = known - {uid} if is_gone else known | {uid}
                        yield uid, None if is_gone else event["object"]
            except (Refused, *UNREACHABLE):
                await asyncio.sleep(RETRY_S)
