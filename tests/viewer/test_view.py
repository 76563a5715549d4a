"""nif view without a browser: what its pages are made of, and the command itself."""

from __future__ import annotations

import json
import math
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from conftest import Ball, Result
from scipy.spatial.transform import Rotation

from nif_cli import NifError
from nif_cli.data.scenes.formats.camera_paths import read_camera_path
from nif_cli.geometry.extraction import extract_mesh
from nif_cli.geometry.transform import Transform
from nif_cli.rendering.cameras import Camera
from nif_cli.viewer.camera_path import KeyFrame, camera_path_json, opengl_pose, viser_wxyz
from nif_cli.viewer.images import shown_part
from nif_cli.viewer.server import free_port
from nif_cli.viewer.shading import mean_curvature, shaded, shadings
from nif_cli.viewer.slices import slice_image, slice_values, spacing
from nif_cli.viewer.worker import Check, Stale, Worker


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_newer_job_of_a_kind_replaces_the_older():
    failed, done, started, go = list[str](), list[str](), threading.Event(), threading.Event()
    worker = Worker(failed.append)

    def slow(check: Check) -> None:
        started.set()
        go.wait(5)
        check()
        done.append("slow")

    worker.submit("mesh", slow)
    started.wait(5)
    for k in range(3):
        worker.submit("mesh", lambda _, k=k: done.append(f"new {k}"))
    go.set()
    until(worker.idle)
    worker.end()
    assert (done, failed) == (["new 2"], [])


def test_urgent_jobs_run_within_a_long_one_and_failures_are_a_line():
    failed, done = list[str](), list[str]()
    worker = Worker(failed.append)

    def long(check: Check) -> None:
        worker.submit("plane", lambda _: done.append("plane"), urgent=True)
        worker.submit("bad", bad, urgent=True)
        worker.submit("later", lambda _: done.append("later"))
        check()
        done.append("long")

    def bad(check: Check) -> None:
        raise NifError("no such thing")

    worker.submit("mesh", long)
    until(worker.idle)
    worker.submit("broken", lambda _: 1 / 0)  # type: ignore[arg-type]
    until(worker.idle)
    worker.end()
    assert done == ["plane", "long", "later"]
    assert failed == ["no such thing", "ZeroDivisionError: division by zero"]


def test_the_end_stops_what_is_under_way():
    worker, stopped = Worker(print), list[bool]()

    def forever(check: Check) -> None:
        try:
            while True:
                check()
                time.sleep(0.001)
        except Stale:
            stopped.append(True)
            raise

    worker.submit("mesh", forever)
    time.sleep(0.05)
    worker.end()
    assert stopped == [True]


def test_a_slice_shows_the_values_where_they_are(ball: type[Ball]):
    field = ball(0.5, (0.3, 0.0, 0.0))
    turn = Rotation.from_euler("xyz", (20, 40, 60), degrees=True).as_matrix()
    pose = np.concatenate((turn, [[0.1], [0.0], [-0.1]]), 1)
    values = slice_values(field, pose, 1.0, 64)
    row, column = 10, 40
    at = np.array([(column + 0.5) / 32 - 1, (row + 0.5) / 32 - 1])
    point = pose[:, 3] + turn[:, :2] @ at
    assert float(values[row, column]) == pytest.approx(
        0.5 - float(np.linalg.norm(point - [0.3, 0, 0])), abs=1e-5
    )
    assert bool(values.isnan().any())  # beyond the bounds
    step = spacing(values, 0.0)
    assert math.log10(step) % 1 in [pytest.approx(math.log10(m) % 1) for m in (1, 2, 5)]
    image = slice_image(values, 0.0, step)
    assert image.shape == (64, 64, 4)
    blue = image[..., 2].astype(int) > image[..., 0].astype(int) + 30
    assert (blue <= (values > 0).numpy()).all()
    assert (image[values.isnan().numpy()][:, 3] == 0).all()
    assert slice_image(torch.zeros(8, 8), 0.5, spacing(torch.zeros(8, 8), 0.0))[..., 3].max() != 0


def test_shadings(ball: type[Ball]):
    field = ball(0.5)
    mesh = extract_mesh(field, 32)
    assert "colour" not in shadings(field)
    curvature = mean_curvature(mesh)
    assert np.median(curvature) == pytest.approx(2.0, rel=0.15)  # 1 / radius
    distance = shaded(field, mesh, "|gradient| - 1", "cpu")
    assert np.abs(distance.astype(int) - (238, 238, 232)).max() <= 1  # a true distance
    for how in shadings(field):
        assert shaded(field, mesh, how, "cpu").shape == (len(mesh.vertices), 3)


