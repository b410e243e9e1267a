"""A container's environment as a kubelet makes it: literal values, the downward API, keys of Secrets and ConfigMaps,
`$(NAME)` references, and volumes of Secrets, ConfigMaps and empty folders.

A process has no mounts of its own, so a volume becomes a folder, and a variable whose value is a path below the
mount path is made to point into that folder. What is not played raises ValueError, so that no test relies on it.
"""

import base64
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

Json = dict[str, Any]
Get = Callable[[str], Awaitable[Json | None]]
"""Fetches an object by its path at the API server; None when there is none."""

POD_IP: Final = "127.0.0.1"
REFERENCE: Final = re.compile(r"\$(?:\$|\(([-\w.]+)\))")


class NotThere(Exception):
    """A Secret or ConfigMap, or a key of one, that the container cannot start without."""


async def environment(pod: Json, container: Json, get: Get) -> dict[str, str]:
    """The variables of *container*; raises NotThere."""
    namespace = pod["metadata"]["namespace"]
    values: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        kind = "secrets" if "secretRef" in source else "configmaps"
        reference = source.get("secretRef") or source["configMapRef"]
        optional = reference.get("optional", False)
        content = await _content(get, namespace, kind, reference["name"], optional=optional)
        for key, value in content.items():
            values[source.get("prefix", "") + key] = value.decode()
    for variable in container.get("env", ()):
        name, source = variable["name"], variable.get("valueFrom")
        if source is None:
            values[name] = _expand(variable.get("value", ""), values)
        elif "fieldRef" in source:
            values[name] = _field(pod, source["fieldRef"]["fieldPath"])
        elif "secretKeyRef" in source or "configMapKeyRef" in source:
            reference = source.get("secretKeyRef") or source["configMapKeyRef"]
            kind = "secrets" if "secretKeyRef" in source else "configmaps"
            optional = reference.get("optional", False)
            content = await _content(get, namespace, kind, reference["name"], optional=optional)
            if reference["key"] in content:
                values[name] = content[reference["key"]].decode()
            elif not optional:
                what = "Secret" if kind == "secrets" else "ConfigMap"
                raise NotThere(
                    f"couldn't find key {reference['key']} in {what} {namespace}/{reference['name']}"
                )
        else:
            raise ValueError(f"this source of a variable is not played: {variable}")
    return values


async def mounts(pod: Json, container: Json, folder: Path, get: Get) -> dict[str, Path]:
    """Mount path -> folder that stands for it, made below *folder*; raises NotThere."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", ())}
    mounted = {}
    for mount in container.get("volumeMounts", ()):
        volume = volumes[mount["name"]]
        if "projected" in volume:  # the API server adds one to every pod: a token, which is of no use here
            continue
        place = folder / "volumes" / mount["name"]
        place.mkdir(parents=True, exist_ok=True)
        await _fill(place, volume, pod["metadata"]["namespace"], get)
        mounted[mount["mountPath"]] = place / mount.get("subPath", "")
    return mounted


def relocate(value: str, mounted: Mapping[str, Path]) -> str:
    """*value*, with a path below a mount path made one below the folder that stands for it."""
    for path, place in mounted.items():
        if value == path or value.startswith(path.rstrip("/") + "/"):
            return str(place) + value[len(path.rstrip("/")) :]
    return value


async def _fill(place: Path, volume: Json, namespace: str, get: Get) -> None:
    if "emptyDir" in volume:
        return
    if "secret" in volume:
        kind, source = "secrets", volume["secret"]
        name = source["secretName"]
    elif "configMap" in volume:
        kind, source = "configmaps", volume["configMap"]
        name = source["name"]
    else:
        raise ValueError(f"this volume is not played: {volume}")
    content = await _content(get, namespace, kind, name, optional=source.get("optional", False))
    paths = {item["key"]: item["path"] for item in source.get("items", ())} or {key: key for key in content}
    for key, path in paths.items():
        if key not in content:
            raise NotThere(f"references non-existent {kind} key: {key}")
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content[key])


async def _content(get: Get, namespace: str, kind: str, name: str, *, optional: bool) -> dict[str, bytes]:
    found = await get(f"/api/v1/namespaces/{namespace}/{kind}/{name}")
    if found is None:
        if optional:
            return {}
        raise NotThere(f'{kind.removesuffix("s")} "{name}" not found')
    if kind == "secrets":
        return {key: base64.b64decode(value) for key, value in found.get("data", {}).items()}
    return {key: value.encode() for key, value in found.get("data", {}).items()}


def _field(pod: Json, path: str) -> str:
    """A field of the downward API."""
    if path in {"status.podIP", "status.podIPs", "status.hostIP", "status.hostIPs"}:
        return POD_IP
    if entry := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str(pod["metadata"].get(entry[1], {}).get(entry[2], ""))
    if path in {
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
    }:
        part, name = path.split(".")
        return str(pod[part].get(name, ""))
    raise ValueError(f"this field of the downward API is not played: {path}")


def _expand(value: str, known: Mapping[str, str]) -> str:
    """Kubernetes' own references: `$(NAME)` of an earlier variable; an unknown one stays, and `$$` is one dollar."""
    return REFERENCE.sub(lambda match: known.get(match[1], match[0]) if match[1] else "$", value)
