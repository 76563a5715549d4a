"""nif reconstruct: meshes of new shapes (or new images) from what a user has of them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from nif_cli import NifError, runs
from nif_cli.commands import reconstruct_images
from nif_cli.config import check
from nif_cli.data.images.datamodule import ImageData
from nif_cli.data.shapes.samples import Observation
from nif_cli.data.shapes.user_files import input_files, read_inputs
from nif_cli.field import Field
from nif_cli.files import write, write_npz
from nif_cli.geometry.extraction import extract_mesh
from nif_cli.geometry.transform import Transform
from nif_cli.geometry.writing import mesh_bytes, remark
from nif_cli.inference.shapes import check_kind, infer, like_what, seen_of
from nif_cli.models.metasdf import MetaSdf
from nif_cli.models.model import Inferred
from nif_cli.progress import busy, say
from nif_cli.rendering.camera_paths import turntable
from nif_cli.rendering.empty_space import EmptySpace
from nif_cli.rendering.image_files import png_bytes, sheet
from nif_cli.rendering.images import surface_image
from nif_cli.schemas import Reconstruct
from nif_cli.training.export import check_savable, save_run
from nif_cli.untrusted import reading
from nif_cli.words import paste

SIZE = 256  # pixels of each view of picture=true


def main(cfg: DictConfig) -> None:
    config = check(cfg, "reconstruct")
    device = runs.device_for(config.device)
    run = runs.find(config.run)
    with busy("opening the run"):
        model = runs.load_model(run, config.checkpoint, device)
    check_kind(model, config)
    if config.save:
        check_savable(model)
    if config.run is None:
        print(f"run: {run}")
    if isinstance(model, MetaSdf) and model.learns is ImageData:
        reconstruct_images.reconstruct_images(config, model, run, device)
        return
    files = _files(config.input)
    given, transforms, seen, failed = [], [], [], []
    like = like_what(config.normalise, model)
    for file, name in files:
        try:
            for id, read in read_inputs(file, name):
                with reading(file, "a shape"), busy(f"{id}: reading"):
                    one = read()
                if config.turn_normals:
                    one.turn()
                for note in one.notes:
                    print(f"{id}: {note}")
                with busy(f"{id}: what is seen of it"):
                    observation, transform = seen_of(one, model, config, like, len(seen))
                seen.append(observation)
                given.append((id, file))
                transforms.append(transform)
        except NifError as error:
            if len(files) == 1:
                raise
            failed.append(f"{error}")
            print(f"nif: {error}")
    if not given:
        raise NifError(f"input={config.input}: none of its {len(files)} files could be read as a shape")
    folder = runs.output_path(config.output, run / "reconstructions")
    empty = 0
    for (id, file), transform, observation, made in zip(
        given, transforms, seen, infer(model, seen, config), strict=True
    ):
        base = folder / runs.safe_name(id)
        about = {"input": str(file), "observed": _counts(observation), "transform": transform.as_dict()}
        empty += not _written(base, made, transform, {**about, "run": str(run)}, config, device)
        if config.save:
            save_run(base, model, made, transform, file)
            say(f"{base}: a run of model=sdf; nif train {paste(f'resume={base}')} refines it")
    if empty == len(given):
        raise NifError("no surface in any of them: is the run trained long enough, and on shapes like these?")
    if failed:
        raise NifError(f"{len(failed)} of {len(files)} files could not be read; the others are reconstructed")


def _written(
    base: Path,
    made: Inferred,
    transform: Transform,
    about: dict[str, Any],
    config: Reconstruct,
    device: torch.device,
) -> bool:
    """The files of one shape, base.*: its mesh, what makes it again, and a report that begins with what is
    said `about` it. False where it has no surface."""
    began = time.monotonic()
    assert isinstance(made.field, Field)
    mesh = extract_mesh(made.field, config.resolution, sparse=config.method == "sparse", device=device)
    report = {
        **about,
        **made.report,
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "closed": bool(mesh.is_watertight) if len(mesh.faces) else False,
    }
    if made.state:
        arrays = {k: v.cpu().numpy() for k, v in made.state.items()}
        write_npz(base.with_name(f"{base.name}.npz"), **arrays)
    write(base.with_name(f"{base.name}.json"), json.dumps(report, indent=1))
    if not len(mesh.faces):
        say(f"{base.name}: no surface came out; {base.name}.json has the report")
        return False
    if config.picture:
        empty = EmptySpace(made.field, device=device)
        views = [surface_image(made.field, pose, SIZE, device, empty=empty) for pose in turntable(4)]
        write(base.with_name(f"{base.name}.png"), png_bytes(sheet(views)))
    if config.frame == "original":
        mesh.vertices = transform.to_original(mesh.vertices)
    path = base.with_name(f"{base.name}.{config.format}")
    write(path, mesh_bytes(mesh, config.format))
    loss = f"loss {made.report['loss']:.5f}, " if "loss" in made.report else ""
    say(
        f"{path}  {loss}{len(mesh.vertices):,} vertices, {'closed' if report['closed'] else 'open'}, "
        f"{time.monotonic() - began:.1f} s"
    )
    if said := remark(mesh, config.format):
        say(f"  {said}")
    return True


def _files(spec: Any) -> list[tuple[Path, str]]:
    """The files of `input=` and what the shapes in them are called: by their path below the folder."""
    found = []
    for entry in spec if isinstance(spec, list) else [spec]:
        base = Path(str(entry)).expanduser()
        for file in input_files(base):
            name = file.relative_to(base if base.is_dir() else base.parent).with_suffix("").as_posix()
            found.append((file, name))
    names = [name for _, name in found]
    twice = {name for name in names if names.count(name) > 1}
    return [(file, f"{name}_{file.suffix[1:]}" if name in twice else name) for file, name in found]


def _counts(seen: Observation) -> dict[str, int | list[int]]:
    return {
        name: len(array) if array.ndim < 3 else list(array.shape) for name, array in seen.arrays().items()
    }
