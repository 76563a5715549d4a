"""The processes of a training: which of them this is, whoever has started them, and how they agree on the
folder of the run.

On one machine nif starts them itself (trainer.devices=2: Lightning runs the same command again); torchrun and
Slurm's srun start all of them, on any number of machines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning_fabric.strategies.launchers.subprocess_script as launcher
import torch.distributed as dist
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from nif_cli import NifError
from nif_cli.training.callbacks import Checkpoints
from nif_cli.training.provenance import Provenance
from nif_cli.untrusted import one_line
from nif_cli.words import paste

FOLDER = "NIF_RUN_FOLDER"  # what the first process of a machine tells those that it starts
PATIENT = 10.0  # seconds that this process has to say itself why all end
PATIENCE = timedelta(minutes=5)  # for the first process to name the folder
VARIABLES = (
    FOLDER,
    *("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCH_CPP_LOG_LEVEL"),
)
RENAMED = {"LOCAL_RANK": "SLURM_LOCALID", "NODE_RANK": "SLURM_NODEID"}  # srun's variables as Lightning's
LOST = re.compile(r"gloo|NCCL|[Cc]onnection (was likely )?(closed|reset|refused)|[Bb]roken pipe")


def others_gone(error: BaseException) -> bool:
    """Whether an error says that another process has gone."""
    gone = isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and LOST.search(str(error)))
    return bool(gone)


@dataclass(frozen=True)
class Launch:
    """`rank` of this process; `processes` and how many of them are `here` (0: nif starts them itself)."""

    by: str = "nif"
    rank: int = 0
    processes: int = 0
    here: int = 0

    def settled(self, trainer: Mapping[str, Any]) -> dict[str, Any]:
        """The trainer's settings with the numbers of the launcher. NifError where others were given."""
        if not self.processes:
            return dict(trainer)
        own = {"devices": self.here, "num_nodes": self.processes // self.here}
        for key, count in own.items():
            given = trainer.get(key, 1)
            if given not in (1, "1", "auto", count, str(count)):
                raise NifError(
                    f"trainer.{key}={given}: {self.by} has started {self.here} processes on each of "
                    f"{own['num_nodes']} machines; give trainer.{key}={count}"
                )
        return {**trainer, **own}


def launched(trainer: Mapping[str, Any]) -> Launch:
    """Who has started this process. NifError where machines have different numbers of processes."""
    e = os.environ
    if "TORCHELASTIC_RUN_ID" in e and variable("WORLD_SIZE") > 1:
        return Launch("torchrun", variable("RANK"), variable("WORLD_SIZE"), variable("LOCAL_WORLD_SIZE"))
    if tasks := _tasks(trainer):
        nodes = variable("SLURM_STEP_NUM_NODES") or variable("SLURM_NNODES") or 1
        if tasks % nodes:
            raise NifError(f"srun: {tasks} tasks on {nodes} machines: give each machine as many")
        return Launch("srun", variable("SLURM_PROCID"), tasks, tasks // nodes)
    # started by nif, or by the user on the second of several machines
    return Launch(rank=(variable("LOCAL_RANK") if FOLDER in e else 0) or variable("NODE_RANK"))


def _tasks(trainer: Mapping[str, Any]) -> int:
    """How many processes srun has started; 0 where it was not it, or there is one. Slurm's variables are
    there in a job's script too, which is one process, however many tasks the job has."""
    if "SLURM_PROCID" not in os.environ or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return 0
    tasks = variable("SLURM_STEP_NUM_TASKS")
    if not tasks and "SLURM_STEP_ID" not in os.environ:
        wanted = [str(trainer.get(key) or 1) for key in ("devices", "num_nodes")]
        product = int(wanted[0]) * int(wanted[1]) if all(w.isdigit() for w in wanted) else 0
        tasks = variable("SLURM_NTASKS") if product == variable("SLURM_NTASKS") else 0
    tasks = tasks or (variable("SLURM_NTASKS") if "SLURM_STEP_ID" in os.environ else 0)
    return tasks if tasks > 1 else 0


def variable(name: str) -> int:
    """A variable of the environment that is a count; 0 where it is not."""
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 10 else 0


@contextmanager
def environment(launch: Launch) -> Iterator[None]:
    """Within, the variables are those that Lightning reads; afterwards they are what they were, and the next
    training of this process begins afresh."""
    before = dict(os.environ)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else those that are left print their stacks
    if launch.by == "srun":
        os.environ.update({ours: os.environ.get(theirs, "0") for ours, theirs in RENAMED.items()})
        nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST") or "127.0.0.1"
        os.environ.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
        os.environ.setdefault("MASTER_PORT", str(15000 + variable("SLURM_JOB_ID") % 10000))
    try:
        yield
    finally:
        if dist.is_available() and dist.is_initialized():
            with suppress(RuntimeError):  # the others may have died
                dist.destroy_process_group()
        _meeting.clear()
        for name in VARIABLES:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def tell(launch: Launch, trainer: Mapping[str, Any], **told: Any) -> None:
    """The first process says what the others must know."""
    os.environ[FOLDER] = json.dumps(told)
    if launch.processes or number_of(trainer.get("num_nodes")) > 1:
        _store(first=True).set(_key(), json.dumps(told))


def hear(launch: Launch) -> dict[str, Any]:
    """What the first process has told. NifError says why it goes no further, or that it does not answer."""
    told = os.environ.get(FOLDER)
    if told is None:
        try:
            told = _store(first=False).get(_key()).decode()
        except RuntimeError as error:
            raise NifError(
                f"process {launch.rank}: the first process does not answer at {_address()} "
                f"({one_line(error, 100)}); start all of them with one command"
            ) from error
        os.environ[FOLDER] = told  # for those that this one starts
    found = json.loads(told)
    if "error" in found:
        raise NifError(found["error"])
    return found


def number_of(given: Any) -> int:
    """A setting that is a count; 1 where it is none."""
    return int(given) if str(given).isdecimal() else 1


_meeting: list[TCPStore] = []  # kept open while a training runs


def _key() -> str:
    return f"nif/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _address() -> str:
    return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"


def _store(first: bool) -> TCPStore:
    """Where processes meet: at the address where they will train, by torchrun's own store where it has
    one."""
    if not os.environ.get("MASTER_ADDR") or not variable("MASTER_PORT"):
        raise NifError(
            "trainer.num_nodes: machines meet at MASTER_ADDR (the first) and MASTER_PORT (a free one of it): "
            "set both on each of them (torchrun and srun do)"
        )
    if not _meeting:
        agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        try:
            store = TCPStore(
                os.environ["MASTER_ADDR"],
                variable("MASTER_PORT"),
                is_master=first and not agent,
                timeout=PATIENCE,
                wait_for_workers=False,
                multi_tenant=not agent,
            )
        except RuntimeError as error:
            raise NifError(f"{_address()}: no meeting of processes there ({one_line(error, 100)})") from error
        _meeting.append(store)
    return _meeting[0]


@contextmanager
def others_watched(end: Callable[[list[int]], int | None]) -> Iterator[None]:
    """Within, `end` is asked what to do when processes that this one has started end otherwise than with 0:
    the exit code for all of them, or None to go on. Lightning would kill all without a word."""
    before = launcher._ChildProcessObserver._terminate_all

    def terminate(observer: Any) -> None:
        children = observer._child_processes
        code = end([c.returncode for c in children if c.returncode])
        if code is None:
            return
        for child in children:
            with suppress(OSError):
                child.kill()
        sys.stdout.flush()
        os._exit(code)  # this process may wait for the others in a library, and hear no exception

    launcher._ChildProcessObserver._terminate_all = terminate  # type: ignore[assignment]
    try:
        yield
    finally:
        launcher._ChildProcessObserver._terminate_all = before


def lost_says(folder: Path) -> str:
    """The line of a process that is left."""
    return (
        f"{folder}: another process of this training has died (killed, or out of memory?); nif train "
        f"{paste(f'resume={folder}')} goes on from its last checkpoint"
    )


def when_others_end(
    keeper: Checkpoints, folder: Path, about: Provenance, ended: threading.Event
) -> Callable[[list[int]], int | None]:
    """What is done where a process that this one has started ends badly; nothing where this one ends too, or
    all were stopped by a signal and have saved."""

    def end(codes: list[int]) -> int | None:
        if keeper.stopped_by and all(code > 128 for code in codes):
            return None
        if ended.wait(PATIENT):
            return None
        about.end("failed: another process of this training has died")
        print(f"nif: {lost_says(folder)}", file=sys.stderr, flush=True)
        return codes[0] if codes[0] > 128 else 1

    return end


def requeue() -> None:
    """Slurm takes the job back into its queue: it goes on when there is room."""
    job, array = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    if not re.fullmatch(r"\d+(_\d+)?", job):
        return
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
        said = done.stderr.strip() if done.returncode else ""
    except (OSError, subprocess.SubprocessError) as error:
        said = str(error)
    print(
        f"job {job}: " + (f"not requeued ({said[:200]}); submit it again" if said else "requeued"), flush=True
    )
