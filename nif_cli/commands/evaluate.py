"""nif evaluate: how good the meshes of a run are, by the published protocols; or how close two meshes are."""

from __future__ import annotations

import json
import math
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from tqdm import tqdm

from nif_cli import NifError, __version__, runs
from nif_cli.commands import of_new_pictures
from nif_cli.commands.adaptation_curve import compare, compare_pictures, steps_of
from nif_cli.commands.evaluate_views import VIEW_PROTOCOLS, evaluate_views
from nif_cli.commands.of_new_shapes import check_keys, check_kind, infer, shown
from nif_cli.config import build, check, check_node, did_you_mean
from nif_cli.data.datamodule import Data
from nif_cli.data.images.datamodule import ImageData
from nif_cli.data.scenes.datamodule import Views
from nif_cli.data.shapes.datamodule import ShapeData
from nif_cli.data.shapes.observations import known
from nif_cli.data.shapes.user_files import read_inputs
from nif_cli.field import Field
from nif_cli.field import evaluate as values_of
from nif_cli.files import write
from nif_cli.geometry.distance import MeshDistance
from nif_cli.geometry.extraction import extract_mesh
from nif_cli.geometry.mesh import Transform, load_mesh
from nif_cli.metrics.protocols import PROTOCOLS, Metrics, Protocol, Reconstruction, Truth
from nif_cli.models.metasdf import MetaSdf
from nif_cli.models.model import Model

Results = dict[str, dict[str, Metrics]]  # protocol -> instance -> metric -> value


def main(cfg: DictConfig) -> None:
    config = check(cfg, "evaluate")
    check_keys(config)
    asked = config["protocol"]
    asked = asked if isinstance(asked, list) else ["onet"] if asked is None else [asked]
    for name in asked:
        if name not in {**PROTOCOLS, **VIEW_PROTOCOLS}:
            raise NifError(f"protocol={name}: no such protocol{did_you_mean(str(name), [*PROTOCOLS, *VIEW_PROTOCOLS])}")
    of_views = [name for name in asked if name in VIEW_PROTOCOLS]
    protocols = {name: PROTOCOLS[name] for name in dict.fromkeys(asked) if name not in of_views}
    if of_views and (config["mesh"] or config["reference"]):
        raise NifError(f"protocol={of_views[0]}: it compares pictures; for meshes there are {', '.join(PROTOCOLS)}")
    if config["mesh"] or config["reference"]:
        _two_meshes(config, protocols)
        return
    device = runs.device_for(config["device"])
    run = runs.find(config["run"])
    model = runs.load(run, config["checkpoint"], device)
    if config["run"] is None:
        print(f"run: {run}")
    if issubclass(model.learns, Views):
        if protocols and config["protocol"] is not None:
            raise NifError(f"protocol={next(iter(protocols))}: for shapes; this run is of views: {', '.join(VIEW_PROTOCOLS)}")
        data = _data({**config, "split": None}, model)
        assert isinstance(data, Views)
        evaluate_views({**config, "protocol": of_views or None}, run, model, data)
        return
    if of_views:
        raise NifError(f"protocol={of_views[0]}: for views; this run is of {model.learns.holds}: {', '.join(PROTOCOLS)}")
    data = _data(config, model)
    if isinstance(data, ImageData) and isinstance(model, MetaSdf):
        if config["curve"] is None:
            of_new_pictures.evaluate(config, model, run, data, device)
        else:
            files = of_new_pictures.chosen(config, model, data)
            train = _data({**config, "split": None, "data": None}, model)
            assert isinstance(train, ImageData)
            compare_pictures(config, model, run, steps_of(config, model), files, train.files(), device)
        return
    if not isinstance(data, ShapeData):
        _figures(config, run, model, data)
        return
    shapes = _shapes(config, model, data)
    if config["curve"] is not None:
        steps = steps_of(config, model)
        train = _data({**config, "split": None, "data": None}, model)
        assert isinstance(train, ShapeData)
        one = next(iter(dict(train.chosen()).values()))
        compare(config, model, run, steps, list(shapes.values()), one, device)  # type: ignore[arg-type]
        return
    results: Results = {name: {} for name in protocols}
    empty, reports, began = [], {}, time.monotonic()
    ids = list(shapes)
    for id, field, transform, report, scan in _fields(config, model, data, shapes):
        mesh = extract_mesh(field, config["resolution"], sparse=config["method"] == "sparse", device=device)
        if not len(mesh.faces):
            empty.append(id)
        mesh.vertices = transform.to_original(mesh.vertices) if len(mesh.faces) else mesh.vertices
        truth = data.truth(id)
        truth.scan = scan
        made = Reconstruction(mesh if len(mesh.faces) else None, _inside(field, transform, device))
        for name, protocol in protocols.items():
            # one random state for each shape: the numbers do not depend on which others are evaluated
            rng = np.random.default_rng([config["seed"], zlib.crc32(id.encode())])
            results[name][id] = protocol.measure(made, truth, rng)
        reports[id] = report
    report = {
        "protocol": {name: _summary(p, results[name], empty) for name, p in protocols.items()},
        "empty": empty,
        "inferred": {id: r for id, r in reports.items() if r},
        "run": str(run),
        "checkpoint": config["checkpoint"],
        "split": config["split"],
        "resolution": config["resolution"],
        "seed": config["seed"],
        "observe": {k: config[k] for k in ("observe", "points", "noise", "keep", "steps", "restarts")},
        "seconds": round(time.monotonic() - began, 1),
        "version": __version__,
    }
    path = Path(config["output"]).expanduser() if config["output"] else run / "evaluation.json"
    write(path, json.dumps(report, indent=1))
    _print_tables(report, protocols, len(ids))
    print(path)
    if not any(report["protocol"][name]["mean"] for name in protocols):
        raise NifError(f"{', '.join(protocols)}: no metric could be measured; this data lacks the truth that they need")


