"""For `tdforge run build/linux.bin --kernel build/vmlinuz --script docs/examples/deny_large_pages.py`.

This host maps RAM in 4 KiB pages only, lies about the version of its GHCI, prints each call that is no port
access, and answers every second MapGPA with RETRY. Each function is a hook of emu/vmm/policy.py;
what it may use of a machine is in emu/view.py.
"""

from itertools import count

from emu.vmm.policy import with_content
from formats.registers import R11, R12
from formats.tdvf import SectionType

RETRY = 1  # GHCI: done up to the address in R11, come back for the rest
attempts = count()


def launch(launch):
    """Another command line, and RAM as it is."""
    return with_content(launch, SectionType.PAYLOAD_PARAM, b"console=ttyS0 from_the_script\0")


def on_launched(machine):
    """The TD is final; its vCPUs did not run yet."""
    for start, end in machine.launch.ram:
        machine.memory.split(start, end - start)


def on_call(call):
    """Before a TDVMCALL is carried out; a number is R10, and then it is not carried out."""
    if call.name == "MapGPA" and next(attempts) % 2 == 0:
        call.answer[R11] = call.given[R12]
        return RETRY
    return None


def on_answer(call):
    """After it was carried out."""
    if call.name == "GetTdVmCallInfo":
        call.answer[R11] = 0xFFFF
    if call.name != "Instruction.IO":
        print(f"vCPU {call.vcpu}: {call.name} {call.given[R12]:#x}")
