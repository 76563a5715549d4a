"""The geometry of SVG's shapes as cubic Bezier segments: path data, basic shapes, transforms (SVG 1.1,
chapters 7 to 9)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

GROUP = re.compile(r"([MmLlHhVvCcSsQqTtAaZz])([^MmLlHhVvCcSsQqTtAaZz]*)")
NUMBER = re.compile(r"(?>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)")
ARC = re.compile(
    r"[\s,]*" + r"[\s,]*".join([f"({NUMBER.pattern})"] * 3 + ["([01])"] * 2 + [f"({NUMBER.pattern})"] * 2)
)
TRANSFORM = re.compile(r"(matrix|translate|scale|rotate|skewX|skewY)\s*\(([^()]*)\)")
UNITS = {
    "": 1.0,
    "px": 1.0,
    "in": 96.0,
    "cm": 96 / 2.54,
    "mm": 96 / 25.4,
    "pt": 4 / 3,
    "pc": 16.0,
    "em": 16.0,
    "ex": 8.0,
}
TAKES = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "S": 4, "Q": 4, "T": 2, "A": 7}
STEP = math.pi / 8  # of arcs: a cubic is off by 7e-8 of the radius

Matrix = Float[np.ndarray, "2 3"]
IDENTITY = np.eye(2, 3)
MOST_NUMBERS = 4_000_000  # in one list


@dataclass
class Subpath:
    """Cubic segments end to end (a line has its middle points on thirds), and whether its author closed
    it."""

    cubics: Float[np.ndarray, "N 4 2"]
    closed: bool


@dataclass
class Pen:
    """Collects segments; `budget` is how many more the file may have."""

    budget: int
    at: np.ndarray = field(default_factory=lambda: np.zeros(2))
    start: np.ndarray = field(default_factory=lambda: np.zeros(2))
    parts: list[np.ndarray] = field(default_factory=list)
    done: list[Subpath] = field(default_factory=list)

    def add(self, cubics: Float[np.ndarray, "N 4 2"]) -> None:
        self.budget -= len(cubics)
        if self.budget < 0:
            raise OverflowError
        if len(cubics):
            self.parts.append(cubics)
            self.at = cubics[-1, 3]

    def lines(self, to: Float[np.ndarray, "N 2"]) -> None:
        start = np.concatenate((self.at[None], to[:-1]))
        self.add(start[:, None] + np.array([0, 1 / 3, 2 / 3, 1])[:, None] * (to - start)[:, None])

    def end(self, closed: bool) -> None:
        if self.parts:
            self.done.append(Subpath(np.concatenate(self.parts), closed))
        self.parts = []
        if closed:
            self.at = self.start


def parse_numbers(text: str) -> list[float]:
    """All numbers of a list. ValueError for anything that is none, OverflowError where there are too many."""
    if text.strip("0123456789+-.eE, \t\r\n\f"):
        raise ValueError("not numbers")
    if len(text) > 2 * MOST_NUMBERS and sum(1 for _ in NUMBER.finditer(text)) > MOST_NUMBERS:
        raise OverflowError
    found = [float(n) for n in NUMBER.findall(text)]
    if not all(map(math.isfinite, found)):
        raise ValueError("too large")
    return found


def _arcs(text: str, most: int) -> tuple[list[float], bool]:
    """The numbers of arcs, whose flags need nothing between them, and whether they are all."""
    found: list[float] = []
    position = 0
    while (hit := ARC.match(text, position)) and len(found) <= 7 * most:
        found += map(float, hit.groups())
        position = hit.end()
    return found, not text[position:].strip(" ,\t\r\n\f") and all(map(math.isfinite, found))


def length(text: str | None, whole: float, default: float = 0.0) -> float:
    """A length in user units; per cent are of `whole`. ValueError if it is none."""
    if text is None or text.strip() in ("", "auto"):
        return default
    found = re.fullmatch(rf"({NUMBER.pattern})\s*(%|[a-z]*)", text.strip()[:100])
    if not found or (found[2] != "%" and found[2] not in UNITS):
        raise ValueError(f"'{text[:30]}' is no length")
    value = float(found[1]) * (whole / 100 if found[2] == "%" else UNITS[found[2]])
    if not math.isfinite(value):
        raise ValueError(f"'{text[:30]}' is too large")
    return value


def matrix_of(text: str) -> Matrix:
    """The transform of a list such as 'translate(1 2) rotate(30)'. ValueError if it is none."""
    whole = np.eye(3)
    if TRANSFORM.sub("", text).strip(" ,\t\r\n\f"):
        raise ValueError("no transform")
    for name, inner in TRANSFORM.findall(text):
        v, m = parse_numbers(inner), np.eye(3)
        if len(v) not in {"matrix": (6,), "translate": (1, 2), "scale": (1, 2), "rotate": (1, 3)}.get(
            name, (1,)
        ):
            raise ValueError("no transform")
        if name == "matrix":
            m[:2] = np.reshape(v, (3, 2)).T
        elif name == "translate":
            m[:2, 2] = v[0], v[1] if len(v) > 1 else 0
        elif name == "scale":
            m[0, 0], m[1, 1] = v[0], v[-1]
        elif name == "rotate":
            c, s = math.cos(math.radians(v[0])), math.sin(math.radians(v[0]))
            m[:2, :2] = [[c, -s], [s, c]]
            if len(v) == 3:
                m[:2, 2] = np.array(v[1:]) - m[:2, :2] @ v[1:]
        else:
            m[(0, 1) if name == "skewX" else (1, 0)] = math.tan(math.radians(v[0]))
        whole = whole @ m
    if not np.isfinite(whole).all():
        raise ValueError("too large")
    return whole[:2]


def after(outer: Matrix, inner: Matrix) -> Matrix:
    """First `inner`, then `outer`."""
    return np.column_stack((outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]))


def runs(d: str) -> Iterator[tuple[str, str]]:
    """The commands of path data with their numbers; the same command several times in a row is one."""
    before, texts = "", []
    for command, text in GROUP.findall(d):
        if command != before or command in "MmZz":
            if before:
                yield before, " ".join(texts)
            before, texts = command, []
        texts.append(text)
    if before:
        yield before, " ".join(texts)


def path(d: str, budget: int) -> tuple[list[Subpath], bool]:
    """The subpaths of path data, and whether all of it could be read: SVG draws up to the first error.
    OverflowError if there are more than `budget` segments."""
    pen, last = Pen(budget), ("", np.zeros(2))
    head = GROUP.search(d)
    good = head is None or (head[1] in "Mm" and not d[: head.start()].strip())
    for command, text in runs(d) if good and head else ():
        kind = command.upper()
        try:
            if kind == "Z":
                pen.lines(pen.start[None])
                pen.end(True)
                good = not text.strip(" ,\t\r\n\f")
            else:
                v, good = _arcs(text, pen.budget) if kind == "A" else (parse_numbers(text), True)
                count = len(v) // TAKES[kind]
                good = good and len(v) == count * TAKES[kind] > 0
                if count:
                    last = _draw(
                        pen, kind, command.islower(), np.reshape(v[: count * TAKES[kind]], (count, -1)), last
                    )
        except ValueError:
            good = False
        if not good:
            break
    pen.end(False)
    return pen.done, good


def _draw(
    pen: Pen, kind: str, relative: bool, v: np.ndarray, last: tuple[str, np.ndarray]
) -> tuple[str, np.ndarray]:
    """Adds commands of one kind; takes and returns what the smooth commands reflect: the kind and the last
    control point."""
    if kind == "M":
        pen.end(False)
        pen.at = pen.start = v[0] + pen.at * relative
        kind, v = "L", v[1:]
    if kind in "HV":
        axis = int(kind == "V")
        to = np.tile(pen.at, (len(v), 1))
        to[:, axis] = pen.at[axis] + np.cumsum(v[:, 0]) if relative else v[:, 0]
        pen.lines(to)
    elif kind == "L":
        if len(v):
            pen.lines(pen.at + np.cumsum(v, 0) if relative else v)
    elif kind == "A":
        for rx, ry, turn, large, sweep, *end in v:
            pen.add(arc(pen.at, rx, ry, turn, large, sweep, np.array(end) + pen.at * relative))
    else:
        p = v.reshape(len(v), -1, 2)
        end = pen.at + np.cumsum(p[:, -1], 0) if relative else p[:, -1]
        start = np.concatenate((pen.at[None], end[:-1]))
        p = p + start[:, None] * relative
        if kind in "ST":
            mirrored = last[1] if last[0] == ("C" if kind == "S" else "Q") else pen.at
            first = np.empty_like(start)
            for i in range(len(v)):
                first[i] = 2 * start[i] - mirrored
                mirrored = p[i, 0] if kind == "S" else first[i]
            p = np.concatenate((first[:, None], p), 1)
        if kind in "QT":  # raised by one degree
            p, bend = np.stack(((start + 2 * p[:, 0]) / 3, (2 * p[:, 0] + end) / 3, end), 1), p[-1, 0]
        else:
            bend = p[-1, 1]
        pen.add(np.concatenate((start[:, None], p), 1))
        return "C" if kind in "CS" else "Q", bend
    return "", pen.at


def arc(
    start: np.ndarray, rx: float, ry: float, turn: float, large: float, sweep: float, end: np.ndarray
) -> np.ndarray:
    """An elliptical arc as cubics (SVG 1.1, appendix F.6)."""
    rx, ry = abs(rx), abs(ry)
    if min(rx, ry) == 0 or np.array_equal(start, end):
        return (start + np.array([0, 1 / 3, 2 / 3, 1])[:, None] * (end - start))[None]
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    axes = np.array([[c * rx, -s * ry], [s * rx, c * ry]])
    half = np.linalg.solve(axes, (start - end) / 2)  # on the unit circle
    grow = max(1.0, float(np.linalg.norm(half)))
    axes, half = axes * grow, half / grow
    away = math.sqrt(max(0.0, 1 / float(half @ half) - 1)) * (1 if bool(large) != bool(sweep) else -1)
    centre = away * np.array([half[1], -half[0]])
    a, b = half - centre, -half - centre
    begin = math.atan2(a[1], a[0])
    angle = (math.atan2(b[1], b[0]) - begin) % (2 * math.pi) - (0 if sweep else 2 * math.pi)
    found = round_arc(begin, angle) @ axes.T + (axes @ centre + (start + end) / 2)
    found[0, 0], found[-1, 3] = start, end
    return found


def round_arc(begin: float, angle: float) -> Float[np.ndarray, "N 4 2"]:
    """An arc of the unit circle as cubics."""
    count = max(1, math.ceil(abs(angle) / STEP - 1e-9))
    t = begin + angle * np.arange(count + 1) / count
    on = np.stack((np.cos(t), np.sin(t)), -1)
    along = 4 / 3 * math.tan(angle / count / 4) * np.stack((-on[:, 1], on[:, 0]), -1)
    return np.stack((on[:-1], on[:-1] + along[:-1], on[1:] - along[1:], on[1:]), 1)