def _figures(config: dict[str, Any], run: Path, model: Model, data: Data) -> None:
    """What a model that is no shape says of itself: of a picture PSNR and SSIM, on trained and on held-out pixels."""
    began, id = time.monotonic(), next(iter(model.instances))
    data.prepare()
    figures = model.figures(data)
    report = {
        "protocol": {data.kind: {"mean": figures, "median": figures, "instances": {id: figures}, "units": model.units}},
        "run": str(run),
        "checkpoint": config["checkpoint"],
        "seconds": round(time.monotonic() - began, 1),
        "version": __version__,
    }
    path = Path(config["output"]).expanduser() if config["output"] else run / "evaluation.json"
    write(path, json.dumps(report, indent=1))
    print(f"\n{data.kind}: {id}")
    for name, figure in figures.items():
        print(f"  {name:<{max(map(len, figures))}}  {figure:.4f}  [{model.units[name]}]")
    print(f"\n{path}")


def _data(config: dict[str, Any], model: Model) -> Data:
    """The data to compare with: the run's own, with the user's changes, or another source."""
    given = config["data"] if isinstance(config["data"], dict) else {}
    stranger = "_target_" not in given  # the run's own, wherever it lies now; a run may be a stranger's
    if stranger:
        own = {k: v for k, v in (model.config.get("data") or {}).items() if k not in given}
        own = runs.located({**model.config, "data": own})["data"]
        runs.look_first(own)
        given = {**own, **given}
    node = dict(given)
    if config["split"] is not None:
        node["split"] = config["split"]
    node.pop("instances", None) if config["split"] is not None else None
    node.setdefault("seed", 0)
    check_node(node, "data")
    data = build(node, "data", **({"allowed": runs.READ_ALLOWED} if stranger else {}))
    if not isinstance(data, model.learns):
        raise NifError(f"evaluate: this run is of {model.learns.holds}, the data holds {getattr(data, 'holds', 'none of it')}")
    data.expect(model.needs)
    return data


def _shapes(config: dict[str, Any], model: Model, data: ShapeData) -> dict[str, Callable]:
    """The instances to evaluate, each with its source."""
    sources = dict(data.chosen())
    ids = list(sources)
    if config["split"] is None and config["observe"] is None and not isinstance(config["data"], dict):
        ids = [id for id in ids if id in model.instances]
        if not ids:
            example = next(iter(model.instances), "none")
            raise NifError(
                f"no instance of the run ({example}, ...) is in its data ({next(iter(sources))}, ...): give split=test, or data="
            )
    if config["instances"] is not None:
        ids = runs.select(ids, config["instances"])
    return {id: sources[id] for id in ids}


Made = tuple[str, Field, Transform, dict[str, Any], np.ndarray | None]


def _fields(config: dict[str, Any], model: Model, data: ShapeData, shapes: dict[str, Callable]) -> Iterator[Made]:
    """Each instance's field, the transform to the user's units, the report of its inference and the scan that it saw:
    those that the run knows as they are (unless the user says what to observe), the others inferred."""
    new = [id for id in shapes if id not in model.instances or config["observe"] is not None]
    bar = tqdm(total=len(shapes), desc="evaluate", unit=" shape", leave=False, disable=not sys.stderr.isatty(), delay=1)
    with bar:
        for id in shapes:
            if id not in new:
                field = model.field(id)
                assert isinstance(field, Field)
                yield id, field, model.instances[id].transform, {}, None
                bar.update()
        if not new:
            return
        check_kind(model, config)
        if data.space != model.space:
            raise NifError(
                f"this data is normalised to the {data.space}, the run to the {model.space}: use the same kind of data"
            )
        for start in range(0, len(new), config["together"]):  # no more of them in memory than are inferred together
            part = new[start : start + config["together"]]
            seen, transforms = [], []
            for number, id in enumerate(part, start):
                shape = shapes[id]()
                seen.append(shown(model, config, known(shape), None, number))
                transforms.append(shape.transform)
            for id, transform, observation, made in zip(part, transforms, seen, infer(model, seen, config), strict=True):
                scan = None if observation.points is None else transform.to_original(observation.points)
                assert isinstance(made.field, Field)
                yield id, made.field, transform, made.report, scan
                bar.update()


