"""How SVG's shapes are painted: the cascade of attributes, style sheets and inheritance, and how dark a paint
is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from xml.etree.ElementTree import Element

from PIL import ImageColor

INITIAL = {
    "fill": "black",
    "fill-rule": "nonzero",
    "fill-opacity": "1",
    "clip-rule": "nonzero",
    "stroke": "none",
    "stroke-width": "1",
    "stroke-opacity": "1",
    "stroke-linejoin": "miter",
    "stroke-linecap": "butt",
    "stroke-miterlimit": "4",
    "stroke-dasharray": "none",
    "color": "black",
    "visibility": "visible",
}
"""What is inherited, and where it begins."""
OWN = (
    "opacity",
    "display",
    "clip-path",
    "mask",
    "filter",
    "stop-color",
    "stop-opacity",
    "transform",
    "overflow",
)

Rule = tuple[tuple[int, int, int], list[list[tuple[str, str]]], dict[str, str]]
"""Specificity; the compound selectors from the element outwards, each (kind, name) with kind '', '.' or '#';
properties."""


def declarations(text: str) -> dict[str, str]:
    """'fill: none; stroke: red' as a dictionary."""
    found = {}
    for item in text.split(";"):
        name, colon, value = item.partition(":")
        if colon:
            found[name.strip().lower()] = value.replace("!important", "").strip()
    return found


def style_rules(text: str) -> tuple[list[Rule], int]:
    """The rules of a style sheet that can be matched (tag, .class, #id, compounds and descendants of them),
    and how many could not."""
    rules: list[Rule] = []
    left_out = 0
    text = "".join(part.partition("*/")[2] if k else part for k, part in enumerate(text.split("/*")))
    depth, skipping, selectors = 0, False, ""
    for piece in re.split(r"([{}])", text):  # selector { declarations } selector { ...
        if piece == "{":
            depth += 1
        elif piece == "}":
            depth = max(0, depth - 1)
            skipping = skipping and depth > 0
        elif depth == 0:
            selectors = piece.rpartition(";")[2].strip()
            if selectors.startswith("@"):
                left_out, skipping = left_out + 1, True
        elif depth == 1 and not skipping:
            properties = declarations(piece)
            for selector in selectors.split(",")[:1000]:
                compounds = [_compound(word) for word in reversed(selector.split())]
                if not compounds or not all(compounds):
                    left_out += 1
                    continue
                flat = [kind for compound in compounds for kind, name in compound if name != "*"]
                rules.append(((flat.count("#"), flat.count("."), flat.count("")), compounds, properties))
    return rules, left_out


def _compound(word: str) -> list[tuple[str, str]]:
    """'g.a#b' as [('', 'g'), ('.', 'a'), ('#', 'b')]; empty if it is more than that."""
    parts = [(p[:1] if p[:1] in (".", "#") else "", p.lstrip(".#")) for p in re.split(r"(?=[.#])", word) if p]
    return parts if all(name == "*" or re.fullmatch(r"[\w-]+", name) for _, name in parts) else []


class Sheet:
    """The rules of a document's style sheets, found by the last part of their selectors."""

    def __init__(self, rules: list[Rule]):
        self.by: dict[tuple[str, str], list[tuple[int, Rule]]] = {}
        for order, rule in enumerate(rules):
            self.by.setdefault(rule[1][0][-1], []).append((order, rule))

    def matched(self, chain: tuple[Element, ...]) -> dict[str, str]:
        """The properties of the innermost element of a chain from the root, by specificity and order."""
        if not self.by:
            return {}
        element = chain[-1]
        keys = [
            ("", "*"),
            ("", tag(element)),
            ("#", element.get("id", "")),
            *((".", c) for c in _classes(element)),
        ]
        found = [
            (rule[0], order, rule[2])
            for key in keys
            for order, rule in self.by.get(key, ())
            if _fits(rule[1], chain)
        ]
        return {
            k: v for _, _, properties in sorted(found, key=lambda f: f[:2]) for k, v in properties.items()
        }


def _classes(element: Element) -> list[str]:
    return element.get("class", "").split()[:100]


def _fits(compounds: list[list[tuple[str, str]]], chain: tuple[Element, ...]) -> bool:
    """Whether the innermost element has the first compound, and elements around it, in order, the others."""
    waiting = list(compounds)
    for depth, element in enumerate(reversed(chain)):
        has = {
            ("", "*"),
            ("", tag(element)),
            ("#", element.get("id", "")),
            *((".", c) for c in _classes(element)),
        }
        if has.issuperset(waiting[0]):
            waiting.pop(0)
            if not waiting:
                return True
        elif depth == 0:
            return False
    return False


def tag(element: Element) -> str:
    """Without its namespace; '' for comments and the like."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def share(text: str) -> float:
    """An opacity: a number or per cent, between 0 and 1; 1 if it is neither."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return 1.0
    return min(1.0, max(0.0, value)) if value == value else 1.0


def colour(text: str) -> tuple[float, float] | None:
    """(brightness, opacity) of a colour, both in [0, 1]; brightness is the mean of red, green and blue, as of
    images. None if it is no colour."""
    text = text.strip().lower()[:100]
    if text == "transparent":
        return 0.0, 0.0
    function = re.fullmatch(r"(rgba?|hsla?)\(([^()]*)\)", text)
    if function:
        parts = [p for p in re.split(r"[\s,/]+", function[2].strip()) if p]
        if len(parts) not in (3, 4):
            return None
        alpha = share(parts[3]) if len(parts) == 4 else 1.0
        text = f"{function[1][:3]}({', '.join(parts[:3])})"
        if function[1].startswith("rgb") and not all(p.endswith("%") for p in parts[:3]):
            try:
                values = [2.55 * float(p[:-1]) if p.endswith("%") else float(p) for p in parts[:3]]
            except ValueError:
                return None
            return sum(min(255.0, max(0.0, v)) for v in values) / 765, alpha
    else:
        alpha = 1.0
    try:
        rgb = ImageColor.getrgb(text)
    except ValueError:
        return None
    return sum(rgb[:3]) / 765, alpha * (rgb[3] / 255 if len(rgb) == 4 else 1.0)


def paint(
    value: str,
    style: Mapping[str, str],
    server: Callable[[str], tuple[float, float] | None],
    say: Callable[[str], None],
) -> tuple[float, float] | None:
    """(brightness, opacity) of a fill or stroke, None for none. `server` finds those of gradients by their
    id."""
    value = value.strip()
    if value.startswith("url("):
        name, _, other = value[4:].partition(")")
        found = server(name.strip("'\" ").removeprefix("#"))
        if found is not None:
            return found
        return paint(other, style, server, say) if other.strip() else None
    if value.lower() == "none":
        return None
    if value.lower() == "currentcolor":
        value = style["color"] if style["color"].lower() != "currentcolor" else "black"
    found = colour(value)
    if found is None:
        say(f"the colour '{value[:30]}' is not known and counts as black")
    return found or (0.0, 1.0)


def effect(found: tuple[float, float] | None, opacity: float) -> bool | None:
    """Whether a paint makes what lies under it dark (True) or light (False) whatever that is; None if
    neither: it is a veil, or nothing. Dark is less than half of white."""
    if found is None:
        return None
    brightness, alpha = found[0], found[1] * opacity
    on_black, on_white = brightness * alpha, brightness * alpha + 1 - alpha
    return True if on_white < 0.5 else False if on_black >= 0.5 else None
