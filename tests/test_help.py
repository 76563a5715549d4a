"""Help says what the YAML files say, as Hydra composes them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from nif_cli import choices, conf_folder
from nif_cli.config import register

WHERE = [conf_folder()]
EVERY = [f"{g}={n}" for g in choices.groups(WHERE) for n in choices.names(g, WHERE)]


def leaves(node: Any, prefix: str = "") -> set[str]:
    if isinstance(node, dict) and node:
        return set().union(*(leaves(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in node.items()))
    return {prefix}


@pytest.mark.parametrize("word", EVERY)
def test_the_help_of_a_choice_names_all_its_keys(nif, word):
    group, _, name = word.partition("=")
    text = nif("help", word).out
    rows = yaml.safe_load((conf_folder() / group / f"{name}.yaml").read_text()) or {}
    rows.pop("defaults", None)
    rows.pop("hydra", None)
    for key in leaves(rows) - {""}:
        if key.rpartition(".")[2] not in ("_target_", "_partial_"):
            assert f"{key if group == 'experiment' else f'{group}.{key}'}=" in text
    line = next(line for line in nif("help", group).out.splitlines() if line.split()[0].strip("[]") == name)
    assert len(line.split(maxsplit=1)) == 2, "a choice has a comment that says what it is"


WORDS = [
    *([w] for w in EVERY if w.startswith(("experiment=", "model=", "field=", "data=", "encoder="))),
    ["model=metasdf", "field=siren", "data=image"],
    ["experiment=sdf_fast", "field=relu", "data=voxels"],
    ["model=occupancy", "encoder=none", "field=hash", "field.width=7"],
]


@pytest.fixture(scope="module")
def hydra():
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        yield


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_composed_as_hydra_composes(hydra, words):
    cfg = hydra_compose("train", overrides=words, return_hydra_config=True)
    made = choices.compose("train", words)
    assert {g: c or "null" for g, c in made.groups.items()} == {
        g: c or "null" for g, c in cfg.hydra.runtime.choices.items() if g in made.groups
    }
    plain: Any = OmegaConf.to_container(cfg, resolve=False, throw_on_missing=False)
    for key, row in made.rows.items():
        value = plain
        for part in key.split("."):
            value = value[part]
        written = OmegaConf.create(f"x: {row.value}") if row.value else None
        assert written is None or OmegaConf.to_container(written, resolve=False)["x"] == value  # type: ignore
    plain.pop("hydra")
    known = {k for k in leaves(plain) if k.split(".")[0] not in ("paths", "experiment")}
    assert {k for k in known if "." in k} - set(made.rows) == set()


def test_help_follows_the_words(nif):
    text = nif("train", "--help", "field=siren", "field.width=77").out
    assert "field.width=77" in text
    assert "field.first_omega=30.0" in text
    assert "[siren]" in text
    assert "[ngp]" in nif("help", "model=nerf", "field").out
    assert nif("help", "train", "field=siren").out == nif("train", "field=siren", "--help").out
    assert "nif extract" in nif("help", "resolution").out
    assert "auto" in nif("help", "data").out
    assert "[relu]" in nif("train", "--help", "data=auto", "field=relu").out
    assert "data.path" in nif("help", "data=auto", "field=relu").out


def test_help_of_what_there_is_not(nif):
    for words, said in {("data=meshs",): "did you mean 'meshes'", ("fild",): "did you mean 'field'"}.items():
        done = nif("help", *words)
        assert done.code == 2
        assert said in done.err
        assert len(done.err.splitlines()) == 1


def test_help_of_ones_own_groups(nif, tmp_path: Path):
    (tmp_path / "field").mkdir()
    (tmp_path / "field" / "mine.yaml").write_text(
        "# My own.\ndefaults:\n  - /field: siren\n  - _self_\n\nspeed: 3 # of it\n"
    )
    assert "mine" in nif("help", "field", f"--config-dir={tmp_path}").out
    assert "speed=3" in nif("help", "field=mine", f"--config-dir={tmp_path}").out


def test_help_is_instant():
    began = time.process_time()
    subprocess.run([sys.executable, "-m", "nif_cli", "help", "data"], check=True, capture_output=True)
    code = (
        "import sys, time; from nif_cli.cli import main\ntry: main(['train', '--help', 'field=siren'])\n"
        "except SystemExit: pass\nprint(time.process_time(), [m for m in sys.modules if m in ('yaml', "
        "'hydra', 'omegaconf', 'torch')])"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    seconds, heavy = out.splitlines()[-1].split(maxsplit=1)
    assert heavy == "[]"
    assert float(seconds) < 0.2
    assert time.process_time() - began < 1
