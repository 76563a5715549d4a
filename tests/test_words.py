"""Paths as typed: whatever the shell hands over as key=path is that path, and what is printed can be pasted
back."""

from __future__ import annotations

import dataclasses
import os
import shutil
import string
import subprocess
from pathlib import Path

import pytest
import trimesh
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from nif_cli import conf_folder
from nif_cli.config import register
from nif_cli.schemas import SCHEMAS
from nif_cli.words import PATHS, as_typed, holds_a_path, paste, quoted

NAMES = [
    *(
        "spot (1).obj",
        "spot[1].obj",
        "a,b.obj",
        "a=b.obj",
        "späne.obj",
        "spot's.obj",
        "größe/模型.obj",
        "no\u0308.obj",
        "🐄.obj",
    ),
    *(
        "#1.obj",
        "a#b",
        "{a}.obj",
        "a{",
        "a & b",
        "$HOME",
        "$x",
        "${x}.obj",
        "${oc.env:HOME}/x",
        "\\${x}",
        "a${",
        "${",
        "$(x)",
    ),
    *(
        'a"b.obj',
        '"a".obj',
        "'a'.obj",
        "a\\b.obj",
        "a\\",
        "a\\\\",
        "\\",
        'a\\"',
        " a.obj",
        "a.obj ",
        " ",
        "a  b",
        "\ta",
        "a\nb",
    ),
    *(
        "(a)",
        "a)",
        "](",
        "[a].obj",
        "]",
        ",",
        ",a",
        "a,",
        ",,",
        "=",
        "==a",
        ":",
        "c:\\x",
        "a:b",
        "*.obj",
        "?",
        "scans/*.ply",
    ),
    *(
        "1",
        "007",
        "1e3",
        "-1",
        "nan",
        "true",
        "yes",
        "a|b",
        "a;b",
        "a<b>",
        "`a`",
        "!",
        "^",
        "@a",
        "%s",
        "100%",
        "+a",
        "a~",
        "null.obj",
    ),
    *(
        "glob(*)",
        "choice(a,b)",
        "/abs/päth (1)/x,y.obj",
        "./-x",
        "-x.obj",
        "--cfg",
        "a" * 300,
        "\x1b[31m",
        "\udcff.obj",
    ),
]
KEYS = [
    *(k for k in PATHS),
    "data.path",
    "data.root",
    "data.observations",
    "+data.path",
    "++data.split",
    "encoder.weights",
]
CHARACTERS = [c for c in string.printable if c not in "\x0b\x0c\r"] + list("äß模🐄\u00a0\u202e\x1b\u0301")


def value_of(word: str) -> object:
    """What the composed configuration holds after this word."""
    override = OverridesParser.create().parse_override(word)
    assert isinstance(override, Override)
    assert not override.is_sweep_override()
    cfg = OmegaConf.create({"value": override.value()})
    return OmegaConf.to_container(cfg, resolve=True)["value"]  # type: ignore[index,call-overload]


@pytest.mark.parametrize("key", KEYS)
def test_a_path_is_what_was_typed(key):
    for name in NAMES:
        (word,) = as_typed([f"{key}={name}"])
        assert value_of(word) == name
        assert OverridesParser.create().parse_override(word).key_or_group == key.lstrip("+")


@pytest.mark.parametrize("character", CHARACTERS, ids=lambda c: f"{ord(c):04x}")
def test_every_character_anywhere(character):
    for name in (
        f"a{character}b",
        f"a{character}",
        f"x{character}{character}",
        f"a\\{character}",
        f"a{character}\\",
        f"b/{character}",
    ):
        for key in ("data.path", "input", "run"):
            assert value_of(as_typed([f"{key}={name}"])[0]) == name


@pytest.mark.parametrize("command", SCHEMAS)
def test_every_command_composes_with_any_path(command):
    register()
    own = {f.name for f in dataclasses.fields(SCHEMAS[command])}
    keys = [k for k in PATHS if k in own]
    assert keys
    for name in ("spot (1)[2],a=b{ä's#&", '${x} "q" \\'):
        words = as_typed([f"{key}={name}" for key in keys])
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            found = OmegaConf.to_container(compose(command, words), resolve=True)
        assert {key: found[key] for key in keys} == dict.fromkeys(keys, name)  # type: ignore[index,call-overload]


def test_every_key_of_a_path_is_known():
    """A key whose comment in conf speaks of a file or a folder is one of them."""
    for path in (*conf_folder().glob("*.yaml"), *(conf_folder() / "data").glob("*.yaml")):
        data = path.parent.name == "data"
        for line in path.read_text().splitlines():
            key, _, rest = line.partition(":")
            if key.isidentifier() and rest.partition("#")[2].strip().startswith(
                ("a file", "a folder", "the folder", "a run folder")
            ):
                assert holds_a_path(f"data.{key}" if data else key), f"{path.name}: {key}"


