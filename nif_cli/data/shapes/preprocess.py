"""One mesh file into the files of the published formats: what each worker process of `nif prepare` does. Free
of torch, which would cost every process seconds."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import threading
from dataclasses import asdict, dataclass
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from nif_cli import NifError
from nif_cli.data.shapes.formats import deepsdf, onet
from nif_cli.files import write
from nif_cli.geometry.distance import MeshDistance, signed_samples
from nif_cli.geometry.mesh import MeshReport, inspect_mesh, load_mesh
from nif_cli.geometry.repair import filled, solid
from nif_cli.geometry.sampling import sample_surface
from nif_cli.geometry.transform import unit_ball, unit_cube

FORMATS = ("deepsdf", "onet")
REPAIRS = ("none", "fill", "solid")
VERSION = 2  # part of every fingerprint: raise it when the same settings would give other files
CUBE = 1.1  # occupancies are taken uniformly in a cube of this side around the unit cube (occupancy networks)


@dataclass(frozen=True)
class Settings:
    """What decides the samples of a shape, beside its file and its name."""

    formats: tuple[str, ...] = ("deepsdf",)
    repair: str = "none"
    samples: int | None = None
    surface_samples: int | None = None
    spread: tuple[float, ...] = (0.0707, 0.0224)
    uniform: float = 0.06
    solid_resolution: int = 192
    seed: int = 0


@dataclass(frozen=True)
class ShapeJob:
    """One mesh file and where it goes."""

    path: str
    dataset: str
    category: str
    name: str
    output: str

    @property
    def id(self) -> str:
        return f"{self.category}/{self.name}"

    @property
    def deepsdf(self) -> deepsdf.DeepSdfEntry:
        return deepsdf.DeepSdfEntry(self.dataset, self.category, self.name)

    @property
    def onet(self) -> onet.OnetEntry:
        return onet.OnetEntry(self.category, self.name)


def start_worker(threads: int) -> None:
    """Before anything of libigl runs: processes share the cores. Signals from a terminal are the main
    process's business; when that ends, however it ends, so does this one."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    os.environ["IGL_NUM_THREADS"] = str(threads)
    parent = parent_process()
    if parent is not None:
        _die_with_parent(parent.pid)
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def _die_with_parent(parent: int | None) -> None:
    """Linux can do it at once, also while a library holds the interpreter; elsewhere a thread has to
    notice."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, linux/prctl.h
    except (OSError, AttributeError, TypeError):
        return
    if os.getppid() != parent:  # it died before this was asked
        os._exit(1)


def prepare_shape(task: ShapeJob, settings: Settings) -> dict[str, Any]:
    """Write the files of one shape and return its line of the report; a shape that cannot be prepared has an
    'error'.

    The line is kept beside the files, written last: a shape whose line is there, with the same fingerprint
    (file, name and settings), is finished and is skipped. DiskError when files cannot be written.
    """
    output = Path(task.output)
    kept = output / ".prepared" / task.category / f"{task.name}.json"
    line: dict[str, Any] = {"id": task.id, "source": task.path}
    try:
        content = hashlib.sha256(Path(task.path).read_bytes())
        content.update(repr((VERSION, asdict(settings), task.dataset, task.id)).encode())
        line["fingerprint"] = content.hexdigest()[:32]
        before = _kept_line(kept, output)
        if before and before["fingerprint"] == line["fingerprint"]:
            return {**before, "source": task.path, "skipped": True}
        kept.unlink(missing_ok=True)
        mesh = load_mesh(task.path)
        report = inspect_mesh(mesh)
        repaired = _repair(mesh, report, settings)
        line |= report.as_dict()
        line["notes"], doubts = list(report.notes), list(report.doubts)
        if repaired is not None:
            mesh, line["before"] = repaired, line.copy()
            after = inspect_mesh(mesh)
            line |= after.as_dict() | {"repaired": settings.repair}
            line["notes"] = list(report.notes)
            doubts = [*report.notes, *after.doubts]
    except NifError as error:
        return {**line, "error": str(error)}
    except OSError as error:
        return {**line, "error": f"{task.path}: {error.strerror or error}"}
    except MemoryError:
        return {**line, "error": f"{task.path}: out of memory; use fewer workers"}
    paths: list[Path] = []
    inside = 0.0
    for format in settings.formats:
        sample = {"deepsdf": _deepsdf, "onet": _onet}[format]
        rng = np.random.default_rng(
            [settings.seed, FORMATS.index(format), *hashlib.sha256(task.id.encode()).digest()[:8]]
        )
        some, part = sample(mesh, task, settings, rng, output / format)
        paths += some
        inside = max(inside, part)
    if inside == 0:
        doubts.insert(0, "no point is inside: a surface without volume")
    line |= {"inside": inside, "doubts": doubts, "files": [p.relative_to(output).as_posix() for p in paths]}
    if "before" in line:
        line["before"] = {k: line["before"][k] for k in report.as_dict()}
    write(kept, json.dumps(line))
    return line


def _kept_line(kept: Path, output: Path) -> dict[str, Any] | None:
    try:
        line = json.loads(kept.read_text())
        return line if all((output / f).is_file() for f in line["files"]) and "fingerprint" in line else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _repair(mesh: trimesh.Trimesh, report: MeshReport, settings: Settings) -> trimesh.Trimesh | None:
    """The repaired mesh; None where there is nothing to repair."""
    if settings.repair == "none" or (report.watertight and report.volume > 0 and report.overlap <= 0.01):
        return None
    return filled(mesh) if settings.repair == "fill" else solid(mesh, settings.solid_resolution)


def _deepsdf(
    mesh: trimesh.Trimesh, task: ShapeJob, settings: Settings, rng: np.random.Generator, root: Path
) -> tuple[list[Path], float]:
    transform = unit_ball(mesh.vertices)
    normalised = trimesh.Trimesh(transform.to_normalised(mesh.vertices), mesh.faces, process=False)
    points, distance, surface, normals = signed_samples(
        normalised,
        settings.samples or 500_000,
        settings.surface_samples or 30_000,
        settings.spread,
        settings.uniform,
        rng,
    )
    paths = deepsdf.write_sdf_samples(root, task.deepsdf, transform, points, distance, surface, normals)
    return paths, float((distance > 0).mean())


def _onet(
    mesh: trimesh.Trimesh, task: ShapeJob, settings: Settings, rng: np.random.Generator, root: Path
) -> tuple[list[Path], float]:
    transform = unit_cube(mesh.vertices)
    normalised = trimesh.Trimesh(transform.to_normalised(mesh.vertices), mesh.faces, process=False)
    surface, normals = sample_surface(normalised, settings.surface_samples or 100_000, rng)
    # rounded before the question is asked: the answer belongs to the point that is stored
    points = rng.uniform(-CUBE / 2, CUBE / 2, (settings.samples or 100_000, 3)).astype(np.float16)
    inside = (
        MeshDistance(normalised.vertices, normalised.faces).winding_number(points.astype(np.float64)) > 0.5
    )
    return onet.write_occupancy_samples(root, task.onet, transform, points, inside, surface, normals), float(
        inside.mean()
    )
