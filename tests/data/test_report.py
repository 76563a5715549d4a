"""What is doubtful of data is known apart from the words that it is told in."""

from __future__ import annotations

import numpy as np
import trimesh

from nif_cli.data.report import NOTHING, doubt
from nif_cli.data.shapes.meshes import Meshes
from nif_cli.data.shapes.point_clouds import PointClouds


def test_a_line_is_joined_as_text_is_and_keeps_its_doubts():
    made = "10 images" + doubt(", 2 without an image") + "; box 1" + doubt("; not all of it is in the box")
    assert made.text == "10 images, 2 without an image; box 1; not all of it is in the box"
    assert made.doubts == ("2 without an image", "not all of it is in the box")
    assert all(note in made.text for note in made.doubts)
    assert made + NOTHING == made == NOTHING + made


def test_of_meshes_the_doubtful_ones_have_doubts(tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=2)
    ball.export(tmp_path / "whole.ply")
    trimesh.Trimesh(ball.vertices, ball.faces[20:], process=False).export(tmp_path / "open.ply")
    faces = np.concatenate((ball.faces[:5, ::-1], ball.faces[5:]))
    trimesh.Trimesh(ball.vertices, faces, process=False).export(tmp_path / "mended.ply")
    made = {s.id: s.report for s in Meshes(str(tmp_path), samples=1000, surface_samples=100).prepare()}
    assert made["whole"].doubts == ()
    assert "boundary edges" in made["open"].doubts[0]
    assert "turned" in made["mended"].doubts[0]


def test_of_point_clouds_those_whose_normals_look_inwards_have_doubts(tmp_path):
    points = trimesh.creation.icosphere(subdivisions=2).vertices
    for name, table in {
        "out": np.column_stack((points, points)),
        "in": np.column_stack((points, -points)),
        "coloured": np.column_stack((points, np.full_like(points, 7.0))),
    }.items():
        np.savetxt(tmp_path / f"{name}.xyz", table)
    made = {s.id: s.report for s in PointClouds(str(tmp_path)).prepare()}
    assert made["out"].doubts == made["coloured"].doubts == ()
    assert "inwards" in made["in"].doubts[0]
    assert "left aside" in made["coloured"].text
