"""What does `nox -s kernels` do? Boots each TDX kernel of Debian's mirrors with linux.tdf, prints a table."""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from emu.config import MODULE_1_5_01, MODULES, RunConfig
from host.cache import cache_dir
from tdforge import boot, show
from tdforge.apt import Apt, Say, Suite, alone
from tdforge.errors import UserError, exit_code
from tdforge.files import read
from tdforge.kernel import named_kernel, version_key
from tdforge.machine_options import memory, size
from tdforge.running import run_td, symbols_of

# The first Debian kernel with CONFIG_INTEL_TDX_GUEST=y is 6.12.
FIRST = (6, 12)
PACKAGE = r"linux-image-[0-9]+\.[0-9]+[.0-9]*[-+~.a-z0-9]*-(cloud-|rt-)?amd64"
OWN = "own"  # the archives of this machine
SUITES = (OWN, "trixie", "trixie-backports", "sid")
GUEST = "tdx: Guest detected"


@dataclass(frozen=True)
class Row:
    """One kernel: whether it got to its root file system in a TD, and how the run ended."""

    suite: str
    package: str
    version: str
    good: bool
    end: str
    million_instructions: int


def tdx_kernels(names: Sequence[str]) -> list[str]:
    """Packages of kernels that know TDX, oldest first. A meta-package (linux-image-6.12-amd64) is none."""
    release = len(FIRST) + 2  # numbers in the name of a release, with that of amd64
    found = [name for name in names if re.fullmatch(PACKAGE, name) and len(version_key(name)) >= release]
    new = (name for name in found if version_key(name)[: len(FIRST)] >= FIRST)
    return sorted(new, key=lambda name: (version_key(name), name))


def boots(suite: str, package: str, file: Path, ram: int, image: tuple[Path, bytes], module: str) -> Row:
    """Boots one kernel with `console=ttyS0` alone. UserError: it is no kernel, or does not fit."""
    kernel = named_kernel(file)
    config = RunConfig(
        image[1], str(image[0]), ram, kernel=read(file, "kernel"), cmdline=boot.CMDLINE,
        until=f"console:{boot.LAST_WORDS}", elf=symbols_of(image[0]), module=module,
    )  # fmt: skip
    report = run_td(config, console=None)
    facts = report.to_json()
    good = report.met and GUEST in report.console
    version = kernel.version.split(" ")[0]
    return Row(suite, package, version, good, show.end_line(report.end), facts["instructions"] // 1_000_000)


def rows(suites: Sequence[str], match: re.Pattern[str], ram: int, module: str, say: Say) -> Iterator[Row]:
    """Each kernel of each suite whose package matches; one that cannot be had or started is a row that says
    why. UserError.
    """
    image = boot.build_image()
    cache = cache_dir()
    for suite in suites:
        with alone(cache):
            apt = Apt(cache, say, None if suite == OWN else Suite(suite))
            names = [name for name in tdx_kernels(apt.names(PACKAGE)) if match.search(name)]
        say(f"{suite}: {len(names)} TDX kernels")
        for number, package in enumerate(names, 1):
            say(f"{suite} {number}/{len(names)}: {package}")
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder) / "kernel"
                try:
                    with alone(cache):
                        file = unpacked(apt, package, place)
                    yield boots(suite, package, file, ram, image, module)
                except UserError as error:
                    yield Row(suite, package, "", False, str(error), 0)


def unpacked(apt: Apt, package: str, place: Path) -> Path:
    """The kernel of a package, below `place`. From 6.19 on it is in a package of its own, later beside the
    modules. UserError: it cannot be had, or is elsewhere.
    """
    version = package.removeprefix("linux-image-")
    files = (f"boot/vmlinuz-{version}", f"usr/lib/modules/{version}/vmlinuz")
    binary = [name for name in apt.depends(package) if name.startswith("linux-binary-")]
    apt.unpack([package, *binary], place, only=files, pinned=False)
    for file in files:
        if (place / file).exists():
            return place / file
    raise UserError(f"{package}: neither {' nor '.join(files)}")


def pattern(text: str) -> re.Pattern[str]:
    """argparse type: a regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from error


def parser() -> argparse.ArgumentParser:
    """Options of `./run kernels`."""
    made = argparse.ArgumentParser(
        prog="./run kernels",
        description="Boot every TDX kernel of Debian's mirrors with linux.tdf in the emulated TD.",
        epilog="example: ./run kernels --suite own --match 'cloud|rt' --json",
    )
    made.add_argument(
        "--suite", action="append", choices=SUITES, help=f"of these only; default: {', '.join(SUITES)}"
    )
    made.add_argument(
        "--match",
        type=pattern,
        default=pattern(""),
        metavar="REGEX",
        help="of packages with such a name only",
    )
    made.add_argument("--memory", type=memory, default=size("1G"), metavar="SIZE", help="default: 1G")
    made.add_argument(
        "--module", choices=MODULES, default=MODULE_1_5_01, help="the TDX module; default: %(default)s"
    )
    made.add_argument("--json", action="store_true", help="a list of objects instead of a table")
    return made


def kernels(given: argparse.Namespace) -> int:
    """0 if every kernel got to its root file system. UserError."""
    page = show.err()
    found = []
    suites = given.suite or SUITES
    for row in rows(
        suites, given.match, given.memory, given.module, lambda text: page.print(f"tdforge: {text}")
    ):
        found.append(row)
        page.print(f"tdforge: {row.package}: {'good' if row.good else row.end}")
    if given.json:
        print(json.dumps([asdict(row) for row in found], indent=2))
    else:
        for row in found:
            verdict = "good" if row.good else "BAD "
            print(f"{verdict}  {row.suite:<17}{row.package:<46}{row.million_instructions:>7,} M  {row.end}")
    if not found:
        raise UserError("no TDX kernel in any of these archives")
    return 0 if all(row.good for row in found) else 1


def main(words: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    given = parser().parse_args(words)
    return exit_code(lambda: kernels(given))


if __name__ == "__main__":
    sys.exit(main())
