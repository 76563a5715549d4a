"""COLMAP's sparse models, as binary and as text."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from nif_cli import NifError
from nif_cli.data.scenes.colmap import MODELS, ColmapViews, read_binary_model, read_text_model
from nif_cli.rendering.cameras import project

NAMES = [f"{k:02d}.jpg" for k in range(10)]
PARAMETERS = [25.0, 26.0, 9.0, 6.0, 0.1, 0.02, 0.001, 0.002]  # of OPENCV
POINTS = np.random.default_rng(0).uniform(-1, 1, (200, 3))


def world_to_camera(pose):
    """COLMAP's quaternion (w first) and translation of a camera-to-world pose in OpenGL axes."""
    rotation = (pose[:, :3] * [1, -1, -1]).T
    return Rotation.from_matrix(rotation).as_quat(scalar_first=True), -rotation @ pose[:, 3]


def write_binary(folder, poses, model=4, parameters=PARAMETERS):
    folder.mkdir(parents=True, exist_ok=True)
    camera = struct.pack("<iiQQ", 1, model, 20, 10) + struct.pack(f"<{len(parameters)}d", *parameters)
    (folder / "cameras.bin").write_bytes(struct.pack("<Q", 1) + camera)
    images = struct.pack("<Q", len(poses))
    for k, pose in enumerate(poses):
        q, t = world_to_camera(pose)
        images += struct.pack("<i7di", k + 1, *q, *t, 1) + NAMES[k].encode() + b"\0"
        images += struct.pack("<Q", 2) + struct.pack("<ddqddq", 1, 2, -1, 3, 4, 7)
    (folder / "images.bin").write_bytes(images)
    points = struct.pack("<Q", len(POINTS))
    for k, p in enumerate(POINTS):
        points += struct.pack("<Q3d3BdQ", k, *p, 1, 2, 3, 0.5, 2) + struct.pack("<4i", 1, 0, 2, 1)
    (folder / "points3D.bin").write_bytes(points)


def write_text(folder, poses):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text(f"# Camera list\n1 OPENCV 20 10 {' '.join(map(str, PARAMETERS))}\n")
    lines = ["# Image list", "# two lines each"]
    for k, pose in enumerate(poses):
        q, t = world_to_camera(pose)
        lines += [
            " ".join(map(repr, [k + 1, *map(float, q), *map(float, t), 1])) + f" {NAMES[k]}",
            "" if k == 3 else "1.0 2.0 -1",
        ]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    rows = [f"{k} {p[0]} {p[1]} {p[2]} 1 2 3 0.5 1 0 2 1" for k, p in enumerate(POINTS)]
    (folder / "points3D.txt").write_text("\n".join(rows))


@pytest.fixture
def root(tmp_path, poses, images):
    folder = tmp_path / "garden"
    images(folder / "images", NAMES)
    write_binary(folder / "sparse" / "0", poses)
    return folder


def test_binary_and_text_say_the_same(root, tmp_path, poses):
    write_text(tmp_path / "text", poses)
    for cameras, posed, points in (
        read_binary_model(root / "sparse" / "0"),
        read_text_model(tmp_path / "text"),
    ):
        camera = cameras[1]
        assert [
            camera.fx,
            camera.fy,
            camera.cx,
            camera.cy,
            camera.k1,
            camera.k2,
            camera.p1,
            camera.p2,
        ] == PARAMETERS
        assert [p.name for p in posed] == NAMES
        assert np.allclose(np.stack([p.pose for p in posed]), poses, atol=1e-6)
        assert np.allclose(points, POINTS)


def test_the_scene(root, poses):
    """Centred where the cameras look, the farthest at distance 1, a box for the points."""
    (scene,) = ColmapViews(str(root)).prepare()
    assert [v.name for v in scene.test] == ["00", "08"]
    assert np.allclose(
        scene.transform.to_original(scene.train[0].pose[:, 3].numpy()), poses[1][:, 3], atol=1e-5
    )
    assert scene.transform.scale == pytest.approx(1 / 4, rel=1e-3)
    assert scene.bounds[1, 0] == 1
    assert "200 points, 0.0% of them outside the box" in scene.report.text
    assert scene.protocol == "mip360"
    assert 0 < scene.near < 0.5
    (small,) = ColmapViews(str(root), aabb_scale=0.125).prepare()
    assert float(small.report.text.split(" points, ")[1].split("%")[0]) > 50


