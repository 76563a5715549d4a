"""views= of nif evaluate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nif_cli import NifError
from nif_cli.data.scenes.toy import ToyViews
from nif_cli.evaluation.views import chosen_views


@pytest.fixture(scope="module")
def scene():
    return ToyViews(views=3, test=6, size=16).prepare()[0]


def test_names_globs_and_counts(scene):
    names = [v.name for v in scene.test]
    assert len(names) == 6

    def chosen(spec):
        return [v.name for v in chosen_views(scene, "test", spec)]

    last = [n.rpartition("/")[2] for n in names]
    assert chosen(None) == chosen("all") == chosen(99) == chosen("*") == names
    assert chosen(1) == names[:1]
    assert chosen(2) == [names[0], names[-1]]
    assert chosen([names[4], names[1]]) == [names[1], names[4]], "in their own order"
    assert chosen([last[4]]) == [names[4]]
    for spec, said in ((0, "at least 1"), ("nope", "no 'nope'"), ([], "views=")):
        with pytest.raises(NifError, match=said):
            chosen(spec)
    with pytest.raises(NifError, match="split=train"):
        chosen_views(replace(scene, test=[]), "test", None)


def test_the_command_takes_them(nif):
    small = ["data.views=4", "data.test=3", "data.size=16", "field.log2_table=8", "field.levels=2"]
    quick = ["trainer.max_steps=2", "trainer.max_time=null", "callbacks=quiet", "logger=csv", "device=cpu"]
    assert nif("train", "model=nerf", *small, *quick, "output_dir=run").code == 0
    done = nif("evaluate", "run=run", "views=2")
    assert done.code == 0, done.err
    assert "2 test views of 16 x 16" in done.out
    report = json.loads(Path("run/evaluation.json").read_text())
    (scenes,) = (part["views"] for part in report["protocol"].values())
    assert [len(views) for views in scenes.values()] == [2]
    assert "no 'x'" in nif("evaluate", "run=run", "views=x").error


def test_shapes_have_no_views(nif, run):
    assert "of a scene" in nif("evaluate", f"run={run}", "views=2").error
