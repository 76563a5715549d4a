"""How close one mesh is to another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from nif_cli import NifError
from nif_cli.data.shapes.user_files import read_inputs
from nif_cli.evaluation.report import print_tables, summary
from nif_cli.evaluation.shapes import Results
from nif_cli.files import write
from nif_cli.geometry.distance import MeshDistance
from nif_cli.geometry.mesh import load_mesh
from nif_cli.metrics.protocols import Protocol, Reconstruction, Truth
from nif_cli.progress import busy
from nif_cli.schemas import Evaluate


def compare_meshes(config: Evaluate, protocols: dict[str, Protocol]) -> None:
    for key in ("mesh", "reference"):
        if not getattr(config, key):
            raise NifError(f"{key} is missing: give mesh=<file> and reference=<file>")
    assert config.mesh is not None
    with busy("reading the meshes"):
        mesh, reference = (load_mesh(_file(getattr(config, key), key)) for key in ("mesh", "reference"))
    scan = None
    if config.scan:
        path = _file(config.scan, "scan")
        (_, read), *_ = read_inputs(path, path.stem)
        given = read()
        scan = given.transform.to_original(given.extent)
    for key, given in (("mesh", mesh), ("reference", reference)):
        for note in given.metadata.get("notes", ()):
            print(f"{getattr(config, key)}: {note}")
    with busy("measuring"):
        distance, closed = MeshDistance(mesh.vertices, mesh.faces), mesh.is_watertight
    if not closed:
        print(f"{config.mesh}: not closed; inside is where the winding number is above a half")
    made = Reconstruction(mesh, lambda points: distance.winding_number(points) > 0.5)
    results: Results = {}
    for name, protocol in protocols.items():
        rng = np.random.default_rng([config.seed, 0])
        with busy(f"measuring: {name}"):
            results[name] = {Path(config.mesh).stem: protocol.measure(made, Truth(reference, scan=scan), rng)}
    report = {
        "protocol": {name: summary(p, results[name], []) for name, p in protocols.items()},
        "mesh": config.mesh,
        "reference": config.reference,
        "seed": config.seed,
    }
    print_tables(report, protocols, 1)
    if config.output:
        path = Path(config.output).expanduser()
        write(path, json.dumps(report, indent=1))
        print(path)


def _file(path: str, key: str) -> Path:
    found = Path(path).expanduser()
    if not found.is_file():
        raise NifError(f"{key}={path}: no such file")
    return found
