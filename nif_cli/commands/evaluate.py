"""nif evaluate: how good the meshes of a run are, by the published protocols; or how close two meshes are."""

from __future__ import annotations

import json
import time
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from nif_cli import NifError, __version__, runs
from nif_cli.config import build, check, check_node, did_you_mean
from nif_cli.data.datamodule import Data
from nif_cli.data.images.datamodule import ImageData
from nif_cli.data.scenes.datamodule import Views
from nif_cli.data.shapes.datamodule import ShapeData
from nif_cli.evaluation import images
from nif_cli.evaluation.adaptation_curve import compare, compare_images, steps_of
from nif_cli.evaluation.meshes import compare_meshes
from nif_cli.evaluation.report import print_tables, summary
from nif_cli.evaluation.shapes import (
    Results,
    all_done,
    chosen_shapes,
    evaluated_fields,
    inside_of,
    or_left_out,
)
from nif_cli.evaluation.views import evaluate_views
from nif_cli.files import write
from nif_cli.geometry.extraction import extract_mesh
from nif_cli.inference.shapes import check_keys
from nif_cli.metrics.protocols import PROTOCOLS, Reconstruction
from nif_cli.metrics.view_protocols import VIEW_PROTOCOLS
from nif_cli.models.metasdf import MetaSdf
from nif_cli.models.model import Model


def main(cfg: DictConfig) -> None:
    config = check(cfg, "evaluate")
    check_keys(config)
    asked = config["protocol"]
    asked = asked if isinstance(asked, list) else ["onet"] if asked is None else [asked]
    for name in asked:
        if name not in {**PROTOCOLS, **VIEW_PROTOCOLS}:
            raise NifError(
                f"protocol={name}: no such protocol{did_you_mean(str(name), [*PROTOCOLS, *VIEW_PROTOCOLS])}"
            )
    of_views = [name for name in asked if name in VIEW_PROTOCOLS]
    protocols = {name: PROTOCOLS[name] for name in dict.fromkeys(asked) if name not in of_views}
    if of_views and (config["mesh"] or config["reference"]):
        raise NifError(
            f"protocol={of_views[0]}: it compares pictures; for meshes there are {', '.join(PROTOCOLS)}"
        )
    if config["mesh"] or config["reference"]:
        compare_meshes(config, protocols)
        return
    device = runs.device_for(config["device"])
    run = runs.find(config["run"])
    model = runs.load(run, config["checkpoint"], device)
    if config["run"] is None:
        print(f"run: {run}")
    if issubclass(model.learns, Views):
        if protocols and config["protocol"] is not None:
            raise NifError(
                f"protocol={next(iter(protocols))}: for shapes; this run is of views: "
                f"{', '.join(VIEW_PROTOCOLS)}"
            )
        data = _data({**config, "split": None}, model)
        assert isinstance(data, Views)
        evaluate_views({**config, "protocol": of_views or None}, run, model, data)
        return
    if of_views:
        raise NifError(
            f"protocol={of_views[0]}: for views; this run is of {model.learns.holds}: {', '.join(PROTOCOLS)}"
        )
    data = _data(config, model)
    if isinstance(data, ImageData) and isinstance(model, MetaSdf):
        if config["curve"] is None:
            images.evaluate_images(config, model, run, data, device)
        else:
            files = images.chosen_files(config, model, data)
            train = _data({**config, "split": None, "data": None}, model)
            assert isinstance(train, ImageData)
            compare_images(config, model, run, steps_of(config, model), files, train.files(), device)
        return
    if not isinstance(data, ShapeData):
        _figures(config, run, model, data)
        return
    shapes = chosen_shapes(config, model, data)
    if config["curve"] is not None:
        steps = steps_of(config, model)
        train = _data({**config, "split": None, "data": None}, model)
        assert isinstance(train, ShapeData)
        compare(config, model, run, steps, shapes, dict(train.chosen()), device)  # type: ignore[arg-type]
        return
    results: Results = {name: {} for name in protocols}
    empty, reports, began = [], {}, time.monotonic()
    left_out: list[str] = []
    for id, field, transform, report, scan in evaluated_fields(config, model, data, shapes, left_out):
        truth = or_left_out(id, partial(data.truth, id), left_out, len(shapes))
        if truth is None:
            continue
        mesh = extract_mesh(field, config["resolution"], sparse=config["method"] == "sparse", device=device)
        if not len(mesh.faces):
            empty.append(id)
        mesh.vertices = transform.to_original(mesh.vertices) if len(mesh.faces) else mesh.vertices
        truth.scan = scan
        made = Reconstruction(mesh if len(mesh.faces) else None, inside_of(field, transform, device))
        for name, protocol in protocols.items():
            # one random state for each shape: the numbers do not depend on which others are evaluated
            rng = np.random.default_rng([config["seed"], zlib.crc32(id.encode())])
            results[name][id] = protocol.measure(made, truth, rng)
        reports[id] = report
    report = {
        "protocol": {name: summary(p, results[name], empty) for name, p in protocols.items()},
        "empty": empty,
        "left_out": left_out,
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
    if not reports:
        raise NifError(f"none of the {len(left_out)} shapes could be read; the reasons stand above")
    path = Path(config["output"]).expanduser() if config["output"] else run / "evaluation.json"
    write(path, json.dumps(report, indent=1))
    print_tables(report, protocols, len(reports))
    print(path)
    if not any(report["protocol"][name]["mean"] for name in protocols):
        raise NifError(
            f"{', '.join(protocols)}: no metric could be measured; this data lacks the truth that they need"
        )
    all_done(left_out, len(shapes), "shape")


def _figures(config: dict[str, Any], run: Path, model: Model, data: Data) -> None:
    """What a model that is no shape says of itself: of a picture PSNR and SSIM, on trained and on held-out
    pixels."""
    began, id = time.monotonic(), next(iter(model.instances))
    data.prepare()
    figures = model.final_metrics(data)
    report = {
        "protocol": {
            data.kind: {"mean": figures, "median": figures, "instances": {id: figures}, "units": model.units}
        },
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
        raise NifError(
            f"evaluate: this run is of {model.learns.holds}, the data holds "
            f"{getattr(data, 'holds', 'none of it')}"
        )
    data.expect(model.needs)
    return data
