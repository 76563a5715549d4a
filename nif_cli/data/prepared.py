"""Shapes that were sampled before: by nif prepare, or by the published code."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nif_cli.data.formats import deepsdf
from nif_cli.data.formats.onet import OnetTree
from nif_cli.data.shapes import ShapeData, Source


class DeepSdfTree(ShapeData):
    """A DeepSDF tree: `root` holds SdfSamples, `split` is a split file (by default <root>/split.json, else all shapes)."""

    holds = "distances, and surface points without normals"

    def __init__(self, root: str, split: str | None = None, **settings):
        super().__init__(**settings)
        self.root = deepsdf.find_root(root)
        self.entries = deepsdf.read_split(self.root, split)

    def sources(self) -> list[Source]:
        return [(e.id, partial(deepsdf.read, self.root, e)) for e in self.entries]


class OnetData(ShapeData):
    """A tree of occupancy networks: the shapes of `classes` (all by default) in `split`."""

    holds = "occupancies and surface points"
    space = "cube"

    def __init__(self, root: str, classes: Sequence[str] | str | None = None, split: str | None = "train", **settings):
        super().__init__(**settings)
        self.tree = OnetTree(root)
        self.classes = [classes] if isinstance(classes, str) else classes
        self.split = split
        self.tree.entries(self.classes, split)  # what is missing is told at once

    def sources(self) -> list[Source]:
        return [(e.id, partial(self.tree.read, e)) for e in self.tree.entries(self.classes, self.split)]
