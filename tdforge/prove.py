"""What does `nox -s prove` do? Has CBMC prove the C core free of faults, by runtime-c/proofs.

Each proof calls functions of the shipped sources with any input up to its bound. What CBMC shows of all of
them: no access out of bounds, no undefined arithmetic, no endless loop (docs/proofs.md).
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from formats.cstructs import c_header
from formats.units import MIB
from gen.core.headers import prelude_h
from host.cache import cache_dir
from tdforge.apt import Apt, Say, Suite, alone
from tdforge.errors import FAILED, OK, UserError, exit_code

ROOT = Path(__file__).resolve().parents[1]
CORE = "runtime-c"
TABLE = f"{CORE}/proofs/proofs.toml"

# cbmc 6.6.0-4 and its solver, minisat 1:2.2.1-8, of Debian 13, by tdforge.apt.files_digest. Its C library may
# be any of that release: a proof does not depend on it.
PROVER, DIGEST = ("cbmc", "minisat"), "da6c09180f763f98eb89f05c7ab18a338b0cc87136f4e8e2edc218c68ba23495"
LIBRARIES = ("libc6", "libgcc-s1", "libstdc++6")

CHECKS = ("bounds", "pointer", "pointer-overflow", "signed-overflow", "undefined-shift", "div-by-zero")
C_FLAGS = ("-target", "x86_64-freestanding-none", "-std=c17", "-ffreestanding", "-D__CPROVER__")
SHOWN = 5  # of the assertions that fail
REFUTED = 10  # exit code of cbmc: an assertion fails


@dataclass(frozen=True)
class Mutant:
    """A check that is taken out, by a text that stands in `path` exactly once: the proof has to fail."""

    path: str
    find: str
    put: str


@dataclass(frozen=True)
class Proof:
    """One entry of the table; prove_NAME in `file` is what CBMC begins with."""

    name: str
    file: str  # in runtime-c/proofs
    functions: tuple[str, ...]  # what is proved, apart from what they call
    input: str  # in words: which inputs are all tried
    assumes: str = ""  # in words
    bound: int = 0  # BOUND in the file
    lists: Mapping[str, int] = field(default_factory=dict)  # `struct.member`: shorter, and last in its struct
    instead: Mapping[str, str] = field(default_factory=dict)  # function of the core: function of the file
    unrolled: Mapping[str, int] = field(default_factory=dict)  # loops inside of one with a contract: rounds
    unwind: int = 10  # for loops without a contract, which have to end by then
    seconds: int = 120  # of one processor
    memory: int = 4000  # MiB
    mutants: tuple[Mutant, ...] = ()


@dataclass(frozen=True)
class Result:
    """What became of a proof: `failed` are the assertions that do not hold, or why there is no answer."""

    proof: Proof
    answered: bool
    failed: tuple[str, ...]
    seconds: float

    @property
    def holds(self) -> bool:
        return self.answered and not self.failed


def read_proofs(path: Path = ROOT / TABLE) -> tuple[Proof, ...]:
    """The table, in its order. UserError: a name twice."""
    found = [_proof(item) for item in tomllib.loads(path.read_text())["proof"]]
    names = [proof.name for proof in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{path}: more than one proof is called {', '.join(twice)}")
    return tuple(found)


def read_unproved(path: Path = ROOT / TABLE) -> Mapping[str, str]:
    """The sources of the core that have no proof, each with the reason."""
    found: dict[str, str] = tomllib.loads(path.read_text())["unproved"]
    return found


def _proof(item: dict[str, Any]) -> Proof:
    mutants = tuple(Mutant(**each) for each in item.pop("mutant", ()))
    return Proof(functions=tuple(item.pop("functions")), mutants=mutants, **item)


def mutated(mutant: Mutant, root: Path) -> str:
    """The file without the check. UserError unless the text stands there exactly once."""
    text = (root / mutant.path).read_text()
    if (found := text.count(mutant.find)) != 1:
        raise UserError(f"{mutant.path}: found {mutant.find!r} {found} times, expected once")
    return text.replace(mutant.find, mutant.put)


def headers(lists: Mapping[str, int]) -> Mapping[str, str]:
    """The generated headers by name. Each list of `lists` is as short as said there and the last member of
    its struct: CBMC sees the end of the object, not that of a member.
    """
    text = prelude_h()
    for name, capacity in lists.items():
        struct, member = name.split(".")
        found = re.search(rf"^struct {struct} \{{\n(.*?)^\}};", text, re.MULTILINE | re.DOTALL)
        lines = found[1].splitlines(keepends=True) if found else []
        chosen = [line for line in lines if line.endswith(f"}} {member};\n")]
        if found is None or not chosen:
            raise UserError(f"{TABLE}: no list {name} in the prelude")
        lines.remove(chosen[0])
        lines.append(re.sub(r"\[\d+\]", f"[{capacity}]", chosen[0]))
        text = text[: found.start(1)] + "".join(lines) + text[found.end(1) :]
    if lists:  # sizes and offsets are others
        text = re.sub(r"^_Static_assert.*\n", "", text, flags=re.MULTILINE)
    return {"primitives.h": text, "formats.h": c_header()}


class Prover:
    """CBMC's programs, each run with limits; they run with their own release's loader and C library."""

    def __init__(self, place: Path) -> None:
        prover, library = place / "prover", place / "library/usr/lib/x86_64-linux-gnu"
        path = f"{library}:{prover / 'usr/lib'}"
        self._start = (str(library / "ld-linux-x86-64.so.2"), "--library-path", path)
        self._programs = prover / "usr/bin"

    def run(self, proof: Proof, root: Path) -> Result:
        """Proves it for the core below `root`."""
        with tempfile.TemporaryDirectory(prefix="tdforge-prove-") as scratch:
            folder = Path(scratch)
            for name, text in headers(proof.lists).items():
                (folder / name).write_text(text)
            spent = 0.0
            for words in self._steps(proof, root, folder):
                code, said, seconds = _limited(words, proof, folder)
                spent += seconds
                if code:
                    break
        if code == 0 and "VERIFICATION SUCCESSFUL" in said:
            return Result(proof, True, (), spent)
        if code == REFUTED:
            return Result(proof, True, failed(said), spent)
        return Result(proof, False, (reason(code, said, proof, spent),), spent)

    def _steps(self, proof: Proof, root: Path, folder: Path) -> Iterator[Sequence[str]]:
        core = root / CORE
        entry = f"prove_{proof.name}"
        includes = [f"-I{place}" for place in (folder, core / "include", core / "src", core / "proofs")]
        source = str(core / "proofs" / proof.file)
        flags = [*C_FLAGS, f"-DBOUND={proof.bound}ull", *includes]
        yield [sys.executable, "-m", "ziglang", "cc", *flags, "-E", source, "-o", "one.i"]
        yield [*self._program("goto-cc"), "-std=c17", "--function", entry, "one.i", "-o", "one.gb"]
        calls = [word for pair in proof.instead.items() for word in ("--replace-calls", ":".join(pair))]
        rounds = ",".join(f"{loop}:{count}" for loop, count in proof.unrolled.items())
        last = "one.gb"
        for words in (calls, rounds and ["--unwindset", rounds, "--unwinding-assertions"]):
            if words:
                yield [*self._program("goto-instrument"), *words, last, f"{last}.gb"]
                last = f"{last}.gb"
        contracts = ("--dfcc", entry, "--apply-loop-contracts")
        yield [*self._program("goto-instrument"), *contracts, last, "last.gb"]
        checks = [f"--{check}-check" for check in CHECKS]
        unwind = ("--unwind", str(proof.unwind), "--unwinding-assertions")
        yield [*self._program("cbmc"), *checks, *unwind, "--slice-formula", "last.gb"]

    def _program(self, name: str) -> Sequence[str]:
        return (*self._start, str(self._programs / name))


def _limited(words: Sequence[str], proof: Proof, folder: Path) -> tuple[int, str, float]:
    """Exit code, output, and seconds of processor time."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (proof.seconds, proof.seconds + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if words[0] != sys.executable:  # the compiler only reserves what it does not use
            resource.setrlimit(resource.RLIMIT_AS, (proof.memory * MIB, proof.memory * MIB))

    with (folder / "said").open("w+") as output:
        process = subprocess.Popen(
            words, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=limit
        )
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        return process.returncode, output.read(), used.ru_utime + used.ru_stime


