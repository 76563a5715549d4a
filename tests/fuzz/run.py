"""Many hostile files, each read as the commands read it: python tests/fuzz/run.py --n 10000.

Every input is read in a forked process that may take 2 GiB more than it has and 20 seconds of the processor's
time, and may write in its own folder only. A verdict is 'ok', 'refused' (a NifError of one or two lines) or
what failed. The counts go to tests/benchmarks/results/reliability.json, the failing inputs to --failures.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]
    # readers run in forks, which threads of OpenMP do not survive
    os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", NUMBA_THREADING_LAYER="workqueue")

import numpy as np
import torch
from fuzz import mutations, seeds
from fuzz.readers import READERS

MEMORY, SECONDS, WALL = 2 * 2**30, 20.0, 120.0
STARTING = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "socket.connect",
)
WRITING = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
    "shutil.rmtree",
)


@dataclass
class Verdict:
    number: int
    kind: str
    file: str
    how: str
    outcome: str  # ok, refused, or what failed: error, killed, hang, memory, written, executed, silent
    says: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        return self.outcome not in ("ok", "refused")


def place(folder: Path, seed: seeds.Seed, number: int, random: int) -> tuple[Path, str]:
    """The spoilt copy of a seed's folder, and what was done to it: a function of (random, number)."""
    root = folder / seed.root.name
    shutil.copytree(seed.root, root)
    try:
        return root, mutations.mutate(root / seed.file, np.random.default_rng([random, number]))
    except Exception as error:
        return root, f"nothing ({type(error).__name__}: {error})"  # a mutation that this file does not allow


class Guard:
    """Notes what is started, and what is written outside the working folder."""

    def __init__(self) -> None:
        self.inside, self.found = "", []
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple) -> None:
        if not self.inside:
            return
        if event.startswith(STARTING):
            self.found.append(f"executed: {event} {str(args)[:80]}")
        elif event in WRITING:
            paths = args[:2] if event in ("os.rename", "os.link", "os.symlink") else args[:1]
            self.check(event, *(p for p in paths if isinstance(p, str | bytes | os.PathLike)))
        elif event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            mode, flags = args[1], args[2] if isinstance(args[2], int) else 0
            if (isinstance(mode, str) and set(mode) & set("wax+")) or flags & (
                os.O_WRONLY | os.O_RDWR | os.O_CREAT
            ):
                self.check(event, args[0])

    def check(self, event: str, *paths: str | bytes | os.PathLike) -> None:
        for path in paths:
            real = os.path.realpath(os.fsdecode(path))
            if (
                real not in ("/dev/null", self.inside)
                and not real.startswith(self.inside + os.sep)
                and "__pycache__" not in real
            ):
                self.found.append(f"written: {event} {real[:120]}")


def judge(error: BaseException | None) -> tuple[str, str]:
    from nif_cli import NifError

    chain, seen = [], error
    while seen is not None and len(chain) < 9:
        chain.append(seen)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    if any(
        isinstance(e, MemoryError) or "allocate memory" in str(e) or "Unable to allocate" in str(e)
        for e in chain
    ):
        return "memory", f"asked for more than {MEMORY / 2**30:g} GiB: {_where(chain[-1])}"
    if error is None:
        return "ok", ""
    if isinstance(error, NifError):
        text = str(error)
        if (
            len(text.splitlines()) > 2
            or len(text) > 3000
            or any(ord(c) < 32 and c not in "\n\t" for c in text)
        ):
            return (
                "error",
                f"a message of {len(text.splitlines())} lines, {len(text)} characters: {text[:80]!r}",
            )
        return "refused", text[:200]
    if isinstance(error, AssertionError) and str(error).startswith("silent"):
        return "silent", str(error)[:200]
    return "error", f"{type(error).__name__} at {_where(error)}: {str(error)[:160]}"


def _where(error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "nif_cli" in f.filename]
    if not frames:
        return "?"
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}"


