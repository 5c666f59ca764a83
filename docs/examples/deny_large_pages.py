"""For `tdforge run build/linux.bin --kernel build/vmlinuz --script docs/examples/deny_large_pages.py`.

This host maps RAM in 4 KiB pages only, gives a wrong version of its GHCI, prints each call except port
accesses, and answers every second MapGPA with RETRY. Each function is a hook of emu/vmm/policy.py;
emu/view.py declares the parts of a machine that it may use.
"""

from itertools import count

from emu.vmm.policy import with_content
from formats.registers import R11, R12
from formats.tdvf import SectionType

RETRY = 1  # GHCI: done up to the address in R11; call again for the rest
attempts = count()


def launch(launch):
    """Another command line, RAM unchanged."""
    return with_content(launch, SectionType.PAYLOAD_PARAM, b"console=ttyS0 from_the_script\0")


def on_launched(machine):
    """The TD is final; its vCPUs have not run yet."""
    for start, end in machine.launch.ram:
        machine.memory.split(start, end - start)


def on_call(call):
    """Before a TDVMCALL is carried out; a returned number becomes R10 and replaces the call."""
    if call.name == "MapGPA" and next(attempts) % 2 == 0:
        call.answer[R11] = call.given[R12]
        return RETRY
    return None


def on_answer(call):
    """After a TDVMCALL was carried out."""
    if call.name == "GetTdVmCallInfo":
        call.answer[R11] = 0xFFFF
    if call.name != "Instruction.IO":
        print(f"vCPU {call.vcpu}: {call.name} {call.given[R12]:#x}")