def failed(said: str) -> tuple[str, ...]:
    """The assertions that fail, each with its place."""
    found = []
    file = ""
    for line in said.splitlines():
        if at := re.match(r"(\S+) function (\S+)$", line):
            file = re.sub(rf"^.*(?={CORE}/)", "", os.path.normpath(at[1]))
        elif at := re.match(r"\[\S+\] (?:file \S+ )?(?:line (\d+) )?(.*): FAILURE$", line):
            found.append(f"{file}:{at[1] or '?'}: {at[2]}")
    return tuple(found)


def reason(code: int, said: str, proof: Proof, spent: float) -> str:
    """Why there is no answer: what a program of CBMC's ended with, and after how many seconds."""
    if spent >= proof.seconds:
        return f"no answer within {proof.seconds} s"
    if "ut of memory" in said or "bad_alloc" in said:
        return f"no answer within {proof.memory} MiB"
    lines = (
        [line for line in said.splitlines() if "error" in line.lower()] or said.splitlines() or ["no message"]
    )
    return f"exit code {code}: {lines[0]}"


def prover(say: Say) -> Prover:
    """CBMC of Debian 13, fetched once into the cache, whatever release the machine runs. UserError."""
    cache = cache_dir()
    place = cache / f"cbmc-{DIGEST[:16]}"
    apt = Apt(cache, say, Suite("trixie"))
    with alone(cache):
        if not (place / "prover").is_dir():
            apt.unpack(PROVER, place / "prover", only=("usr/bin/", "usr/lib/"), digest=DIGEST)
        if not (place / "library").is_dir():
            apt.unpack(LIBRARIES, place / "library", only=("usr/lib/x86_64-linux-gnu/",), pinned=False)
    return Prover(place)


