"""Marching cubes (Lorensen and Cline 1987) over the cells of a band, vertices shared between cells."""

from __future__ import annotations

import functools

import mcubes
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nif_cli.geometry.lattice import CORNERS, Band

# lower end, direction
EDGES = [(corner, axis) for corner in range(8) for axis in range(3) if not CORNERS[corner, axis]]


@functools.cache
def triangle_table() -> tuple[Int[Tensor, "256 T 3"], Int[Tensor, "256"]]:
    """For each of the 256 cells (bit c: corner c is inside) its triangles, as rows of EDGES, and how many
    there are.

    Read off PyMCubes, cell by cell, once: the meshes are the same as PyMCubes' of the whole grid.
    """
    found = []
    for case in range(256):
        values = np.array([1.0 if case >> corner & 1 else -1.0 for corner in range(8)]).reshape(2, 2, 2)
        vertices, faces = mcubes.marching_cubes(values, 0.0)
        edges = [  # each vertex is in the middle of an edge
            EDGES.index((4 * int(x) + 2 * int(y) + int(z), [v % 1 for v in (x, y, z)].index(0.5)))
            for x, y, z in vertices
        ]
        found.append([[edges[v] for v in face] for face in faces])
    count = torch.tensor([len(f) for f in found])
    table = torch.zeros((256, int(count.max()), 3), dtype=torch.long)
    for case, faces in enumerate(found):
        table[case, : len(faces)] = torch.tensor(faces, dtype=torch.long).reshape(-1, 3)
    return table, count


def marching_cubes(band: Band, level: float) -> tuple[Float[Tensor, "W 3"], Int[Tensor, "F 3"]]:
    """Vertices (float64, in steps of the lattice) and faces of the surface where the values cross `level`."""
    device = band.keys.device
    table, count = (t.to(device) for t in triangle_table())
    inside = band.values > level
    case = (inside[band.corners] * (2 ** torch.arange(8, device=device))).sum(1)
    crossed = (count[case] > 0).nonzero()[:, 0]
    case = case[crossed]
    cell = torch.repeat_interleave(crossed, count[case])
    place = torch.arange(len(cell), device=device) - torch.repeat_interleave(
        count[case].cumsum(0) - count[case], count[case]
    )
    edges = table[torch.repeat_interleave(case, count[case]), place]  # [F, 3]

    lower, axis = (torch.tensor(column, device=device) for column in zip(*EDGES, strict=True))
    # a vertex is named by its edge, lower end and axis: all cells around the edge find the same one
    rows = band.corners[cell[:, None], lower[edges]]
    ids, faces = torch.unique(rows * 3 + axis[edges], return_inverse=True)
    row, axis = ids // 3, ids % 3
    ends = torch.searchsorted(band.keys, band.keys[row] + band.side ** (2 - axis))
    a, b = band.values[row].double(), band.values[ends].double()
    vertices = band.indices(band.keys[row]).double()
    vertices[torch.arange(len(row), device=device), axis] += (level - a) / (b - a)
    return vertices, faces
