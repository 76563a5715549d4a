"""SVG files as regions of the plane: inside is what they paint dark."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from nif_cli import NifError
from nif_cli.data.images.formats.svg_drawing import (
    DEEPEST,
    GROUPS,
    MOST_BYTES,
    MOST_ELEMENTS,
    SHAPES,
    UNSEEN,
    Drawing,
    State,
    measure,
    paint_shape,
)
from nif_cli.data.images.formats.svg_path import (
    IDENTITY,
    after,
    matrix_of,
    parse_numbers,
)
from nif_cli.data.images.formats.svg_style import (
    INITIAL,
    OWN,
    Sheet,
    declarations,
    share,
    style_rules,
    tag,
)
from nif_cli.geometry.curves import Curves
from nif_cli.geometry.painting import painted
from nif_cli.geometry.strokes import TooMuch
from nif_cli.untrusted import reading, regular, shown


def read_svg(path: Path) -> Curves:
    """The boundary of what an SVG file paints dark, in the units of its view box. NifError if that is
    nothing, or for what is no SVG or takes too long to be drawn."""
    return read_drawing(path)[0]


def read_drawing(path: Path) -> tuple[Curves, list[str]]:
    """As `read_svg`, and what there is to say of it: what was left out or taken for something else."""
    regular(path)
    with reading(path, "SVG"):
        drawing = Drawing(path, _parsed(path))
        _index(drawing)
        box = _box(drawing.root) or [
            0.0,
            0.0,
            *(measure(drawing, drawing.root, k, 100, 100) for k in ("width", "height")),
        ]
        _draw(drawing, drawing.root, State(IDENTITY, INITIAL, 1.0, (box[2], box[3])))
        try:
            curves = painted(drawing.layers)
        except TooMuch as error:
            raise drawing.refuse(str(error)) from error
    if not drawing.shapes:
        raise NifError(f"{path}: no closed shape in it{_list(drawing)}")
    if not curves:
        why = f"all of its {drawing.shapes} shapes are white, unfilled or covered"
        raise NifError(
            f"{path}: nothing in it is painted dark ({why}); a curve needs a dark shape on a light "
            f"ground{_list(drawing)}"
        )
    return curves, _said(drawing)


def _said(drawing: Drawing) -> list[str]:
    return [f"{shown(what, 120)}{f' ({n} times)' if n > 1 else ''}" for what, n in drawing.said.items()]


def _list(drawing: Drawing) -> str:
    return "".join(f"; {what}" for what in _said(drawing))


def _parsed(path: Path) -> Element:
    """The tree of a file, element by element: a file of millions ends before it fills the memory."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise NifError(f"{path}: refused: {size / 2**20:.0f} MiB of SVG; at most {MOST_BYTES / 2**20:.0f}")
    count = depth = 0
    root = None
    parser = ElementTree.XMLPullParser(("start", "end"))
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    total = 0
    with gzip.open(path) if packed else path.open("rb") as file:
        while block := file.read(2**16):
            total += len(block)
            if total > MOST_BYTES:
                raise NifError(
                    f"{path}: refused: it unpacks to more than {MOST_BYTES / 2**20:.0f} MiB of SVG"
                )
            parser.feed(block)
            event: str
            element: Element
            for event, element in parser.read_events():  # pyright: ignore[reportAssignmentType]
                root = element if root is None else root
                depth += 1 if event == "start" else -1
                count += event == "start"
                if count > MOST_ELEMENTS or depth > DEEPEST:
                    what = (
                        f"more than {MOST_ELEMENTS:,} elements"
                        if count > MOST_ELEMENTS
                        else f"nested more than {DEEPEST} deep"
                    )
                    raise NifError(f"{path}: refused: {what}; a simpler drawing is needed")
    parser.close()
    if root is None or tag(root) != "svg":
        raise NifError(
            f"{path}: cannot be read as SVG: its outermost element is "
            f"<{shown(tag(root)) if root is not None else ''}>"
        )
    return root


def _index(drawing: Drawing) -> None:
    """Ids and style sheets."""
    rules = []
    for element in drawing.root.iter():
        if element.get("id"):
            drawing.ids.setdefault(element.get("id", ""), element)
        if tag(element) == "style":
            found, unknown = style_rules("".join(element.itertext()))
            rules += found
            for _ in range(min(unknown, 1000)):
                drawing.say("a CSS rule is not understood and left out")
    drawing.sheet = Sheet(rules)


def _box(element: Element) -> list[float] | None:
    try:
        box = parse_numbers(element.get("viewBox", ""))
    except ValueError:
        return None
    return box if len(box) == 4 and min(box[2:]) > 0 else None


def _draw(drawing: Drawing, element: Element, state: State, depth: int = 0) -> None:
    """An element and what is in it."""
    drawing.elements -= 1
    if drawing.elements < 0:
        raise drawing.refuse(f"its <use> elements repeat more than {MOST_ELEMENTS:,} elements")
    if depth > DEEPEST:
        raise drawing.refuse(f"its elements are nested more than {DEEPEST} deep by <use>")
    name = tag(element)
    foreign = "}" in str(element.tag) and not element.tag.startswith("{http://www.w3.org/2000/svg}")
    if not name or foreign or (name in UNSEEN and name != "symbol"):
        return None
    if name not in (*SHAPES, *GROUPS, "use", "symbol"):
        return drawing.say(f"<{shown(name, 30)}> is left out")
    styled = _styled(drawing, element, state)
    if styled is None:
        return None
    state = styled
    if name in SHAPES:
        paint_shape(drawing, element, name, state)
    elif name == "use":
        _use(drawing, element, state, depth)
    else:
        if (name == "svg" and depth) or name == "symbol":
            state = _viewport(drawing, element, state)
        for child in element:
            if tag(child) != "symbol":
                _draw(drawing, child, state, depth + 1)
            if name == "switch" and tag(child) in (*SHAPES, *GROUPS, "use"):
                break


