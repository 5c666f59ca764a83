"""How does libkrun start an image? A shell script that compiles a small program with its library and runs it.

Source: libkrun pull request 694, a592d4e9: include/libkrun.h, examples/launch-tee.c, src/libkrun/src/lib.rs,
src/vmm/src/resources.rs (struct TeeConfig), README.md.
"""

import json

from formats.units import MIB
from tdforge.errors import UserError
from tdforge.hosts import Launch

MOST_CPUS, MOST_MEMORY = 1, 3072 * MIB  # README.md, "TDX variant", "Limitations"

PROGRAM = """\
#include <errno.h>
#include <libkrun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int checked(const char *what, int result)
{
    if (result < 0) {
        fprintf(stderr, "%s: %s\\n", what, strerror(-result));
        exit(1);
    }
    return result;
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"root", "data"};
    const char *firmware = @IMAGE@;
    unsigned vm = (unsigned)checked("krun_create_ctx", krun_create_ctx());

    checked("krun_set_tee_config_file", krun_set_tee_config_file(vm, "tdforge-krun.json"));
    checked("krun_set_tee_firmware", krun_set_tee_firmware(vm, KRUN_TEE_FW_TDSHIM, firmware));
    for (int i = 1; i < argc && i <= 2; i++)
        checked(argv[i], krun_add_disk2(vm, names[i - 1], argv[i], KRUN_DISK_FORMAT_RAW, false));
    checked("krun_disable_implicit_console", krun_disable_implicit_console(vm));
    checked("krun_add_serial_console_default",
            krun_add_serial_console_default(vm, -1, STDOUT_FILENO));
    checked("krun_add_virtio_console_default",
            krun_add_virtio_console_default(vm, STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO));
    checked("krun_split_irqchip", krun_split_irqchip(vm, true));
    checked("krun_start_enter", krun_start_enter(vm));
    return 0;
}
"""

SCRIPT = """\
#!/bin/sh
# For libkrun built with TDX=1 (pull request 694) and libkrunfw's kernel and initrd for TDX.
# Arguments: a disk with the root file system, then one with data; both may be left out.
set -eu
cat > tdforge-krun.json <<'END'
@CONFIG@
END
cat > tdforge-krun.c <<'END'
@PROGRAM@END
cc -o tdforge-krun tdforge-krun.c -lkrun-tdx
exec ./tdforge-krun "$@"
"""


def c_text(text: str) -> str:
    """A C string literal in ASCII; each other byte of the UTF-8 text is three octal digits."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'


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
    program = PROGRAM.replace("@IMAGE@", c_text(str(launch.image)))
    return SCRIPT.replace("@CONFIG@", json.dumps(config)).replace("@PROGRAM@", program)
