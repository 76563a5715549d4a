"""The DeepSDF tree (Park et al. 2019, facebookresearch/DeepSDF), read and written.

    SdfSamples/<dataset>/<class>/<id>.npz               pos, neg: float32 [N, 4] = x, y, z, distance (positive
    outside) SurfaceSamples/<dataset>/<class>/<id>.ply           points on the surface, in the user's units,
    and dummy faces NormalizationParameters/<dataset>/<class>/<id>.npz  offset [3], scale [1]: normalised = (p
    + offset) * scale .datasources.json, and splits: {dataset: {class: [ids]}}

Distances change their sign here, and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from nif_cli import NifError
from nif_cli.data.report import Report, doubt
from nif_cli.data.shapes.samples import Known, Scan, ShapeSamples
from nif_cli.files import check_array, safe_name, write, write_npz
from nif_cli.geometry.transform import Transform
from nif_cli.untrusted import number, read_json, read_npz, reading, regular, shown, text

FARTHEST = 1e30  # offsets and scales of meshes that can be computed with
SAMPLES, SURFACE, NORMALISATION = "SdfSamples", "SurfaceSamples", "NormalizationParameters"

KINDS = {"float": "f4", "double": "f8", "uchar": "u1", "char": "i1"}  # of numbers in ply files
KINDS |= {"int": "i4", "uint": "u4", "short": "i2", "ushort": "u2", "float32": "f4", "float64": "f8"}
KINDS |= {f"{sign}int{8 * n}": f"{kind}{n}" for sign, kind in (("", "i"), ("u", "u")) for n in (1, 2, 4)}


@dataclass(frozen=True)
class DeepSdfEntry:
    """One shape of a tree."""

    dataset: str
    category: str
    name: str

    @property
    def id(self) -> str:
        return f"{self.category}/{self.name}"

    def path(self, root: Path, kind: str) -> Path:
        return (
            root / kind / self.dataset / self.category / f"{self.name}{'.ply' if kind == SURFACE else '.npz'}"
        )


def find_root(root: str | Path) -> Path:
    """The folder that holds SdfSamples: `root`, or the deepsdf folder that nif prepare made in it."""
    path = Path(root).expanduser()
    for folder in (path, path / "deepsdf"):
        if (folder / SAMPLES).is_dir():
            return folder
    raise NifError(
        f"data.root={root}: "
        + (f"no {SAMPLES} folder in it, so it is no DeepSDF tree" if path.is_dir() else "no such folder")
    )


def read_split(root: Path, split: str | Path | None = None) -> list[DeepSdfEntry]:
    """The shapes that a split file names (by default <root>/split.json, else all there are), each with its
    samples. NifError lists every one that is missing."""
    if split is None and not (root / "split.json").is_file():
        files = sorted((root / SAMPLES).glob("*/*/*.npz"))
        if not files:
            raise NifError(f"{root / SAMPLES}: no <dataset>/<class>/<id>.npz in it")
        return [DeepSdfEntry(f.parent.parent.name, f.parent.name, f.stem) for f in files]
    path = Path(split or "split.json").expanduser()
    path = path if path.is_file() else root / path
    if not path.is_file():
        raise NifError(f"data.split={split}: no such file, neither here nor in {root}")
    entries = [_without_suffix(root, e) for e in split_entries(path)]
    seen: set[DeepSdfEntry] = set()
    if twice := [e for e in entries if e in seen or seen.add(e)]:
        raise NifError(f"{path}: names '{twice[0].dataset}/{twice[0].id}' twice; each shape once")
    missing = [f"{e.dataset}/{e.id}" for e in entries if not e.path(root, SAMPLES).is_file()]
    if missing:
        named = ", ".join(missing[:20]) + ", ..." * (len(missing) > 20)
        raise NifError(
            f"{path}: {len(missing)} of its {len(entries)} shapes are not in {root / SAMPLES}: {named}"
        )
    return entries


def split_entries(path: Path) -> list[DeepSdfEntry]:
    """The shapes that a split file names, in its order; each name is that of a file in its folder. NifError
    otherwise."""
    entries = []
    for dataset, classes in read_json(path, "a split of DeepSDF, {dataset: {class: [ids]}},").items():
        if not isinstance(classes, dict) or not all(isinstance(names, list) for names in classes.values()):
            raise NifError(
                f"{path}: not a split of DeepSDF, which is JSON like {{dataset: {{class: [ids]}}}}"
            )
        entries += [
            DeepSdfEntry(dataset, category, text(name, f"{path}: a name in {shown(category, 40)}", 200))
            for category, names in classes.items()
            for name in names
        ]
    for e in entries:
        if any(
            "/" in part or len(part) > 200 or safe_name(part) != part
            for part in (e.dataset, e.category, e.name)
        ):
            raise NifError(f"{path}: '{shown(e.dataset, 40)}/{shown(e.id, 100)}' is no name of a shape")
    if not entries:
        raise NifError(f"{path}: names no shapes")
    return entries


def _without_suffix(root: Path, entry: DeepSdfEntry) -> DeepSdfEntry:
    """Some splits name files, a.npz."""
    plain = DeepSdfEntry(entry.dataset, entry.category, entry.name.removesuffix(".npz"))
    return entry if entry.path(root, SAMPLES).is_file() else plain


def joined(path: Path, pos: np.ndarray, neg: np.ndarray) -> tuple[Float[np.ndarray, "N 4"], list[str]]:
    """The rows of a sample file that are numbers, float32, and what is to be said of them. NifError where the
    signs of distances contradict the arrays' names; where all do, they are turned."""
    rows = [check_array(path, name, a, (None, 4), finite=False) for name, a in (("pos", pos), ("neg", neg))]
    total = sum(map(len, rows))
    rows = [r.astype(np.float32, copy=False)[(np.abs(r) < 1e30).all(1)] for r in rows]
    notes = []
    if sum(map(len, rows)) < total:
        notes.append(f"{total - sum(map(len, rows)):,} rows with NaN dropped")
    if sum(map(len, rows)) < 2:
        raise NifError(
            f"{path}: {total:,} samples, of which {sum(map(len, rows))} are numbers; prepare the shape again"
        )
    wrong = [int((rows[0][:, 3] < 0).sum()), int((rows[1][:, 3] > 0).sum())]
    both = np.concatenate(rows)
    if sum(wrong) == int((both[:, 3] != 0).sum()) and sum(wrong):
        both[:, 3] *= -1
        notes.append("all distances contradict 'pos' (outside) and 'neg' (inside) by their signs: turned")
    elif sum(wrong):
        raise NifError(
            f"{path}: {wrong[0]:,} distances in 'pos' are negative and {wrong[1]:,} in 'neg' positive; pos "
            "is outside (+), neg inside (-): prepare the shape again"
        )
    inside = both[both[:, 3] < 0, :3] if (both[:, 3] < 0).any() else both[:, :3]
    reach = float(np.abs(inside).max())
    if not 0.05 < reach < 1.1:
        word = "larger" if reach > 1 else "smaller"
        notes.append(
            f"not normalised: {word} than the unit ball, its inside reaches to {reach:.3g} and its samples "
            f"from {both[:, :3].min():.3g} to {both[:, :3].max():.3g}; nif prepare on the meshes makes "
            "normalised samples"
        )
    return both, notes


