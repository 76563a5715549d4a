"""What is shown of a shape: points where they should be, and no more of them than asked for."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from nif_cli.data.shapes.samples import (
    DepthView,
    Images,
    Known,
    Observation,
    PointSamples,
    Scan,
    VoxelGrid,
    observation_of,
)


@pytest.fixture
def sphere() -> trimesh.Trimesh:
    return trimesh.creation.icosphere(4, 0.6)


def test_samples_know_their_distance(sphere, rng):
    from nif_cli.data.shapes.observations import observe_mesh

    seen = observe_mesh(sphere, "samples", 3000, rng)
    assert isinstance(seen, PointSamples)
    assert seen.distance is not None
    assert np.allclose(seen.distance, 0.6 - np.linalg.norm(seen.points, axis=1), atol=3e-3)


def test_an_oriented_scan_faces_outwards(sphere, rng):
    from nif_cli.data.shapes.observations import observe_mesh

    seen = observe_mesh(sphere, "oriented", 1000, rng)
    assert isinstance(seen, Scan)
    assert seen.normals is not None
    assert np.allclose(np.linalg.norm(seen.points, axis=1), 0.6, atol=3e-3)
    assert ((seen.points * seen.normals).sum(1) > 0.59).all()
    bare = observe_mesh(sphere, "points", 10, rng)
    assert isinstance(bare, Scan)
    assert bare.normals is None


def test_a_depth_camera_sees_the_near_side_and_the_air_before_it(sphere, rng):
    from nif_cli.data.shapes.observations import depth_view
    from nif_cli.rendering.camera_paths import turntable

    pose = turntable(8)[2].numpy()
    seen = depth_view(sphere, pose)
    assert seen.normals is not None
    assert np.allclose(np.linalg.norm(seen.points, axis=1), 0.6, atol=3e-3)
    assert ((seen.points * pose[:, 2]).sum(1) > 0).all()  # the camera looks along minus its third axis
    assert ((seen.normals * (pose[:, 3] - seen.points)).sum(1) > 0).all()
    assert (np.linalg.norm(seen.free, axis=1) > 0.595).all()


def test_an_open_surface_is_seen_too(rng):
    from nif_cli.data.shapes.observations import observe_mesh

    square = trimesh.Trimesh(
        [[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]], [[0, 1, 2], [0, 2, 3]]
    )
    seen = observe_mesh(square, "depth", 500, rng)
    assert isinstance(seen, DepthView)
    assert np.abs(seen.points[:, 2]).max() < 1e-3


def test_half_of_the_samples_shown_are_inside_as_far_as_there_are(rng):
    from nif_cli.data.shapes.observations import thin

    points = rng.random((1000, 3)).astype(np.float32)
    distance = np.where(np.arange(1000) < 100, 1.0, -1.0).astype(np.float32)
    seen = thin(PointSamples(points, distance), 150, rng)
    assert seen.distance is not None
    assert len(seen.distance) == 150
    assert (seen.distance > 0).sum() == 75
    seen = thin(PointSamples(points, distance), 400, rng)
    assert seen.distance is not None
    assert len(seen.distance) == 400
    assert (seen.distance > 0).sum() == 100


def test_noise_has_the_size_that_was_asked_for(sphere, rng):
    from nif_cli.data.shapes.observations import observe_mesh, thin

    seen = thin(observe_mesh(sphere, "points", 20_000, rng), 20_000, rng, noise=0.01)
    assert isinstance(seen, Scan)
    radial = np.linalg.norm(seen.points, axis=1) - 0.6
    assert radial.std() == pytest.approx(0.01, rel=0.1)


def test_keeping_half(sphere, rng):
    from nif_cli import NifError
    from nif_cli.data.shapes.observations import keep_half, observe_mesh

    seen = observe_mesh(sphere, "samples", 1000, rng)
    left, right = keep_half(seen, "y-"), keep_half(seen, "y+")
    assert isinstance(left, PointSamples)
    assert isinstance(right, PointSamples)
    assert (left.points[:, 1] <= 0).all()
    assert len(left.points) + len(right.points) == 1000
    with pytest.raises(NifError, match="x\\+"):
        keep_half(seen, "left")


def test_moving_an_observation_keeps_it_in_the_users_units(rng):
    from nif_cli.geometry.transform import Transform

    old, new = Transform((1.0, 2.0, 3.0), 0.5), Transform((-4.0, 0.0, 1.0), 2.0)
    points = rng.random((50, 3))
    samples = PointSamples(points, np.full(50, 0.1))
    seen = Known(samples, Scan(points), DepthView(points, points)).moved(old, new)
    assert seen.samples is not None
    assert seen.scan is not None
    assert seen.depth is not None
    for moved in (seen.scan.points, seen.samples.points, seen.depth.points, seen.depth.free):
        assert np.allclose(new.to_original(moved), old.to_original(points), atol=1e-5)
    assert seen.samples.distance is not None
    assert np.allclose(seen.samples.distance / new.scale, 0.1 / old.scale)


THERE = np.zeros((20, 3), np.float32)


@pytest.mark.parametrize(
    "seen",
    [
        PointSamples(THERE, distance=THERE[:, 0]),
        PointSamples(THERE, inside=THERE[:, 0] > 0),
        PointSamples(THERE[:, :2], colors=THERE),
        Scan(THERE),
        Scan(THERE, THERE + 1),
        DepthView(THERE, THERE[:0]),
        DepthView(THERE, THERE, THERE),
        Images(np.zeros((2, 8, 8, 3), np.uint8)),
        VoxelGrid(np.zeros((4, 4, 4), bool)),
    ],
)
def test_an_observation_is_made_again_from_its_arrays(seen: Observation):
    again = observation_of(seen.arrays())
    assert type(again) is type(seen)
    assert again.arrays().keys() == seen.arrays().keys()
    assert all((again.arrays()[name] == array).all() for name, array in seen.arrays().items())


@pytest.mark.parametrize("names", [("points", "samples"), ("normals",), ("free", "normals"), ("distance",)])
def test_arrays_of_no_one_kind_are_refused(names):
    from nif_cli import NifError

    with pytest.raises(NifError, match=names[0]):
        observation_of(dict.fromkeys(names, THERE))


def test_only_points_have_a_half_that_is_seen():
    from nif_cli import NifError
    from nif_cli.data.shapes.observations import keep_half

    with pytest.raises(NifError, match="leave keep out"):
        keep_half(VoxelGrid(np.zeros((4, 4, 4), bool)), "x+")
