"""What the plugin brings into a bot's process, and what it says when Pipecat is missing."""

from tests.support.snippets import run_snippet

WITHOUT_PIPECAT = """
import sys
sys.modules["pipecat"] = None
try:
    import everwarm.pipecat
except ImportError as error:
    print(error)
"""

CONSTRUCT = """
import sys, everwarm
everwarm.pipecat.STTService(model="tiny.en", base_url="http://pods")
print(sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])))
"""

WITHOUT_THE_PLUGIN = """
import sys, everwarm, everwarm.cli, everwarm.gateway
print("pipecat" in sys.modules)
"""


def test_without_pipecat_the_import_says_what_to_install() -> None:
    assert "pip install 'everwarm[pipecat]'" in run_snippet(WITHOUT_PIPECAT)


def test_a_bot_loads_no_model_library_for_the_service() -> None:
    heavy = ("ctranslate2", "faster_whisper", "everwarm_stt", "torch", "transformers")
    assert run_snippet(CONSTRUCT, *heavy) == "[]"


def test_nobody_else_imports_pipecat() -> None:
    assert run_snippet(WITHOUT_THE_PLUGIN) == "False"
