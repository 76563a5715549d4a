"""Depths beside photographs: where they put what is seen, and that a scene learns by them."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import walls
from PIL import Image

from nif_cli import NifError
from nif_cli.data.scenes.toy import ToyViews
from nif_cli.data.scenes.transforms import TransformsViews
from nif_cli.fields.ngp import NgpNetwork
from nif_cli.models.nerf import Nerf
from nif_cli.optim.adam import Adam

SIZE, FOCAL = (24, 16), 20.0


def floor(folder: Path, kind: str, height: float = -3.0) -> None:
    """Cameras above the plane z = `height`, with its z-depths in files."""
    v, u = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    local = np.stack(((u - SIZE[0] / 2) / FOCAL, (SIZE[1] / 2 - v) / FOCAL, -np.ones_like(u)), -1)
    frames = []
    for k, pose in enumerate(walls.around(5, (0, 300))):
        ahead = (height - pose[2, 3]) / (local @ pose[:, :3].T)[..., 2]
        ahead = np.where((ahead > 0) & (ahead < 60), ahead, 0)  # as 16 bits of millimetres hold
        Image.fromarray(np.full((*SIZE[::-1], 3), 99, np.uint8)).save(folder / f"{k}.png")
        if kind == "npy":
            np.save(folder / f"d{k}.npy", ahead.astype(np.float32))
        else:
            Image.fromarray((1000 * ahead + 0.5).clip(0, 65535).astype(np.uint16)).save(folder / f"d{k}.png")
        frames.append({"file_path": f"{k}.png", "depth_file_path": f"d{k}.{kind}"})
        frames[-1]["transform_matrix"] = [*pose.tolist(), [0, 0, 0, 1]]
    lens = {"camera_model": "OPENCV", "fl_x": FOCAL, "w": SIZE[0], "h": SIZE[1]}
    lens |= {"depth_unit_scale_factor": 1.0} if kind == "npy" else {}
    (folder / "transforms.json").write_text(json.dumps({**lens, "frames": frames}))


@pytest.mark.parametrize("kind", ["png", "npy"])
def test_depths_lie_where_they_were_seen(tmp_path: Path, kind: str):
    """z-depths in the file's units become distances along rays in normalised space."""
    floor(tmp_path, kind)
    data = TransformsViews(str(tmp_path), hold_out=0)
    (scene,) = data.prepare()
    assert "5 with depths" in str(scene.report)
    batch = data.make_pool(torch.device("cpu")).draw(500, torch.Generator().manual_seed(0))
    assert batch.depth is not None
    known = batch.depth > 0
    assert 0.3 < float(known.float().mean()) <= 1
    there = batch.origins + batch.depth[:, None] * batch.directions
    height = scene.transform.to_original(there[known].double().numpy())[:, 2]
    assert np.abs(height + 3).max() < 2e-3


def test_files_that_are_no_depths(tmp_path: Path):
    floor(tmp_path, "npy")
    np.save(tmp_path / "d2.npy", np.ones((9, 9), np.float32))
    with pytest.raises(NifError, match=r"d2\.npy: depths of 9 x 9 pixels"):
        TransformsViews(str(tmp_path), hold_out=0).make_pool(torch.device("cpu"))
    (tmp_path / "d2.npy").unlink()
    with pytest.raises(NifError, match="no such depths"):
        TransformsViews(str(tmp_path), hold_out=0).prepare()


def taught(weight: float) -> float:
    """The error of depths, in normalised space, of a ball in images of one colour, after a few steps."""
    data = ToyViews(views=8, test=0, size=24)
    (scene,) = data.prepare()

    def ball(view) -> np.ndarray:
        """z-depths of the sphere of radius 0.5."""
        rays = scene.rays(view)
        along = -(rays.origins * rays.directions).sum(1)
        rest = (rays.origins**2).sum(1) - along**2
        depth = torch.where(rest < 0.25, along - (0.25 - rest).clamp(min=0).sqrt(), 0.0)
        cosine = (rays.directions * -view.pose[:, 2]).sum(1)
        return (depth * cosine).reshape(24, 24).numpy()

    grey = functools.partial(np.full, (24, 24, 3), 128, np.uint8)
    views = [replace(v, read=grey, alpha=False, read_depth=functools.partial(ball, v)) for v in scene.train]
    data.scenes = [replace(scene, train=views, background=None)]
    torch.manual_seed(0)
    field = functools.partial(NgpNetwork, log2_table=12, levels=4, level_features=2, finest=32, half=False)
    made = Nerf(
        field,
        lambda groups: Adam(groups, lr=1e-2, eps=1e-15),
        depth=weight,
        resolution=32,
        first_steps=64,
        steps=64,
    )
    made.attach_data(data)
    made.train()
    optimizer, pool = made.configure_optimizers(), data.make_pool(torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for step in range(48):
        if step % 16 == 0:
            made._look()
        optimizer.zero_grad()
        torch.stack(list(made.loss(pool.draw(256, generator)).values())).sum().backward()
        optimizer.step()
    made.eval()
    made.depth = 1.0
    with torch.no_grad():
        return float(made.loss(pool.draw(1000, generator))["depth"])


def test_a_scene_of_one_colour_is_learned_by_its_depths():
    assert taught(1.0) < 0.3 * taught(0.0)


def test_a_weight_without_depths_is_refused():
    made = Nerf(NgpNetwork, lambda groups: Adam(groups), depth=0.1)
    with pytest.raises(NifError, match="depth_file_path"):
        made.attach_data(ToyViews(views=2, test=0, size=8))
