"""The pod's settings read back what `pod_environment` writes, and say clearly what is wrong."""

import pytest

from everwarm_core import pod_environment as core_environment
from everwarm_core.environment import PREFIX
from everwarm_core.errors import SettingsError
from everwarm_core.keys import ModelKey
from everwarm_core.pod_environment import pod_environment
from everwarm_core.spec import WhisperModel
from everwarm_stt.settings import PodSettings, load_settings, unknown_variables

FULL = WhisperModel.from_document(
    {
        "apiVersion": "everwarm.dev/v1alpha1",
        "kind": "WhisperModel",
        "metadata": {"name": "reception"},
        "spec": {
            "model": "small",
            "languages": ["de", "auto"],
            "aliases": ["whisper-1", "stt"],
            "source": {"hub": {"revision": "abc", "endpoint": "https://hub.example"}},
            "device": "cuda",
            "computeType": "float16",
            "slots": 3,
            "queue": 7,
            "decode": {"beamSize": 2, "vad": "never", "window": "full", "temperature": 0.4},
            "limits": {"audioSeconds": 90, "uploadBytes": 1000},
            "warmup": {"timeoutSeconds": 42},
        },
    },
    source="test",
)

PLACE_VARIABLES = [
    value for name, value in vars(core_environment).items() if name.isupper() and isinstance(value, str)
]


@pytest.fixture(autouse=True)
def _no_variables_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)


def settings_of(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> PodSettings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_settings_have_a_field_for_every_variable_the_platform_can_set() -> None:
    written = {*pod_environment(FULL), *pod_environment(FULL, weights_path="/weights"), *PLACE_VARIABLES}
    assert unknown_variables(written) == ()
    ours = {name for name in written if name.startswith(PREFIX)}
    assert ours <= {PREFIX + name.upper() for name in PodSettings.model_fields}


def test_settings_hold_what_the_resource_says(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(monkeypatch, pod_environment(FULL))
    spec = FULL.spec
    assert (settings.model, settings.name, settings.names) == (spec.model, FULL.name, FULL.names)
    assert (settings.languages, settings.aliases, settings.keys) == (spec.languages, spec.aliases, FULL.keys)
    assert (settings.hub_revision, settings.hub_endpoint) == ("abc", "https://hub.example")
    assert (settings.device, settings.compute_type) == ("cuda", "float16")
    assert (settings.slots, settings.queue) == (3, 7)
    assert (settings.beam_size, settings.vad, settings.window) == (2, "never", "full")
    assert settings.temperature == 0.4
    assert (settings.limit_audio_seconds, settings.limit_upload_bytes) == (90, 1000)
    assert settings.warmup_timeout_seconds == 42


def test_settings_need_only_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(monkeypatch, {"EVERWARM_MODEL": "tiny.en"})
    assert settings.keys == (ModelKey("tiny.en", "en"),)
    assert (settings.namespace, settings.redis_url) == ("local", None)


def test_settings_give_each_process_an_id_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    first = settings_of(monkeypatch, {"EVERWARM_MODEL": "tiny.en"})
    assert first.pod_id != load_settings().pod_id


def test_settings_treat_an_empty_variable_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(
        monkeypatch, {"EVERWARM_MODEL": "base", "EVERWARM_ALIASES": "", "EVERWARM_WEIGHTS_PATH": ""}
    )
    assert (settings.aliases, settings.weights_path, settings.languages) == ((), None, ("auto",))


def test_settings_name_the_variable_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_of(
            monkeypatch, {"EVERWARM_MODEL": "tiny.en", "EVERWARM_SLOTS": "none", "EVERWARM_PORT": "tcp://x"}
        )
    assert {path for path, _ in caught.value.problems} == {"EVERWARM_SLOTS", "EVERWARM_PORT"}


def test_settings_name_the_model_when_it_is_missing() -> None:
    with pytest.raises(SettingsError, match="EVERWARM_MODEL: not set"):
        load_settings()


def test_settings_refuse_languages_that_english_weights_do_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="knows English only"):
        settings_of(monkeypatch, {"EVERWARM_MODEL": "tiny.en", "EVERWARM_LANGUAGES": "en,fr"})


def test_settings_keep_the_redis_password_out_of_their_text(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(
        monkeypatch, {"EVERWARM_MODEL": "tiny.en", "EVERWARM_REDIS_URL": "redis://:s3cret@redis/0"}
    )
    assert "s3cret" not in repr(settings)
    assert settings.redis_url == "redis://:s3cret@redis/0"


@pytest.mark.parametrize(
    ("host", "pod_url", "announced"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:81"),
        ("::1", None, "http://[::1]:81"),
        ("0.0.0.0", "http://10.0.0.7:8000/", "http://10.0.0.7:8000"),
    ],
)
def test_settings_announce_a_url_agents_can_reach(host: str, pod_url: str | None, announced: str) -> None:
    assert PodSettings(model="tiny.en", host=host, pod_url=pod_url).url(81) == announced


def test_unknown_variables_lists_what_is_misspelt_and_leaves_other_programs_alone() -> None:
    environ = ["EVERWARM_SLOT", "EVERWARM_SLOTS", "EVERWARM_BASE_URL", "PATH", "EVERWARM_GATEWAY_PORT"]
    injected = ["EVERWARM_GATEWAY_SERVICE_HOST", "EVERWARM_GATEWAY_PORT_8080_TCP_ADDR"]
    assert unknown_variables([*environ, *injected]) == ("EVERWARM_SLOT",)
