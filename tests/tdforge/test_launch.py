"""Does `tdforge launch --print` print what each host reads, and refuse what a host cannot do in one line?"""

import json
import os
import shlex
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from tdvfimage import image_for_qemu, patched, without_last_section

from formats.units import MIB
from tdforge.building import build_flow
from tdforge.cli import main
from tdforge.commands.launch import HOSTS
from tdforge.errors import UserError
from tdforge.flows import find_flow
from tdforge.hosts import Launch
from tdforge.kata import dragonball
from tdforge.krun import c_text

FLOWS = {"dragonball": "vmlinux", "libkrun": "vmlinux", "alioth": "alioth"}  # the others take qemu.tdf
ELF = b"\x7fELF" + bytes(60)

# What the program needs of libkrun 2.0, with the types of its header (include/libkrun.h, 160f54a9). Each
# function prints its arguments; a disk that has no absolute path is an error.
HEADER = """\
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
typedef void *KrunError, *KrunPushStr, *KrunAttachDevice, *KrunPayload, *KrunMmioDeviceManager, *KrunVmm;
typedef void *KrunConsoleBuilder, *KrunConsoleDevice, *KrunBlockDevice, *KrunVmmBuilder;
typedef uint64_t KrunResult;
typedef struct { const char *data; size_t len; } KrunStr;
typedef struct { uint32_t type_tag, metadata; const void *vtable_ptr, *user_data; uint16_t vtable_size; }
    KrunVtableHandle;
typedef struct { void (*drop)(void *self_data); bool (*push)(void *self_data, KrunStr s); } KrunPushStrVtable;
#define KRUN_STR(s) ((KrunStr){ .data = (s), .len = (s) ? strlen(s) : 0 })
#define KRUN_VTABLE_HANDLE(tag, vtable, self_data) ((KrunVtableHandle){ .type_tag = (tag), .metadata = 0, \\
    .vtable_ptr = &(vtable), .user_data = (self_data), .vtable_size = sizeof(vtable) })
#define KRUN_PUSH_STR_TYPE_TAG 16777228
#define KRUN_DISK_FORMAT_RAW 0
#define SAID(s) (int)(s).len, (s).data
static char made[8];
static int count;
static void *next(void) { return &made[count++]; }
static int which(void *object) { return (int)((char *)object - made); }
static void krun_error_message(KrunError error, KrunPushStr writer)
{ const KrunVtableHandle *to = writer; const KrunPushStrVtable *by = to->vtable_ptr;
  if (to->type_tag == KRUN_PUSH_STR_TYPE_TAG && to->vtable_size == sizeof *by)
      by->push((void *)to->user_data, KRUN_STR((const char *)error)); }
static KrunPayload krun_payload_load_krunfw_tee(KrunStr config, KrunStr firmware, KrunError *error)
{ (void)error; return printf("payload %.*s %.*s\\n", SAID(config), SAID(firmware)), next(); }
static KrunMmioDeviceManager krun_mmio_device_manager_new() { return next(); }
static void krun_mmio_device_manager_add(KrunMmioDeviceManager handle, KrunAttachDevice device)
{ printf("%d has %d\\n", which(handle), which(device)); }
static KrunConsoleBuilder krun_console_device_builder() { return next(); }
static KrunResult krun_console_builder_add_default_console(
    KrunConsoleBuilder handle, int in, int out, int err, KrunError *error)
{ (void)error; return printf("%d virtio %d %d %d\\n", which(handle), in, out, err), 0; }
static KrunConsoleDevice krun_console_builder_build(KrunConsoleBuilder handle, KrunError *error)
{ (void)handle, (void)error; return next(); }
static KrunBlockDevice krun_block_device_new(KrunStr id, KrunStr path, uint32_t format, KrunError *error)
{ printf("disk %.*s %.*s %u\\n", SAID(id), SAID(path), format);
  if (path.data[0] != '/') *error = "FileNotFound";
  return next(); }
static KrunVmmBuilder krun_vmm_builder_new() { return next(); }
static KrunResult krun_vmm_builder_vcpus(KrunVmmBuilder *handle, uint8_t cpus, KrunError *error)
{ (void)error; return printf("%d vcpus %d\\n", which(*handle), cpus), 0; }
static KrunResult krun_vmm_builder_ram_mib(KrunVmmBuilder *handle, uint32_t mib, KrunError *error)
{ (void)error; return printf("%d ram %u\\n", which(*handle), mib), 0; }
static void krun_vmm_builder_payload(KrunVmmBuilder *handle, KrunPayload payload)
{ printf("%d payload %d\\n", which(*handle), which(payload)); }
static void krun_vmm_builder_devices(KrunVmmBuilder *handle, KrunMmioDeviceManager devices)
{ printf("%d devices %d\\n", which(*handle), which(devices)); }
static KrunResult krun_vmm_builder_add_serial_console(
    KrunVmmBuilder *handle, int in, int out, KrunError *error)
{ (void)error; return printf("%d serial %d %d\\n", which(*handle), in, out), 0; }
typedef KrunResult (*krun_vmm_builder_add_serial_console_fn)(KrunVmmBuilder *, int, int, KrunError *);
static KrunResult krun_vmm_builder_split_irqchip(KrunVmmBuilder *handle, bool enabled, KrunError *error)
{ (void)error; return printf("%d split %d\\n", which(*handle), enabled), 0; }
static KrunVmm krun_vmm_builder_build(KrunVmmBuilder *handle, KrunError *error)
{ (void)error; return printf("%d build\\n", which(*handle)), next(); }
static void krun_vmm_run(KrunVmm handle) { printf("%d run\\n", which(handle)); }
"""
# For Windows, each in one line.
AGAIN = "(KrunVmmBuilder* handle, uint64_t input_handle, uint64_t output_handle, KrunError* err_out);\n"
HEADER += f"KrunResult krun_vmm_builder_add_serial_console{AGAIN}"
HEADER += f"typedef KrunResult (*krun_vmm_builder_add_serial_console_fn){AGAIN}"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Shipped images by the flow's name, built once."""
    folder = tmp_path_factory.mktemp("build")
    return {
        name: build_flow(find_flow(name), folder).image for name in ("alioth", "linux", "qemu", "vmlinux")
    }