def _inside(field: Field, transform: Transform, device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """Whether points (in the user's units) are inside, by the field itself; outside its bounds nothing is."""

    def inside(points: np.ndarray) -> np.ndarray:
        where = torch.from_numpy(transform.to_normalised(points)).float().to(device)
        low, high = field.bounds.to(where)
        within = ((where >= low) & (where <= high)).all(1)
        return ((values_of(field, where) > field.level) & within).cpu().numpy()

    return inside


def _two_meshes(config: dict[str, Any], protocols: dict[str, Protocol]) -> None:
    for key in ("mesh", "reference"):
        if not config[key]:
            raise NifError(f"{key} is missing: give mesh=<file> and reference=<file>")
    mesh, reference = (load_mesh(_file(config[key], key)) for key in ("mesh", "reference"))
    scan = None
    if config["scan"]:
        path = _file(config["scan"], "scan")
        (_, read), *_ = read_inputs(path, path.stem)
        given = read()
        scan = given.transform.to_original(given.extent)
    for key, given in (("mesh", mesh), ("reference", reference)):
        for note in given.metadata.get("notes", ()):
            print(f"{config[key]}: {note}")
    distance = MeshDistance(mesh.vertices, mesh.faces)
    if not mesh.is_watertight:
        print(f"{config['mesh']}: not closed; inside is where the winding number is above a half")
    made = Reconstruction(mesh, lambda points: distance.winding_number(points) > 0.5)
    results: Results = {}
    for name, protocol in protocols.items():
        rng = np.random.default_rng([config["seed"], 0])
        results[name] = {Path(config["mesh"]).stem: protocol.measure(made, Truth(reference, scan=scan), rng)}
    report = {
        "protocol": {name: _summary(p, results[name], []) for name, p in protocols.items()},
        "mesh": config["mesh"],
        "reference": config["reference"],
        "seed": config["seed"],
    }
    _print_tables(report, protocols, 1)
    if config["output"]:
        path = Path(config["output"]).expanduser()
        write(path, json.dumps(report, indent=1))
        print(path)


def _file(path: str, key: str) -> Path:
    found = Path(path).expanduser()
    if not found.is_file():
        raise NifError(f"{key}={path}: no such file")
    return found


def _summary(protocol: Protocol, instances: dict[str, Metrics], empty: list[str]) -> dict[str, Any]:
    """Mean, median and the worst instance of each metric over the shapes that have it."""
    report: dict[str, Any] = {"mean": {}, "median": {}, "worst": {}, "count": {}, "left_out": []}
    for metric in protocol.units:
        found = {id: v for id, m in instances.items() if (v := m.get(metric)) is not None and math.isfinite(v)}
        if not found:
            report["left_out"].append(metric)
            continue
        pick = min if metric in protocol.larger_is_better else max
        report["mean"][metric] = float(np.mean(list(found.values())))
        report["median"][metric] = float(np.median(list(found.values())))
        report["worst"][metric] = pick(found, key=lambda id: found[id])
        report["count"][metric] = len(found)
    return report | {"units": protocol.units, "empty": {"instances": empty, "counted": protocol.empty}, "instances": instances}


def _print_tables(report: dict[str, Any], protocols: dict[str, Protocol], total: int) -> None:
    for name, protocol in protocols.items():
        part = report["protocol"][name]
        print(f"\n{name}: {total} shape{'s' * (total != 1)}")
        width = max(len(m) for m in protocol.units)
        for metric, mean in part["mean"].items():
            digits = protocol.decimals
            row = f"  {metric:<{width}}  {mean:.{digits}f}"
            if total > 1:
                worst = part["worst"][metric]
                value = part["instances"][worst][metric]
                row += f"  median {part['median'][metric]:.{digits}f}  worst {value:.{digits}f} {worst}"
            print(f"{row}  [{protocol.units[metric]}]")
        if part["left_out"]:
            print(f"  left out: {', '.join(part['left_out'])} (their truth is missing)")
        if part["empty"]["instances"]:
            ids = part["empty"]["instances"]
            print(f"  {len(ids)} without a surface ({', '.join(ids[:3])}{', ...' * (len(ids) > 3)}): {protocol.empty}")
    print()
