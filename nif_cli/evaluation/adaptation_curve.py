"""nif evaluate curve=[0,1,2,5,...]: what is gained by a learned initialisation, step by step, against Adam
from elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import trimesh

from nif_cli import NifError, runs
from nif_cli.data.images.folder import check_channels, lies
from nif_cli.data.images.formats.pixels import Pixels, read_image
from nif_cli.data.shapes.observations import known, thin
from nif_cli.data.shapes.samples import ShapeSamples
from nif_cli.evaluation.shapes import all_done, or_left_out
from nif_cli.files import write
from nif_cli.geometry.extraction import extract_mesh
from nif_cli.geometry.sampling import sample_surface
from nif_cli.inference.images import observed
from nif_cli.inference.shapes import shown_to_model
from nif_cli.metrics.image import decibels
from nif_cli.metrics.shape import surface_distances
from nif_cli.models.inner_loop import Task, Weights, adam, spread
from nif_cli.models.metasdf import MetaSdf
from nif_cli.models.model import Model
from nif_cli.rendering.camera_paths import turntable
from nif_cli.rendering.charts import chart
from nif_cli.rendering.image_files import png_bytes, sheet
from nif_cli.rendering.images import overview, surface_image
from nif_cli.schemas import Evaluate

RATES = (1e-4, 3e-4, 1e-3, 2e-3, 5e-3)
PRETRAINING = 500  # steps of Adam on the one shape
QUERY = 4096
RESOLUTION = 64

Found = dict[int, tuple[float, dict[str, torch.Tensor]]]  # steps -> error, weights


def steps_of(config: Evaluate, model: Model) -> list[int]:
    """The numbers of steps that `curve=` asks for, sorted. NifError for anything else, and for other
    models."""
    asked = config.curve if isinstance(config.curve, list) else [config.curve]
    if not asked or not all(isinstance(k, int) and not isinstance(k, bool) and k >= 0 for k in asked):
        raise NifError(f"curve={config.curve}: must be a list of numbers of steps, as [0,1,2,5,10,100]")
    if not isinstance(model, MetaSdf):
        raise NifError(
            f"curve: {type(model).__name__} does not adapt by steps from a learned initialisation; "
            "model=metasdf does"
        )
    return sorted({k for k in asked if k is not None})


@dataclass
class Subject:
    """What is compared: instances with what is seen of them, of those the points that everything is measured
    at, one other to be pretrained on, a second measure, and an image of an instance (by its row and
    weights)."""

    ids: list[str]
    context: Task
    query: Task
    alone: Task
    error: str
    second: tuple[str, Callable[[Weights], float | None]]
    view: Callable[[int, Weights], np.ndarray]


def compare(
    config: Evaluate,
    model: MetaSdf,
    run: Path,
    steps: list[int],
    sources: dict[str, Callable[[], ShapeSamples]],
    others: dict[str, Callable[[], ShapeSamples]],
    device: torch.device,
) -> None:
    """Error and Chamfer distance of shapes, against Adam from the first of the `others`; see `_compare`.
    Those that cannot be read are left out and named."""
    left_out: list[str] = []
    found = (or_left_out(id, source, left_out, len(sources)) for id, source in sources.items())
    shapes = [shape for shape in found if shape is not None]
    if not shapes:
        raise NifError(f"none of the {len(left_out)} shapes could be read; the reasons stand above")
    one = _first({id: source for id, source in others.items() if id not in left_out})
    pose = turntable(8)[1]
    subject = Subject(
        [s.id for s in shapes],
        model.task_of(
            [shown_to_model(model, config, known(s), None, k) for k, s in enumerate(shapes)], config.points
        ),
        _signed(model, shapes),
        model.task_of([shown_to_model(model, config, known(one), None, 0)], config.points),
        f"mean |distance error|, clamped to {model.clamp:g}; {len(shapes)} shapes",
        ("chamfer", lambda weights: _chamfer(model, weights, shapes)),
        lambda row, weights: surface_image(model.bind(weights), pose, 160, device),  # type: ignore[arg-type]
    )
    _compare(config, model, run, steps, subject, device)
    all_done(left_out, len(sources), "shape")


def _first(others: dict[str, Callable[[], ShapeSamples]]) -> ShapeSamples:
    """The first of them that can be read."""
    for id, source in others.items():
        if (shape := or_left_out(id, source, [], len(others))) is not None:
            return shape
    raise NifError("curve: no shape of the run's training can be read, to start Adam from one")


def compare_image_adaptation(
    config: Evaluate,
    model: MetaSdf,
    run: Path,
    steps: list[int],
    files: dict[str, Path],
    others: dict[str, Path],
    device: torch.device,
) -> None:
    """Error and PSNR of images, at pixels that they did not adapt to (or to few of them); see
    `_compare`. Those that cannot be read are left out and named."""

    def read(file: Path) -> Pixels:
        pixels = read_image(file)
        check_channels(file, pixels, model.subject.out)
        return pixels

    left_out: list[str] = []
    ids, seen, asked, transforms = [], [], [], []
    for number, (id, file) in enumerate(files.items()):
        pixels = or_left_out(id, partial(read, file), left_out, len(files))
        if pixels is None:
            continue
        ids.append(id)
        seen.append(observed(config, id, pixels, number))
        asked.append(
            observed(replace(config, points=QUERY, keep=None, seed=config.seed + 1), id, pixels, number)
        )
        transforms.append(lies(pixels))
    if not ids:
        raise NifError(f"none of the {len(left_out)} images could be read; the reasons stand above")
    rest = {id: file for id, file in others.items() if id not in left_out}
    readable = ((id, or_left_out(id, partial(read, file), [], len(rest))) for id, file in rest.items())
    one, its = next(((id, pixels) for id, pixels in readable if pixels is not None), (None, None))
    if one is None or its is None:
        raise NifError("curve: no image of the run's training can be read, to start Adam from one")
    query = model.task_of(asked)

    def fidelity(weights: Weights) -> float:
        with torch.no_grad():
            return float(np.mean([decibels(e) for e in model.value_errors(weights, query).tolist()]))

    subject = Subject(
        ids,
        model.task_of(seen),
        query,
        model.task_of([observed(config, one, its, 0)]),
        f"mean squared error of colours; {len(ids)} images",
        ("psnr", fidelity),
        lambda row, weights: overview(model.bind(weights), transforms[row], 160, device),  # type: ignore[arg-type]
    )
    _compare(config, model, run, steps, subject, device)
    all_done(left_out, len(files), "image")


def _compare(
    config: Evaluate,
    model: MetaSdf,
    run: Path,
    steps: list[int],
    subject: Subject,
    device: torch.device,
) -> None:
    """Errors at these numbers of steps: inner steps from the learned weights, Adam from random ones and from
    weights pretrained on one other instance, at each number of steps with the best of RATES. Prints a table;
    writes adaptation.json, adaptation.png (the curves) and adaptation_shapes.png (the learned one, instance
    by instance)."""
    context, query, count = subject.context, subject.query, len(subject.ids)
    torch.manual_seed(config.seed)
    random = runs.make_model(model.config).to(device)
    assert isinstance(random, MetaSdf)
    from_random = spread(random.network, count)
    pretrained = adam(
        lambda w: model.errors(w, subject.alone, outer=True),
        spread(random.network, 1),
        1e-3,
        PRETRAINING,
        lambda k, w: None,
    )
    from_single = {name: w.expand(count, *w.shape[1:]) for name, w in pretrained.items()}
    curves: dict[str, Found] = {"learned": {}}
    for k in steps:
        weights, _ = model.adapt(context, k)
        curves["learned"][k] = (_error(model, weights, query), weights)
    for name, start in (("random, Adam", from_random), (f"one {_word(model)}, Adam", from_single)):
        curves[name] = _best_adam(model, start, context, query, steps)
    second, measure = subject.second
    table = {
        name: {k: {"error": e, second: measure(w)} for k, (e, w) in c.items()} for name, c in curves.items()
    }
    _print(table, second, f"{count} {_word(model)}s")
    about = {"run": str(run), "instances": subject.ids, "points": context.points.shape[1], "rates": RATES}
    write(run / "adaptation.json", json.dumps({**about, "curves": table}, indent=1))
    lines = {name: {k: v["error"] for k, v in c.items()} for name, c in table.items()}
    write(run / "adaptation.png", png_bytes(chart(lines, "steps", f"error: {subject.error}")))
    few = [k for k in steps if k <= max(10, model.steps)]
    views = [
        subject.view(row, {n: w[row] for n, w in curves["learned"][k][1].items()})
        for row in range(min(4, count))
        for k in few
    ]
    write(run / "adaptation_shapes.png", png_bytes(sheet(views, len(few))))
    print(f"{run / 'adaptation.json'}\n{run / 'adaptation.png'}")
    print(f"{run / 'adaptation_shapes.png'}  after {', '.join(map(str, few))} steps")


def _word(model: MetaSdf) -> str:
    return "shape" if model.subject.dim == 3 else "image"


def _signed(model: MetaSdf, shapes: list[ShapeSamples]) -> Task:
    """The points that everything is measured at: QUERY samples of each shape, half of them inside."""
    rng = np.random.default_rng(1)
    both = []
    for shape in shapes:
        if shape.distance is None:
            raise NifError(f"curve: the distances of {shape.id} are not known; use data with distances")
        seen = known(shape).samples
        assert seen is not None
        seen = thin(seen, QUERY, rng)
        rows = np.column_stack((seen.points, seen.distance))  # type: ignore[arg-type]
        both.append(rows[np.resize(rng.permutation(len(rows)), QUERY)])
    stacked = torch.from_numpy(np.stack(both)).float().to(next(model.network.parameters()).device)
    return Task(stacked[..., :3].contiguous(), stacked[..., 3].contiguous())


def _error(model: MetaSdf, weights: Weights, query: Task) -> float:
    with torch.no_grad():
        return model.value_errors(weights, query).mean().item()


def _best_adam(model: MetaSdf, start: Weights, context: Task, query: Task, steps: list[int]) -> Found:
    best: Found = {}
    for rate in RATES:

        def watch(k: int, weights: Weights) -> None:
            if k in steps:
                error = _error(model, weights, query)
                if k not in best or error < best[k][0]:
                    best[k] = (error, {name: w.detach().clone() for name, w in weights.items()})

        adam(lambda w: model.errors(w, context, outer=True), start, rate, steps[-1], watch)
    return dict(sorted(best.items()))


def _chamfer(model: MetaSdf, weights: Weights, shapes: list[ShapeSamples]) -> float | None:
    """The mean distance between 10,000 points of each mesh and those known of its surface, both ways, in
    normalised space; None where a shape has none or a mesh is empty."""
    found = []
    for row, shape in enumerate(shapes):
        scan = known(shape).scan
        mesh: trimesh.Trimesh = extract_mesh(
            model.bind({name: w[row] for name, w in weights.items()}),  # type: ignore[arg-type]
            RESOLUTION,
            device=next(model.network.parameters()).device,
        )
        if scan is None or not len(mesh.faces):
            return None
        points, _ = sample_surface(mesh, 10_000, np.random.default_rng(0))
        between = surface_distances(points, np.asarray(scan.points, np.float64))
        found.append(0.5 * (between.accuracy.mean() + between.completeness.mean()))
    return float(np.mean(found))


def _print(table: dict[str, dict[int, dict[str, float | None]]], second: str, what: str) -> None:
    words = {"chamfer": "Chamfer distance (- : no surface)", "psnr": "PSNR [dB]"}[second]
    print(f"\n{what}; error, {words} after k steps")
    names = list(table)
    print(f"{'steps':>7}  " + "  ".join(f"{name:^18}" for name in names))
    for k in table[names[0]]:
        cells = []
        for name in names:
            error, value = table[name][k]["error"], table[name][k][second]
            assert error is not None
            digits = 5 if second == "chamfer" else 2
            shown = "      -" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
            cells.append(f"{error:.5f}  {shown:>8}  ")
        print(f"{k:>7}  " + "  ".join(cells))
    print()
