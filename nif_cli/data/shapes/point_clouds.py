"""Point clouds to learn from: scans, with or without normals."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from nif_cli import NifError
from nif_cli.data.report import Report
from nif_cli.data.shapes.datamodule import ShapeData, Source
from nif_cli.data.shapes.samples import ShapeSamples
from nif_cli.data.shapes.user_files import Input, input_files, read_inputs
from nif_cli.geometry.transform import unit_ball
from nif_cli.metrics.protocols import Truth


class PointClouds(ShapeData):
    """ply without faces, xyz, npy or npz (`points`, `normals`): one file, or all in a folder."""

    holds = "points on surfaces"
    instead = (
        "model=sdf learns from points: model.objective=sal from bare ones, eikonal from those with normals"
    )

    def __init__(self, path: str, turn_normals: bool = False, **settings):
        super().__init__(**settings)
        self.turn_normals = turn_normals
        self.path = Path(path).expanduser()

    def sources(self) -> list[Source]:
        base = self.path if self.path.is_dir() else self.path.parent
        found = []
        for file in input_files(self.path):
            name = file.relative_to(base).with_suffix("").as_posix()
            try:
                found += [(id, partial(self._sample, file, id, read)) for id, read in read_inputs(file, name)]
            except NifError as error:  # one bad file is left out when the others are read
                found.append((name, partial(_broken, error)))
        return found

    def truth(self, id: str) -> Truth:
        """The points themselves, in the user's units."""
        shape = dict(self.sources())[id]()
        assert shape.surface is not None
        return Truth(surface=shape.transform.to_original(shape.surface))

    def _sample(self, file: Path, id: str, read) -> ShapeSamples:
        given: Input = read()
        if self.turn_normals:
            given.turn()
        if given.seen is None or given.seen.scan is None:
            raise NifError(f"{file}: no point cloud; data=meshes reads meshes, data=voxels grids")
        points, normals = given.seen.scan.points, given.seen.scan.normals
        transform = unit_ball(np.asarray(points, np.float64))
        surface = transform.to_normalised(points).astype(np.float32)
        kind = "with normals" if normals is not None else "without normals"
        return ShapeSamples(
            id,
            transform,
            np.empty((0, 3), np.float32),
            surface=surface,
            normals=normals,
            report=Report("; ".join((f"{len(points):,} points {kind}", *given.notes)), tuple(given.doubts)),
        )


def _broken(error: NifError) -> ShapeSamples:
    raise error
