"""Pictures of the results: what they say in words, that nothing but a figure changes them, and what to run when there are none."""

import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from bench import accuracy, latency, throughput
from bench.corpus.load import Utterance
from bench.pictures import CUT, Bar, Kind, Mark, Picture, overview, pictures
from bench.plot import IMAGES, NoResults, plot, svg
from bench.report import Figure, Promise, Report
from bench.systems import OURS

SETTING = "tiny.en, greedy"


def a_report(*promises: Promise, figures: tuple[Figure, ...] = ()) -> Report:
    return Report("Routing", figures, promises, machine="2 cores", load_average=0.5)


def a_latency() -> Report:
    columns = {
        name: latency.Column(name, lambda _: pytest.fail("not asked"), [scale * (1 + n) for n in range(100)])
        for name, scale in ((latency.REFERENCE, 0.004), (latency.ENGINE, 0.001), (latency.HTTP, 0.0011))
    }
    return a_report(figures=tuple(latency._figures(SETTING, columns)))


def a_throughput() -> Report:
    bursts = {
        (system, callers): throughput.Burst([0.5] * 10, wall_s)
        for system, wall_s in (("faster-whisper, cached", 5.0), (OURS, 1.0))
        for callers in (1, 16)
    }
    return a_report(figures=throughput._figures(bursts))


def an_accuracy() -> Report:
    pairs = [
        accuracy.Pair(
            Utterance(str(n), np.zeros(1, np.float32), "", language, "", ""), 2 + n % 3, 2 + n % 2, 20
        )
        for n, language in enumerate(["en", "de"] * 20)
    ]
    figures = accuracy._by_language(SETTING, pairs)
    figures.append(Figure(f"{SETTING}: sounds given words by faster-whisper", 3, "of 40"))
    return a_report(*accuracy._judged(SETTING, pairs), figures=tuple(figures))


def bars(picture: Picture) -> Iterator[tuple[str, Bar]]:
    return ((panel.title, bar) for panel in picture.panels for bar in panel.bars)


def drawn(name: str, report: Report) -> Picture:
    """The picture of benchmark *name*, not the overview."""
    return next(picture for picture in pictures({name: report}) if picture.name == name)


def words(drawing: str) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", drawing)


def save(folder: Path, name: str, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.report.RESULTS", folder)
    report.write(name)


def test_a_report_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = an_accuracy()
    save(tmp_path, "accuracy", report, monkeypatch)
    assert Report.read(tmp_path / "accuracy.json") == report


def test_pictures_have_the_same_bytes_when_results_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn on another day, into another folder, by a user with settings of matplotlib."""
    made = {"accuracy": an_accuracy(), "latency": a_latency(), "throughput": a_throughput()}
    for name, report in made.items():
        save(tmp_path / "results", name, report, monkeypatch)
    first = plot(tmp_path / "results", tmp_path / "first")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    with mpl.rc_context({"svg.hashsalt": "other", "font.size": 20, "svg.fonttype": "path"}):
        second = plot(tmp_path / "results", tmp_path / "second")
    assert [path.name for path in first] == [
        "overview.svg",
        "latency.svg",
        "throughput.svg",
        "accuracy.svg",
    ]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_pictures_change_when_a_figure_does() -> None:
    before, after = (
        overview({"routing": a_report(Promise("p99", value, 50, "us"))}) for value in (9.0, 10.0)
    )
    assert svg(before) != svg(after)


def test_overview_says_in_words_what_was_missed() -> None:
    drawing = svg(overview({"routing": a_report(Promise("p99", 60, 50, "us"), Promise("p50", 5, 50, "us"))}))
    assert {"60 of 50 us: MISSED", "5 of 50 us: held", "Promises: 1 held, 1 missed"} <= {*words(drawing)}


@pytest.mark.parametrize(
    ("value", "limit", "length", "kind", "is_cut"),
    [
        (1.0, 2.0, 0.5, Kind.HELD, False),
        (2.0, 2.0, 1.0, Kind.HELD, False),
        (3.0, 2.0, 1.5, Kind.MISSED, False),
        (99.0, 2.0, CUT, Kind.MISSED, True),
        (0.0, 0.0, 0.0, Kind.HELD, False),
        (1.0, 0.0, CUT, Kind.MISSED, True),
        (-0.1, 0.3, 0.0, Kind.HELD, False),
    ],
    ids=["held", "at its limit", "missed", "missed by far", "none of none", "some of none", "below zero"],
)
def test_a_promise_is_as_long_as_its_share_of_the_limit(
    value: float,
    limit: float,
    length: float,
    kind: Kind,
    is_cut: bool,  # noqa: FBT001
) -> None:
    ((_, bar),) = bars(overview({"routing": a_report(Promise("p99", value, limit, "x"))}))
    assert (bar.length, bar.kind, bool(bar.marks)) == (length, kind, is_cut)


def test_overview_is_left_out_when_nothing_was_promised() -> None:
    assert list(pictures({"allocator": a_report()})) == []


def test_latency_marks_p95_and_p99_of_every_way() -> None:
    """As the benchmark writes them: if its texts change, this fails."""
    found = list(bars(drawn("latency", a_latency())))
    assert {setting for setting, _ in found} == {SETTING}
    assert [(bar.label, bar.kind) for _, bar in found] == [
        (latency.REFERENCE, Kind.OTHER),
        (latency.ENGINE, Kind.OURS),
        (latency.HTTP, Kind.OURS),
    ]
    assert found[0][1].length == pytest.approx(202)
    assert found[0][1].marks == ((Mark.TICK, 384), (Mark.DIAMOND, 400))


def test_throughput_compares_systems_for_each_number_of_callers() -> None:
    found = [(panel, bar.label, bar.length) for panel, bar in bars(drawn("throughput", a_throughput()))]
    assert found == [
        ("1 caller", "faster-whisper, cached", 2),
        ("1 caller", "Everwarm", 10),
        ("16 callers", "faster-whisper, cached", 2),
        ("16 callers", "Everwarm", 10),
    ]


def test_accuracy_shows_both_rates_and_the_interval_over_all_languages() -> None:
    report = an_accuracy()
    found = {bar.label: bar for _, bar in bars(drawn("accuracy", report))}
    assert list(found) == [
        f"{language}: {way}" for language in ("all", "de", "en") for way in ("Everwarm", "faster-whisper")
    ]
    ((mark, at),) = found["all: Everwarm"].marks
    assert mark is Mark.TICK
    assert at == pytest.approx(found["all: faster-whisper"].length + report.promises[1].value)
    assert found["en: Everwarm"].marks == ()


def test_plot_names_the_command_to_run_when_there_are_no_results(tmp_path: Path) -> None:
    with pytest.raises(NoResults, match="run `python -m bench NAME`"):
        plot(tmp_path, tmp_path / "images")
    assert not (tmp_path / "images").exists()


def test_plot_names_the_benchmarks_whose_pictures_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, "latency", a_latency(), monkeypatch)
    plot(tmp_path, tmp_path / "images")
    told = capsys.readouterr().err
    assert re.findall(r"run `python -m bench (\w+)` first", told) == ["throughput", "accuracy"]


def test_pictures_lie_where_the_docs_show_them() -> None:
    shown = [
        (page.parent / path).resolve()
        for page in IMAGES.parents[1].rglob("*.md")
        for path in re.findall(r"!\[[^\]]+\]\(([^)]+\.svg)\)", page.read_text(encoding="utf-8"))
    ]
    assert IMAGES / "overview.svg" in shown
    assert all(path.is_file() for path in shown)
