"""The story's figures, shown as one table at its end and written to bench/results/e2e.{json,md}."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.report import Figure, Promise, Report


@dataclass(slots=True)
class Figures:
    """Filled as the story goes: name -> value and unit, in its order; *lost* and *disagreements* are to be 0."""

    place: str
    found: dict[str, tuple[float, str]] = field(default_factory=dict)
    lost: int = 0
    disagreements: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, name: str, value: float, unit: str = "s") -> None:
        """One figure."""
        self.found[name] = (value, unit)

    def note_all(self, figures: Mapping[str, float], unit: str) -> None:
        """Several of one unit."""
        for name, value in figures.items():
            self.note(name, value, unit)

    def report(self) -> Report:
        """All of them."""
        return Report(
            title="The story on a real cluster",
            promises=(
                Promise("utterances lost, or with two finals", self.lost, 0, ""),
                Promise("disagreements of Ready and warm over 1 s, not excused", self.disagreements, 0, ""),
            ),
            figures=tuple(Figure(name, value, unit) for name, (value, unit) in self.found.items()),
            notes=(f"on {self.place}", *self.notes),
        )
