"""nif reconstruct: meshes of new shapes (or new pictures) from what a user has of them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from nif_cli import NifError, runs
from nif_cli.commands import reconstruct_images
from nif_cli.config import check
from nif_cli.data.images.datamodule import ImageData
from nif_cli.data.shapes.samples import Observation
from nif_cli.data.shapes.user_files import input_files, normalise, read_inputs
from nif_cli.field import Field
from nif_cli.files import write, write_npz
from nif_cli.geometry.extraction import extract_mesh
from nif_cli.geometry.mesh import load_mesh
from nif_cli.geometry.transform import SPACES, Transform
from nif_cli.geometry.writing import mesh_bytes, remark
from nif_cli.inference.shapes import check_kind, infer, shown
from nif_cli.models.metasdf import MetaSdf
from nif_cli.models.model import Model
from nif_cli.rendering.camera_paths import turntable
from nif_cli.rendering.image_files import png_bytes, sheet
from nif_cli.rendering.images import surface_image
from nif_cli.training.export import check_savable, save_run
from nif_cli.untrusted import reading
from nif_cli.words import paste


def main(cfg: DictConfig) -> None:
    config = check(cfg, "reconstruct")
    device = runs.device_for(config.device)
    run = runs.find(config.run)
    model = runs.load(run, config.checkpoint, device)
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
    like = _like(config.normalise, model)
    for file, name in files:
        try:
            for id, read in read_inputs(file, name):
                with reading(file, "a shape"):
                    given_as = read()
                if config.turn_normals:
                    given_as.turn()
                for note in given_as.notes:
                    print(f"{id}: {note}")
                if config.normalise == "none":
                    given_as.space, given_as.transform, transform = model.space, Transform(), Transform()
                one, transform = normalise(
                    given_as, model.space, None if config.normalise == "none" else like
                )
                seen.append(shown(model, config, one.seen, one.mesh, len(seen)))
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
        began = time.monotonic()
        assert isinstance(made.field, Field)
        mesh = extract_mesh(made.field, config.resolution, sparse=config.method == "sparse", device=device)
        base = folder / runs.safe_name(id)
        report = {
            "input": str(file),
            "observed": _counts(observation),
            "transform": transform.as_dict(),
            "run": str(run),
            **made.report,
            "vertices": len(mesh.vertices),
            "faces": len(mesh.faces),
            "closed": bool(mesh.is_watertight) if len(mesh.faces) else False,
        }
        if made.state:
            write_npz(
                base.with_name(f"{base.name}.npz"), **{k: v.cpu().numpy() for k, v in made.state.items()}
            )
        write(base.with_name(f"{base.name}.json"), json.dumps(report, indent=1))
        if config.save:
            save_run(base, model, made, transform, file)
            print(f"{base}: a run of model=sdf; nif train {paste(f'resume={base}')} refines it")
        if not len(mesh.faces):
            empty += 1
            print(f"{id}: no surface came out; {base.name}.json has the report")
            continue
        if config.picture:
            views = [surface_image(made.field, pose, 256, device) for pose in turntable(4)]
            write(base.with_name(f"{base.name}.png"), png_bytes(sheet(views)))
        if config.frame == "original":
            mesh.vertices = transform.to_original(mesh.vertices)
        path = base.with_name(f"{base.name}.{config.format}")
        write(path, mesh_bytes(mesh, config.format))
        loss = f"loss {made.report['loss']:.5f}, " if "loss" in made.report else ""
        print(f"{path}  {loss}{len(mesh.vertices):,} vertices, {'closed' if report['closed'] else 'open'}, "
              f"{time.monotonic() - began:.1f} s")  # fmt: skip
        if said := remark(mesh, config.format):
            print(f"  {said}")
    if empty == len(given):
        raise NifError("no surface in any of them: is the run trained long enough, and on shapes like these?")
    if failed:
        raise NifError(f"{len(failed)} of {len(files)} files could not be read; the others are reconstructed")


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


def _like(spec: str, model: Model) -> Transform | None:
    """The transform that `normalise=` names; None: each input's own."""
    if spec in ("auto", "none"):
        return None
    if spec in model.instances:
        return model.instances[spec].transform
    path = Path(spec).expanduser()
    if not path.is_file():
        raise NifError(f"normalise={spec}: must be auto, none, a mesh file or an instance of the run")
    return SPACES[model.space][0](np.asarray(load_mesh(path).vertices))


def _counts(seen: Observation) -> dict[str, int | list[int]]:
    return {
        name: len(array) if array.ndim < 3 else list(array.shape) for name, array in seen.arrays().items()
    }
