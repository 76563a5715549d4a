"""SVG files: inside is what they paint dark. Areas by formula, the same drawing said in other words,
bombs."""

import time

import numpy as np
import pytest

from nif_cli import NifError
from nif_cli.data.images.curves import CurveData
from nif_cli.data.images.formats.svg import read_drawing, read_svg
from nif_cli.geometry.curves import svg, winding_number

HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 '
    '100 100">'
)
STAR = "M50,5 L79,95 L2,40 L98,40 L21,95"  # the pentagram: its middle has winding number 2
DISC = '<circle cx="50" cy="50" r="20"/>'


@pytest.fixture
def read(tmp_path):
    def run(body: str, head: str = HEAD):
        path = tmp_path / "a.svg"
        path.write_text(f"{head}{body}</svg>")
        return read_drawing(path)

    return run


def area(curves) -> float:
    """Outer curves one way round, holes the other."""
    following = [np.roll(c, -1, 0) for c in curves]
    return abs(
        sum((c[:, 0] * n[:, 1] - c[:, 1] * n[:, 0]).sum() / 2 for c, n in zip(curves, following, strict=True))
    )


PI = np.pi
AREAS = {
    "square without Z": ('<path d="M10,10 H90 V90 H10"/>', 6400),
    "polyline": ('<polyline points="10,10 90,10 90 90,10 90"/>', 6400),
    "two subpaths": ('<path d="M0,0h10v10h-10M20,20h10v10h-10"/>', 200),
    "after Z the next begins where it began": ('<path d="m10 10h10v10h-10z h-5v-5z"/>', 112.5),
    "arch": ('<path d="M10,90 C10,10 90,10 90,90"/>', 3840),
    "parabola": ('<path d="M0,0 Q50,100 100,0"/>', 2 / 3 * 100 * 50),
    "smooth": ('<path d="M0,0 Q25,50 50,0 T100,0"/>', 2 * 2 / 3 * 50 * 25),
    "evenodd": ('<path fill-rule="evenodd" d="M10,10 H90 V90 H10 Z M30,30 H70 V70 H30 Z"/>', 4800),
    "nonzero": ('<path d="M10,10 H90 V90 H10 Z M30,30 H70 V70 H30 Z"/>', 6400),
    "a hole the other way round": ('<path d="M10,10 H90 V90 H10 Z M30,30 V70 H70 V30 Z"/>', 4800),
    "white hole": ('<circle cx="50" cy="50" r="40"/><circle cx="50" cy="50" r="20" fill="#fff"/>', 1200 * PI),
    "white ground": (f'<rect width="100%" height="100%" fill="white"/>{DISC}', 400 * PI),
    "black over white over black": (
        '<rect width="60" height="60"/><rect width="50" height="50" fill="#eee"/>'
        '<rect width="10" height="10" fill="navy"/>',
        3600 - 2500 + 100,
    ),
    "overlapping": ('<rect width="20" height="20"/><rect x="10" y="10" width="20" height="20"/>', 700),
    "classes": (
        "<style>/* x */ .a{fill:none} .b, "
        ".c{fill:#FFFFFF}</style><rect "
        "class='a' width='100' "
        "height='100'/>"
        '<circle class="c" cx="50" cy="50" r="20"/><path d="M10,10 H20 V20 H10 Z"/>',
        100,
    ),
    "style before class before attribute": (
        "<style>.a{fill:white}</style>"
        '<rect class="a" fill="black" width="9" height="9"/>'
        '<rect class="a" style="fill:black" x="20" width="10" height="10"/>',
        100,
    ),
    "descendants and ids": (
        "<style>g .a{fill:none} "
        "#b{fill:none}</style><g><rect "
        "class='a' width='9' "
        "height='9'/></g>"
        '<rect id="b" width="9" height="9"/><rect class="a" width="10" height="10"/>',
        100,
    ),
    "inherited": (
        ('<g fill="none"><rect width="50" height="50"/><rect fill="black" width="10" height="10"/></g>'),
        100,
    ),
    "not displayed": (
        '<g display="none"><rect width="50" '
        'height="50"/></g><rect '
        'visibility="hidden" '
        'width="50" height="50"/>'
        '<rect opacity="0" width="50" height="50"/><rect fill-opacity="0" width="50" height="50"/>'
        '<rect width="10" height="10"/>',
        100,
    ),
    "defs and use": (
        ('<defs><rect id="r" width="10" height="10"/></defs><use href="#r"/><use xlink:href="#r" x="50"/>'),
        200,
    ),
    "symbol": (
        (
            '<symbol id="s" viewBox="0 0 10 '
            '10"><rect width="10" '
            'height="5"/></symbol><use '
            'href="#s" '
            'width="40" height="40"/>'
        ),
        800,
    ),
    "transforms": (
        (
            '<g transform="translate(9 9) '
            'rotate(30)"><rect '
            'transform="scale(2,-3) '
            'skewX(20)" '
            'width="5" height="5"/></g>'
        ),
        150,
    ),
    "nested view box": (
        ('<svg x="9" y="9" width="40" height="20" viewBox="0 0 10 10"><rect width="10" height="10"/></svg>'),
        400,
    ),
    "clip": (
        (f'<clipPath id="c">{DISC}</clipPath><rect clip-path="url(#c)" width="100" height="100"/>'),
        400 * PI,
    ),
    "round corners": ('<rect width="60" height="40" rx="10"/>', 2400 - (4 - PI) * 100),
    "ellipse": ('<ellipse cx="50" cy="50" rx="30" ry="10"/>', 300 * PI),
    "arcs with packed flags": ('<path d="M30 50a20 20 0 1040 0 20 20 0 10-40 0"/>', 400 * PI),
    "stroke": ('<line x1="10" y1="50" x2="90" y2="50" stroke="black" stroke-width="10"/>', 800),
    "stroke of a circle": (
        ('<circle cx="50" cy="50" r="30" fill="none" stroke="black" stroke-width="6"/>'),
        2 * PI * 30 * 6,
    ),
    "round cap": (
        ('<path d="M20 50H80" stroke="black" stroke-width="10" stroke-linecap="round"/>'),
        600 + 25 * PI,
    ),
    "mitred square": (
        ('<rect x="20" y="20" width="60" height="60" fill="white" stroke="black" stroke-width="10"/>'),
        4900 - 2500,
    ),
    "round join": (
        ('<path d="M20 20H80V80" fill="none" stroke="black" stroke-width="20" stroke-linejoin="round"/>'),
        2 * 1200 - 100 + 25 * PI,
    ),
    "bevel": (
        ('<path d="M20 20H80V80" fill="none" stroke="black" stroke-width="20" stroke-linejoin="bevel"/>'),
        2300 + 50,
    ),
}