def work(pipe, other, every: list[seeds.Seed], random: int, base: str) -> None:
    """A process that reads what it is told to until the pipe closes."""
    other.close()  # the parent's end: when that is gone, so are we
    os.setsid()
    sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    guard = Guard()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.register(signal.SIGUSR1, open(Path(base) / f"stuck-{os.getpid()}", "w"))  # noqa: SIM115
    while True:
        try:
            number, chosen = pipe.recv()
        except EOFError:
            return
        folder = Path(tempfile.mkdtemp(dir=base))
        root, how = place(folder, every[chosen], number, random)
        os.chdir(folder)
        os.environ.update(NIF_CACHE=str(folder / "cache"), TMPDIR=str(folder), HOME=str(folder))
        tempfile.tempdir = str(folder)
        guard.inside, guard.found = str(folder), []
        pipe.send(("begun", how))
        torch.set_num_threads(1)  # threads of OpenMP do not survive a fork: two would wait for each other
        began, error = time.process_time(), None
        try:
            READERS[every[chosen].kind](root)
        except BaseException as caught:
            error = caught
        guard.inside = ""
        outcome, says = judge(error)
        if guard.found:
            outcome, says = guard.found[0].split(": ", 1)
        if (folder / mutations.CANARY).exists() or (root / mutations.CANARY).exists():
            outcome, says = "executed", "the canary"
        seconds = time.process_time() - began
        if seconds > SECONDS:
            outcome, says = "hang", f"{seconds:.0f} s"
        os.chdir(base)
        shutil.rmtree(folder, ignore_errors=True)
        pipe.send((outcome, says, seconds))


class Worker:
    def __init__(self, every: list[seeds.Seed], random: int, base: str):
        self.arguments = (every, random, base)
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self.pipe, *self.arguments), daemon=True)
        self.process.start()
        theirs.close()
        self.job: tuple[int, int] | None = None

    def give(self, number: int, chosen: int) -> None:
        self.job, self.how = (number, chosen), "?"
        self.began, self.spent = time.monotonic(), self.processor()
        self.pipe.send(self.job)

    def processor(self) -> float:
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stuck(self) -> str:
        """Where the process is."""
        os.kill(self.process.pid or 0, signal.SIGUSR1)
        time.sleep(1)
        stack = (Path(self.arguments[2]) / f"stuck-{self.process.pid}").read_text()
        frames = re.findall(r'File ".*/(\S+)", line (\d+) in (\S+)', stack)
        ours = re.findall(r'File ".*/nif_cli/(\S+)", line (\d+) in (\S+)', stack)
        return " < ".join(":".join(f) for f in [*frames[:2], *ours[:2]])

    def poll(self) -> Verdict | None:
        """The verdict, once there is one; a process that died or is stuck is replaced."""
        assert self.job is not None
        answer: tuple[Any, ...] | None = None
        try:
            while answer is None and self.pipe.poll():
                got = self.pipe.recv()
                if got[0] == "begun":
                    self.how = got[1]
                else:
                    answer = got
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            answer = ("killed", signal.Signals(-code).name if code < 0 else f"exit code {code}", 0.0)
        wall = time.monotonic() - self.began
        if answer is None and (self.processor() - self.spent > 1.5 * SECONDS or wall > WALL):
            answer = ("hang", f"{wall:.0f} s: {self.stuck()}", wall)
            self.process.kill()
        if answer is None:
            return None
        number, chosen = self.job
        seed = self.arguments[0][chosen]
        self.job = None
        if answer[0] in ("killed", "hang") and not self.process.join(1) and not self.process.is_alive():
            self.start()
        return Verdict(number, seed.kind, f"{seed.root.name}/{seed.file}", self.how, *answer)