@pytest.mark.parametrize("model", [m for m in MODELS if m not in (7, 10)])
def test_every_model_that_is_read(root, poses, model):
    name, parameters = MODELS[model]
    values = [
        {"f": 25.0, "fx": 25.0, "fy": 26.0, "cx": 9.0, "cy": 6.0}.get(p, 0.01) for p in parameters.split()
    ]
    write_binary(root / "sparse" / "0", poses, model, values)
    camera = ColmapViews(str(root)).prepare()[0].train[0].camera
    assert camera.fx == 25
    assert camera.fisheye == ("FISHEYE" in name)
    assert (camera.k1 == 0.01) == ("k1" in parameters)


@pytest.mark.parametrize("model", [7, 10])
def test_models_that_are_not_read_are_named(root, poses, model):
    write_binary(root / "sparse" / "0", poses, model, [25.0] * len(MODELS[model][1].split()))
    with pytest.raises(
        NifError, match=f"cameras.bin: camera 1 is of model {MODELS[model][0]}; run colmap image_undistorter"
    ):
        ColmapViews(str(root)).prepare()


def test_missing_images_are_counted_and_masks_heeded(root):
    (root / "images" / "03.jpg").unlink()
    (root / "masks").mkdir()
    Image.fromarray(np.uint8(np.arange(20)[None] < 7) * np.full((10, 1), 255, np.uint8)).save(
        root / "masks" / "04.jpg.png"
    )
    (scene,) = ColmapViews(str(root)).prepare()
    assert "1 of 10 without an image" in scene.report.text
    view = next(v for v in scene.train if v.name == "04")
    assert view.valid is not None
    assert int(view.valid.sum()) == 70
    for path in (root / "images").iterdir():
        path.unlink()
    with pytest.raises(NifError, match=r"none of its 10 images exists.*data\.images"):
        ColmapViews(str(root)).prepare()


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("cameras.bin", lambda b: b[:30], "truncated"),
        ("images.bin", lambda b: b[:-20], "truncated"),
        ("images.bin", lambda b: struct.pack("<Q", 2**60) + b[8:], "more than its .* bytes can hold"),
        ("points3D.bin", lambda b: struct.pack("<Q", 2**40) + b[8:], "more than its .* bytes can hold"),
        (
            "cameras.bin",
            lambda b: b[:12] + struct.pack("<i", 99) + b[16:],
            "model 99, which COLMAP does not have",
        ),
        ("cameras.bin", lambda b: b[:32] + struct.pack("<d", -1.0) + b[40:], "focal length of -1"),
        ("images.bin", lambda b: b[:12] + struct.pack("<4d", 0, 0, 0, 0) + b[44:], "is no rotation"),
        ("images.bin", lambda b: b[:68] + struct.pack("<i", 5) + b[72:], "of camera 5, which is not among"),
    ],
)
def test_files_that_are_wrong_are_refused_by_name(root, file, change, says):
    path = root / "sparse" / "0" / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(NifError, match=says):
        ColmapViews(str(root)).prepare()


def test_text_that_is_wrong(root, poses):
    for path in (root / "sparse" / "0").iterdir():
        path.unlink()
    with pytest.raises(NifError, match="no COLMAP model"):
        ColmapViews(str(root)).prepare()
    write_text(root / "sparse" / "0", poses)
    (root / "sparse" / "0" / "cameras.txt").write_text("1 OPENCV twenty 10 1 2 3\n")
    with pytest.raises(NifError, match=r"cameras\.txt: a line that is not COLMAP's"):
        ColmapViews(str(root)).prepare()
    (root / "sparse" / "0" / "cameras.txt").write_text("1 OPENCV 20 10 1 2 3\n")
    with pytest.raises(NifError, match="camera 1 has 3 parameters; OPENCV has 8"):
        ColmapViews(str(root)).prepare()