@pytest.fixture
def vmlinux(tmp_path: Path) -> Path:
    """A file that begins as an ELF file does, with a quote and an umlaut in its name."""
    path = tmp_path / 'ä "vmlinux"'
    path.write_bytes(ELF)
    return path


@pytest.mark.parametrize("vmm", HOSTS)
def test_each_host_is_said_to_be_not_run(
    images: dict[str, Path], capsys: pytest.CaptureFixture[str], vmm: str
) -> None:
    image = images[FLOWS.get(vmm, "qemu")]
    assert main(["launch", str(image), "--vmm", vmm, "--print"]) == 0
    said = capsys.readouterr()
    assert str(image) in said.out
    assert said.err == f"tdforge: derived from {HOSTS[vmm].source}, not run here\n"


@pytest.mark.parametrize("vmm", ["dragonball", "kata"])
def test_kata_reads_the_configuration(
    images: dict[str, Path], vmlinux: Path, capsys: pytest.CaptureFixture[str], vmm: str
) -> None:
    image = images[FLOWS.get(vmm, "qemu")]
    words = ["--kernel", str(vmlinux), "--cmdline", 'a="b\\c"', "--vcpus", "3", "--memory", "1G"]
    assert main(["launch", str(image), "--vmm", vmm, "--print", *words]) == 0
    table = tomllib.loads(capsys.readouterr().out)["hypervisor"]
    expected = {
        "firmware": str(image),
        "confidential_guest": True,
        "kernel": str(vmlinux),
        "kernel_params": 'a="b\\c"',
        "default_vcpus": 3,
        "default_memory": 1024,
    }
    assert table == {"qemu" if vmm == "kata" else vmm: expected}


