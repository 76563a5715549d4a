"""Scenes on which a wrong or a poor answer was once given: each is read rightly, or refused in a line that
says why."""

import os
from pathlib import Path

import pytest

from nif_cli import NifError
from nif_cli.data.scenes.blender import BlenderViews
from nif_cli.data.scenes.colmap import ColmapViews
from nif_cli.data.scenes.llff import LlffViews
from nif_cli.data.scenes.transforms import TransformsViews

SHARED = (
    Path(os.environ["NIF_DATA"]).resolve().parent
    if os.environ.get("NIF_DATA")
    else Path(__file__).parents[4] / "shared"
)
CASES = SHARED / "cases" / "scenes"
READ = {
    "good_transforms": (TransformsViews, "", 21),
    "n_off20": (TransformsViews, "centred where the cameras look", 21),
    "n_off3": (TransformsViews, "centred where the cameras look", 21),
    "n_mm": (TransformsViews, "centred where the cameras look", 21),
    "ns_cv": (TransformsViews, "data.axes=opencv turns them", 21),
    "b_x5": (BlenderViews, "these by the cameras", 20),
    "b_x0.2": (BlenderViews, "these by the cameras", 20),
    "c_submodels": (ColmapViews, "sparse/1 has most images (24): sparse/0 with 3 not read", 21),
    "c_noblank": (ColmapViews, "", 21),
    "c_blankhead": (ColmapViews, "", 21),
    "c_simple_fisheye": (ColmapViews, "fisheye", 21),
    "c_fisheye": (ColmapViews, "fisheye", 21),
    "c_unused": (ColmapViews, "", 21),
    "mixed_sizes": (ColmapViews, "2 sizes", 21),
    "t_splitnomatch": (TransformsViews, "images_2/000 as images/000", 20),
    "t_backslash": (TransformsViews, "", 21),
    "t_upper": (TransformsViews, "", 21),
    "t_nowh_half": (TransformsViews, "smaller or larger prints", 21),
    "l_far": (LlffViews, "1 far bounds left out", 21),
    "m_alpha2": (TransformsViews, "24 with masks", 21),
}
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases beside this checkout")


@pytest.mark.parametrize("name", READ)
def test_scenes_that_are_read(name):
    reader, says, count = READ[name]
    (scene,) = reader(str(CASES / name)).prepare()
    assert says in scene.report.text
    assert len(scene.train) == count


def test_cameras_that_look_away_are_refused_with_the_key_that_turns_them():
    with pytest.raises(NifError, match=r"none of the training rays .*data\.axes=opencv turns them"):
        BlenderViews(str(CASES / "b_cv")).prepare()
    (scene,) = BlenderViews(str(CASES / "b_cv"), axes="opencv").prepare()
    assert not scene.report.doubts
