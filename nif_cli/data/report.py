"""What there is to say of data that was read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """One line for whoever trains on it. `doubts` are those of its parts that say that something may be
    wrong, or was lost or mended: of many shapes those are named that have some."""

    text: str = ""
    doubts: tuple[str, ...] = ()

    def __add__(self, more: Report | str) -> Report:
        if isinstance(more, str):
            return Report(self.text + more, self.doubts)
        return Report(self.text + more.text, self.doubts + more.doubts)

    def __radd__(self, before: str) -> Report:
        return Report(before + self.text, self.doubts)

    def __str__(self) -> str:
        return self.text


NOTHING = Report()


def doubt(text: str) -> Report:
    """A part of a report, with what joins it to the line ('; ' or ', '), that says what is doubtful."""
    return Report(text, (text.lstrip(";, "),))