@pytest.mark.data
def test_colmaps_own_points_are_seen_where_it_saw_them():
    """Reprojection of what COLMAP matched: axes, quaternions and lenses are right to the pixel."""
    data = os.environ.get("NIF_DATA")
    folder = Path(data or "") / "nerf" / "beer-colmap" / "sparse" / "0"
    if not data or not folder.is_dir():
        pytest.skip("NIF_DATA has no nerf/beer-colmap")
    cameras, posed, _ = read_binary_model(folder)
    points, block, at = {}, (folder / "points3D.bin").read_bytes(), 8
    for _ in range(struct.unpack_from("<Q", block)[0]):
        id, *xyz, _, _, _, _, track = struct.unpack_from("<Q3d3BdQ", block, at)
        points[id], at = xyz, at + 51 + 8 * track
    block, at, errors = (folder / "images.bin").read_bytes(), 8, []
    for image in posed:
        at = block.index(b"\0", at + 64) + 1
        (count,) = struct.unpack_from("<Q", block, at)
        seen = np.frombuffer(block, [("xy", "<f8", 2), ("id", "<i8")], count, at + 8)
        at += 8 + 24 * count
        seen = seen[seen["id"] >= 0]
        where = torch.tensor([points[i] for i in seen["id"]], dtype=torch.float64)
        pose = torch.from_numpy(image.pose)
        found = project(cameras[image.camera], (where - pose[:, 3]) @ pose[:, :3])
        errors.append((found - torch.from_numpy(seen["xy"].copy())).norm(dim=-1))
    assert float(torch.cat(errors).median()) < 0.8


# models as people have them


def rewrite(folder, change):
    path = folder / "images.txt"
    path.write_bytes(change(path.read_text()).encode())


def without_points(text):
    lines = text.splitlines()
    return "\n".join([*lines[:2], *lines[2::2]]) + "\n"


@pytest.mark.parametrize(
    "change",
    [
        without_points,
        lambda t: t.replace("# two lines each\n", "# two lines each\n\n"),
        lambda t: "\ufeff" + t,
        lambda t: t.replace("\n", "\r\n"),
        lambda t: t.replace("\n", "\r"),
        lambda t: t.replace("1.0 2.0 -1", "1.0 2.0 -1 " * 40),
        lambda t: t.replace("1.0 2.0 -1", "1 0 1 0 0 0 1 1 2 3 4 5"),
        lambda t: t.replace("\n", "\n\n"),
        lambda t: t.rstrip() + "\n\n\n",
        lambda t: t.replace(" 1 0", "  1\t0"),
    ],
)
def test_every_way_to_write_images_says_the_same(tmp_path, poses, change):
    write_text(tmp_path, poses)
    rewrite(tmp_path, change)
    _, posed, _ = read_text_model(tmp_path)
    assert [p.name for p in posed] == NAMES
    assert np.allclose(np.stack([p.pose for p in posed]), poses, atol=1e-6)


def test_names_may_be_numbers_and_have_spaces(tmp_path, poses):
    write_text(tmp_path, poses)
    rewrite(tmp_path, lambda t: t.replace("00.jpg", "000123").replace("01.jpg", "my image 1.jpg"))
    assert [p.name for p in read_text_model(tmp_path)[1]][:2] == ["000123", "my image 1.jpg"]


def test_a_line_that_is_neither_is_named(tmp_path, poses):
    write_text(tmp_path, poses)
    rewrite(tmp_path, lambda t: t + "11 0.5 0.5 what is this\n")
    with pytest.raises(NifError, match=r"images\.txt: a line that is not COLMAP's .*what is this"):
        read_text_model(tmp_path)


