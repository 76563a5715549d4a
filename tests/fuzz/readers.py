"""Each kind of file as nif's commands read it: READERS[kind](folder). What comes back wrong without a word is
an AssertionError here."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


def command(*arguments: str) -> None:
    """The command line in this process; NifError when it refuses in one or two lines, AssertionError
    otherwise."""
    from nif_cli import NifError
    from nif_cli.cli import main

    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(list(arguments))
    except SystemExit as stopped:
        code = stopped.code
    text = err.getvalue()
    assert "internal error" not in text, "internal error: " + text[-300:]
    assert "Traceback" not in text, text[-300:]
    assert "\x1b]" not in text + out.getvalue(), "a terminal escape on the screen"
    if code not in (0, None):
        assert code in (1, 2), f"exit code {code}"
        lines = [line for line in text.splitlines() if line.strip()]
        raise NifError(lines[-1] if lines else "")


def checkpoint(root: Path) -> None:
    from nif_cli import runs
    from nif_cli.field import Field, Signal

    model = runs.load_model(root)
    for id in list(model.instances)[:2]:
        placed = model.instances[id].transform
        _placed(placed)
        field = model.field(id)
        runs.safe_name(id)
        points = torch.zeros(2, field.bounds.shape[1] if hasattr(field, "bounds") else 2)
        with torch.no_grad():
            if isinstance(field, Field):
                field.value(points)
            elif isinstance(field, Signal):
                field.color(points, points)


def resume(root: Path) -> None:
    # one process: Lightning would start the others with the fuzz's own command line
    command("train", f"resume={root}", "trainer.max_steps=5", "trainer.devices=1")


def metrics(root: Path) -> None:
    from nif_cli import run_search
    from nif_cli.training.csv_logger import CsvLogger

    run_search._without_ways_out(root, "resume")  # as every command that opens a run does first
    logger = CsvLogger(str(root))
    logger.forget_after(3)
    logger.log_metrics({"train/loss": 0.5, "train/new": 1.0}, 4)


def runs_listed(root: Path) -> None:
    """As nif runs reads them."""
    from nif_cli.run_comparison import curves_png, differences, metrics
    from nif_cli.run_folders import opened

    command("runs", str(root), "model.lr=1e-3", "tag=a", "state=done")
    command("runs", str(root))
    command("runs", "show", str(root))
    run = opened(root)
    assert run is not None, "silent: a run that is no run any more"
    differences([run, run])
    metrics([run])
    curves_png([run])


def camera_path(root: Path) -> None:
    from nif_cli.data.scenes.formats.camera_paths import read_camera_path
    from nif_cli.rendering.cameras import Camera

    lens = Camera(20, 10, 25.0, 25.0, 10.0, 5.0)
    found = read_camera_path(root / "camera_path.json", lens, None, 1024, applied=False)
    assert np.isfinite(found.poses).all(), "silent: not finite"


def experiment(root: Path) -> None:
    command("import-deepsdf", f"folder={root}", "output_dir=imported")


def deepsdf(root: Path) -> None:
    from nif_cli.data.shapes.presampled import DeepSdfTree

    data = DeepSdfTree(str(root))
    for id, read in data.sources():
        _sane(read())
        data.truth(id)


def onet(root: Path) -> None:
    from nif_cli.data.datamodule import ConditioningSpec
    from nif_cli.data.shapes.conditioning import load_look
    from nif_cli.data.shapes.presampled import OnetData

    data = OnetData(str(root))
    for id, read in data.sources():
        shape = read()
        _sane(shape)
        data.truth(id)
        for look in (ConditioningSpec("image", 16), ConditioningSpec("voxels", 8)):
            load_look(shape.known, look, shape.transform, 0.55)  # type: ignore[arg-type]


def _sane(shape) -> None:
    for array in (shape.points, shape.distance, shape.surface, shape.normals):
        assert array is None or np.isfinite(array).all(), "silent: not finite"
    _placed(shape.transform)


def _placed(transform) -> None:
    assert 0 < transform.scale < math.inf, f"silent: {transform}"
    assert np.isfinite(transform.offset).all(), f"silent: {transform}"


def voxels(root: Path) -> None:
    from nif_cli.data.shapes.voxel_grids import VoxelGrids

    for _, read in VoxelGrids(str(root)).meshes()[:2]:
        assert np.isfinite(read().vertices).all(), "silent: not finite"


def new_shapes(root: Path) -> None:
    """As reconstruct reads them."""
    from nif_cli.data.shapes.user_files import input_files, normalise, read_inputs

    for file in input_files(root):
        for _, read in read_inputs(file, file.stem)[:2]:
            given, transform = normalise(read(), "ball")
            _placed(transform)
            if given.seen is not None and given.seen.scan is not None:
                assert np.isfinite(given.seen.scan.points).all(), "silent: not finite"


def cloud(root: Path) -> None:
    from nif_cli.data.shapes.point_clouds import PointClouds

    for _, read in PointClouds(str(root)).sources():
        _sane(read())
    new_shapes(root)


def mesh(root: Path) -> None:
    from nif_cli.geometry.mesh import inspect_mesh, load_mesh, mesh_files

    for file in mesh_files(root):
        inspect_mesh(load_mesh(file))


def painted(root: Path) -> None:
    from nif_cli.data.shapes.textured import coloured_parts, sample_colors
    from nif_cli.geometry.mesh import load_mesh

    load_mesh(root / "m.obj")
    sample_colors(coloured_parts(root / "m.obj"), 20, np.random.default_rng(0))


def image(root: Path) -> None:
    from nif_cli.data.images.formats.pixels import read_image
    from nif_cli.data.shapes.conditioning import load_image

    file = root / f"p.{root.name}"
    np.asarray(read_image(file))
    if file.suffix in (".png", ".jpg"):
        load_image(file, 16)


def curve(root: Path) -> None:
    from nif_cli.data.images.curves import CurveData

    for file in sorted(p for p in root.iterdir() if p.suffix in (".svg", ".png")):
        data = CurveData(str(file), samples=200)
        data.prepare()
        assert torch.isfinite(data.rows(False)).all(), "silent: not finite"


def _views(scenes) -> None:
    for scene in scenes:
        for view in (*scene.train[:4], *scene.test[:1]):
            assert torch.isfinite(view.pose).all(), "silent: not finite"
            assert view.camera.width * view.camera.height < 10**8, "silent: an image of many pixels"
            rays = scene.rays(view)
            told = "have no direction" in scene.report.text
            assert told or torch.isfinite(rays.directions).all(), "silent: not finite"
            assert view.pixels.shape[:2] == (view.camera.height, view.camera.width)


def transforms(root: Path) -> None:
    from nif_cli.data.scenes.transforms import TransformsViews

    _views(TransformsViews(str(root)).prepare())


def blender(root: Path) -> None:
    from nif_cli.data.scenes.blender import BlenderViews

    _views(BlenderViews(str(root)).prepare())


def colmap(root: Path) -> None:
    from nif_cli.data.scenes.colmap import ColmapViews

    _views(ColmapViews(str(root)).prepare())


def llff(root: Path) -> None:
    from nif_cli.data.scenes.llff import LlffViews

    _views(LlffViews(str(root)).prepare())


READERS: dict[str, Callable[[Path], None]] = {
    "checkpoint": checkpoint,
    "resume": resume,
    "metrics": metrics,
    "runs": runs_listed,
    "camera_path": camera_path,
    "experiment": experiment,
    "deepsdf": deepsdf,
    "onet": onet,
    "voxels": voxels,
    "samples": new_shapes,
    "depth": new_shapes,
    "cloud": cloud,
    "mesh": mesh,
    "painted": painted,
    "image": image,
    "curve": curve,
    "transforms": transforms,
    "blender": blender,
    "colmap": colmap,
    "llff": llff,
}
