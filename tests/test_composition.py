"""Hydra's own node, and the files of a stranger's --config-dir: nothing runs, nothing is written elsewhere,
nothing hangs."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import yaml

from nif_cli import NifError
from nif_cli.hydra_node import inside
from nif_cli.yaml_files import checked_yaml, read_plain

PWNED = "PWNED"
TOUCH = f"touch {PWNED}"


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path(PWNED),))


@pytest.fixture
def theirs(tmp_path: Path):
    """`theirs(node)`: the words that choose an experiment of a stranger's folder that says so."""

    def write(node: object, group: str = "experiment") -> list[str]:
        folder = tmp_path / "theirs" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "x.yaml").write_text("# @package _global_\n" + yaml.safe_dump(node))
        return [f"--config-dir={tmp_path / 'theirs'}", "experiment=x"]

    return write


def everything(place: Path) -> set[str]:
    return {p.relative_to(place).as_posix() for p in place.rglob("*") if "theirs" not in p.parts}


@pytest.mark.parametrize("command", ["train", "-m"])
@pytest.mark.parametrize("target", ["numpy.load", "torch.load", "joblib.load"])
def test_a_pickle_behind_a_callback_of_hydra(nif, tiny, theirs, tmp_path, command, target):
    trap = tmp_path / "theirs.npy"
    trap.write_bytes(pickle.dumps(Trap()))
    torch.save(Trap(), tmp_path / "theirs.pt", _use_new_zipfile_serialization=False)
    keys = {"numpy.load": {"file": str(trap), "allow_pickle": True}, "joblib.load": {"filename": str(trap)}}
    node = {"_target_": target, **keys.get(target, {"f": str(tmp_path / "theirs.pt"), "weights_only": False})}
    before = everything(tmp_path)
    words = [*(["-m"] if command == "-m" else []), *theirs({"hydra": {"callbacks": {"x": node}}}), *tiny]
    assert "refused" in nif("train", *words).error
    typed = [f"+hydra.callbacks.x.{k}={v}" for k, v in node.items()]
    assert "refused" in nif("train", *tiny, *typed).error
    assert everything(tmp_path) == before