@pytest.mark.parametrize("name", AREAS)
def test_areas(read, name):
    body, expected = AREAS[name]
    assert area(read(body)[0]) == pytest.approx(expected, rel=2e-5)


def test_the_rules_of_a_star(read):
    odd, whole = (read(f'<path fill-rule="{rule}" d="{STAR}"/>')[0] for rule in ("evenodd", "nonzero"))
    middle = np.array([[50.0, 50.0]])
    assert winding_number(odd, middle)[0] == 0
    assert winding_number(whole, middle)[0] != 0
    assert area(odd) < area(whole)


def test_one_drawing_in_other_words(read, rng):
    """A shape moved by its numbers, by a transform, by a group and by a view box."""
    plain = read('<path d="M20,20 C40,0 60,60 80,30 L50,90z"/>')[0]
    other = [
        read('<g transform="matrix(2 0 0 2 -10 -20)"><path d="M15 20c10-10 20 20 30 5L30 55"/></g>')[0],
        read(
            '<path d="m20,20c20,-20 40,40 60,10l-30,60"/>',
            HEAD.replace("<svg", '<svg width="50mm" height="20mm"'),
        )[0],
        read('<path transform="translate(20,20)" d="M0 0C20-20,40 40,60 10L30 70Z"/>')[0],
    ]
    points = rng.uniform(0, 100, (500, 2))
    for curves in other:
        assert area(curves) == pytest.approx(area(plain), rel=1e-6)
        assert (winding_number(curves, points) != 0).tolist() == (winding_number(plain, points) != 0).tolist()