def test_the_largest_model_is_read_and_the_others_named(root, poses):
    write_binary(root / "sparse" / "1", poses[:3])
    write_text(root / "sparse" / "2", poses[:4])
    scene = ColmapViews(str(root), hold_out=0).prepare()[0]
    assert len(scene.train) == 10
    assert "sparse/0 has most images (10): sparse/1 with 3, sparse/2 with 4 not read" in scene.report.text
    (root / "sparse" / "0").rename(root / "sparse" / "9")
    assert len(ColmapViews(str(root), hold_out=0).prepare()[0].train) == 10
    own = ColmapViews(str(root / "sparse" / "1"), hold_out=0).prepare()[0]  # the model's own folder
    assert (own.id, len(own.train)) == ("garden", 3)


def test_only_cameras_that_are_used_count(root, poses):
    folder = root / "sparse" / "0"
    odd = struct.pack("<iiQQ", 77, 7, 20, 10) + struct.pack("<5d", 1, 2, 3, 4, 5)
    data = (folder / "cameras.bin").read_bytes()
    (folder / "cameras.bin").write_bytes(struct.pack("<Q", 2) + odd + data[8:])
    assert len(ColmapViews(str(root)).prepare()[0].train) == 8
    write_text(root / "text", poses)
    (root / "text" / "cameras.txt").write_text(
        "77 FOV 20 10 1 2 3 4 5\n" + (root / "text" / "cameras.txt").read_text()
    )
    assert list(read_text_model(root / "text")[0]) == [1]


def test_a_sphere_and_lenses_that_are_not_undone(root, poses):
    write_binary(root / "sparse" / "0", poses, 17, [20.0, 10.0])
    assert ColmapViews(str(root)).prepare()[0].train[0].camera.kind == "sphere"
    write_binary(root / "sparse" / "0", poses, 12, [25.0, 10.0, 5.0, -0.1])
    camera = ColmapViews(str(root)).prepare()[0].train[0].camera
    assert (camera.kind, camera.k1) == ("division", -0.1)
    write_binary(root / "sparse" / "0", poses, 11, [25.0] * 16)
    with pytest.raises(NifError, match="model RAD_TAN_THIN_PRISM_FISHEYE; run colmap image_undistorter"):
        ColmapViews(str(root)).prepare()


def test_masks_of_no_image_are_named(root):
    (root / "masks").mkdir()
    Image.new("L", (20, 10)).save(root / "masks" / "other.png")
    assert "no mask in masks is named as an image" in ColmapViews(str(root)).prepare()[0].report.text


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("images.bin", lambda b: b[:44] + struct.pack("<d", np.nan) + b[52:], "translation .* is NaN"),
        ("images.bin", lambda b: b[:44] + struct.pack("<d", 1e300) + b[52:], "translation .* beyond"),
        ("images.bin", lambda b: b[:12] + struct.pack("<d", np.inf) + b[20:], "no rotation"),
        ("images.bin", lambda b: b.replace(b"00.jpg", b"x" * 5000), "name is text of 5,000 characters"),
        ("cameras.bin", lambda b: b[:16] + struct.pack("<Q", 2**63) + b[24:], "pixels: 1 to 65536"),
        ("cameras.bin", lambda b: b[:32] + struct.pack("<d", 1e300) + b[40:], "focal length of 1e"),
        ("cameras.bin", lambda b: b[:64] + struct.pack("<d", np.nan) + b[72:], "finite"),
    ],
)
def test_values_of_strangers(root, file, change, says):
    path = root / "sparse" / "0" / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(NifError, match=f"{file}.*{says}"):
        ColmapViews(str(root)).prepare()


def test_points_that_are_nowhere_do_not_count(root):
    path = root / "sparse" / "0" / "points3D.bin"
    data = bytearray(path.read_bytes())
    data[16:40] = struct.pack("<3d", 1e300, -1e300, np.nan)
    (plain,) = ColmapViews(str(root)).prepare()
    path.write_bytes(bytes(data))
    (scene,) = ColmapViews(str(root)).prepare()
    assert "199 points" in scene.report.text
    assert torch.equal(scene.bounds, plain.bounds)
