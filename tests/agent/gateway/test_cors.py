"""Pages of other origins: kept out by browsers, unless theirs are configured."""

import aiohttp
import pytest
from pydantic import ValidationError

from everwarm.settings import GatewaySettings
from tests.agent.gateway.test_gateway import PCM, PCM_TYPE, TRANSCRIBE, Gateway, gateway, pods

PAGE = {"origin": "https://app.example.com"}
PREFLIGHT = {
    **PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type, x-stainless-lang",
}


async def preflight(door: Gateway, path: str = TRANSCRIBE) -> aiohttp.ClientResponse:
    async with door.http.options(door.url + path, headers=PREFLIGHT) as answer:
        await answer.read()
        return answer


def shared(answer: aiohttp.ClientResponse) -> dict[str, str]:
    """The headers by which a browser is told what pages may do."""
    return {k.lower(): v for k, v in answer.headers.items() if k.lower().startswith("access-control-")}


async def test_no_page_is_let_in_by_default(redis_url: str) -> None:
    async with pods(redis_url, []), gateway(redis_url) as door:
        refused = await preflight(door)
        assert (refused.status, shared(refused)) == (405, {})
        async with door.http.post(door.url + TRANSCRIBE, data=PCM, headers=PCM_TYPE | PAGE) as answer:
            assert (answer.status, shared(answer)) == (200, {})


async def test_a_page_of_a_configured_origin_may_call_and_read_our_headers(redis_url: str) -> None:
    async with (
        pods(redis_url, []),
        gateway(redis_url, gateway_cors_origins=("https://app.example.com",)) as door,
    ):
        allowed = await preflight(door)
        assert allowed.status == 200
        assert allowed.headers["access-control-allow-origin"] == "https://app.example.com"
        assert "POST" in allowed.headers["access-control-allow-methods"]
        assert "x-stainless-lang" in allowed.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in allowed.headers
        assert allowed.headers["x-request-id"]
        async with door.http.post(door.url + TRANSCRIBE, data=PCM, headers=PCM_TYPE | PAGE) as answer:
            assert answer.status == 200
            assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
            exposed = answer.headers["access-control-expose-headers"].split(", ")
            ours = [name.lower() for name in answer.headers if name.lower().startswith("x-")]
            assert set(ours) <= set(exposed)
            assert {"retry-after", "server-timing", "x-ratelimit-remaining-requests"} <= set(exposed)


async def test_a_page_may_read_why_it_was_refused(redis_url: str) -> None:
    async with (
        gateway(redis_url, gateway_cors_origins=("https://app.example.com",)) as door,
        door.http.post(f"{door.url}/v1/transcribe", data=b"", headers=PCM_TYPE | PAGE) as answer,
    ):
        assert answer.status == 400
        assert answer.headers["access-control-allow-origin"] == "https://app.example.com"


async def test_a_page_of_another_origin_is_kept_out(redis_url: str) -> None:
    async with gateway(redis_url, gateway_cors_origins=("https://other.example.com",)) as door:
        refused = await preflight(door)
        assert refused.status == 400
        assert "access-control-allow-origin" not in refused.headers
        async with door.http.get(f"{door.url}/v1/models", headers=PAGE) as answer:
            assert "access-control-allow-origin" not in answer.headers


async def test_a_star_lets_every_page_in_but_never_to_the_metrics(redis_url: str) -> None:
    async with gateway(redis_url, gateway_cors_origins=("*",)) as door:
        async with door.http.get(f"{door.url}/v1/models", headers=PAGE) as answer:
            assert answer.headers["access-control-allow-origin"] == "*"
        for path in ("/metrics", "/readyz", "/openapi.json"):
            async with door.http.get(door.url + path, headers=PAGE) as answer:
                assert shared(answer) == {}


async def test_a_preflight_needs_no_key(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("k\n")
    async with gateway(redis_url, gateway_cors_origins=("*",), gateway_api_keys_file=keys) as door:
        assert (await preflight(door)).status == 200
        async with door.http.get(f"{door.url}/v1/models", headers=PAGE) as answer:
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (401, "*")


@pytest.mark.parametrize(
    "origin", ["app.example.com", "https://app.example.com/", "https://a.com/x", "https://*.a"]
)
def test_what_is_no_origin_is_refused_at_the_start(origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERWARM_GATEWAY_CORS_ORIGINS", f"https://fine.example.com, {origin}")
    with pytest.raises(ValidationError, match="is no origin"):
        GatewaySettings()


def test_origins_are_read_from_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERWARM_GATEWAY_CORS_ORIGINS", "https://a.example.com, http://localhost:3000")
    assert GatewaySettings().gateway_cors_origins == ("https://a.example.com", "http://localhost:3000")
