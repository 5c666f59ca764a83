"""Which options say what runs in the emulated TD, and which run do they describe?"""

import argparse
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from emu.config import MAX_VCPUS, MODULE_1_5_01, MODULES, RunConfig, check_memory, check_vcpus
from emu.ending import UNTIL_REASONS, Until
from emu.signals import EmuError
from emu.tdx import topology
from emu.vmm.choose import parse as parse_vmm
from emu.vmm.devices.clock import EPOCH, parse_time
from emu.vmm.presets import PRESETS, Kernel
from formats import bundle, linux, tdvf
from formats import payload as payload_file
from formats.errors import FormatError
from formats.igvm import is_igvm
from image.hosts import READERS, verdicts
from tdforge import td_options
from tdforge.command import Options
from tdforge.errors import UserError
from tdforge.files import checked, read
from tdforge.running import symbols_of
from tdforge.sizes import parse_size

T = TypeVar("T")


def size(text: str) -> int:
    """argparse type: a number of bytes."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def memory(text: str) -> int:
    """argparse type: how much memory a TD gets, in bytes."""
    number = size(text)
    _checked(lambda: check_memory(number))
    return number


def natural(text: str, least: int = 0) -> int:
    """argparse type: a whole number from `least`."""
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
    return int(text)


def positive(text: str) -> int:
    """argparse type: a whole number from 1."""
    return natural(text, 1)


def vcpus(text: str) -> int:
    """argparse type: how many vCPUs a TD gets."""
    number = positive(text)
    _checked(lambda: check_vcpus(number))
    return number


def apic_ids(text: str, number: int) -> str:
    """The option, checked against how many vCPUs there are. UserError."""
    try:
        topology.parse(text, number)
    except EmuError as error:
        raise UserError(str(error)) from None
    return text


def moment(text: str) -> str:
    """argparse type: a date and time."""
    return _checked(lambda: parse_time(text)).isoformat()


def vmm(text: str) -> str:
    """argparse type: a preset or a hostile VMM."""
    _checked(lambda: parse_vmm(text))
    return text


def until(text: str) -> str:
    """argparse type: the condition that ends a run."""
    _checked(lambda: Until.parse(text))
    return text


def _checked(work: Callable[[], T]) -> T:
    """What `work` returns; an EmuError becomes argparse's."""
    try:
        return work()
    except EmuError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_options(options: Options, of_td: Options) -> None:
    """What makes a run but its image; `of_td` gets those that the host fixes when it creates the TD."""
    options.add_argument(
        "--kernel",
        type=Path,
        metavar="FILE",
        help="the kernel that the VMM loads: a bzImage, for dragonball and libkrun (and td-shim-spec, if the "
        "flow takes it) a vmlinux; td-shim-spec: an ELF or PE executable too",
    )
    options.add_argument("--initrd", type=Path, metavar="FILE")
    options.add_argument("--cmdline", default="", metavar="TEXT", help="kernel command line")
    options.add_argument("--memory", type=memory, default=size("2G"), metavar="SIZE", help="default: 2G")
    options.add_argument("--vcpus", type=vcpus, default=1, metavar="N", help=f"up to {MAX_VCPUS}; default: 1")
    options.add_argument(
        "--apic-ids", default="", metavar="IDS",
        help="the vCPUs' APIC ids: 0,2,1 in the order of their indices, or sockets=2,cores=3,threads=1, "
        "numbered as QEMU numbers them; default: the indices",
    )  # fmt: skip
    options.add_argument(
        "--module", choices=MODULES, default=MODULE_1_5_01,
        help="the TDX module; newer ones tell a vCPU its APIC id; default: %(default)s",
    )  # fmt: skip
    options.add_argument(
        "--vmm", type=vmm, default="td-shim-spec", metavar="PRESET",
        help=f"VMM whose TD HOB and memory map to use: {', '.join(PRESETS)}; hostile:SEED or "
        "hostile:SEED:PRESET attacks the guest, hostile-fw_cfg:SEED by its fw_cfg device; "
        "default: td-shim-spec",
    )  # fmt: skip
    options.add_argument(
        "--script", type=Path, metavar="FILE.py", help="functions that observe or change the VMM's actions"
    )
    options.add_argument(
        "--until", type=until, default="handoff", metavar="CONDITION",
        help=f"{', '.join(UNTIL_REASONS)}, or console:TEXT ends the run with code 0; default: %(default)s",
    )  # fmt: skip
    options.add_argument(
        "--max-instructions", type=positive, default=RunConfig.max_instructions, metavar="N",
        help="end the run after this many on one vCPU; default: %(default)s",
    )  # fmt: skip
    options.add_argument(
        "--stdin", type=Path, metavar="FILE",
        help="input of the serial port; default: the keyboard, if standard input is a terminal",
    )  # fmt: skip
    options.add_argument(
        "--seed", type=natural, default=0, metavar="N", help="order of the vCPUs; default: 0"
    )
    options.add_argument(
        "--rtc", type=moment, default=EPOCH.isoformat(), metavar="TIME",
        help="time of the clock at the start, in UTC; default: %(default)s",
    )  # fmt: skip
    td_options.add_options(of_td)