def prove_all(prover: Prover, proofs: Sequence[Proof], jobs: int) -> list[Result]:
    """Runs them, `jobs` at a time; a line for each."""
    found = []
    with ThreadPoolExecutor(jobs) as pool:
        for result in pool.map(lambda proof: prover.run(proof, ROOT), proofs):
            word = "holds" if result.holds else "FAILS" if result.answered else "no answer"
            print(f"{_begin(result, word)}  {', '.join(result.proof.functions)}", flush=True)
            for line in result.failed[:SHOWN]:
                print(f"    {line}", flush=True)
            found.append(result)
    return found


def try_mutants(prover: Prover, proofs: Sequence[Proof], jobs: int) -> bool:
    """The same without one check at a time. True: each is noticed."""
    pairs = [(proof, mutant) for proof in proofs for mutant in proof.mutants]
    good = True
    with ThreadPoolExecutor(jobs) as pool:
        results = pool.map(lambda pair: run_mutant(prover, *pair), pairs)
        for (_, mutant), result in zip(pairs, results, strict=True):
            noticed = result.answered and not result.holds
            word = "noticed" if noticed else "SURVIVED" if result.answered else "no answer"
            print(f"{_begin(result, word)}  {mutant.find.strip().splitlines()[0]}", flush=True)
            for line in result.failed[:1]:
                print(f"    {line}", flush=True)
            good = good and noticed
    return good


def _begin(result: Result, word: str) -> str:
    return f"{result.proof.name:16} {word:9} {result.seconds:6.1f} s"


def table(results: Iterable[Result]) -> str:
    """The proofs as a Markdown table, as docs/proofs.md has it."""
    lines = ["| Proof | Functions | Any input | Assumes | Time |", "|---|---|---|---|---|"]
    for result in results:
        proof = result.proof
        functions = ", ".join(f"`{name}`" for name in proof.functions)
        time = f"{result.seconds:.0f} s" if result.seconds >= 1 else "under 1 s"
        lines.append(f"| `{proof.name}` | {functions} | {proof.input} | {proof.assumes} | {time} |")
    return "\n".join(lines)


def run_mutant(prover: Prover, proof: Proof, mutant: Mutant) -> Result:
    """The proof with the check taken out, on a copy of the core. UserError: the text is not there."""
    text = mutated(mutant, ROOT)
    with tempfile.TemporaryDirectory(prefix="tdforge-prove-") as scratch:
        shutil.copytree(ROOT / CORE, Path(scratch) / CORE)
        (Path(scratch) / mutant.path).write_text(text)
        return prover.run(proof, Path(scratch))


def parser() -> argparse.ArgumentParser:
    """Options of `./run prove`."""
    made = argparse.ArgumentParser(
        prog="./run prove --",
        description="Prove with CBMC that the C core keeps to what it is given, and ends.",
        epilog="example: ./run prove -- hob linux --mutants",
    )
    made.add_argument(
        "names", nargs="*", metavar="NAME", help="proofs of runtime-c/proofs/proofs.toml; default: all"
    )
    made.add_argument(
        "--jobs", type=int, default=2, metavar="N", help="proofs at a time; default: %(default)s"
    )
    made.add_argument(
        "--mutants",
        action="store_true",
        help="take out one check of a module at a time: its proof has to fail",
    )
    made.add_argument("--table", action="store_true", help="print the table of docs/proofs.md at the end")
    return made


def main(words: Sequence[str] | None = None) -> int:
    """0: each proof holds, or with --mutants each fails; 1: not so."""
    asked = parser()
    given = asked.parse_args(words)
    known = {proof.name: proof for proof in read_proofs()}
    if unknown := [name for name in given.names if name not in known]:
        asked.error(f"no proof {unknown[0]}; there are {', '.join(known)}")
    if given.jobs < 1:
        asked.error("--jobs: expected 1 or more")
    proofs = [known[name] for name in given.names or known]

    def work() -> int:
        made = prover(lambda text: print(f"tdforge: {text}", file=sys.stderr, flush=True))
        if given.mutants:
            return OK if try_mutants(made, proofs, given.jobs) else FAILED
        results = prove_all(made, proofs, given.jobs)
        if given.table:
            print(table(results))
        return OK if all(result.holds for result in results) else FAILED

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
