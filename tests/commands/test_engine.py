"""Shapes prepared by a Dask cluster are those that processes of this machine make, byte for byte."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import trimesh

FEW = ["samples=400", "surface_samples=200"]


@pytest.fixture(autouse=True)
def _meshes():
    Path("meshes").mkdir()
    for k in range(4):
        trimesh.creation.icosphere(1, 1 + 0.1 * k).export(f"meshes/ball_{k}.ply")


def files(folder: str) -> dict[str, bytes]:
    """All but the log of what was done, whose times differ."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*.np[yz]")}


@pytest.mark.slow
def test_a_cluster_makes_the_same_bytes(nif):
    pytest.importorskip("distributed")
    from distributed import LocalCluster as Cluster  # pyright: ignore[reportMissingImports]

    made: Any = Cluster

    assert nif("prepare", "input=meshes", "output=local", *FEW, "workers=1").code == 0
    with made(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        dask = ["engine=dask", f"engine.address={cluster.scheduler_address}"]
        done = nif("prepare", "input=meshes", "output=there", *FEW, *dask)
        assert done.code == 0, done.err
        assert "4 of 4 shapes" in done.out
        again = nif("prepare", "input=meshes", "output=there", *FEW, *dask)
        assert "(4 of them before)" in again.out
    assert files("local") == files("there")
    assert len(files("local")) >= 4


def test_an_address_where_nothing_answers(nif, monkeypatch):
    pytest.importorskip("distributed")
    from nif_cli.commands import engine

    monkeypatch.setattr(engine, "PATIENCE", 1)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{s.getsockname()[1]}"
    error = nif("prepare", "input=meshes", "output=out", "engine=dask", f"engine.address={address}").error
    assert "no Dask scheduler answers there" in error
    assert address in error
    error = nif("prepare", "input=meshes", "output=out", "engine=dask", "engine.address=nonsense://x").error
    assert "engine.address=nonsense" in error


def test_dask_needs_its_address_and_its_package(nif, monkeypatch):
    assert "engine.address=" in nif("prepare", "input=meshes", "output=out", "engine=dask").error
    monkeypatch.setitem(sys.modules, "distributed", None)
    given = ["engine=dask", "engine.address=tcp://127.0.0.1:1"]
    assert "pip install 'nif-cli[dask]'" in nif("prepare", "input=meshes", "output=out", *given).error


def test_an_engine_that_there_is_not(nif):
    assert "engine" in nif("prepare", "input=meshes", "output=out", "engine=slurm").err
