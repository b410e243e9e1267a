"""What is worth a line while the platform runs."""

import logging

from everwarm.cli.progress import describe, transfer, without_password
from everwarm.platform.events import PodExited, PodLogged, RegistryStarted
from everwarm.platform.logs import LogLine
from everwarm.platform.process import Exit


def test_line_of_a_registry_never_shows_its_password() -> None:
    event = RegistryStarted("redis://user:secret@redis:6379/0", is_embedded=False)
    assert describe(event, verbosity=2) == "registry: redis://redis:6379/0 (given)"
    assert without_password("redis://redis:6379/0") == "redis://redis:6379/0"


def test_line_of_a_death_says_what_when_and_why() -> None:
    event = PodExited("tiny.en-0", Exit(1, 2.0, 1, 0.5, ()), "no weights")
    assert describe(event, verbosity=0) == (
        "tiny.en-0: died (exit status 1) and is started again in 0.5 s: no weights"
    )


def test_log_lines_of_pods_are_shown_by_weight_and_verbosity() -> None:
    for level, least in ((logging.WARNING, 0), (logging.INFO, 1), (logging.DEBUG, 2)):
        shown = [describe(PodLogged("p", LogLine(level, "e")), verbosity=v) is not None for v in (0, 1, 2)]
        assert shown == [v >= least for v in (0, 1, 2)]


def test_transfer_shows_megabytes() -> None:
    fields = {"what": "download base", "done_bytes": 45_000_000, "total_bytes": 145_000_000}
    assert transfer(fields) == "download base: 45 of 145 MB"