def test_kata_keeps_its_own_parameters(images: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Those of its configuration, which is not for a kernel without a user space of Kata's."""
    assert main(["launch", str(images["qemu"]), "--vmm", "kata", "--print"]) == 0
    assert "kernel_params" not in tomllib.loads(capsys.readouterr().out)["hypervisor"]["qemu"]


def test_alioth_gets_its_command_line(
    images: dict[str, Path], vmlinux: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As docs/coco.md of Alioth has it."""
    image, file = images["alioth"], str(vmlinux)
    files = ["--kernel", file, "--initrd", file]
    words = [*files, "--cmdline", "console=ttyS0 ro", "--vcpus", "3", "--memory", "1G"]
    assert main(["launch", str(image), "--vmm", "alioth", "--print", *words]) == 0
    assert shlex.split(capsys.readouterr().out) == [
        *("alioth", "boot", "--memory", "size=1024M", "--cpu", "count=3"),
        *("--kernel", file, "--cmdline=console=ttyS0 ro", "--initramfs", file),
        *("--coco", "tdx,attr=0x10000000", "--firmware", str(image)),
    ]


def test_katas_own_kernel_stays(images: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", str(images["vmlinux"]), "--vmm", "dragonball", "--print"]) == 0
    assert "kernel" not in tomllib.loads(capsys.readouterr().out)["hypervisor"]["dragonball"]


def libkrun_script(image: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The script in a folder that has a compiler which knows the header above."""
    assert main(["launch", str(image), "--vmm", "libkrun", "--print", "--memory", "3G"]) == 0
    script = folder / "launch.sh"
    script.write_text(capsys.readouterr().out)
    (folder / "libkrun.h").write_text(HEADER)
    compiler = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-I.",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unused-function",
    ]
    (folder / "cc").write_text(
        '#!/bin/sh\ncase "$*" in *-lkrun-tdx) set -- "$1" "$2" "$3" "$4" ;; -M*) ;; *) exit 9 ;; esac\n'
        f'exec {shlex.join(compiler)} "$@"\n'
    )
    (folder / "cc").chmod(0o755)
    return script


def test_libkruns_script_runs(
    images: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / 'an "image" \\ \u00e4??='
    image.write_bytes(images["vmlinux"].read_bytes())
    script = libkrun_script(image, tmp_path, capsys)
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["sh", str(script), "/root.img", "/data.img"]
    done = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")  # 1: the library's krun_vmm_run does not return
    assert done.stdout.splitlines() == [
        f"payload tdforge-krun.json {image}",
        "2 virtio 0 1 2",
        "1 has 3",
        "disk root /root.img 0",
        "1 has 4",
        "disk data /data.img 0",
        "1 has 5",
        "6 vcpus 1",
        "6 ram 3072",
        "6 payload 0",
        "6 devices 1",
        "6 serial -1 1",
        "6 split 1",
        "6 build",
        "7 run",
    ]
    config = json.loads((tmp_path / "tdforge-krun.json").read_text())
    assert (config["tee"], config["cpus"], config["ram_mib"]) == ("tdx", 1, 3072)
    done = subprocess.run(
        [*command[:2], "no"], cwd=tmp_path, env=path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "no: FileNotFound\n")


def test_bytes_of_a_c_text() -> None:
    assert c_text('a"\\\n?1') == r'"a\042\134\012\0771"'
    assert c_text(os.fsdecode(b"\xfe.bin")) == r'"\376.bin"'  # a name that is no UTF-8


@pytest.mark.parametrize(
    ("flow", "words", "message"),
    [
        (
            "vmlinux",
            "--vmm libkrun",
            "libkrun needs a host with TDX: add --print to see how it is started there",
        ),
        ("vmlinux", "--vmm libkrun --print --vcpus 2", "1 vCPU and at most 3072 MiB"),
        ("vmlinux", "--vmm libkrun --print --memory 4G", "1 vCPU and at most 3072 MiB"),
        ("vmlinux", "--vmm libkrun --print --cmdline ro", "no --kernel, --initrd or --cmdline"),
        ("vmlinux", "--vmm libkrun --print --kernel @FILE@", "no --kernel, --initrd or --cmdline"),
        ("vmlinux", "--vmm dragonball --print --kernel @SCRIPT@", "an ELF file, and "),
        ("vmlinux", "--vmm dragonball --print --vcpus 255", "at most 254 vCPUs"),
        ("vmlinux", "--vmm dragonball --print --kernel @FILE@ --initrd @FILE@", "takes no --initrd"),
        ("qemu", "--vmm kata --print --kernel @FILE@ --initrd @FILE@", "takes no --initrd"),
        ("linux", "--vmm libvirt --print", "qemu refuses "),
        ("qemu", "--vmm dragonball --print", "dragonball refuses "),
        ("qemu", "--initrd @FILE@", "--initrd needs --kernel"),
        ("qemu", "--kernel @FILE@.no", "no kernel "),
        ("qemu", "--cmdline ro", "--cmdline needs --kernel"),
        ("qemu", "--kernel @FILE@ --cmdline a\x01b", "no control characters"),
        ("qemu", "--vmm libvirt --print --vcpus 256", "libvirt takes at most 255 vCPUs"),
        ("qemu", "--vmm kata --print --vcpus 241", "at most 240 vCPUs"),
        ("qemu", "--vmm kata --print --memory 255M", "256 MiB of memory at least"),
        ("vmlinux", "--vmm dragonball --print --memory 1025M", "an even number of MiB of memory"),
        ("vmlinux", "--vmm dragonball --print --memory 64M", "does not lie in 64 MiB of RAM"),
        ("qemu", "--vmm qemu --print --memory 20000K", "20480000 bytes, and a host takes whole MiB"),
        ("linux", "--kernel @FILE@", "qemu refuses "),
    ],
)
def test_what_a_host_cannot_do_is_one_sentence(
    images: dict[str, Path],
    vmlinux: Path,
    capsys: pytest.CaptureFixture[str],
    flow: str,
    words: str,
    message: str,
) -> None:
    given = [word.replace("@FILE@", str(vmlinux)).replace("@SCRIPT@", __file__) for word in words.split()]
    assert main(["launch", str(images[flow]), *given]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("tdforge: ")
    assert said.err.count("\n") == 1
    assert message in said.err


def test_kata_gives_dragonball_no_less_memory_than_it_takes() -> None:
    given = Launch(Path("image"), memory=62 * MIB)
    with pytest.raises(UserError, match="64 MiB to 1 TiB"):
        dragonball(given)
    assert "default_memory = 64" in dragonball(replace(given, memory=64 * MIB))


@pytest.mark.parametrize("words", ["launch --print", "launch --vmm alioth --print", "run --vmm qemu"])
def test_data_beyond_the_file_hides_no_other_refusal(
    images: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    """A list with data, which QEMU refuses, and code that is not measured, which no VMM should start."""
    image = tmp_path / "cut.bin"
    image.write_bytes(patched(patched(images["qemu"].read_bytes(), 1, raw_size=0x20000), 0, attributes=0))
    command, *more = words.split()
    assert main([command, str(image), *more]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f" refuses {image}: " in said.err


@pytest.mark.parametrize("words", ["launch --print", "launch --vmm libkrun --print", "run --vmm qemu", "run"])
def test_an_image_without_sections_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    image = tmp_path / "empty.bin"
    image.write_bytes(without_last_section(image_for_qemu(), 4))
    command, *more = words.split()
    assert main([command, str(image), *more]) == 1
    said = capsys.readouterr().err
    assert f" refuses {image}: " in said
    assert said.count("\n") == 1
