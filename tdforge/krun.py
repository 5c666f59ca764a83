"""How does libkrun start an image? A shell script that compiles a small program with its library and runs it.

Source: libkrun 2.0, 160f54a9: include/libkrun.h, src/libkrun/src/api/vmm_builder.rs, Makefile;
src/libkrun/src/vmm/resources.rs (struct TeeConfig), README.md. That header declares
krun_vmm_builder_add_serial_console, and the type of a pointer to it, once more for Windows, which no C
compiler takes; the script leaves these two lines out.
"""

import json
import os

from formats.units import MIB
from tdforge.errors import UserError
from tdforge.hosts import Launch

MOST_CPUS, MOST_MEMORY = 1, 3072 * MIB  # README.md, "TDX variant", "Limitations"

PROGRAM = """\
/* For libkrun 2.0 as its header was at 160f54a9. */
#include "tdforge-libkrun.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool to_stderr(void *self, KrunStr text)
{
    (void)self;
    return fwrite(text.data, 1, text.len, stderr) == text.len;
}

static void check(const char *what, KrunError error)
{
    static const KrunPushStrVtable writes = {.push = to_stderr};
    KrunVtableHandle writer = KRUN_VTABLE_HANDLE(KRUN_PUSH_STR_TYPE_TAG, writes, NULL);

    if (error == NULL)
        return;
    fprintf(stderr, "%s: ", what);
    krun_error_message(error, &writer);
    fputc('\\n', stderr);
    exit(1);
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"root", "data"};
    KrunStr firmware = KRUN_STR(@IMAGE@);
    KrunError error = NULL;
    KrunPayload payload = krun_payload_load_krunfw_tee(KRUN_STR("tdforge-krun.json"), firmware, &error);
    check("krun_payload_load_krunfw_tee", error);

    KrunMmioDeviceManager devices = krun_mmio_device_manager_new();
    KrunConsoleBuilder ports = krun_console_device_builder();
    krun_console_builder_add_default_console(ports, STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, &error);
    check("krun_console_builder_add_default_console", error);
    KrunConsoleDevice console = krun_console_builder_build(ports, &error);
    check("krun_console_builder_build", error);
    krun_mmio_device_manager_add(devices, console);
    for (int i = 1; i < argc && i <= 2; i++) {
        KrunBlockDevice disk = krun_block_device_new(KRUN_STR(names[i - 1]), KRUN_STR(argv[i]),
                                                     KRUN_DISK_FORMAT_RAW, &error);
        check(argv[i], error);
        krun_mmio_device_manager_add(devices, disk);
    }

    KrunVmmBuilder builder = krun_vmm_builder_new();
    krun_vmm_builder_vcpus(&builder, @VCPUS@, &error);
    check("krun_vmm_builder_vcpus", error);
    krun_vmm_builder_ram_mib(&builder, @MIB@, &error);
    check("krun_vmm_builder_ram_mib", error);
    krun_vmm_builder_payload(&builder, payload);
    krun_vmm_builder_devices(&builder, devices);
    krun_vmm_builder_add_serial_console(&builder, -1, STDOUT_FILENO, &error);
    check("krun_vmm_builder_add_serial_console", error);
    krun_vmm_builder_split_irqchip(&builder, true, &error);
    check("krun_vmm_builder_split_irqchip", error);
    KrunVmm vmm = krun_vmm_builder_build(&builder, &error);
    check("krun_vmm_builder_build", error);
    krun_vmm_run(vmm);
    return 1; /* the TD ends the program */
}
"""

SCRIPT = """\
#!/bin/sh
# For libkrun 2.0 (make TDX=1 FFI=1, as of 160f54a9) and libkrunfw's kernel and initrd for TDX.
# Arguments: a disk with the root file system, then one with data; both may be left out.
set -eu
cat > tdforge-krun.json <<'END'
@CONFIG@
END
cat > tdforge-krun.c <<'END'
@PROGRAM@END
# Its header declares a function a second time, for Windows, which no C compiler takes.
header=$(echo '#include <libkrun.h>' | cc -M -x c - | tr ' \\\\' '\\n\\n' | grep 'libkrun\\.h$')
sed '/krun_vmm_builder_add_serial_console.*input_handle/d' "$header" > tdforge-libkrun.h
cc "-I$(dirname "$header")" -o tdforge-krun tdforge-krun.c -lkrun-tdx
exec ./tdforge-krun "$@"
"""


def c_text(text: str) -> str:
    """A C string literal in ASCII; each other byte of the file name is three octal digits."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in os.fsencode(text)) + '"'


def libkrun(launch: Launch) -> str:
    """The script. UserError: something is asked for that libkrun cannot do with TDX."""
    if launch.kernel or launch.initrd or launch.given_cmdline is not None:
        raise UserError("libkrun boots libkrunfw's kernel: it takes no --kernel, --initrd or --cmdline")
    if launch.vcpus > MOST_CPUS or launch.memory > MOST_MEMORY:
        raise UserError(f"libkrun with TDX has 1 vCPU and at most {MOST_MEMORY // MIB} MiB of memory")
    config = {
        "workload_id": "tdforge",
        "cpus": launch.vcpus,
        "ram_mib": launch.memory // MIB,
        "tee": "tdx",
        "tee_data": json.dumps({"vendor_chain": "", "attestation_server_pubkey": ""}),
        "attestation_url": "",
    }
    sizes = PROGRAM.replace("@VCPUS@", str(launch.vcpus)).replace("@MIB@", str(launch.memory // MIB))
    program = sizes.replace("@IMAGE@", c_text(str(launch.image)))
    return SCRIPT.replace("@CONFIG@", json.dumps(config)).replace("@PROGRAM@", program)
