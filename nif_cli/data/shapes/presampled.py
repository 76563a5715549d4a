"""Shapes that were sampled before: by nif prepare, or by the published code."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from nif_cli import NifError
from nif_cli.data.shapes.datamodule import ShapeData, Source
from nif_cli.data.shapes.formats import deepsdf
from nif_cli.data.shapes.formats.onet import OnetTree
from nif_cli.metrics.protocols import Truth


class DeepSdfTree(ShapeData):
    """A DeepSDF tree: `root` holds SdfSamples, `split` is a split file (by default <root>/split.json, else
    all shapes)."""

    holds = "distances, and surface points without normals"

    def __init__(self, root: str, split: str | None = None, **settings):
        super().__init__(**settings)
        self.root = deepsdf.find_root(root)
        self.entries = deepsdf.read_split(self.root, split)

    def sources(self) -> list[Source]:
        return [(e.id, partial(deepsdf.read, self.root, e)) for e in self.entries]

    def truth(self, id: str) -> Truth:
        """SurfaceSamples, which are in the user's units."""
        path = next(e for e in self.entries if e.id == id).path(self.root, deepsdf.SURFACE)
        return (
            Truth(surface=deepsdf.read_surface_ply(path)[0].astype(np.float64)) if path.is_file() else Truth()
        )


class OnetData(ShapeData):
    """A tree of occupancy networks: the shapes of `classes` (all by default) in `split`."""

    holds = "occupancies and surface points"
    space = "cube"

    def __init__(
        self, root: str, classes: Sequence[str] | str | None = None, split: str | None = "train", **settings
    ):
        super().__init__(**settings)
        self.tree = OnetTree(root)
        self.classes = [classes] if isinstance(classes, str) else classes
        self.split = split
        self.tree.entries(self.classes, split)  # what is missing is told at once

    def sources(self) -> list[Source]:
        return self._of(self.split)

    def test_sources(self) -> list[Source]:
        try:
            return self._of("test") if self.split != "test" else []
        except NifError:  # no such split
            return []

    def _of(self, split: str | None) -> list[Source]:
        return [(e.id, partial(self.tree.read, e)) for e in self.tree.entries(self.classes, split)]

    def truth(self, id: str) -> Truth:
        """pointcloud.npz and points.npz; the longest side of the shape is 1 in its cube."""
        shape = self.tree.read(next(e for e in self.tree.entries(self.classes, self.split) if e.id == id))
        back = shape.transform.to_original
        known = shape.inside is not None and len(shape.points) > 0
        return Truth(
            surface=None if shape.surface is None else back(shape.surface),
            normals=shape.normals,
            points=back(shape.points) if known else None,
            inside=shape.inside if known else None,
            edge=1 / shape.transform.scale,
        )
