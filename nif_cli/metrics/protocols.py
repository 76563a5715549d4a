"""The evaluation protocols of the field, each as published: which points, which units, squared or not, one
way or both."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Bool, Float

from nif_cli.geometry.distance import MeshDistance
from nif_cli.geometry.sampling import sample_surface
from nif_cli.geometry.transform import unit_cube
from nif_cli.metrics.shape import SurfaceDistances, iou, nearest, surface_distances, two_way_distance

Points = Float[np.ndarray, "N 3"]
ONET_POINTS = 100_000  # of occupancy networks: in the cube, and on each surface
SRB_POINTS = 1_000_000  # of the surface reconstruction benchmark, on each surface
Inside = Callable[[np.ndarray], np.ndarray]  # points [N, 3] in the user's units -> [N] bool


@dataclass
class Truth:
    """What is known of a shape, in the user's units; a source fills in what it has. `surface` (and `normals`)
    are stored points on it, `points` stored ones in its volume with their `inside`; `scan` is what the
    reconstruction was made from. `edge` is the longest side of its bounding box, where the source says so."""

    mesh: trimesh.Trimesh | None = None
    surface: Float[np.ndarray, "M 3"] | None = None
    normals: Float[np.ndarray, "M 3"] | None = None
    points: Float[np.ndarray, "N 3"] | None = None
    inside: Bool[np.ndarray, "N"] | None = None
    scan: Float[np.ndarray, "P 3"] | None = None
    edge: float | None = None

    def longest_edge(self) -> float:
        """Of the bounding box."""
        if self.edge is not None:
            return self.edge
        where = self.mesh.vertices if self.mesh is not None else self.surface
        assert where is not None
        return float(np.ptp(where, axis=0).max())

    def on_surface(self, count: int, rng: np.random.Generator) -> tuple[Points, Points | None] | None:
        """`count` points on the surface and their normals: drawn from the mesh, else of the stored ones (all,
        if fewer)."""
        if self.mesh is not None:
            return sample_surface(self.mesh, count, rng)
        if self.surface is None or not len(self.surface):
            return None
        chosen = (
            rng.choice(len(self.surface), count, replace=False) if len(self.surface) > count else slice(None)
        )
        return self.surface[chosen], None if self.normals is None else self.normals[chosen]

    def occupancy(self) -> Inside | None:
        """Whether points are inside, by the mesh if it is closed."""
        if self.mesh is None or not self.mesh.is_watertight:
            return None
        distance = MeshDistance(self.mesh.vertices, self.mesh.faces)
        return lambda points: distance.winding_number(points) > 0.5


@dataclass
class Reconstruction:
    """What is evaluated, in the user's units: a mesh (None: no surface came out) and which points are
    inside."""

    mesh: trimesh.Trimesh | None
    inside: Inside


Metrics = dict[str, float | None]  # None: its truth is missing, or an empty mesh has no such value
EMPTY = math.sqrt(3)  # occupancy networks: what an empty mesh counts each way, in unit-cube units


def _distances(
    made: Reconstruction, truth: Truth, count: int, rng: np.random.Generator
) -> SurfaceDistances | None:
    """Between `count` points on each; None if either is missing."""
    reference = truth.on_surface(count, rng)
    if made.mesh is None or reference is None:
        return None
    points, normals = sample_surface(made.mesh, count, rng)
    return surface_distances(points, reference[0], normals, reference[1])


def deepsdf(made: Reconstruction, truth: Truth, rng: np.random.Generator) -> Metrics:
    """Park et al. 2019, section 6: 30,000 points each; squared, both ways summed, original units."""
    d = _distances(made, truth, 30_000, rng)
    return {
        "chamfer": None if d is None else 1e3 * float((d.accuracy**2).mean() + (d.completeness**2).mean())
    }


def onet(made: Reconstruction, truth: Truth, rng: np.random.Generator) -> Metrics:
    """Mescheder et al. 2019, section 4.1: 100,000 points; half of accuracy plus completeness, in tenths of
    the longest edge."""
    metrics, _ = _onet(made, truth, rng)
    return metrics


def convonet(made: Reconstruction, truth: Truth, rng: np.random.Generator) -> Metrics:
    """Peng et al. 2020: as occupancy networks, and F-scores in unit-cube units."""
    metrics, d = _onet(made, truth, rng)
    unit = truth.longest_edge() if d is not None else 1.0
    for threshold in (0.01, 0.015, 0.02):
        empty = 0.0 if made.mesh is None and truth.on_surface(1, rng) is not None else None
        metrics[f"f_score@{threshold:g}"] = empty if d is None else d.f_score(threshold * unit)
    return metrics


def _onet(
    made: Reconstruction, truth: Truth, rng: np.random.Generator
) -> tuple[Metrics, SurfaceDistances | None]:
    metrics: Metrics = dict.fromkeys(
        ("iou", "chamfer_l1", "chamfer_l2", "normal_consistency", "accuracy", "completeness")
    )
    if truth.points is not None and truth.inside is not None:
        points, inside = truth.points, truth.inside
        metrics["iou"] = iou(made.inside(points), inside) if made.mesh is not None else 0.0
    elif (occupancy := truth.occupancy()) is not None:
        assert truth.mesh is not None
        points = unit_cube(truth.mesh.vertices).to_original(rng.uniform(-0.55, 0.55, (ONET_POINTS, 3)))
        metrics["iou"] = iou(made.inside(points), occupancy(points)) if made.mesh is not None else 0.0
    d = _distances(made, truth, ONET_POINTS, rng)
    if d is None:
        if made.mesh is None and truth.on_surface(1, rng) is not None:
            accuracy = completeness = 10 * EMPTY
            metrics |= {
                "chamfer_l1": accuracy,
                "chamfer_l2": accuracy**2,
                "accuracy": accuracy,
                "completeness": completeness,
            }
        return metrics, None
    unit = 10 / truth.longest_edge()
    accuracy, completeness = d.accuracy * unit, d.completeness * unit
    metrics |= {
        "chamfer_l1": float(accuracy.mean() + completeness.mean()) / 2,
        "chamfer_l2": float((accuracy**2).mean() + (completeness**2).mean()) / 2,
        "accuracy": float(accuracy.mean()),
        "completeness": float(completeness.mean()),
    }
    if d.accuracy_cosine is not None and d.completeness_cosine is not None:
        metrics["normal_consistency"] = float(d.accuracy_cosine.mean() + d.completeness_cosine.mean()) / 2
    return metrics, d


def srb(made: Reconstruction, truth: Truth, rng: np.random.Generator) -> Metrics:
    """The surface reconstruction benchmark (Williams et al. 2019): 1,000,000 points, not squared, original
    units; both ways to the truth, and one way from the scan."""
    metrics: Metrics = dict.fromkeys(("chamfer", "hausdorff", "scan_chamfer", "scan_hausdorff"))
    if made.mesh is None:
        return metrics
    points, _ = sample_surface(made.mesh, SRB_POINTS, rng)
    reference = truth.on_surface(SRB_POINTS, rng)
    if reference is not None:
        d = surface_distances(points, reference[0])
        metrics["chamfer"] = float(d.accuracy.mean() + d.completeness.mean()) / 2
        metrics["hausdorff"] = float(max(d.accuracy.max(), d.completeness.max()))
    if truth.scan is not None:
        away, _ = nearest(truth.scan, points)
        metrics["scan_chamfer"], metrics["scan_hausdorff"] = float(away.mean()), float(away.max())
    return metrics


def fourier(made: Reconstruction, truth: Truth, rng: np.random.Generator) -> Metrics:
    """Tancik et al. 2020, section 6: IoU at 2^18 uniform points of the bounding box and at 2^18 surface
    points + N(0, 0.01), the mesh centred at its mean vertex with the farthest coordinate at 1."""
    metrics: Metrics = {"iou_easy": None, "iou_hard": None}
    occupancy = truth.occupancy()
    if occupancy is None or truth.mesh is None:
        return metrics
    count, vertices = 2**18, np.asarray(truth.mesh.vertices)
    size = float(np.abs(vertices - vertices.mean(0)).max())
    low, high = vertices.min(0) - 1e-3 * size, vertices.max(0) + 1e-3 * size
    easy = rng.uniform(low, high, (count, 3))
    hard = sample_surface(truth.mesh, count, rng)[0] + 0.01 * size * rng.standard_normal((count, 3))
    for name, points in (("iou_easy", easy), ("iou_hard", hard)):
        metrics[name] = iou(made.inside(points), occupancy(points)) if made.mesh is not None else 0.0
    return metrics


def two_way(made: Reconstruction, truth: Truth, rng: np.random.Generator) -> Metrics:
    """The distance that this toolkit compares meshes by: exact to the triangles, in the reference's unit
    ball."""
    if made.mesh is None or truth.mesh is None:
        return {"distance": None}
    return {"distance": two_way_distance(made.mesh, truth.mesh, seed=int(rng.integers(2**31)))}


@dataclass(frozen=True)
class Protocol:
    measure: Callable[[Reconstruction, Truth, np.random.Generator], Metrics]
    units: dict[str, str]
    larger_is_better: tuple[str, ...] = ()
    empty: str = "excluded and counted"
    decimals: int = 4


TENTH = "tenths of the longest edge"
_ONET = {
    "iou": "at the stored points, or 100,000 uniform ones",
    "chamfer_l1": f"{TENTH}; half of accuracy + completeness",
    "chamfer_l2": f"({TENTH}) squared; half of both means",
    "normal_consistency": "mean |cos|, both ways, halved",
    "accuracy": TENTH,
    "completeness": TENTH,
}
_BETTER = (
    "iou",
    "normal_consistency",
    "f_score@0.01",
    "f_score@0.015",
    "f_score@0.02",
    "iou_easy",
    "iou_hard",
)
PROTOCOLS = {
    "deepsdf": Protocol(
        deepsdf, {"chamfer": "1e-3 original units squared; both means summed; 30,000 points"}
    ),
    "onet": Protocol(onet, _ONET, _BETTER, "sqrt(3) of the cube each way and IoU 0; no normals"),
    "convonet": Protocol(
        convonet,
        {**_ONET, **{f"f_score@{t:g}": f"threshold {t:g} of the longest edge" for t in (0.01, 0.015, 0.02)}},
        _BETTER,
        "sqrt(3) of the cube each way, IoU and F-score 0; no normals",
    ),
    "srb": Protocol(
        srb,
        {
            "chamfer": "original units, not squared; half of both means; 1,000,000 points",
            "hausdorff": "original units",
            "scan_chamfer": "original units, from the scan to the reconstruction",
            "scan_hausdorff": "original units, from the scan to the reconstruction",
        },
        decimals=6,
    ),
    "fourier": Protocol(
        fourier,
        {
            "iou_easy": "2^18 uniform points of the bounding box",
            "iou_hard": "2^18 surface points + N(0, 0.01)",
        },
        _BETTER,
        "IoU 0",
    ),
    "two_way": Protocol(
        two_way,
        {"distance": "the reference's unit ball; mean of both means, exact to triangles; 100,000 points"},
        decimals=6,
    ),
}