def read(root: Path, entry: DeepSdfEntry) -> ShapeSamples:
    """One shape. Rows with NaN or infinite values (some published files have them) are dropped and counted in
    the report."""
    path = entry.path(root, SAMPLES)
    both = read_npz(path, ("pos", "neg"), "a DeepSDF sample file")
    rows, notes = joined(path, both["pos"], both["neg"])
    report = Report("; ".join((f"{len(rows):,} samples", *notes)), tuple(notes))
    normalisation = entry.path(root, NORMALISATION)
    transform = read_normalisation(normalisation) if normalisation.is_file() else Transform()
    if not normalisation.is_file():
        report += doubt("; no normalisation parameters: it stays in normalised space")
    surface = normals = None
    if entry.path(root, SURFACE).is_file():
        surface, normals = read_surface_ply(entry.path(root, SURFACE))
        surface = transform.to_normalised(surface).astype(np.float32)
        if not np.isfinite(surface).all():
            raise NifError(f"{normalisation}: its transform leads points of {SURFACE} beyond all numbers")
    known = Known(scan=Scan(surface, normals)) if surface is not None else None
    points, distance = np.ascontiguousarray(rows[:, :3]), -rows[:, 3]
    return ShapeSamples(entry.id, transform, points, distance, None, surface, normals, report, known)


def read_normalisation(path: Path) -> Transform:
    """NormalizationParameters."""
    arrays = read_npz(path, ("offset", "scale"), "normalisation parameters of DeepSDF")
    x, y, z = check_array(path, "offset", arrays["offset"].reshape(-1), (3,)).tolist()
    (scale,) = check_array(path, "scale", arrays["scale"].reshape(-1), (1,)).tolist()
    if not scale > 0:
        raise NifError(f"{path}: 'scale' is {scale}; it must be positive")
    x, y, z = (number(v, f"{path}: 'offset'", -FARTHEST, FARTHEST) for v in (x, y, z))
    return Transform((x, y, z), number(scale, f"{path}: 'scale'", 1 / FARTHEST, FARTHEST))


