"""Three families of solids made on the spot: chairs, tables and lamps of varied proportions, as closed
meshes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
import trimesh
from trimesh.creation import box, cylinder, revolve

from nif_cli.data.shapes.datamodule import Source
from nif_cli.data.shapes.meshes import MeshData
from nif_cli.geometry.mesh import clean

FAMILIES = ("chair", "table", "lamp")


def toy_shape(family: str, seed: int) -> trimesh.Trimesh:
    """One closed mesh; y is up, the size is of order 1. The same (family, seed) is always the same shape."""
    if family not in FAMILIES:
        raise ValueError(f"family '{family}': there are {', '.join(FAMILIES)}")
    rng = np.random.default_rng([FAMILIES.index(family), seed])
    solids = {"chair": _chair, "table": _table, "lamp": _lamp}[family](rng)
    mesh = trimesh.boolean.union(solids, engine="manifold")
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def _block(low: tuple[float, float, float], high: tuple[float, float, float]) -> trimesh.Trimesh:
    return box(bounds=np.array([low, high]))


def _rod(x: float, z: float, low: float, high: float, radius: float) -> trimesh.Trimesh:
    rod = cylinder(radius, segment=[[x, low, z], [x, high, z]], sections=20)
    return rod


def _legs(rng: np.random.Generator, width: float, depth: float, top: float) -> list[trimesh.Trimesh]:
    """Four legs, square or round, that reach a little into what stands on them."""
    thick = rng.uniform(0.05, 0.09)
    x, z = width / 2 - thick / 2, depth / 2 - thick / 2
    corners = [(sx * x, sz * z) for sx in (-1, 1) for sz in (-1, 1)]
    if rng.random() < 0.5:
        return [_rod(x, z, 0, top, thick / 2) for x, z in corners]
    h = thick / 2
    return [_block((x - h, 0, z - h), (x + h, top, z + h)) for x, z in corners]


def _chair(rng: np.random.Generator) -> list[trimesh.Trimesh]:
    width, depth = rng.uniform(0.4, 0.7), rng.uniform(0.4, 0.65)
    seat, thick, back = rng.uniform(0.3, 0.55), rng.uniform(0.05, 0.12), rng.uniform(0.35, 0.7)
    board = rng.uniform(0.05, 0.1)
    w, d, top = width / 2, depth / 2, seat + thick
    solids = [_block((-w, seat, -d), (w, top, d)), *_legs(rng, width, depth, seat + thick / 2)]
    if rng.random() < 0.6:  # a closed back, or slats under a rail
        solids.append(_block((-w, top - thick / 2, -d), (w, top + back, -d + board)))
    else:
        rail = rng.uniform(0.08, 0.16)
        solids.append(_block((-w, top + back - rail, -d), (w, top + back, -d + board)))
        slats = int(rng.integers(2, 5))
        for x in np.linspace(-w + 0.05, w - 0.05, slats):
            solids.append(
                _block((x - 0.035, top - thick / 2, -d), (x + 0.035, top + back - rail / 2, -d + board))
            )
    if rng.random() < 0.4:  # arms
        height, arm = rng.uniform(0.12, 0.25), rng.uniform(0.05, 0.08)
        for side in (-1, 1):
            x0, x1 = sorted((side * w, side * (w - arm)))
            solids.append(_block((x0, top + height - arm, -d + board / 2), (x1, top + height, d)))
            solids.append(_block((x0, top - thick / 2, d - arm), (x1, top + height - arm / 2, d)))
    return solids


def _table(rng: np.random.Generator) -> list[trimesh.Trimesh]:
    width, depth, height = rng.uniform(0.7, 1.3), rng.uniform(0.5, 0.8), rng.uniform(0.4, 0.75)
    thick = rng.uniform(0.05, 0.1)
    if rng.random() < 0.3:  # round, on a foot
        radius = depth / 2 + 0.15
        foot = rng.uniform(0.06, 0.1)
        return [
            _rod(0, 0, height, height + thick, radius),
            _rod(0, 0, 0.03, height + thick / 2, foot),
            _rod(0, 0, 0, 0.06, radius * 0.6),
        ]
    solids = [_block((-width / 2, height, -depth / 2), (width / 2, height + thick, depth / 2))]
    solids += _legs(rng, width * rng.uniform(0.8, 1), depth * rng.uniform(0.8, 1), height + thick / 2)
    if rng.random() < 0.4:  # a shelf
        y = height * rng.uniform(0.25, 0.5)
        solids.append(_block((-width * 0.4, y, -depth * 0.4), (width * 0.4, y + 0.05, depth * 0.4)))
        solids += [
            _block((-width * 0.06, y, -depth * 0.06), (width * 0.06, height + thick / 2, depth * 0.06))
        ]
    return solids


def _lamp(rng: np.random.Generator) -> list[trimesh.Trimesh]:
    base, height, stem = rng.uniform(0.15, 0.3), rng.uniform(0.6, 1.1), rng.uniform(0.035, 0.06)
    low, high, tall = rng.uniform(0.2, 0.4), rng.uniform(0.08, 0.2), rng.uniform(0.2, 0.4)
    knob = rng.uniform(0.06, 0.14)
    shade = revolve([[0, height], [low, height], [high, height + tall], [0, height + tall]], sections=32)
    shade.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))  # z up -> y up
    bulb = trimesh.creation.icosphere(2, knob)
    bulb.apply_translation([0, height * rng.uniform(0.2, 0.6), 0])
    return [
        shade,
        bulb,
        _rod(0, 0, 0, rng.uniform(0.04, 0.1), base),
        _rod(0, 0, 0.02, height + tall / 2, stem),
    ]


pass


pass


class ToyShapes(MeshData):
    """`count` shapes of the `families` for split=train, `test` others for split=test: nothing to download."""

    def __init__(
        self,
        count: int = 12,
        test: int = 4,
        families: Sequence[str] = FAMILIES,
        split: Literal["train", "test"] = "train",
        **settings,
    ):
        super().__init__(**settings)
        if count < 1 or test < 0 or not families:
            raise ValueError(
                f"count={count}, test={test}, families={list(families)}: at least one shape of one family"
            )
        wrong = [f for f in families if f not in FAMILIES]
        if wrong:
            raise ValueError(f"families: no family '{wrong[0]}'; there are {', '.join(FAMILIES)}")
        self.count, self.test = count, test
        self.families, self.split = tuple(families), split

    def test_sources(self) -> list[Source]:
        return self.sampled(self.meshes("test")) if self.split != "test" else []

    def meshes(self, split: str | None = None) -> list[tuple[str, Callable[[], trimesh.Trimesh]]]:
        """Those of `split`; by default of the data's own. The splits are apart, always."""
        train = (split or self.split) == "train"
        word, first, count = ("", 0, self.count) if train else ("test_", 2**31, self.test)
        found = []
        for i in range(count):
            family, n = self.families[i % len(self.families)], i // len(self.families)
            found.append(
                (f"{family}/{word}{n:04d}", partial(self.read, family, self.seed * 100_003 + first + n))
            )
        return found

    @staticmethod
    def read(family: str, seed: int) -> trimesh.Trimesh:
        return clean(toy_shape(family, seed), f"toy {family} {seed}")
