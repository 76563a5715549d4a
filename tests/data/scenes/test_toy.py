"""Toy views: crosswise scenes, the same geometry in every material, images that fit their cameras."""

import numpy as np
import pytest
import torch

from nif_cli.data.scenes.toy import DISTANCE, ToyViews


def test_scenes_share_shapes_and_materials_crosswise():
    scenes = ToyViews(shapes=2, materials=3, leave_out=1, views=1, test=0, size=8).prepare()
    assert len(scenes) == 5
    assert [(s.shape, s.appearance) for s in scenes][:2] == [
        ("chair_00", "chequered"),
        ("chair_00", "striped"),
    ]
    assert len({s.shape for s in scenes}) == 2
    assert len({s.appearance for s in scenes}) == 3


def test_a_shape_is_the_same_in_every_material():
    data = ToyViews(materials=2, views=3, test=1, size=24)
    first, second = data.prepare()
    for a, b in zip(first.train, second.train, strict=True):
        assert torch.equal(a.pose, b.pose)
        assert torch.equal(a.pixels[..., 3], b.pixels[..., 3])
        assert not torch.equal(a.pixels[..., :3], b.pixels[..., :3])


def test_cameras_look_at_the_ball_from_the_given_distance():
    (scene,) = ToyViews(views=5, test=2, size=16).prepare()
    for view in [*scene.train, *scene.test]:
        at = view.pose[:, 3]
        assert at.norm() == pytest.approx(DISTANCE, abs=1e-4)
        assert torch.allclose(view.pose[:, 2], at / DISTANCE, atol=1e-4)
        alpha = view.pixels[..., 3]
        assert 0.02 < float((alpha > 127).float().mean()) < 0.6
        assert int(alpha[0].max()) == 0  # the ball lies within the image
    names = [v.name for v in [*scene.train, *scene.test]]
    assert len(set(names)) == len(names)


def test_the_same_seed_makes_the_same_images():
    one, two, other = (
        ToyViews(views=2, test=0, size=12, seed=s).prepare()[0].train[1].pixels for s in (5, 5, 6)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.dtype == torch.uint8
    assert np.asarray(one).shape == (12, 12, 4)


@pytest.mark.parametrize(
    "wrong", [{"shapes": 0}, {"materials": 9}, {"leave_out": 1}, {"views": 0}, {"size": 1}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ToyViews(**wrong)
