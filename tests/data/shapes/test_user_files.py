"""Shapes in the files that people have: read, normalised, and refused where they say nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from narrowing import sure


def read(path: Path):
    from nif_cli.data.shapes.user_files import read_inputs

    ((_, made),) = read_inputs(path, path.stem)
    return made()


def seen_scan(given):
    return sure(sure(given.seen).scan)


@pytest.fixture
def cloud(rng) -> np.ndarray:
    x = rng.standard_normal((400, 3))
    normals = x / np.linalg.norm(x, axis=1, keepdims=True)
    return np.column_stack((20 * normals + [1000.0, -50, 7], normals))


def normalised(given):
    from nif_cli.data.shapes.user_files import normalise

    return normalise(given, "ball", None)


@pytest.mark.parametrize("form", ["npy", "npy3", "xyz", "csv.xyz", "npz", "ply", "ascii.ply"])
def test_a_point_cloud_in_each_format(tmp_path, cloud, form):
    path = tmp_path / f"cloud.{form.replace('3', '').split('.')[-1]}"
    if form == "npy":
        np.save(path, cloud)
    elif form == "npy3":
        np.save(path, cloud[:, :3].astype(np.float32))
    elif form == "xyz":
        np.savetxt(path, cloud, header="x y z nx ny nz")
    elif form == "csv.xyz":
        np.savetxt(path, cloud, delimiter=",")
    elif form == "npz":
        np.savez(path, points=cloud[:, :3], normals=cloud[:, 3:])
    else:
        trimesh.PointCloud(cloud[:, :3]).export(path, encoding="ascii" if "ascii" in form else "binary")
    given = read(path)
    assert given.seen is not None
    made, transform = normalised(given)
    assert made.seen is not None
    assert made.seen.scan is not None
    assert np.linalg.norm(made.seen.scan.points, axis=1).max() == pytest.approx(1 / 1.03, abs=2e-3)
    assert np.allclose(transform.to_original(made.seen.scan.points), cloud[:, :3], atol=1e-3)
    if form in ("npy", "xyz", "csv.xyz", "npz"):
        assert made.seen.scan.normals is not None
        assert np.allclose(made.seen.scan.normals, cloud[:, 3:], atol=1e-5)
    else:
        assert made.seen.scan.normals is None


def test_a_mesh_keeps_its_place(tmp_path):
    mesh = trimesh.creation.box(extents=(30.0, 10, 10))
    mesh.apply_translation([5, 6, 7])
    mesh.export(tmp_path / "box.obj")
    made, transform = normalised(read(tmp_path / "box.obj"))
    assert made.mesh is not None
    assert np.linalg.norm(made.mesh.vertices, axis=1).max() == pytest.approx(1 / 1.03)
    assert np.allclose(np.sort(transform.to_original(made.mesh.vertices), 0), np.sort(mesh.vertices, 0))


def test_samples_of_deepsdf_stay_in_their_space_and_find_their_normalisation(tmp_path, rng):
    points = rng.uniform(-1, 1, (500, 3)).astype(np.float32)
    outside = np.linalg.norm(points, axis=1) - 0.5
    rows = np.column_stack((points, outside)).astype(np.float32)
    where = tmp_path / "SdfSamples" / "net" / "chairs"
    where.mkdir(parents=True)
    np.savez(where / "a.npz", pos=rows[outside >= 0], neg=rows[outside < 0])
    other = tmp_path / "NormalizationParameters" / "net" / "chairs"
    other.mkdir(parents=True)
    np.savez(other / "a.npz", offset=np.array([1.0, 2, 3]), scale=np.array([0.5]))
    made, transform = normalised(read(where / "a.npz"))
    assert transform.scale == 0.5
    assert made.seen is not None
    assert made.seen.samples is not None
    assert made.seen.samples.distance is not None
    assert np.allclose(
        made.seen.samples.distance, 0.5 - np.linalg.norm(made.seen.samples.points, axis=1), atol=1e-6
    )


def test_occupancies_move_from_the_cube_to_the_ball(tmp_path, rng):
    points = rng.uniform(-0.55, 0.55, (4000, 3)).astype(np.float32)
    inside = np.linalg.norm(points, axis=1) < 0.5
    np.savez(
        tmp_path / "points.npz",
        points=points,
        occupancies=np.packbits(inside),
        loc=np.array([1.0, 0, 0]),
        scale=np.array(4.0),
    )
    made, transform = normalised(read(tmp_path / "points.npz"))
    assert made.seen is not None
    assert made.seen.samples is not None
    radius = np.linalg.norm(made.seen.samples.points, axis=1)
    assert radius[inside].max() == pytest.approx(1 / 1.03, abs=0.02)
    assert np.allclose(transform.to_original(made.seen.samples.points), points * 4.0 + [1.0, 0, 0], atol=1e-4)


def test_a_depth_image_with_its_camera(tmp_path):
    from nif_cli.rendering.camera_paths import turntable
    from nif_cli.rendering.rays import pinhole_rays

    pose = turntable(1)[0]
    rays = pinhole_rays(pose, 64, 64, 40.0)
    o, d = rays.origins.numpy(), rays.directions.numpy()
    b = (o * d).sum(1)
    disc = b**2 - (o**2).sum(1) + 0.6**2
    depth = np.where(disc > 0, -b - np.sqrt(np.maximum(disc, 0)), 0).reshape(64, 64)
    unit, place = 20.0, np.array([100.0, 0, 0])
    moved = pose.numpy().copy()
    moved[:, 3] = moved[:, 3] * unit + place
    forward = -(pose.numpy()[:, 2] * d).sum(1).reshape(64, 64)
    np.savez(tmp_path / "ray.npz", depth=depth * unit, pose=moved, fov=40.0)
    np.savez(tmp_path / "z.npz", z_depth=depth * forward * unit, pose=moved, fov=40.0)
    for name in ("ray", "z"):
        made, transform = normalised(read(tmp_path / f"{name}.npz"))
        assert made.seen is not None
        assert made.seen.depth is not None
        world = transform.to_original(made.seen.depth.points)
        assert np.allclose(np.linalg.norm(world - place, axis=1), 0.6 * unit, atol=1e-2)
        air = transform.to_original(made.seen.depth.free)
        assert (np.linalg.norm(air - place, axis=1) > 0.59 * unit).all()


@pytest.mark.parametrize(
    ("name", "write", "word"),
    [
        ("few.npy", lambda p: np.save(p, np.zeros((3, 3))), "too few"),
        ("nan.npy", lambda p: np.save(p, np.full((50, 3), np.nan)), "NaN"),
        ("flat.npy", lambda p: np.save(p, np.zeros((50, 2))), r"\[P, 3\]"),
        ("point.npy", lambda p: np.save(p, np.ones((50, 3))), "degenerate"),
        (
            "zero.npy",
            lambda p: np.save(p, np.column_stack((np.eye(50)[:, :3], np.zeros((50, 3))))),
            "normals are zero",
        ),
        ("text.xyz", lambda p: p.write_text("hello\n"), "x y z"),
        ("damaged.npz", lambda p: p.write_bytes(b"PK\x03\x04 no"), "no npz"),
        ("empty.npy", lambda p: np.save(p, np.zeros((8, 8, 8), bool)), "empty"),
        ("full.npy", lambda p: np.save(p, np.ones((8, 8, 8), bool)), "full"),
        ("nocamera.npz", lambda p: np.savez(p, depth=np.ones((8, 8)), pose=np.eye(4)), "fov"),
        (
            "skew.npz",
            lambda p: np.savez(p, depth=np.ones((8, 8)), pose=np.ones((3, 4)), fov=40.0),
            "rotation",
        ),
    ],
)
def test_files_that_say_nothing(tmp_path, name, write, word):
    from nif_cli import NifError

    write(tmp_path / name)
    with pytest.raises(NifError, match=word) as error:
        read(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize("shape", ["ball", "long", "knot"])
@pytest.mark.parametrize("away", [0.0, 5e5])
def test_normals_that_point_inwards_are_said_wherever_the_cloud_lies_and_turned_on_request(
    tmp_path, shape, away
):
    made = {
        "ball": trimesh.creation.icosphere(3),
        "long": trimesh.creation.capsule(9, 1),
        "knot": trimesh.creation.torus(2, 0.4),
    }
    points, faces = trimesh.sample.sample_surface(made[shape], 3000, seed=0)[:2]
    normals = made[shape].face_normals[faces]
    np.save(tmp_path / "out.npy", np.column_stack((points + away, normals)))
    np.save(tmp_path / "in.npy", np.column_stack((points + away, -normals)))
    assert read(tmp_path / "out.npy").notes == []
    given = read(tmp_path / "in.npy")
    assert "point inwards" in given.notes[0]
    given.turn()
    assert np.allclose(sure(seen_scan(given).normals), normals, atol=1e-6)
    assert given.notes == ["normals turned"]


def test_colours_are_no_normals(tmp_path, cloud, rng):
    from nif_cli import NifError

    np.savetxt(tmp_path / "bytes.xyz", np.column_stack((cloud[:, :3], rng.integers(0, 256, (400, 3)))))
    np.savetxt(tmp_path / "parts.xyz", np.column_stack((cloud[:, :3], rng.random((400, 3)))))
    for name in ("bytes", "parts"):
        given = read(tmp_path / f"{name}.xyz")
        assert seen_scan(given).normals is None
        assert "colours" in given.notes[0]
    np.savetxt(tmp_path / "neither.xyz", np.column_stack((cloud[:, :3], 3 * rng.standard_normal((400, 3)))))
    with pytest.raises(NifError, match="no normals"):
        read(tmp_path / "neither.xyz")


def test_arrays_of_other_names_are_read_or_the_wanted_ones_named(tmp_path, cloud):
    from nif_cli import NifError

    np.savez(tmp_path / "a.npz", xyz=cloud[:, :3], rgb=np.zeros((400, 3), np.uint8))
    given = read(tmp_path / "a.npz")
    assert np.allclose(seen_scan(given).points, cloud[:, :3])
    assert "'xyz' is read as its points" in given.notes[0]
    np.savez(tmp_path / "b.npz", where=cloud[:, :3])
    with pytest.raises(NifError, match="its arrays are where; wanted are points"):
        read(tmp_path / "b.npz")


def test_hidden_files_are_no_input(tmp_path, cloud):
    from nif_cli.data.shapes.user_files import input_files

    for name in ("a.npy", "._a.npy", ".git/b.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, cloud)
    assert input_files(tmp_path) == [tmp_path / "a.npy"]