def defaults() -> dict[str, Any]:
    """What these options are when they are not given."""
    parser = argparse.ArgumentParser()
    add_options(parser, parser)
    return vars(parser.parse_args([]))


def run_config(given: argparse.Namespace, image_file: Path) -> RunConfig:
    """The run of an image that the options describe. UserError."""
    preset = parse_vmm(given.vmm)[0]
    image = read(image_file, "image")
    kernel = read(given.kernel, "kernel") if given.kernel else None
    tdvf_image = not is_igvm(image)
    if tdvf_image:
        check_host(checked(image, image_file, preset.vmm.metadata), str(image_file), preset.name)
    initrd = read(given.initrd, "initrd") if given.initrd else None
    if initrd is not None and kernel is None:
        raise UserError("--initrd needs --kernel")
    if kernel is not None and preset.kernel is Kernel.SECTION and tdvf_image:
        name, reader = str(given.kernel), preset.vmm.metadata
        check_payload(
            image, image_file, kernel, name, initrd, given.cmdline, reader, any_payload=preset.any_payload
        )
    return RunConfig(
        image=image,
        image_name=str(image_file),
        elf=symbols_of(image_file),
        kernel=kernel,
        initrd=initrd,
        cmdline=given.cmdline,
        memory=given.memory,
        vcpus=given.vcpus,
        apic_ids=apic_ids(given.apic_ids, given.vcpus),
        module=given.module,
        vmm=given.vmm,
        script=given.script,
        seed=given.seed,
        rtc=given.rtc,
        stdin=read(given.stdin, "input") if given.stdin else b"",
        until=given.until,
        max_instructions=given.max_instructions,
        td=td_options.parameters(given),
        mrtd_order=given.mrtd_order,
        host_page_size=given.host_page_size,
        map_gpa_retry=given.map_gpa_retry,
    )


def check_host(image: bytes, name: str, preset: str, memory: int | None = None) -> None:
    """Would the VMM that the preset is named after load this image, into `memory` bytes? UserError with its
    reason.
    """
    vmm = preset.partition(":")[0]
    (verdict,) = verdicts(image, (vmm,))
    if not verdict.accepts:
        raise UserError(f"{vmm} refuses {name}: {verdict.refusals[0].text}{cut_short(image)}")
    if memory is None:
        return
    reader = READERS[vmm][0]
    for item in reader.metadata(image).sections:
        if not reader.takes(item, reader.ram(memory), len(image)):
            where = f"{item.type_name} section {item.address:#x} to {item.end:#x}"
            raise UserError(f"{name}: {where} does not lie in {memory >> 20} MiB of RAM")


def cut_short(image: bytes) -> str:
    """What probably lies behind a refusal: the file lacks its start, from whose end all else is found."""
    with suppress(FormatError):
        sections = tdvf.metadata(image).sections
        end = max((item.data_offset + item.raw_size for item in sections if item.raw_size), default=0)
        if end > len(image):
            return f"; it has data up to {end:#x}, but the image ends at {len(image):#x}; it is cut short"
    return ""


def check_payload(
    image: bytes,
    image_file: Path,
    kernel: bytes,
    name: str,
    initrd: bytes | None = None,
    cmdline: str = "",
    metadata: Callable[..., tdvf.Metadata] = tdvf.metadata,
    *,
    any_payload: bool = False,
) -> None:
    """The VMM's look at what it is to load: is it a bzImage (or any payload, if the VMM takes it), are there
    sections as `metadata` finds them, does all fit? UserError.
    """
    first = {item.type: item for item in reversed(metadata(image).sections)}
    payload, parameters = (
        first.get(kind) for kind in (tdvf.SectionType.PAYLOAD, tdvf.SectionType.PAYLOAD_PARAM)
    )
    if payload is None:
        raise UserError("this image has no Payload section, so it takes no --kernel")
    try:
        if any_payload:
            payload_file.kind(kernel, place=name)
        else:
            linux.kernel(kernel, place=name)
    except FormatError as error:
        raise UserError(f"not a Linux bzImage: {error}") from error
    if len(kernel) > payload.memory_size:
        raise UserError(
            f"{name} ({len(kernel):,} bytes) is larger than the image's Payload section "
            f"({payload.memory_size:,} bytes{declared(image, image_file, payload)})"
        )
    size = len(bundle.write(kernel, initrd)) if initrd else 0
    for what, needed, section in (
        ("kernel and initrd", size, payload),
        ("the command line", len(cmdline.encode()) + 1, parameters),
    ):
        if section is not None and needed > section.memory_size:
            raise UserError(
                f"{what}: {needed:,} bytes do not fit into the {section.type_name} section "
                f"({section.memory_size:,} bytes{declared(image, image_file, section)})"
            )


def declared(image: bytes, image_file: Path, section: tdvf.Section) -> str:
    """Where the flow declares a section, if the manifest of this image lies beside it."""
    try:
        facts = json.loads(image_file.with_suffix(".json").read_text())
        if facts["image"]["sha256"] == hashlib.sha256(image).hexdigest():
            found = (item for item in facts["sections"] if item["gpa"] == section.address)
            return "".join(f", declared in {item['declared']}" for item in found)
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        pass
    return ""
