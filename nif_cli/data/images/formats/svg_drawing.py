"""What the elements of an SVG drawing are on their way to layers of paint."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from nif_cli import NifError
from nif_cli.data.images.formats.svg_path import (
    Matrix,
    Subpath,
    length,
)
from nif_cli.data.images.formats.svg_shapes import shape
from nif_cli.data.images.formats.svg_style import (
    Sheet,
    colour,
    declarations,
    effect,
    paint,
    share,
    tag,
)
from nif_cli.geometry.painting import Layer
from nif_cli.geometry.strokes import Stroke

SHAPES = ("path", "rect", "circle", "ellipse", "line", "polyline", "polygon")
GROUPS = ("svg", "g", "a", "switch")
UNSEEN = (
    "defs",
    "style",
    "title",
    "desc",
    "metadata",
    "symbol",
    "clipPath",
    "mask",
    "marker",
    "pattern",
    "filter",
    "script",
    "linearGradient",
    "radialGradient",
    "namedview",
    "view",
    "animate",
    "animateTransform",
    "set",
    "font",
)
MOST_BYTES = 2**25
MOST_ELEMENTS = 50_000  # with those that <use> repeats
MOST_SEGMENTS = 300_000
DEEPEST = 100


@dataclass(frozen=True)
class State:
    """What a group hands down."""

    matrix: Matrix
    style: dict[str, str]
    opacity: float
    size: tuple[float, float]  # of the view box: what per cent are of
    chain: tuple[Element, ...] = ()
    clips: tuple[tuple[Layer, ...], ...] = ()


@dataclass
class Drawing:
    """A file on its way to layers: its elements by id, what is still allowed, what there is to say."""

    path: Path
    root: Element
    sheet: Sheet = field(default_factory=lambda: Sheet([]))
    ids: dict[str, Element] = field(default_factory=dict)
    elements: int = MOST_ELEMENTS
    segments: int = MOST_SEGMENTS
    layers: list[Layer] = field(default_factory=list)
    shapes: int = 0
    said: Counter[str] = field(default_factory=Counter)
    outlines: dict[tuple[Element, tuple[float, float]], list[Subpath]] = field(default_factory=dict)
    clipping: dict[tuple[str, bytes], tuple[Layer, ...]] = field(default_factory=dict)
    within: set[Element] = field(default_factory=set)
    is_clip: bool = False  # then every shape counts, however it is painted

    def say(self, what: str) -> None:
        if what in self.said or len(self.said) < 20:
            self.said[what] += 1

    def refuse(self, why: str) -> NifError:
        return NifError(f"{self.path}: refused: {why}; a simpler drawing is needed")


def measure(drawing: Drawing, element: Element, key: str, whole: float, default: float = 0.0) -> float:
    """A length of an element; the default, said, if it is none."""
    try:
        return length(element.get(key), whole, default)
    except ValueError as error:
        drawing.say(f"{key} of a <{tag(element)}> is left out: {error}")
        return default


def _outline(drawing: Drawing, element: Element, name: str, state: State) -> list[Subpath]:
    """Parsed once, however often it is used."""
    key = (element, state.size)
    if key not in drawing.outlines:
        try:
            found, whole = shape(name, element.attrib, state.size, drawing.segments)
        except OverflowError as error:
            raise drawing.refuse(f"more than {MOST_SEGMENTS:,} segments") from error
        except ValueError as error:
            drawing.say(f"a <{name}> is left out: {error}")
            found, whole = [], True
        if not whole:
            drawing.say(f"the data of a <{name}> are damaged and drawn up to the damage")
        drawing.outlines[key] = [p for p in found if np.abs(p.cubics).max() < 1e12]
        if len(drawing.outlines[key]) < len(found):
            drawing.say("coordinates beyond 1e12 are left out")
    return drawing.outlines[key]


def paint_shape(drawing: Drawing, element: Element, name: str, state: State) -> None:
    """Its fill, then its stroke."""
    subpaths = _outline(drawing, element, name, state)
    drawing.segments -= sum(len(p.cubics) for p in subpaths)
    if drawing.segments < 0:
        raise drawing.refuse(f"more than {MOST_SEGMENTS:,} segments")
    style = state.style
    if not subpaths or style["visibility"].strip() in ("hidden", "collapse"):
        return None
    if not np.isfinite(state.matrix).all() or np.abs(state.matrix).max() > 1e12:
        return drawing.say("a shape whose transform leads beyond 1e12 is left out")
    drawing.shapes += 1
    base = Layer(
        [p.cubics for p in subpaths], [p.closed for p in subpaths], state.matrix, True, clips=state.clips
    )
    if drawing.is_clip:
        rule = "evenodd" if style["clip-rule"].strip() == "evenodd" else "nonzero"
        return drawing.layers.append(replace(base, rule=rule))
    if name != "line":
        rule = "evenodd" if style["fill-rule"].strip() == "evenodd" else "nonzero"
        _add(drawing, replace(base, rule=rule), "fill", style, state.opacity)
    _add(drawing, base, "stroke", style, state.opacity, state)
    return None


def _add(
    drawing: Drawing,
    layer: Layer,
    kind: str,
    style: dict[str, str],
    opacity: float,
    state: State | None = None,
) -> None:
    """A fill or a stroke as a layer, if it covers what is below it."""
    found = paint(style[kind], style, lambda name: _gradient(drawing, name), drawing.say)
    alpha = opacity * share(style[f"{kind}-opacity"].strip())
    dark = effect(found, alpha)
    if found is None or found[1] * alpha == 0:
        return None
    if dark is None:
        return drawing.say(f"a half-transparent {kind} that is neither dark nor light is left out")
    if state is not None:
        mean = math.hypot(*state.size) / math.sqrt(2)
        try:
            width = length(style["stroke-width"], mean, 1.0)
            miter = float(style["stroke-miterlimit"])
        except ValueError:
            return drawing.say(f"a stroke of width '{style['stroke-width'][:20]}' is left out")
        if not width > 0:
            return None
        if style["stroke-dasharray"].strip() not in ("none", ""):
            drawing.say("dashes of a stroke are joined")
        if dark:
            drawing.say("strokes are drawn with their width")
        layer = replace(
            layer,
            stroke=Stroke(width, style["stroke-linejoin"].strip(), style["stroke-linecap"].strip(), miter),
        )
    return drawing.layers.append(replace(layer, dark=dark))


def _gradient(drawing: Drawing, name: str) -> tuple[float, float] | None:
    """The mean brightness and opacity of a gradient's stops; None if there is no such paint."""
    server = drawing.ids.get(name)
    for _ in range(10):
        if server is None or tag(server) not in ("linearGradient", "radialGradient"):
            break
        stops = [s for s in server if tag(s) == "stop"]
        if stops:
            drawing.say("a gradient counts as the mean of its colours")
            found = []
            for stop in stops[:1000]:
                own = (
                    dict(stop.attrib)
                    | drawing.sheet.matched((server, stop))
                    | declarations(stop.get("style", ""))
                )
                bright, alpha = colour(own.get("stop-color", "black")) or (0.0, 1.0)
                found.append((bright, alpha * share(own.get("stop-opacity", "1").strip())))
            mean = np.mean(found, 0)
            return float(mean[0]), float(mean[1])
        link = server.get("href") or server.get("{http://www.w3.org/1999/xlink}href", "")
        server = drawing.ids.get(link.removeprefix("#"))
    if server is not None and tag(server) == "pattern":
        drawing.say("a pattern counts as black")
        return 0.0, 1.0
    return None