def test_a_camera_path_is_read_back_where_it_was(tmp_path: Path):
    transform = Transform((1.0, -2.0, 3.0), 0.25)
    turns = Rotation.from_euler("xyz", [[10, 20, 30], [20, 40, 35], [0, 60, 20]], degrees=True).as_matrix()
    places = np.array([[0.1, 0.2, 2.0], [1.0, 0.3, 1.5], [1.5, 0.0, 0.2]])
    frames = [
        KeyFrame(np.concatenate((r, p[:, None]), 1), fov)
        for r, p, fov in zip(turns, places, (40.0, 50.0, 60.0), strict=True)
    ]
    file = tmp_path / "camera_path.json"
    file.write_text(camera_path_json(frames, transform, 2.0, 24, (96, 54)))
    found = read_camera_path(file, Camera(10, 10, 9, 9, 5, 5), None, 400, False)
    assert len(found.poses) == 48
    assert (found.cameras[0].width, found.cameras[0].height, found.seconds) == (96, 54, 2.0)
    assert np.allclose(found.poses[0, :, 3], transform.to_original(places[0]))
    assert np.allclose(found.poses[-1, :, :3], turns[2])
    assert 2 * math.degrees(math.atan(27 / found.cameras[-1].fy)) == pytest.approx(60)
    only = json.loads(file.read_text()) | {"camera_path": None}
    file.write_text(json.dumps(only))  # the key frames say the same
    again = read_camera_path(file, Camera(10, 10, 9, 9, 5, 5), None, 400, False)
    assert np.allclose(again.poses, found.poses, atol=1e-6)
    for frame in frames:  # to viser and back
        assert np.allclose(opengl_pose(viser_wxyz(frame.pose), frame.pose[:, 3]), frame.pose)


def test_a_part_of_a_drawing_lies_where_it_is():
    field = SimpleNamespace(
        bounds=torch.tensor([[-1.0, -1.0], [1.0, 1.0]]),
        level=0.0,
        truncation=0.1,
        value=lambda p: 0.3 - (p - 0.5).norm(dim=-1),
    )
    whole = shown_part(field, Transform(), 1.0, (0.5, 0.5), 64, torch.device("cpu"))
    part = shown_part(field, Transform(), 2.0, (0.75, 0.75), 32, torch.device("cpu"))
    assert (part == whole[32:, 32:]).all()


def test_ports(tmp_path: Path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert taken < free_port("127.0.0.1", taken) <= taken + 100
    with pytest.raises(NifError, match="no address of this machine"):
        free_port("192.0.2.1", 8080)


def test_the_command(nif: Callable[..., Result], run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    assert "pip install 'nif-cli[view]'" in nif("view", f"run={run}", "seconds=1").error
    assert "port=70000: must be between" in nif("view", f"run={run}", "port=70000").error
    assert "no 'nobody' in this run" in nif("view", f"run={run}", "instances=nobody").error


def test_the_command_serves(nif: Callable[..., Result], run: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("viser")
    from nif_cli.commands import view

    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        taken = other.getsockname()[1]
        told = nif("view", f"run={run}", "seconds=0.2", f"port={taken}", "host=0.0.0.0", "resolution=16")
    assert told.code == 0
    assert f"(port {taken} is taken)" in told.out
    assert told.out.count("there is no password") == 1
    asked = list[str]()
    monkeypatch.setattr(view, "_wait", lambda run, server, seconds: asked.append(gone(run)))
    monkeypatch.setattr(view.webbrowser, "open", lambda url: asked.append(url))

    def gone(path: Path) -> str:
        shutil.rmtree(path)
        raise KeyboardInterrupt

    told = nif("view", f"run={run}", "open=true", "compose=union", "instances=2", "resolution=16")
    assert (told.code, told.err) == (0, "")
    assert told.out.rstrip().endswith("ended")
    assert asked[0].startswith("http://127.0.0.1:")


def test_a_run_that_goes_away_is_said_once(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    from nif_cli.commands.view import _wait

    notes = list[str]()
    client = SimpleNamespace(add_notification=lambda title, body, **_: notes.append(body))
    server = SimpleNamespace(get_clients=lambda: {1: client})
    _wait(tmp_path / "gone", server, 0.5)
    assert len(notes) == 1
    assert capsys.readouterr().err.count("the run is gone") == 1


def test_codes_lead_back_to_the_instances(trained: Path):
    from nif_cli import runs
    from nif_cli.field import Field
    from nif_cli.viewer.menu import CodeSpace

    model = runs.load_model(trained)
    a, b, *_ = model.instances
    codes = CodeSpace(model)  # type: ignore[arg-type]
    points = torch.rand(20, 3)
    with torch.no_grad():
        field = model.field(b)
        assert isinstance(field, Field)
        there = field.value(points)
        assert torch.allclose(codes.field(a, b, 1.0, [0.0]).value(points), there, atol=1e-5)
        assert not torch.allclose(codes.field(a, b, 1.0, [3.0]).value(points), there, atol=1e-5)
    assert len(codes.directions) == 4  # as long as the code is


def test_meshes_are_cut_by_the_plane():
    from nif_cli.viewer.shapes import ShapePage

    page = SimpleNamespace(
        plane=SimpleNamespace(value=True),
        clip=SimpleNamespace(value=True),
        _pose=lambda: np.concatenate((np.eye(3), [[0.0], [0.0], [0.2]]), 1),
    )
    cut = ShapePage._cut(page, trimesh.creation.icosphere(3))  # type: ignore[arg-type]
    used = cut.vertices[np.unique(cut.faces)]
    assert 0.2 < used[:, 2].max() < 0.45
    assert used[:, 2].min() == pytest.approx(-1)
