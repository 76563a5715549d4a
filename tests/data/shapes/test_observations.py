"""What is shown of a shape: points where they should be, and no more of them than asked for."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh


@pytest.fixture
def sphere() -> trimesh.Trimesh:
    return trimesh.creation.icosphere(4, 0.6)


def test_samples_know_their_distance(sphere, rng):
    from nif_cli.data.shapes.observations import observe_mesh

    seen = observe_mesh(sphere, "samples", 3000, rng)
    assert seen.samples is not None
    assert seen.distance is not None
    assert np.allclose(seen.distance, 0.6 - np.linalg.norm(seen.samples, axis=1), atol=3e-3)


def test_an_oriented_scan_faces_outwards(sphere, rng):
    from nif_cli.data.shapes.observations import observe_mesh

    seen = observe_mesh(sphere, "oriented", 1000, rng)
    assert seen.points is not None
    assert seen.normals is not None
    assert np.allclose(np.linalg.norm(seen.points, axis=1), 0.6, atol=3e-3)
    assert ((seen.points * seen.normals).sum(1) > 0.59).all()
    assert observe_mesh(sphere, "points", 10, rng).normals is None


def test_a_depth_camera_sees_the_near_side_and_the_air_before_it(sphere, rng):
    from nif_cli.data.shapes.observations import depth_view
    from nif_cli.rendering.camera_paths import turntable

    pose = turntable(8)[2].numpy()
    seen = depth_view(sphere, pose)
    assert seen.points is not None
    assert seen.normals is not None
    assert seen.free is not None
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
    assert seen.points is not None
    assert np.abs(seen.points[:, 2]).max() < 1e-3


def test_half_of_the_samples_shown_are_inside_as_far_as_there_are(rng):
    from nif_cli.data.shapes.observations import show
    from nif_cli.data.shapes.samples import Observation

    points = rng.random((1000, 3)).astype(np.float32)
    distance = np.where(np.arange(1000) < 100, 1.0, -1.0).astype(np.float32)
    seen = show(Observation(samples=points, distance=distance), "samples", 150, rng)
    assert seen.distance is not None
    assert len(seen.distance) == 150
    assert (seen.distance > 0).sum() == 75
    seen = show(Observation(samples=points, distance=distance), "samples", 400, rng)
    assert seen.distance is not None
    assert len(seen.distance) == 400
    assert (seen.distance > 0).sum() == 100


def test_noise_has_the_size_that_was_asked_for(sphere, rng):
    from nif_cli.data.shapes.observations import observe_mesh, show

    seen = show(observe_mesh(sphere, "points", 20_000, rng), "points", 20_000, rng, noise=0.01)
    assert seen.points is not None
    radial = np.linalg.norm(seen.points, axis=1) - 0.6
    assert radial.std() == pytest.approx(0.01, rel=0.1)


def test_keeping_half(sphere, rng):
    from nif_cli import NifError
    from nif_cli.data.shapes.observations import keep_half, observe_mesh

    seen = observe_mesh(sphere, "samples", 1000, rng)
    left, right = keep_half(seen, "y-"), keep_half(seen, "y+")
    assert left.samples is not None
    assert right.samples is not None
    assert (left.samples[:, 1] <= 0).all()
    assert len(left.samples) + len(right.samples) == 1000
    with pytest.raises(NifError, match="x\\+"):
        keep_half(seen, "left")


def test_moving_an_observation_keeps_it_in_the_users_units(rng):
    from nif_cli.data.shapes.samples import Observation
    from nif_cli.geometry.transform import Transform

    old, new = Transform((1.0, 2.0, 3.0), 0.5), Transform((-4.0, 0.0, 1.0), 2.0)
    points = rng.random((50, 3))
    seen = Observation(points, samples=points, distance=np.full(50, 0.1), free=points).moved(old, new)
    for moved in (seen.points, seen.samples, seen.free):
        assert moved is not None
        assert np.allclose(new.to_original(moved), old.to_original(points), atol=1e-5)
    assert seen.distance is not None
    assert np.allclose(seen.distance / new.scale, 0.1 / old.scale)
