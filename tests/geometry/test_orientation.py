"""Laws of winding: what faces are turned to does not depend on how they came."""

import numpy as np
import pytest
import trimesh

from nif_cli.geometry.orientation import disagreeing_edges, turned_outwards


def parts() -> list[trimesh.Trimesh]:
    return [trimesh.creation.icosphere(2, 1.0 + i).apply_translation([9.0 * i, 0, 0]) for i in range(3)]


@pytest.mark.parametrize("seed", range(4))
def test_signs_do_not_depend_on_how_faces_and_parts_were_turned(seed):
    rng = np.random.default_rng(seed)
    mesh = trimesh.util.concatenate(parts())
    assert isinstance(mesh, trimesh.Trimesh)
    faces = np.array(mesh.faces)
    wrong = rng.random(len(faces)) < (0.1, 0.5, 0.9, 1.0)[seed]
    mixed = np.where(wrong[:, None], faces[:, ::-1], faces)
    turned, notes = turned_outwards(np.asarray(mesh.vertices), mixed)
    assert notes
    assert (turned == faces).all()
    again, nothing = turned_outwards(np.asarray(mesh.vertices), turned)
    assert not nothing
    assert again is turned or (again == turned).all()


@pytest.mark.parametrize("which", range(8))
def test_a_cavity_stays_one_and_parts_that_are_inside_out_are_turned(which):
    outer, inner, apart = (
        trimesh.creation.icosphere(2, 2.0),
        trimesh.creation.icosphere(2, 1.0),
        trimesh.creation.box(),
    )
    apart.apply_translation([9, 0, 0])
    inner.invert()
    if which & 1:
        outer.invert()
        inner.invert()
    if which & 2:
        apart.invert()
    far = [5e6 * bool(which & 4), 0, 0]
    mesh = trimesh.util.concatenate([outer, inner, apart])
    assert isinstance(mesh, trimesh.Trimesh)
    turned, notes = turned_outwards(np.asarray(mesh.vertices) + far, np.asarray(mesh.faces))
    assert bool(notes) == bool(which & 3)
    volume = trimesh.Trimesh(mesh.vertices, turned, process=False).volume
    right = outer.copy()
    assert volume == pytest.approx(abs(right.volume) - abs(inner.volume) + 1, rel=1e-6)


def test_a_moebius_strip_is_left_as_it_is():
    n = 20
    a = np.linspace(0, 2 * np.pi, n, endpoint=False)
    rim = [
        np.c_[(1 + s * np.cos(a / 2)) * np.cos(a), (1 + s * np.cos(a / 2)) * np.sin(a), s * np.sin(a / 2)]
        for s in (-0.3, 0.3)
    ]
    i, j = np.arange(n), (np.arange(n) + 1) % n
    there, back = np.where(j == 0, n, j), np.where(j == 0, 0, j + n)
    faces = np.concatenate((np.c_[i, there, i + n], np.c_[there, back, i + n])).astype(np.int64)
    turned, notes = turned_outwards(np.concatenate(rim), faces)
    assert (turned == faces).all()
    assert not notes
    assert disagreeing_edges(faces) > 0


def test_many_faces_at_one_edge_take_linear_memory():
    n = 100_000
    angle = np.linspace(0, 6, n)
    vertices = np.concatenate(([[0, 0, 1.0], [0, 0, 0]], np.c_[np.cos(angle), np.sin(angle), 0 * angle]))
    faces = np.c_[np.zeros(n), np.ones(n), np.arange(2, n + 2)].astype(np.int64)
    turned, notes = turned_outwards(vertices, faces)
    assert (turned == faces).all()
    assert not notes
