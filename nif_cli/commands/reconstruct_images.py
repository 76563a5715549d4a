"""nif reconstruct, of images: whole ones from some of their pixels."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

from nif_cli import NifError, runs
from nif_cli.data.images.folder import about, image_files, lies
from nif_cli.files import write, write_npz
from nif_cli.inference.images import adapted, image_with_metrics
from nif_cli.models.metasdf import MetaSdf
from nif_cli.progress import say
from nif_cli.rendering.image_files import displayed, png_bytes
from nif_cli.schemas import Reconstruct
from nif_cli.training.export import save_run
from nif_cli.words import paste


def reconstruct_images(config: Reconstruct, model: MetaSdf, run: Path, device: torch.device) -> None:
    """Images from some of their own pixels: <name>.png at the image's size, <name>.json (the loss after
    each step, PSNR), <name>.npz (the weights)."""
    files: dict[str, Path] = {}
    for entry in config.input if isinstance(config.input, list) else [config.input]:
        more = image_files(Path(str(entry)).expanduser())
        if files.keys() & more.keys():
            raise NifError(
                f"input={entry}: two images are called '{next(iter(files.keys() & more.keys()))}'; one "
                "at a time"
            )
        files |= more
    folder = runs.output_path(config.output, run / "reconstructions")
    failed: list[NifError] = []
    for id, file, pixels, made in adapted(config, model, files, failed):
        began, base = time.monotonic(), folder / runs.safe_name(id)
        values, figures = image_with_metrics(made.field, pixels, device)
        report = {
            "input": str(file),
            "run": str(run),
            "transform": lies(pixels).as_dict(),
            **made.report,
            **figures,
        }
        write_npz(base.with_name(f"{base.name}.npz"), **{k: v.cpu().numpy() for k, v in made.state.items()})
        write(base.with_name(f"{base.name}.json"), json.dumps(report, indent=1))
        if config.save:
            save_run(base, model, made, lies(pixels), file)
            say(f"{base}: a run of model=image; nif train {paste(f'resume={base}')} refines it")
        path = base.with_name(f"{base.name}.png")
        write(path, png_bytes(displayed(values)))
        say(f"{path}  {about(pixels)}, loss {made.report['loss']:.5f}, PSNR {figures['psnr']:.2f} dB, "
              f"{time.monotonic() - began:.1f} s")  # fmt: skip
    if len(failed) == len(files):
        raise failed[0]
    for error in failed:
        print(f"nif: {error}")
    if failed:
        raise NifError(f"{len(failed)} of {len(files)} files could not be read; the others are reconstructed")