def fuzz(
    n: int,
    random: int = 0,
    jobs: int = 1,
    kinds: list[str] | None = None,
    failures: Path | None = None,
    quiet: bool = False,
) -> tuple[list[Verdict], float]:
    """The verdicts of n inputs, every seed in turn; and the seconds that they took. Seeds must be read
    without a word."""
    torch.set_num_threads(1)
    base = tempfile.mkdtemp(prefix="nif-fuzz-")
    before = os.getcwd()
    try:
        made = Path(base) / "seeds"
        made.mkdir()
        every = [s for s in seeds.make(made) if not kinds or s.kind in kinds]
        _read_well(every, base)
        mutations.bomb_member()
        began = time.monotonic()
        workers, found, given = [Worker(every, random, base) for _ in range(jobs)], [], 0
        while len(found) < n:
            for worker in workers:
                if worker.job is None and given < n:
                    worker.give(given, given % len(every))
                    given += 1
                if worker.job is not None and (verdict := worker.poll()) is not None:
                    found.append(verdict)
                    if verdict.failed and not quiet:
                        print(
                            (
                                f"{verdict.number}: {verdict.outcome}: {verdict.file}: {verdict.how}\n    "
                                f"{verdict.says}"
                            ),
                            flush=True,
                        )
                    if verdict.failed and failures is not None:
                        _keep(failures, every[verdict.number % len(every)], verdict, random)
            time.sleep(0.002)
        for worker in workers:
            worker.pipe.close()
            worker.process.join(5)
        return sorted(found, key=lambda v: v.number), time.monotonic() - began
    finally:
        os.chdir(before)
        shutil.rmtree(base, ignore_errors=True)


def _read_well(every: list[seeds.Seed], base: str) -> None:
    """Each seed as it is: read once here, so that what is compiled or imported is there in every process."""
    wrong = []
    for kind, root in dict.fromkeys((s.kind, s.root) for s in every):
        folder = Path(tempfile.mkdtemp(dir=base))
        shutil.copytree(root, folder / root.name)
        os.chdir(folder)
        try:
            READERS[kind](folder / root.name)
        except BaseException as error:
            wrong.append(f"the seed of {kind} ({root.name}) is not read: {error!r}")
    assert not wrong, "\n".join(wrong)


def _keep(failures: Path, seed: seeds.Seed, verdict: Verdict, random: int) -> None:
    failures = failures / f"{verdict.number:06d}-{seed.kind}-{verdict.outcome}"
    shutil.rmtree(failures, ignore_errors=True)
    failures.mkdir(parents=True)
    place(failures, seed, verdict.number, random)
    (failures / "verdict.json").write_text(json.dumps(asdict(verdict), indent=1))


def table(found: list[Verdict]) -> dict:
    """What is recorded: counts by outcome, by kind of file, and each place that failed."""
    failed = Counter(f"{v.kind}: {v.outcome}: {v.says}"[:200] for v in found if v.failed)
    kinds = {k: Counter(v.outcome for v in found if v.kind == k) for k in sorted({v.kind for v in found})}
    return {
        "inputs": len(found),
        "outcomes": dict(Counter(v.outcome for v in found)),
        "slowest": max(v.seconds for v in found),
        "kinds": {k: dict(c) for k, c in kinds.items()},
        "failures": dict(failed.most_common(100)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--random", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--kinds", nargs="*")
    parser.add_argument("--failures", type=Path, default=Path("outputs/fuzz"))
    parser.add_argument(
        "--record", action="store_true", help="write tests/benchmarks/results/reliability.json"
    )
    asked = parser.parse_args()
    failures = asked.failures.resolve()
    found, seconds = fuzz(asked.n, asked.random, asked.jobs, asked.kinds, failures)
    figures = {
        **table(found),
        "seconds": round(seconds, 1),
        "limits": f"{MEMORY / 2**30:g} GiB, {SECONDS:g} s of the processor",
    }
    print(json.dumps(figures, indent=1))
    if asked.record:
        from benchmarks.machine import RESULTS, about

        path = RESULTS / "reliability.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**kept, "fuzz": {**about(), **figures}}, indent=1) + "\n")
    failed = [v for v in found if v.failed]
    print(f"{len(failed)} of {len(found)} failed" + (f"; see {failures}" if failed else ""))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
