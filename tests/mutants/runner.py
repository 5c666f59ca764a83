"""Is a mutant noticed? Changes a copy of the tree, runs the tests that the mutant names, restores it."""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from .catalogue import ROOT, CatalogueError, Mutant

CPU_SECONDS = 120  # of one run of tests; a mutant that loops forever is noticed by that
NOT_COMPILED = ("C core for this machine: ", "native core does not compile: ")  # hostlib.py, engine.py
PYTEST_FAILED, PYTEST_NO_TESTS = 1, 5  # exit codes, pytest documentation "Exit codes"


class Outcome(StrEnum):
    """What came of one mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    EQUIVALENT = "equivalent"  # survived, and the list says why no test can tell


@dataclass(frozen=True)
class Result:
    """`detail`: the test that failed, or how the run ended."""

    mutant: Mutant
    outcome: Outcome
    detail: str


class Stopped(Exception):
    """The run was ended from outside; what its last tests said says nothing."""


class Copy:
    """A copy of the tree in which one mutant at a time is tried."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.root = root
        self._cache = cache
        self._time = 1_000_000_000
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self._sound: dict[
            tuple[str, ...], str
        ] = {}  # tests that were run on the unchanged tree, and what failed

    def try_(self, mutant: Mutant) -> Result:
        """CatalogueError: the tests fail without the mutant, do not run, or notice an equivalent one.
        Stopped.
        """
        original = mutant.source(self.root)
        changed = mutant.applied(self.root)
        if mutant.tests not in self._sound:
            code, text = self._pytest(mutant.tests)
            self._sound[mutant.tests] = "" if code == 0 else _detail(code, text)
        if problem := self._sound[mutant.tests]:
            words = " ".join(mutant.tests)
            raise CatalogueError(f"{mutant.name}: `{words}` fails without the mutant: {problem}")
        self._write(mutant.path, changed)
        try:
            code, text = self._pytest(mutant.tests)
        finally:
            self._write(mutant.path, original)
        if code == 0:
            outcome = Outcome.EQUIVALENT if mutant.equivalent else Outcome.SURVIVED
            return Result(mutant, outcome, mutant.equivalent)
        compiled = not mutant.path.endswith((".c", ".h")) or not any(said in text for said in NOT_COMPILED)
        if code > PYTEST_FAILED or not compiled:
            raise CatalogueError(f"{mutant.name}: the tests do not run: {_detail(code, text)}")
        if mutant.equivalent:
            raise CatalogueError(f"{mutant.name} is called equivalent, but noticed: {_detail(code, text)}")
        return Result(mutant, Outcome.KILLED, _detail(code, text))

    def _write(self, path: str, text: str) -> None:
        """With a time of its own: Python takes what it compiled for current if second and size are equal."""
        place = self.root / path
        place.write_text(text)
        self._time += 10
        os.utime(place, (self._time, self._time))

    def _pytest(self, tests: Sequence[str]) -> tuple[int, str]:
        """Exit code and output. Tests that the system killed, maybe for others' memory, are run again."""
        code, text = self._pytest_once(tests)
        return self._pytest_once(tests) if code == -signal.SIGKILL else (code, text)

    def _pytest_once(self, tests: Sequence[str]) -> tuple[int, str]:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:cacheprovider", *tests]
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.root),
            "TDFORGE_CACHE": str(self._cache),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(self.root / ".hypothesis"),
        }
        process = subprocess.Popen(
            command, cwd=self.root, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True, preexec_fn=_limit,
        )  # fmt: skip
        self._process = process
        try:
            if not self._stopped:
                text, _ = process.communicate()
        finally:
            self._kill()
        if self._stopped:
            raise Stopped
        return process.returncode, text

    def stop(self) -> None:
        """Ends the tests that run here, and lets no others begin."""
        self._stopped = True
        self._kill()

    def _kill(self) -> None:
        """Ends the tests, and whatever they left running."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 10))  # SIGXCPU, not SIGKILL
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Path("/proc/self/oom_score_adj").write_text("1000")  # a mutant that eats all memory goes first


def _detail(code: int, text: str) -> str:
    """One line of what pytest said."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    lines = [line for line in text.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    last = text.strip().splitlines()[-1:] or [""]
    return (lines or last)[0].removeprefix("FAILED ").split(" - ")[0]


def copy_tree(to: Path) -> None:
    """What git knows of the tree, as it lies there now."""
    names = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def run(mutants: Sequence[Mutant], workers: int, tell: Callable[[Result], None]) -> list[Result]:
    """The results in the order of `mutants`; `tell` gets each as it comes. CatalogueError stops the run."""
    waiting: queue.SimpleQueue[tuple[int, Mutant]] = queue.SimpleQueue()
    for item in enumerate(mutants):
        waiting.put(item)
    found: dict[int, Result] = {}
    problems: list[str] = []

    def work(copy: Copy) -> None:
        for number, mutant in _taken(waiting):
            try:
                found[number] = copy.try_(mutant)
            except CatalogueError as error:
                problems.append(str(error))
                continue
            tell(found[number])

    def work_until_stopped(copy: Copy) -> None:
        try:
            with contextlib.suppress(Stopped):
                work(copy)
        finally:
            ended.release()

    ended = threading.Semaphore(0)
    with tempfile.TemporaryDirectory(prefix="tdforge-mutants-") as folder:
        copies = [Copy(Path(folder) / f"copy{number}", Path(folder) / "cache") for number in range(workers)]
        for copy in copies:
            copy_tree(copy.root)
        threads = [threading.Thread(target=work_until_stopped, args=(copy,)) for copy in copies]
        for thread in threads:
            thread.start()
        try:
            for _ in threads:
                ended.acquire()  # an interrupted `join` takes its thread for ended: threading.py, bpo-45274
        finally:  # Ctrl-C, or the end of the terminal, or nothing is left
            for copy in copies:
                copy.stop()
            for thread in threads:
                thread.join()
    if problems:
        raise CatalogueError("\n".join(problems))
    return [found[number] for number in sorted(found)]


def _taken(waiting: queue.SimpleQueue[tuple[int, Mutant]]) -> Iterator[tuple[int, Mutant]]:
    while True:
        try:
            yield waiting.get_nowait()
        except queue.Empty:
            return