def _styled(drawing: Drawing, element: Element, state: State) -> State | None:
    """What an element hands down; None if it is not displayed."""
    chain = (*state.chain, element)
    properties = {k: v for k, v in element.attrib.items() if k in INITIAL or k in OWN}
    properties |= drawing.sheet.matched(chain) | declarations(element.get("style", ""))
    if properties.get("display", "").strip() == "none":
        return None
    inherited = {k: v for k, v in properties.items() if k in INITIAL and v.strip() != "inherit"}
    style = state.style | inherited if inherited else state.style
    matrix = state.matrix
    moves = element.get("transform") or properties.get("transform", "none")
    if moves.strip() not in ("", "none"):
        try:
            matrix = after(matrix, matrix_of(re.sub(r"(?<=\d)(px|deg)\b", "", moves)))
        except (ValueError, OverflowError):
            drawing.say(f"the transform '{moves[:30]}' is not understood and left out")
    for key in ("mask", "filter"):
        if properties.get(key, "none").strip() not in ("none", ""):
            drawing.say(f"a {key} is left out")
    opacity = state.opacity * share(properties.get("opacity", "1").strip())
    state = replace(state, matrix=matrix, style=style, chain=chain, opacity=opacity)
    return _clipped(drawing, state, properties.get("clip-path", "none"))


def _viewport(drawing: Drawing, element: Element, state: State) -> State:
    """Inside a nested <svg> or a <symbol>: its view box fills its rectangle as preserveAspectRatio says."""
    x, y = (
        measure(drawing, element, k, state.size[i]) if tag(element) == "svg" else 0.0
        for i, k in enumerate("xy")
    )
    width, height = (
        measure(drawing, element, k, s, s) for k, s in zip(("width", "height"), state.size, strict=True)
    )
    box = _box(element)
    inner = np.array([[1.0, 0, x], [0, 1, y]])
    if box is not None:
        factor = np.array([width / box[2], height / box[3]])
        place = element.get("preserveAspectRatio", "xMidYMid").split() or ["xMidYMid"]
        if place[0] != "none":
            factor[:] = factor.max() if "slice" in place else factor.min()
        share_of = [
            0.0 if f"{a}Min" in place[0] or place[0] == "none" else 1.0 if f"{a}Max" in place[0] else 0.5
            for a in "xY"
        ]
        free = np.array([width, height]) - factor * box[2:]
        offset = np.array([x, y]) + np.array(share_of) * free - factor * box[:2]
        inner = np.column_stack((np.diag(factor), offset))
    size = (box[2], box[3]) if box is not None else (width, height)
    return replace(state, matrix=after(state.matrix, inner), size=size)


def _use(drawing: Drawing, element: Element, state: State, depth: int) -> None:
    name = element.get("href") or element.get("{http://www.w3.org/1999/xlink}href", "")
    target = drawing.ids.get(name.removeprefix("#")) if name.startswith("#") else None
    if target is None:
        return drawing.say(f"<use> of '{name[:40]}', which is not in the file, is left out")
    if target in drawing.within or target in state.chain:
        return drawing.say("a <use> of itself is left out")
    x, y = (measure(drawing, element, k, state.size[i]) for i, k in enumerate("xy"))
    at = np.array([[1.0, 0, x], [0, 1, y]])
    state = replace(state, matrix=after(state.matrix, at))
    if tag(target) in ("symbol", "svg"):  # takes the size of the <use>
        given = {
            k: str(measure(drawing, element, k, s))
            for k, s in zip(("width", "height"), state.size, strict=True)
            if element.get(k)
        }
        drawn = Element(target.tag, {**target.attrib, **given})
        drawn.extend(target)
    else:
        drawn = target
    drawing.within.add(target)
    _draw(drawing, drawn, state, depth + 1)
    drawing.within.discard(target)
    return None


def _clipped(drawing: Drawing, state: State, value: str) -> State:
    """With one more region outside of which nothing is painted."""
    value = value.strip()
    if value in ("none", ""):
        return state
    name = value[4:].partition(")")[0].strip("'\" ").removeprefix("#") if value.startswith("url(") else ""
    clip = drawing.ids.get(name)
    if clip is None or tag(clip) != "clipPath" or clip.get("clipPathUnits") == "objectBoundingBox":
        drawing.say("a clip that is not understood is left out")
        return state
    key = (name, state.matrix.tobytes())
    if key not in drawing.clipping:
        if clip in drawing.within:
            return state
        part = Drawing(
            drawing.path,
            drawing.root,
            drawing.sheet,
            drawing.ids,
            drawing.elements,
            drawing.segments,
            within={clip},
            is_clip=True,
        )
        inner = replace(state, style=INITIAL, opacity=1.0, clips=(), chain=(clip,))
        if clip.get("transform"):
            inner = replace(inner, matrix=after(inner.matrix, matrix_of(clip.get("transform", ""))))
        for child in clip:
            if tag(child) in (*SHAPES, "use"):
                _draw(part, child, inner, 1)
        drawing.elements, drawing.segments = part.elements, part.segments
        drawing.clipping[key] = tuple(part.layers)
        drawing.say("clips are applied")
    return replace(state, clips=(*state.clips, drawing.clipping[key]))
