"""New pictures by a run that has learned weights for them: nif reconstruct and nif evaluate of model=metasdf data=image."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nif_cli import NifError, __version__, runs
from nif_cli.commands.of_new_shapes import infer
from nif_cli.commands.save_run import save_run
from nif_cli.data.images.datamodule import ImageData
from nif_cli.data.images.folder import about, check_channels, kept, lies, picture_files
from nif_cli.data.images.formats.pixels import Pixels, read_picture
from nif_cli.data.shapes.observations import keep_half
from nif_cli.data.shapes.samples import Observation
from nif_cli.field import Field, Signal
from nif_cli.files import available_memory, write, write_npz
from nif_cli.metrics.image import psnr, ssim
from nif_cli.models.metasdf import MetaSdf
from nif_cli.models.model import Inferred
from nif_cli.rendering.pictures import displayed, image_values, png_bytes
from nif_cli.words import paste

UNITS = {"psnr": "dB, all pixels at the picture's own size", "ssim": "of 1"}

Made = tuple[str, Path, Pixels, Inferred]


def reconstruct(config: dict[str, Any], model: MetaSdf, run: Path, device: torch.device) -> None:
    """Pictures from some of their own pixels: <name>.png at the picture's size, <name>.json (the loss after each step, PSNR),
    <name>.npz (the weights)."""
    files: dict[str, Path] = {}
    for entry in config["input"] if isinstance(config["input"], list) else [config["input"]]:
        more = picture_files(Path(str(entry)).expanduser())
        if files.keys() & more.keys():
            raise NifError(f"input={entry}: two pictures are called '{next(iter(files.keys() & more.keys()))}'; one at a time")
        files |= more
    folder = Path(config["output"]).expanduser() if config["output"] else run / "reconstructions"
    failed: list[NifError] = []
    for id, file, pixels, made in adapted(config, model, files, failed):
        began, base = time.monotonic(), folder / runs.safe_name(id)
        values, figures = measured(made.field, pixels, device)
        report = {"input": str(file), "run": str(run), "transform": lies(pixels).as_dict(), **made.report, **figures}
        write_npz(base.with_name(f"{base.name}.npz"), **{k: v.cpu().numpy() for k, v in made.state.items()})
        write(base.with_name(f"{base.name}.json"), json.dumps(report, indent=1))
        if config["save"]:
            save_run(base, model, made, lies(pixels), file)
            print(f"{base}: a run of model=image; nif train {paste(f'resume={base}')} refines it")
        path = base.with_name(f"{base.name}.png")
        write(path, png_bytes(displayed(values)))
        print(f"{path}  {about(pixels)}, loss {made.report['loss']:.5f}, PSNR {figures['psnr']:.2f} dB, "
              f"{time.monotonic() - began:.1f} s")  # fmt: skip
    if len(failed) == len(files):
        raise failed[0]
    for error in failed:
        print(f"nif: {error}")
    if failed:
        raise NifError(f"{len(failed)} of {len(files)} files could not be read; the others are reconstructed")


def evaluate(config: dict[str, Any], model: MetaSdf, run: Path, data: ImageData, device: torch.device) -> None:
    """PSNR and SSIM of the pictures of a split, each adapted to some of its pixels; by default of those the run knows."""
    began, failed = time.monotonic(), []
    files = chosen(config, model, data)
    figures, reports = {}, {}
    for id, _, pixels, made in adapted(config, model, files, failed):
        figures[id], reports[id] = measured(made.field, pixels, device)[1], made.report
    if not figures:
        raise failed[0]
    values = {name: [f[name] for f in figures.values() if name in f] for name in UNITS}
    values = {name: found for name, found in values.items() if found}
    report = {
        "protocol": {
            data.kind: {
                "mean": {name: float(np.mean(found)) for name, found in values.items()},
                "median": {name: float(np.median(found)) for name, found in values.items()},
                "worst": {name: min(figures, key=lambda id: figures[id].get(name, np.inf)) for name in values},
                "instances": figures,
                "units": UNITS,
            }
        },
        "left_out": [str(error) for error in failed],
        "inferred": reports,
        "run": str(run),
        "checkpoint": config["checkpoint"],
        "split": config["split"],
        "seed": config["seed"],
        "observe": {k: config[k] for k in ("points", "keep", "steps")},
        "seconds": round(time.monotonic() - began, 1),
        "version": __version__,
    }
    path = Path(config["output"]).expanduser() if config["output"] else run / "evaluation.json"
    write(path, json.dumps(report, indent=1))
    part = report["protocol"][data.kind]
    print(f"\n{data.kind}: {len(figures)} picture{'s' * (len(figures) != 1)}")
    for name, found in values.items():
        worst = part["worst"][name]
        figure = f"{np.mean(found):.4f}  median {np.median(found):.4f}  worst {figures[worst][name]:.4f} {worst}"
        print(f"  {name:<4}  {figure}  [{UNITS[name]}]")
    for error in failed:
        print(f"  left out: {error}")
    print(f"\n{path}")


def chosen(config: dict[str, Any], model: MetaSdf, data: ImageData) -> dict[str, Path]:
    """The files to evaluate: of the run's own data, if no split is named, the pictures that it knows."""
    if not data.many:
        raise NifError(f"data.path={data.path}: must be a folder of pictures")
    files = data.files()
    if config["split"] is None and not isinstance(config["data"], dict):
        data.split = "all"
        files = {id: file for id, file in data.files().items() if id in model.instances}
        if not files:
            raise NifError(f"no picture of the run is in {data.path}: give split=test, or data.path=")
    if config["instances"] is not None:
        files = {id: files[id] for id in runs.select(list(files), config["instances"])}
    return files