ATTACKS = {
    "an interpolated class": {
        "evil": {"_target_": "os.system", "command": TOUCH},
        "hydra": {"callbacks": {"x": "${evil}"}},
    },
    "an interpolated name": {
        "hydra": {"callbacks": {"x": {"_target_": "${evil}", "command": TOUCH}}},
        "evil": "os.system",
    },
    "a name of the clock": {
        "hydra": {"callbacks": {"x": {"_target_": "${now:os.system}", "command": TOUCH}}}
    },
    "a nested class": {
        "hydra": {
            "callbacks": {
                "table": {
                    "_target_": "nif_cli.training.sweep.SweepTable",
                    "x": {"_target_": "os.system", "command": "x"},
                }
            }
        }
    },
    "a launcher": {"hydra": {"launcher": {"_target_": "os.system", "command": TOUCH}}},
    "a sweeper": {"hydra": {"sweeper": {"_target_": "os.system", "command": TOUCH}}},
    "the environment": {"hydra": {"job": {"env_set": {"NIF_ALLOW": "os,subprocess"}}}},
    "a copy of the environment": {"hydra": {"job": {"env_copy": ["HOME"]}}},
    "a copy of nothing": {"hydra": {"job": {"env_copy": ["NO_SUCH_VARIABLE_HERE"]}}},
    "a factory of logging": {
        "hydra": {
            "job_logging": {
                "handlers": {"x": {"()": "pathlib.Path.touch", "self": PWNED}},
                "root": {"handlers": ["x"]},
            }
        }
    },
    "a file of logging": {
        "hydra": {
            "job_logging": {
                "handlers": {"x": {"class": "logging.FileHandler", "filename": f"../{PWNED}"}},
                "root": {"handlers": ["x"], "level": "INFO"},
            }
        }
    },
    "an import of logging": {
        "hydra": {
            "hydra_logging": {
                "handlers": {"x": {"class": "logging.StreamHandler", "stream": "ext://os.environ"}}
            }
        }
    },
    "where a run is": {"hydra": {"run": {"dir": f"../{PWNED}"}}},
    "where hydra writes": {"hydra": {"output_subdir": f"../{PWNED}"}},
    "another folder": {"hydra": {"job": {"chdir": True}}},
    "where a sweep is": {"hydra": {"sweep": {"dir": f"../{PWNED}"}}},
    "where a sweep is by the clock": {"hydra": {"sweep": {"dir": "${now:../PWNED}"}}},
    "where a sweep is by a detour": {"evil": f"../{PWNED}", "hydra": {"sweep": {"dir": "${evil}"}}},
    "where a job is": {"hydra": {"sweep": {"subdir": f"/tmp/{PWNED}"}}},
    "words as if typed": {"hydra": {"sweeper": {"params": {"hydra.run.dir": f"../{PWNED}"}}}},
    "a folder as if typed": {"hydra": {"sweeper": {"params": {"output_dir": f"../{PWNED}"}}}},
    "where the run is": {"output_dir": f"../{PWNED}"},
    "a secret": {"data": {"path": "${oc.env:SECRET}"}},
    "a decoded secret": {"data": {"path": "${oc.decode:${oc.env:SECRET}}"}},
    "a module": {"hydra": {"searchpath": ["pkg://evil"]}},
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_strangers_folder(nif, tiny, theirs, tmp_path, monkeypatch, name):
    """Refused in a line, or without any effect; nothing is written beside the working folder."""
    monkeypatch.setenv("SECRET", "swordfish")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (tmp_path / "work" / "evil").mkdir()
    (tmp_path / "work" / "evil" / "__init__.py").write_text(f"open('{PWNED}', 'w')")
    monkeypatch.syspath_prepend(str(work))
    sweep = ["-m"] if name in ("a sweeper", "words as if typed", "where a job is") else []
    done = nif("train", *sweep, *theirs(ATTACKS[name]), *tiny, "trainer.max_steps=1", "data.count=1")
    assert not list(tmp_path.parent.rglob(PWNED))
    assert not Path("/tmp", PWNED).exists()
    assert "swordfish" not in done.out + done.err
    if name != "a module":  # a search path counts in the first file only
        assert done.error


def test_what_is_typed_is_the_users_own_will(nif, tiny, tmp_path):
    sets = [*tiny, "trainer.max_steps=1", "data.count=1", f"hydra.sweep.dir={tmp_path / 'elsewhere'}"]
    done = nif("train", *sets, "-m", "seed=1,2")
    assert done.code == 0, done.err
    assert len(list((tmp_path / "elsewhere").glob("*/checkpoints/last.ckpt"))) == 2


def test_a_strangers_folder_without_harm_works(nif, tiny, theirs):
    node = {
        "model": {"lr": 0.125},
        "hydra": {"sweep": {"dir": "outputs/mine/${now:%Y}", "subdir": "job${hydra.job.num}"}},
    }
    done = nif("train", *theirs(node), *tiny, "--cfg", "job")
    assert yaml.safe_load(done.out)["model"]["lr"] == 0.125


def test_no_pickle_is_run_again(nif, tmp_path):
    (tmp_path / "x.pickle").write_bytes(pickle.dumps(Trap()))
    for flag in ("--experimental-rerun", "--exp"):
        assert "refused" in nif("train", flag, "x.pickle").error
        assert "refused" in nif("train", f"{flag}=x.pickle").error
    assert not Path(PWNED).exists()


def bomb(levels: int = 30, merge: bool = False) -> str:
    lines = ["a0: &a0 {x: 1, y: 2}" if merge else "a0: &a0 [x, x]"]
    for k in range(1, levels):
        inner = f"{{<<: [*a{k - 1}, *a{k - 1}]}}" if merge else f"[*a{k - 1}, *a{k - 1}]"
        lines.append(f"a{k}: &a{k} {inner}")
    return "\n".join(lines)


TEXTS = {
    "anchors": bomb(),
    "merged": bomb(merge=True),
    "itself": "a: &a [*a]",
    "deep": "a: " + "[" * 5000 + "]" * 5000,
    "deep in blocks": "\n".join(" " * k + "a:" for k in range(3000)),
    "large": "a: 1\n" * 600_000,
    "not text": "a: \udcff",
    "control": "a: \x00",
    "tag": "a: !!python/object/apply:os.system ['touch PWNED']",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", TEXTS)
def test_a_bomb_is_a_line(nif, tiny, tmp_path, run, name):
    """In a stranger's folder and in a stranger's run."""
    content = TEXTS[name].encode(errors="surrogateescape")
    (tmp_path / "theirs" / "experiment").mkdir(parents=True)
    (tmp_path / "theirs" / "experiment" / "x.yaml").write_bytes(b"# @package _global_\n" + content)
    assert "x.yaml" in nif("train", f"--config-dir={tmp_path / 'theirs'}", "experiment=x").error
    (run / "config.yaml").write_bytes(content)
    assert "config.yaml" in nif("train", f"resume={run}").error
    assert not Path(PWNED).exists()


def doubling(pair: str, levels: int) -> str:
    lines = ["# @package _global_", "data:", "  b0: xxxxxxxxxxxxxxxx", "  c0: {x: 1, y: 2}"]
    return "\n".join(
        lines + [f"  {pair[0]}{k}: {pair[1:].replace('K', str(k - 1))}" for k in range(1, levels)]
    )


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        doubling("b${data.bK}${data.bK}", 40),
        doubling("b${.bK}${.bK}", 40),
        doubling("b${now:${data.bK}${data.bK}}", 40),
        doubling("c{x: '${data.cK}', y: '${data.cK}'}", 40),
        doubling("b[ '${data.bK}', '${..bK}', '${data.bK}' ]", 40),
        doubling("b${data.bK}", 5000),
        "# @package _global_\ndata: {a: '${data.b}', b: '${data.a}'}",
        "# @package _global_\ndata: {a: b, c: '${data.${data.a}}'}",
    ],
    ids=["absolute", "relative", "in a resolver", "containers", "lists", "a chain", "a circle", "dynamic"],
)
def test_interpolations_that_unfold(nif, tmp_path, text):
    (tmp_path / "theirs" / "experiment").mkdir(parents=True)
    (tmp_path / "theirs" / "experiment" / "x.yaml").write_text(text)
    assert nif("train", f"--config-dir={tmp_path / 'theirs'}", "experiment=x", "trainer.max_steps=1").error


def test_our_own_files_are_small():
    from nif_cli import conf_folder

    for path in conf_folder().rglob("*.yaml"):
        checked_yaml(path)


def test_values_are_read_as_omegaconf_reads_them(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: 1e-4\nb: ${oc.env:HOME}\nc: [1, x]\n")
    assert read_plain(path) == {"a": 1e-4, "b": "${oc.env:HOME}", "c": [1, "x"]}
    with pytest.raises(NifError, match="regular file"):
        checked_yaml(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("path", "stays"),
    [("a/b", True), ("", True), ("/a", False), ("../a", False), ("a/../../b", False), ("~/a", False)],
)
def test_paths_that_stay(path, stays):
    assert inside(path) == stays
