"""How much does a boot cost, and how fast is hashing? Writes docs/performance.md."""

import argparse
import hashlib
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from emu import api
from emu.config import RunConfig
from emu.observe import Observer
from emu.view import Vcpu
from formats.registers import RAX, Gpr
from formats.tdx.leaves import Leaf
from formats.units import GIB, KIB, MIB
from gen.core.hostlib import load
from gen.link.toolchain import C_FLAGS
from host.library import FLAGS
from tdforge import boot, qemu, show
from tdforge.bench_flows import HASHING, bfv_bytes, configurations, met, sizes, to_handoff
from tdforge.building import build_flow
from tdforge.errors import UserError
from tdforge.files import read
from tdforge.flows import find_flow
from tdforge.kernel import Kernel, find_kernel
from tdforge.running import run_td
from tdforge.sizes import show_size
from tdforge.tiny import BANNER, tiny_payload

PAGE_FILE = Path("docs") / "performance.md"
MEMORY = (256 * MIB, 2 * GIB)
# RAM that all vCPUs accept together, and how many there are.
SHARED_FLOW, SHARED_MEMORY, VCPUS = (
    Path("tests") / "dsl" / "flows" / "all_vcpus.tdf",
    64 * GIB,
    (1, 4, 16, 64),
)
# RAM that is left to Linux, and how much RAM there is.
LAZY_FLOW, LAZY_MEMORY = Path("tests") / "dsl" / "flows" / "lazy.tdf", (2 * GIB, 64 * GIB, 1024 * GIB)
LAZILY = {"lazy": LAZY_FLOW, "all": find_flow(boot.FLOW)}
# The bars of the first milestone.
MAX_INSTRUCTIONS = 40_000
MAX_MEASURED_PAGES = 16
MAX_SECONDS_TO_BANNER = 30.0
MAX_BFV = 64 * KIB
MAX_QEMU_PAGES = 99  # added at a launch of qemu.tdf
# The bars of the emulated TD: millions of guest instructions per second on plain code (the firmware's own
# hashing of the kernel, launch included); the kernel from reset to its attempt to mount a root file system.
MIN_MIPS = 150.0
MAX_SECONDS_TO_ROOT = 60.0
ROOT_MEMORY = GIB
HASHED = 64 * MIB  # bytes hashed to find a speed


@dataclass(frozen=True)
class Bar:
    """One figure that has a limit."""

    name: str
    figure: float
    limit: float
    kind: str = "at most"  # or "at least"

    @property
    def held(self) -> bool:
        """True if the figure is within its limit."""
        return self.figure <= self.limit if self.kind == "at most" else self.figure >= self.limit

    def row(self) -> tuple[str, str, str, str]:
        """Name, figure, limit, verdict."""
        limit = f"{self.kind} {self.limit:,.6g}"
        return (
            self.name,
            f"{self.figure:,.4g}" if self.figure % 1 else f"{self.figure:,.0f}",
            limit,
            self.verdict,
        )

    @property
    def verdict(self) -> str:
        """One word."""
        return "held" if self.held else "BROKEN"


def megabytes_per_second(hasher: Callable[[bytes], object], data: bytes) -> float:
    """Best of five runs over `data`, in 10^6 bytes per second."""
    best = min(_seconds(lambda: hasher(data)) for _ in range(5))
    return len(data) / best / 1e6


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def outside(report: Mapping[str, Any]) -> int:
    """Instructions of a run that are not hashing."""
    return int(report["instructions"] - report["instructions_excluded"])