class TestForms:
    @pytest.mark.parametrize(
        ("typed", "meant"),
        [
            ('input="scans/*.ply"', "scans/*.ply"),
            ("input='a b'", "a b"),
            ('input="a\\"b"', 'a"b'),
            ('input="a,b"', "a,b"),
            ("run=null", None),
            ("run=[a,b]", ["a", "b"]),
            ("run=[a, b c ,d(1)]", ["a", "b c", "d(1)"]),
            ("run=[spot[1],'x,y',\"z\"]", ["spot[1]", "x,y", "z"]),
            ("run=[]", []),
            ("data.root=[fox/,späne/]", ["fox/", "späne/"]),
            ("data.root=[[a]/x,b]", ["[a]/x", "b"]),
            ("split=test", "test"),
        ],
    )
    def test_what_already_worked(self, typed, meant):
        assert value_of(as_typed([typed])[0]) == meant

    def test_a_file_that_is_there_wins_over_a_form(self, tmp_path):
        for name in ("[a,b]", '"a"', "'x y'"):
            Path(name).touch()
            assert value_of(as_typed([f"input={name}"])[0]) == name

    def test_home(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path / "ho me"))
        assert value_of(as_typed(["data.path=~/x (1).obj"])[0]) == f"{tmp_path}/ho me/x (1).obj"
        assert value_of(as_typed(["run=[~/a,b]"])[0]) == [f"{tmp_path}/ho me/a", "b"]
        assert value_of(as_typed(["data.path=~nobody-here/x"])[0]) == str(tmp_path / "~nobody-here/x")
        Path("~x").touch()
        assert value_of(as_typed(["data.path=~x"])[0]) == str(tmp_path / "~x")

    def test_other_words_are_left_alone(self):
        words = [
            "model.lr=1,2",
            "field=siren",
            "--cfg",
            "job",
            "instances=[chair/*]",
            "instances=3",
            "~data.path",
            "+x=1",
            "x",
        ]
        assert as_typed(words) == words

    def test_names_are_quoted_where_they_must(self):
        assert value_of(as_typed(["instances=[spot (1),chair/*,'a,b']"])[0]) == ["spot (1)", "chair/*", "a,b"]
        assert value_of(as_typed(["instances=späne"])[0]) == "späne"

    @pytest.mark.parametrize(
        ("typed", "meant"),
        [
            ("data.path=a.obj,b (1).obj", ["a.obj", "b (1).obj"]),
            ("data.path='a,b.obj',c.obj", ["a,b.obj", "c.obj"]),
            ("data.root=[a,b],[c]", [["a", "b"], ["c"]]),
        ],
    )
    def test_commas_of_a_sweep(self, typed, meant):
        override = OverridesParser.create().parse_override(as_typed(["-m", typed])[1])
        assert override.is_sweep_override()
        again = [f"a={part}" for part in override.sweep_string_iterator()]  # as Hydra hands it to each job
        assert [value_of(word) for word in again] == meant

    def test_one_path_is_no_sweep(self):
        assert value_of(as_typed(["--multirun", "data.path=spot (1).obj"])[1]) == "spot (1).obj"
        assert as_typed(["-m", "data.path=glob(*)"])[1] == "data.path=glob(*)"


@pytest.mark.parametrize("shell", ["bash", "zsh", "sh"])
def test_what_is_printed_can_be_pasted(shell, tmp_path):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    names = [n for n in NAMES if shell != "sh" or n.isprintable()]
    names += ["null", "latest", "~x", "[a,b]", '"a"', "~"]
    script = "\n".join(f"printf '%s\\0' {paste(f'run={name}')}" for name in names)
    done = subprocess.run([shell], input=os.fsencode(script), capture_output=True, check=True)
    words = [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]
    for name, word in zip(names, words, strict=True):
        found = value_of(as_typed([word])[0])
        assert isinstance(found, str)
        assert os.path.abspath(found) == os.path.abspath(name)
        assert found not in ("latest", "null")


@pytest.mark.parametrize(
    "word", ["field.width=ä", "seed={", "model.lr=(", "x y=3", "bunny.obj", "model.lr=1,2", "ä=1", "=3"]
)
def test_what_cannot_be_read_is_named(nif, word):
    message = nif("train", word).error
    assert word in message
    if "=" in word and word[0] not in "xä=":
        key, _, value = word.partition("=")
        assert paste(f"{key}={quoted(value)}") in message
        assert value_of(f"{key}={quoted(value)}") == value


@pytest.mark.parametrize("name", ["spot (1)[2],a=b.ply", "ä's #{&}$x ${y} \\.ply"])
def test_from_a_file_to_its_mesh(nif, tiny, name, tmp_path):
    """Training, resuming and extraction with such names for the mesh, the run and the output."""
    trimesh.creation.icosphere(2, 20.0).export(tmp_path / "ball.ply")
    (tmp_path / "ball.ply").rename(tmp_path / name)
    run = Path(f"run of {name}")
    done = nif("train", *tiny, "model=sdf", f"data.path={name}", f"output_dir={run}")
    assert done.code == 0, done.err
    assert paste(f"run={run}") in done.out
    done = nif("train", f"resume={run}", "trainer.max_steps=15")
    assert done.code == 0, done.err
    done = nif("extract", f"run={run}", "resolution=8", "level=-9", f"output=out {name}")
    assert done.code == 0, done.err
    assert list(Path(f"out {name}").rglob("*.ply"))
    done = nif("evaluate", f"mesh={name}", f"reference={name}")
    assert done.code == 0, done.err
