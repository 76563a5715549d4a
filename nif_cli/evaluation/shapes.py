"""The fields of a run beside the shapes of its data, measured by the published protocols."""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from nif_cli import NifError, runs
from nif_cli.data.shapes.datamodule import ShapeData
from nif_cli.data.shapes.observations import known
from nif_cli.evaluation.report import print_tables, summary, write_report
from nif_cli.field import Field
from nif_cli.field import evaluate as values_of
from nif_cli.files import DiskError
from nif_cli.geometry.extraction import extract_mesh
from nif_cli.geometry.transform import Transform
from nif_cli.inference.shapes import check_kind, infer, shown_to_model
from nif_cli.metrics.protocols import Metrics, Protocol, Reconstruction
from nif_cli.models.model import Model
from nif_cli.progress import Bar
from nif_cli.schemas import Evaluate

Results = dict[str, dict[str, Metrics]]  # protocol -> instance -> metric -> value


OBSERVED = ("observe", "points", "noise", "keep", "steps", "restarts")


def chosen_shapes(config: Evaluate, model: Model, data: ShapeData) -> dict[str, Callable]:
    """The instances to evaluate, each with its source."""
    sources = dict(data.chosen())
    ids = list(sources)
    if config.split is None and config.observe is None and not isinstance(config.data, dict):
        ids = [id for id in ids if id in model.instances]
        if not ids:
            example = next(iter(model.instances), "none")
            raise NifError(
                f"no instance of the run ({example}, ...) is in its data ({next(iter(sources))}, ...): "
                "give split=test, or data="
            )
    if config.instances is not None:
        ids = runs.select(ids, config.instances)
    return {id: sources[id] for id in ids}


Made = tuple[str, Field, Transform, dict[str, Any], np.ndarray | None]


def evaluated_fields(
    config: Evaluate, model: Model, data: ShapeData, shapes: dict[str, Callable], left_out: list[str]
) -> Iterator[Made]:
    """Each instance's field, the transform to the user's units, the report of its inference and the scan that
    it saw: those that the run knows as they are (unless the user says what to observe), the others inferred.
    One that cannot be read is named and joins `left_out`."""
    new = [id for id in shapes if id not in model.instances or config.observe is not None]
    with Bar(len(shapes), "evaluate", "shape") as bar:
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
                f"this data is normalised to the {data.space}, the run to the {model.space}: use the same "
                "kind of data"
            )
        for start in range(
            0, len(new), config.together
        ):  # no more of them in memory than are inferred together
            part = new[start : start + config.together]
            read, seen, transforms = [], [], []
            for number, id in enumerate(part, start):
                shape = or_left_out(id, shapes[id], left_out, len(shapes))
                if shape is None:
                    continue
                read.append(id)
                seen.append(shown_to_model(model, config, known(shape), None, number))
                transforms.append(shape.transform)
            if not read:
                continue
            for id, transform, observation, made in zip(
                read, transforms, seen, infer(model, seen, config), strict=True
            ):
                scan = None if observation.points is None else transform.to_original(observation.points)
                assert isinstance(made.field, Field)
                yield id, made.field, transform, made.report, scan
                bar.update()


def or_left_out(id: str, read: Callable[[], Any], left_out: list[str], of: int) -> Any:
    """What `read` gives; None where it fails, and then `id` is named with the reason and joins `left_out`.
    The reason is raised where there is only one shape to go on with."""
    try:
        return read()
    except DiskError:
        raise
    except NifError as error:
        if of == 1:
            raise
        left_out.append(id)
        tqdm.write(f"{id}: left out: {error}", file=sys.stdout)
        return None


def all_done(left_out: list[str], of: int, word: str) -> None:
    """At the end: NifError where something was left out, with everything else done."""
    if left_out:
        raise NifError(
            f"{len(left_out)} of {of} {word}s were left out (named above); the others are measured"
        )


def inside_of(field: Field, transform: Transform, device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """Whether points (in the user's units) are inside, by the field itself; outside its bounds nothing is."""

    def inside(points: np.ndarray) -> np.ndarray:
        where = torch.from_numpy(transform.to_normalised(points)).float().to(device)
        low, high = field.bounds.to(where)
        within = ((where >= low) & (where <= high)).all(1)
        return ((values_of(field, where) > field.level) & within).cpu().numpy()

    return inside


def evaluate_shapes(
    config: Evaluate,
    run: Path,
    model: Model,
    data: ShapeData,
    shapes: dict[str, Callable],
    protocols: dict[str, Protocol],
    device: torch.device,
) -> None:
    """The meshes of these shapes by each protocol: a report is written, tables are printed. NifError where
    nothing could be measured, and (after everything else) where shapes were left out."""
    results: Results = {name: {} for name in protocols}
    empty, left_out, reports, began = list[str](), list[str](), dict[str, Any](), time.monotonic()
    for id, field, transform, report, scan in evaluated_fields(config, model, data, shapes, left_out):
        truth = or_left_out(id, partial(data.truth, id), left_out, len(shapes))
        if truth is None:
            continue
        mesh = extract_mesh(field, config.resolution, sparse=config.method == "sparse", device=device)
        if not len(mesh.faces):
            empty.append(id)
        mesh.vertices = transform.to_original(mesh.vertices) if len(mesh.faces) else mesh.vertices
        truth.scan = scan
        made = Reconstruction(mesh if len(mesh.faces) else None, inside_of(field, transform, device))
        for name, protocol in protocols.items():
            # one random state for each shape: the numbers do not depend on which others are evaluated
            rng = np.random.default_rng([config.seed, zlib.crc32(id.encode())])
            results[name][id] = protocol.measure(made, truth, rng)
        reports[id] = report
    if not reports:
        raise NifError(f"none of the {len(left_out)} shapes could be read; the reasons stand above")
    report = {
        "protocol": {name: summary(p, results[name], empty) for name, p in protocols.items()},
        "empty": empty,
        "left_out": left_out,
        "inferred": {id: r for id, r in reports.items() if r},
        "run": str(run),
        **{k: getattr(config, k) for k in ("checkpoint", "split", "resolution", "seed")},
        "observe": {k: getattr(config, k) for k in OBSERVED},
    }
    path = write_report(report, config.output, run, began)
    print_tables(report, protocols, len(reports))
    print(path)
    if not any(report["protocol"][name]["mean"] for name in protocols):
        raise NifError(
            f"{', '.join(protocols)}: no metric could be measured; this data lacks the truth that they need"
        )
    all_done(left_out, len(shapes), "shape")
