"""`python -m bench`: list, run and judge the benchmarks; see the package's docstring."""

import argparse
import importlib
import sys
from collections.abc import Callable
from typing import Final, cast

from bench.compare import compare, table
from bench.report import Report

BENCHMARKS: Final = {
    "first_request": "the first request after ready against the steady median, over fresh starts",
    "endurance": "1,000 mixed requests on one pod: loads, and memory at request 100 and 1,000",
    "allocator": "time and memory of the same requests under three settings of malloc",
    "routing": "time to choose among 5,000 pods",
    "overhead": "what client and HTTP add to the pod's own time",
    "gateway": "what the gateway adds to an utterance, at half of the load",
    "realtime": "realtime sessions: finals decoded in the pause, and the memory of idle ones",
    "chaos": "pods killed and hanging, Valkey killed, gateways leaving, under load: utterances lost, wrong or doubled",
    "operator_latency": "what the operator takes from apply to Ready, and from the registry to a gate",
    "operator_scale": "a hundred and a thousand WhisperModels: time, writes and memory of the operator",
    "latency": "one utterance, against faster-whisper: in process and through client and HTTP",
    "throughput": "1, 4 and 16 callers, against faster-whisper, Ray Serve and LitServe",
    "speakers": "how many who talk to agents two cores can hear, against faster-whisper",
    "tune": "slots, threads and batches of this machine's cores: what each gives, and which to take",
    "accuracy": "word error rates and invented words, against faster-whisper's, over some 8,800 words",
    "recordings": "utterances while recordings of half an hour are transcribed",
    "start_to_warm": "process start to ready, against a bare script that does the same decodes",
    "footprint": "memory of a pod with two slots, against one bare model",
    "workers": "four LiveKit workers: copies of the model, with pods and with the local fallback",
}


def main() -> int:
    """Run the named benchmarks; 0 when every promise held."""
    names = "\n".join(f"  {name:<16} {what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Benchmarks of Everwarm. Each prints a table and writes bench/results/NAME.{json,md}.",
        epilog=f"benchmarks:\n{names}\n  {'all':<16} every one of them\n\n"
        "  compare [REVISION]  what the results at hand changed against those committed; fails when a promise got worse\n"
        "  plot                draw the results at hand into docs/images/bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run; none prints the list")
    chosen = parser.parse_args().names
    if chosen[:1] == ["compare"]:
        found = compare(chosen[1] if chosen[1:] else "HEAD")
        sys.stdout.write(table(found))
        return 1 if any(change.is_regression for change in found) else 0
    if chosen == ["plot"]:
        return draw()
    if not chosen:
        parser.print_help()
        return 0
    if unknown := [name for name in chosen if name not in BENCHMARKS and name != "all"]:
        parser.error(f"no benchmark {unknown[0]!r}; choose from {', '.join(BENCHMARKS)}, all")

    held = True
    for name in BENCHMARKS if "all" in chosen else chosen:
        sys.stderr.write(f"bench: {name}: {BENCHMARKS[name]}\n")
        run = cast("Callable[[], Report]", importlib.import_module(f"bench.{name}").run)
        report = run()
        report.write(name)
        sys.stdout.write(report.markdown() + "\n")
        held = held and report.held
    return 0 if held else 1


def draw() -> int:
    """Draw every picture and name it; 1 when there are no results."""
    from bench.plot import NoResults, plot

    try:
        sys.stdout.writelines(f"{path}\n" for path in plot())
    except NoResults as error:
        sys.stderr.write(f"bench: plot: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
