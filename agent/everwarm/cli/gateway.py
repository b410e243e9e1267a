"""`everwarm gateway`: options on top of the environment, then the gateway's own program."""

from typing import Any

from pydantic import ValidationError

from everwarm.gateway import main
from everwarm.settings import GatewaySettings
from everwarm_core.environment import environment_error


def run(
    *, gateway_host: str | None, gateway_port: int | None, redis_url: str | None, namespace: str | None
) -> None:
    """Serve until a signal; options that are None are left to the environment. Raises EverwarmError."""
    given: dict[str, Any] = {
        "gateway_host": gateway_host,
        "gateway_port": gateway_port,
        "redis_url": redis_url,
        "namespace": namespace,
    }
    try:
        settings = GatewaySettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise environment_error("this gateway", error) from error
    main(settings)