def handoff_rows(reports: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Table of what a boot to the hand-over costs, one column for each report, under its heading."""
    columns = list(reports.values())
    rows: list[tuple[str, ...]] = [("", *reports)]
    rows.append(("instructions, without hashing", *(f"{outside(report):,}" for report in columns)))
    for key, text in (
        ("added", "pages added at launch"),
        ("extended", "pages that are in MRTD by content"),
        ("accepted_2m", "pages accepted, 2 MiB"),
        ("accepted_4k", "pages accepted, 4 KiB"),
    ):
        rows.append((text, *(f"{report['pages'][key]:,}" for report in columns)))
    for key, what in (("tdcalls", ""), ("vmcalls", "exit: ")):
        for name in sorted({name for report in columns for name in report[key]}):
            rows.append((what + name, *(f"{report[key].get(name, 0):,}" for report in columns)))
    return rows


class Accepts(Observer):
    """How often each vCPU calls TDG.MEM.PAGE.ACCEPT."""

    def __init__(self) -> None:
        self.by: Counter[int] = Counter()

    def on_tdcall(self, vcpu: Vcpu, given: Gpr, result: Gpr) -> None:
        """Counts it, whatever the answer."""
        self.by[vcpu.index] += given[RAX] == Leaf.MEM_PAGE_ACCEPT


def shared_rows(kernel: bytes) -> list[tuple[str, ...]]:
    """Table of what vCPUs that accept together do, one column for each number of them. UserError."""
    image = build_flow(SHARED_FLOW, boot.OUT).image
    rows: list[tuple[str, ...]] = []
    for vcpus in VCPUS:
        config = to_handoff(image, SHARED_MEMORY, kernel, vcpus=vcpus)
        td = api.prepare(config)
        try:
            seen = Accepts()
            td.observe(seen)
            report = met(api.report(td, td.run(config.max_instructions, None)), f"{vcpus} vCPUs: no handoff")
        finally:
            td.close()
        figures = (vcpus, seen.by.total(), seen.by[0], max(seen.by.values()), outside(report.to_json()))
        rows.append(tuple(f"{figure:,}" for figure in figures))
    names = ("vCPUs", "TDG.MEM.PAGE.ACCEPT", "by vCPU 0", "by the busiest vCPU", "instructions of vCPU 0")
    return list(zip(names, *rows, strict=True))


def lazy_rows() -> list[tuple[str, ...]]:
    """Table of what a boot costs that leaves RAM to Linux, and one that accepts all. UserError."""
    rows: list[tuple[str, ...]] = [
        ("", *(f"{words}, {show_size(size)}" for words in LAZILY for size in LAZY_MEMORY))
    ]
    counts: list[tuple[int, ...]] = []
    payload = tiny_payload()
    for flow in LAZILY.values():
        image = build_flow(flow, boot.OUT).image
        for memory in LAZY_MEMORY:
            config = to_handoff(image, memory, payload)
            report = met(run_td(config, console=None), f"{show_size(memory)}: no handoff")
            accepted = report.tdcalls["TDG.MEM.PAGE.ACCEPT"]
            counts.append((outside(report.to_json()), sum(report.tdcalls.values()), accepted))
    names = ("instructions, without hashing", "TDCALLs", "TDG.MEM.PAGE.ACCEPT")
    rows += [(name, *(f"{each[i]:,}" for each in counts)) for i, name in enumerate(names)]
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """`rows`, headings first, as a Markdown table."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + "\n"


def measure() -> tuple[str, list[Bar]]:
    """The page's text and the bars. Raises UserError."""
    image_path, image = boot.build_image()
    qemu_path = build_flow(find_flow(qemu.FLOW), boot.OUT).image
    kernel = find_kernel(None, lambda text: show.err().print(f"tdforge: {text}"))
    data = read(kernel.path, "kernel")

    def start(
        memory: int, until: str, skip: tuple[str, ...], path: Path = image_path, vmm: str = RunConfig.vmm
    ) -> dict[str, Any]:
        config = to_handoff(path, memory, data, until=until, skip_count=skip, vmm=vmm)
        return dict(met(run_td(config, console=None), f"{show_size(memory)}: no {until}").to_json())

    reports = {f"linux.tdf, {show_size(size)}": start(size, "handoff", HASHING) for size in MEMORY}
    on_qemu = {
        f"qemu.tdf, {show_size(size)}": start(size, "handoff", HASHING, qemu_path, "qemu") for size in MEMORY
    }
    banner = "console:" + (BANNER if kernel.tiny else boot.AFTER_BANNER)
    seconds = _seconds(lambda: start(MEMORY[-1], banner, ()))
    plain: list[dict[str, Any]] = []
    plain_seconds = _seconds(lambda: plain.append(start(MEMORY[-1], "handoff", ())))
    root = "console:" + (BANNER if kernel.tiny else boot.LAST_WORDS)
    root_seconds = _seconds(lambda: start(ROOT_MEMORY, root, ()))
    speeds = hash_speeds()
    bfv = bfv_bytes(image)
    bars = [
        *(
            Bar(f"instructions, {name}", outside(report), MAX_INSTRUCTIONS)
            for name, report in reports.items()
        ),
        Bar(
            "pages added, qemu.tdf", max(item["pages"]["added"] for item in on_qemu.values()), MAX_QEMU_PAGES
        ),
        Bar(
            "measured pages", max(item["pages"]["extended"] for item in reports.values()), MAX_MEASURED_PAGES
        ),
        Bar("BFV bytes", bfv, MAX_BFV),
        Bar("seconds to the kernel's banner", seconds, MAX_SECONDS_TO_BANNER),
        Bar("seconds to its root file system, 1 GiB", root_seconds, MAX_SECONDS_TO_ROOT),
        Bar(
            "million instructions/s, firmware",
            plain[0]["instructions"] / plain_seconds / 1e6,
            MIN_MIPS,
            "at least",
        ),
    ]
    tables = of_flows(data), shared_rows(data), lazy_rows()
    return page(kernel, reports | on_qemu, *tables, speeds, bars), bars


def of_flows(kernel: bytes) -> list[tuple[str, ...]]:
    """Table of what each shipped flow costs, one column for each. Raises UserError."""
    runs = configurations(kernel, boot.OUT, lambda text: show.err().print(f"tdforge: {text}"))
    reports = {
        name: met(run_td(config, console=None), f"{name}: no handoff") for name, config in runs.items()
    }
    of_images = [sizes(config) for config in runs.values()]
    head, *rows = handoff_rows({name: report.to_json() for name, report in reports.items()})
    return [head, *((what, *(f"{each[what]:,}" for each in of_images)) for what in of_images[0]), *rows]


def page(
    kernel: Kernel,
    reports: Mapping[str, Mapping[str, Any]],
    flows: Sequence[tuple[str, ...]],
    shared: Sequence[Sequence[str]],
    lazy: Sequence[Sequence[str]],
    speeds: Mapping[str, float],
    bars: Sequence[Bar],
) -> str:
    """The whole of docs/performance.md."""
    hashing = [("SHA-384", "MB/s"), *((name, f"{speed:,.0f}") for name, speed in speeds.items())]
    limits = [("figure", "measured", "limit", ""), *(bar.row() for bar in bars)]
    return (
        "# Performance\n\n"
        "`./run bench` (`nox -s bench`) writes this page. The boot is emulated, not on TDX hardware:\n"
        "instructions and calls are exact and the same on every machine; seconds and MB/s are those of the\n"
        "machine named here.\n\n"
        f"- {date.today().isoformat()}, {machine()}, Python {platform.python_version()}\n"
        f"- kernel: {kernel.version.split(' ')[0]} ({kernel.origin})\n\n"
        "## From reset to hand-over\n\n"
        "`linux.tdf` gets kernel and command line in its Payload sections, `qemu.tdf` through fw_cfg.\n"
        "An exit is a TDG.VP.VMCALL, by what it asks the VMM for.\n\n"
        f"{markdown(handoff_rows(reports))}\n"
        "## Each flow\n\n"
        f"From reset to hand-over with {show_size(MEMORY[0])} and 1 vCPU. `payload.tdf` and\n"
        "`service_td.tdf` have the sample of `runtime-c/sample` in the image, the others\n"
        "start the kernel: `alioth.tdf` and `qemu.tdf` get it from the VMM of that name,\n"
        "`vmlinux.tdf` from Dragonball, unpacked. What `secure_boot.tdf` verifies is\n"
        "signed with a new key of each kind: another key or signature takes ten thousands of\n"
        "instructions more or less.\n\n"
        f"{markdown(flows)}\n"
        f"{SHARED_TEXT}\n{markdown(shared)}\n"
        f"{LAZY_TEXT}\n{markdown(lazy)}\n"
        f"## SHA-384 on this host\n\n{markdown(hashing)}\n"
        f"## Limits\n\n{markdown(limits)}"
    )


SHARED_TEXT = f"""\
## Acceptance on all vCPUs

`{SHARED_FLOW}` (`accept ram on all vcpus`) with {show_size(SHARED_MEMORY)}, in the order
of `--seed 0`. Calls are those of all vCPUs, instructions are without hashing. Each part of 2 MiB costs about
40 of them. With many vCPUs, vCPU 0 spends most of its own on finding them and on their ids.
"""


LAZY_TEXT = f"""\
## RAM that is left to Linux

From reset to hand-over with the payload of `tdforge/tiny.py`: `{LAZY_FLOW}`
(`accept ram up to 256 MiB, rest lazily`) and `linux.tdf`, which accepts all. What is left costs a bit for
each 2 MiB, set bytewise by one instruction; some thousand instructions are the CRC of the EFI system table.
"""


def machine() -> str:
    """Processor name and count."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} CPUs"


def core_label() -> str:
    """What the measured C core is: the firmware's sources, but not the firmware's machine code."""
    host, firmware = (_optimisation(flags) for flags in (FLAGS, C_FLAGS))
    return f"C core, compiled for this host with {host} (the image's is compiled with {firmware})"


def _optimisation(flags: Sequence[str]) -> str:
    return next(flag for flag in flags if flag.startswith("-O"))


def hash_speeds() -> dict[str, float]:
    """MB/s of the C core's SHA-384 and of hashlib, measured one after the other."""
    core = load()
    digest = core.ffi.new("uint8_t[48]")

    def by_core(data: bytes) -> bytes:
        core.lib.sha384(span, digest)
        return bytes(digest)

    data = bytes(HASHED)
    span = core.span(data)
    if by_core(data) != hashlib.sha384(data).digest():
        raise UserError("the C core's SHA-384 is wrong")
    return {
        core_label(): megabytes_per_second(by_core, data),
        "hashlib (OpenSSL)": megabytes_per_second(lambda data: hashlib.sha384(data).digest(), data),
    }


def main(words: Sequence[str] | None = None) -> int:
    """Returns 0 if every bar holds. SystemExit for words on the command line, of which there are none."""
    made = argparse.ArgumentParser(
        prog="./run bench",
        description=f"Measure a boot and hashing; write {PAGE_FILE}.",
        epilog="example: ./run bench",
    )
    made.parse_args(words)
    try:
        text, bars = measure()
    except UserError as error:
        print(f"tdforge: {error}", file=sys.stderr)
        return 1
    PAGE_FILE.parent.mkdir(exist_ok=True)
    PAGE_FILE.write_text(text)
    print(text)
    return 0 if all(bar.held for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