def adapted(config: dict[str, Any], model: MetaSdf, files: dict[str, Path], failed: list[NifError]) -> Iterator[Made]:
    """Every picture with what it took to adapt to `points` of its pixels, `together` at a time; those that cannot be read,
    or are of another kind than the run's, go to `failed`."""
    names = list(files)
    for start in range(0, len(names), config["together"]):
        part: list[str] = []
        seen: list[Observation] = []
        for number, id in enumerate(names[start : start + config["together"]], start):
            try:
                pixels = read_picture(files[id])
                check_channels(files[id], pixels, model.subject.out)
                if 16 * pixels.shape[0] * pixels.shape[1] > available_memory():
                    raise NifError(f"{files[id]}: {about(pixels)} do not fit in memory")
                seen.append(observed(config, id, pixels, number))
                part.append(id)
            except NifError as error:
                failed.append(error)
        if part:
            for id, made in zip(part, infer(model, seen, config), strict=True):
                yield id, files[id], read_picture(files[id]), made  # again: no more than one of them in memory


def observed(config: dict[str, Any], id: str, pixels: Pixels, number: int) -> Observation:
    """`points` of its pixels, at random; with `keep` of one half of it only."""
    rng = np.random.default_rng([config["seed"], number])
    most = config["points"] if config["keep"] is None else pixels[..., 0].size
    seen = kept(id, pixels, most, rng).observed(most, rng)
    if config["keep"] is None:
        return seen
    half = keep_half(seen, config["keep"])
    assert half.samples is not None
    assert half.colors is not None
    some = rng.permutation(len(half.samples))[: config["points"]]
    return Observation(samples=half.samples[some], colors=half.colors[some])


def measured(signal: Field | Signal, pixels: Pixels, device: torch.device) -> tuple[Tensor, dict[str, float]]:
    """The picture [H, W, C] that the signal makes, at its own size, and how close it is."""
    height, width, _ = pixels.shape
    assert isinstance(signal, Signal)
    made = image_values(signal, lies(pixels), (0, 0, width, height), (width, height), device).clamp(0, 1)
    truth = torch.from_numpy(np.array(pixels)).float() / float(np.iinfo(pixels.dtype).max)
    found = {"psnr": psnr(made, truth)}
    if min(height, width) >= 11 and width * height <= 2**24:
        found["ssim"] = ssim(made, truth)
    return made, found