@pytest.mark.parametrize("offset", [0.0, 5e5])
def test_our_own_svg_comes_back(tmp_path, rng, offset):
    t = np.linspace(0, 2 * np.pi, 41)[:-1]
    ring = np.stack((np.cos(t), np.sin(t)), -1)
    curves = [30 * ring + offset, 10 * ring[::-1] + offset, 3 * ring + 50 + offset]
    (tmp_path / "a.svg").write_text(svg(curves))
    found = read_svg(tmp_path / "a.svg")
    assert area(found) == pytest.approx(area(curves), rel=1e-5)
    points = rng.uniform(-60, 60, (500, 2)) + offset
    assert ((winding_number(found, points) != 0) == (winding_number(curves, points) != 0)).all()


def test_what_is_not_drawn_is_said(read):
    body = (
        f'{DISC}<text>a</text><image/><g mask="url(#m)">{DISC}</g><rect transform="turn(3)" width="9" '
        'height="9"/>'
    )
    said = " ".join(read(body + '<path d="M0 0H9V9 X 3"/>')[1])
    for word in ("<text>", "<image>", "mask", "turn(3)", "damaged"):
        assert word in said
    said = " ".join(read('<path d="M0 0H90V30" fill="none" stroke="black" stroke-dasharray="3"/>')[1])
    assert "dashes" in said
    assert "width" in said


def doubling(n: int) -> str:
    groups = "".join(f'<g id="a{i + 1}"><use href="#a{i}"/><use href="#a{i}" x="1"/></g>' for i in range(n))
    return f'<defs><path id="a0" d="M0 0H1V1Z"/>{groups}</defs><use href="#a{n}"/>'


def entities() -> str:
    rows = "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(12))
    return f'<!DOCTYPE svg [<!ENTITY a "lolololol">{rows}]>{HEAD}<title>&m;</title>{DISC}</svg>'


def scribble(n: int) -> str:
    points = np.random.default_rng(0).uniform(0, 100, (n, 2))
    return '<path d="M' + " L".join(f"{x:.2f},{y:.2f}" for x, y in points) + 'Z"/>'


REFUSED = {
    "nothing": ("", "no closed shape"),
    "white": ('<rect width="9" height="9" fill="white"/>', "painted dark"),
    "unfilled": ('<rect width="9" height="9" fill="none"/>', "painted dark"),
    "doubling": (doubling(40), "repeat more than"),
    "lines": ('<line x2="9" y2="9" stroke="red"/>' * 60_000, "more than 50,000 elements"),
    "deep": ("<g>" * 5000 + DISC + "</g>" * 5000, "deep"),
    "crossings": (scribble(30_000), "cross one another"),
    "numbers": ('<path d="M0 0' + "h1v1" * 200_000 + '"/>', "segments"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_drawn_is_refused_in_one_line(read, name):
    body, message = REFUSED[name]
    began = time.monotonic()
    with pytest.raises(NifError, match=message) as error:
        read(body)
    assert "a.svg" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert time.monotonic() - began < 60


def test_entities_and_cycles_do_no_harm(tmp_path, read):
    (tmp_path / "a.svg").write_text(entities())
    with pytest.raises(NifError, match="cannot be read as SVG"):
        read_svg(tmp_path / "a.svg")
    curves, said = read(
        f'<g id="a"><use href="#a"/>{DISC}</g><rect width="9" height="9" transform="{"scale( " * 50_000}"/>'
    )
    assert area(curves) == pytest.approx(400 * PI + 81, rel=2e-5)
    assert any("itself" in s for s in said)


def test_thousands_of_segments_take_seconds(tmp_path):
    n = 2000
    t = np.arange(n) * 2 * np.pi / n

    def at(t):
        radius = 30 + 8 * np.sin(n / 8 * t)
        return np.stack((50 + radius * np.cos(t), 50 + radius * np.sin(t)), -1)

    row = np.concatenate([at(t + k * 2 * np.pi / n / 3) for k in (1, 2, 3)], 1)
    data = " ".join("C" + ",".join(f"{v:.4f}" for v in r) for r in row)
    (tmp_path / "a.svg").write_text(f'{HEAD}<path d="M{row[-1, 4]:.4f},{row[-1, 5]:.4f} {data}Z"/></svg>')
    began = time.monotonic()
    CurveData(str(tmp_path / "a.svg"), samples=100_000).prepare()
    assert time.monotonic() - began < 60  # 1 s on a quiet core; it was 78