def read_surface_ply(path: Path) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"] | None]:
    """The vertices of a ply file, ASCII or binary, and their normals if it has any; faces (dummies here) are
    not read."""
    with reading(regular(path), "a ply file"), path.open("rb") as file:
        head = []
        while len(head) < 100 and (line := file.readline(1000)) and (not head or head[-1] != "end_header"):
            head.append(line.decode("ascii", "replace").strip())
            if head[-1] == "end_header":
                break
        words = [line.split() for line in head]
        elements = [w for w in words if w[:1] == ["element"]]
        first = elements[0] if elements else []
        if head[:1] != ["ply"] or head[-1] != "end_header" or first[1:2] != ["vertex"] or len(first) != 3:
            raise NifError(f"{path}: not a ply file whose first element is 'vertex'")
        start, stop = words.index(elements[0]), words.index(elements[1]) if len(elements) > 1 else len(words)
        properties = [w[1:] for w in words[start:stop] if w[:1] == ["property"]]
        names = [p[-1] for p in properties]
        format = next((w[1] for w in words if w[:1] == ["format"] and len(w) > 1), "")
        try:
            if not {"x", "y", "z"} <= set(names):
                raise ValueError
            count = int(elements[0][2])
            if not 0 < count <= path.stat().st_size:  # a point takes some bytes
                raise ValueError
            if format == "ascii":
                table = np.loadtxt(file, np.float64, max_rows=count, ndmin=2)[:, : len(names)]
                columns = dict(zip(names, table.T, strict=True))
            else:
                order = {"binary_little_endian": "<", "binary_big_endian": ">"}[format]
                dtype = np.dtype(
                    [(name, order + KINDS[p[0]]) for name, p in zip(names, properties, strict=True)]
                )
                record = np.frombuffer(file.read(count * dtype.itemsize), dtype)
                columns = {name: record[name] for name in names}
            points = np.stack([columns[c] for c in "xyz"], 1)
            if len(points) != count or count < 1 or not np.isfinite(points).all():
                raise ValueError
            if float(np.abs(points).max()) > FARTHEST:
                raise ValueError
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise NifError(
                f"{path}: truncated or damaged: its header promises "
                f"{shown(' '.join(elements[0][1:]), 60)} "
                "points x y z"
            ) from error
    normals = None
    if {"nx", "ny", "nz"} <= set(names):
        normals = np.stack([columns[c] for c in ("nx", "ny", "nz")], 1).astype(np.float32)
        if not np.isfinite(normals).all():
            raise NifError(f"{path}: its normals have NaN or infinite values")
    return points, normals


def write_sdf_samples(
    root: Path,
    entry: DeepSdfEntry,
    transform: Transform,
    points: Float[np.ndarray, "N 3"],
    distance: Float[np.ndarray, "N"],
    surface: Float[np.ndarray, "M 3"],
    normals: Float[np.ndarray, "M 3"],
) -> list[Path]:
    """The three files of one shape. `distance` is positive inside; `surface` is in normalised space. The ply
    has normals too, which readers of the published format skip."""
    rows = np.column_stack((points, -distance)).astype(np.float32)
    outside = rows[:, 3] >= 0
    paths = [entry.path(root, kind) for kind in (NORMALISATION, SURFACE, SAMPLES)]
    write_npz(paths[0], offset=np.array(transform.offset), scale=np.array([transform.scale]))
    write(paths[1], _ply(transform.to_original(surface), normals))
    write_npz(paths[2], pos=rows[outside], neg=rows[~outside])
    return paths


def _ply(points: np.ndarray, normals: np.ndarray) -> str:
    faces = len(points) // 3
    far = np.abs(points).max(initial=0) > 1e6 * np.finfo(np.float32).eps * 8 * np.ptp(points, axis=0).max(
        initial=0
    )
    kind, digits = ("double", 17) if far else ("float", 9)
    head = f"ply\nformat ascii 1.0\nelement vertex {len(points)}\n"
    head += "".join(f"property {kind} {name}\n" for name in "xyz")
    head += "".join(f"property float {name}\n" for name in ("nx", "ny", "nz"))
    head += f"element face {faces}\nproperty list uchar int vertex_index\nend_header\n"
    vertices = (f"%.{digits}g %.{digits}g %.{digits}g %.4f %.4f %.4f\n" * len(points)) % tuple(
        np.column_stack((points, normals)).reshape(-1).tolist()
    )
    return head + vertices + ("3 %d %d %d\n" * faces) % tuple(range(3 * faces))


def write_split_json(root: Path, source: str, splits: dict[str, list[DeepSdfEntry]]) -> None:
    """<name>.json for each split, and .datasources.json, which says where a dataset came from."""
    for name, entries in splits.items():
        write(root / f"{name}.json", json.dumps(_tree(entries), indent=1))
    datasets = sorted({e.dataset for entries in splits.values() for e in entries})
    write(root / ".datasources.json", json.dumps(dict.fromkeys(datasets, source), indent=2))


def _tree(entries: Iterable[DeepSdfEntry]) -> dict[str, dict[str, list[str]]]:
    tree: dict[str, dict[str, list[str]]] = {}
    for e in sorted(entries, key=lambda e: (e.dataset, e.category, e.name)):
        tree.setdefault(e.dataset, {}).setdefault(e.category, []).append(e.name)
    return tree
