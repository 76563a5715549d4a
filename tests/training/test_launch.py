"""Who has started a process, and which of how many it is, by the variables that launchers set."""

from __future__ import annotations

import json
import socket
from threading import Thread

import pytest

from nif_cli import NifError
from nif_cli.training import launch
from nif_cli.training.launch import FOLDER, Launch, environment, hear, launched, tell

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "1",
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
}
SRUN = {
    "SLURM_JOB_ID": "12345678",
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NODELIST": "node[07-08]",
}
SCRIPT = {k: v for k, v in SRUN.items() if "STEP" not in k} | {"SLURM_PROCID": "0"}  # of a job, without srun


@pytest.fixture
def variables(monkeypatch):
    def run(given):
        for name in (*TORCHRUN, *SRUN, "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", FOLDER):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)

    return run


@pytest.mark.parametrize(
    ("given", "trainer", "found"),
    [
        ({}, {}, Launch()),
        ({}, {"devices": 2}, Launch()),
        (TORCHRUN, {}, Launch("torchrun", 3, 4, 2)),
        (SRUN, {}, Launch("srun", 3, 4, 2)),
        (SCRIPT, {}, Launch()),  # four tasks, but this is the script itself
        (SCRIPT, {"devices": 2, "num_nodes": 2}, Launch("srun", 0, 4, 4)),
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}, {}, Launch()),
        ({**SRUN, "SLURM_JOB_NAME": "bash"}, {}, Launch()),
        ({FOLDER: "{}", "LOCAL_RANK": "1"}, {"devices": 2}, Launch(rank=1)),
        ({"LOCAL_RANK": "1"}, {"devices": 2}, Launch()),
        ({"NODE_RANK": "1"}, {"num_nodes": 2}, Launch(rank=1)),
        ({"NODE_RANK": "many"}, {}, Launch()),
    ],
)
def test_who_has_started_a_process(variables, given, trainer, found):
    variables(given)
    assert launched(trainer) == found


def test_a_launcher_says_how_many_processes_there_are():
    four = Launch("torchrun", 0, 4, 2)
    assert four.settled({"devices": 1, "max_steps": 5}) == {"devices": 2, "num_nodes": 2, "max_steps": 5}
    assert four.settled({"devices": 2}) == four.settled({"devices": "auto"})
    with pytest.raises(NifError, match=r"trainer.devices=3: torchrun has started 2 processes"):
        four.settled({"devices": 3})


def test_the_variables_are_those_of_lightning_and_go_again(variables, monkeypatch):
    import os

    variables(SRUN)
    with environment(Launch("srun", 3, 4, 2)):
        assert (os.environ["LOCAL_RANK"], os.environ["NODE_RANK"]) == ("1", "1")
        assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("node07", "20678")
    assert not {"LOCAL_RANK", "MASTER_ADDR"} & os.environ.keys()


@pytest.mark.parametrize("told", [{"folder": "/runs/7", "resumed": False}, {"error": "name=x: taken"}])
def test_the_first_process_tells_the_others(variables, monkeypatch, told):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    variables({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    with environment(Launch()):
        tell(Launch("srun", 0, 2, 2), {}, **told)
        first = launch._meeting.pop()
        monkeypatch.delenv(FOLDER)
        heard = []

        def other():
            try:
                heard.append(hear(Launch("srun", 1, 2, 2)))
            except NifError as error:
                heard.append({"error": str(error)})

        thread = Thread(target=other)
        thread.start()
        thread.join(20)
        assert heard == [told]
        assert first is not None


def test_nobody_answers(variables, monkeypatch):
    from datetime import timedelta

    monkeypatch.setattr(launch, "PATIENCE", timedelta(seconds=1))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        variables({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(s.getsockname()[1])})
    with environment(Launch()), pytest.raises(NifError, match=r"127.0.0.1:\d+"):
        hear(Launch("srun", 1, 2, 2))
    variables({})
    with environment(Launch()), pytest.raises(NifError, match="MASTER_ADDR"):
        hear(Launch("torchrun", 1, 2, 2))
    variables({FOLDER: json.dumps({"folder": "/runs/7", "resumed": True})})
    assert hear(Launch(rank=1)) == {"folder": "/runs/7", "resumed": True}
