"""Which instructions raise another exception than #VE?"""

from __future__ import annotations

from collections.abc import Iterator

from . import layout as at
from .rows import Row, absent, code

REASONS, OTHER = "5.2 Exit reasons that become #VE", "5.3 Other exceptions"
DISPATCH = "tdx_td_dispatcher.c tdx_td_dispatcher"


def _others() -> Iterator[Row]:
    for key, what, text in (
        ("getsec", "GETSEC", "0f37"),
        ("rsm", "RSM", "0faa"),
        ("vmclear", "VMCLEAR", "660fc737"),
        ("vmlaunch", "VMLAUNCH", "0f01c2"),
        ("vmresume", "VMRESUME", "0f01c3"),
        ("vmxoff", "VMXOFF", "0f01c4"),
        ("vmxon", "VMXON", "f30fc737"),
        ("vmptrld", "VMPTRLD", "0fc737"),
        ("vmptrst", "VMPTRST", "0fc73f"),
        ("vmread", "VMREAD", "0f78c1"),
        ("vmwrite", "VMWRITE", "0f79c1"),
        ("vmfunc", "VMFUNC", "0f01d4"),
        ("invept", "INVEPT", "660f388007"),
        ("invvpid", "INVVPID", "660f388107"),
        ("encls", "ENCLS", "0f01cf"),
        ("enclv", "ENCLV", "0f01c0"),
        ("seamcall", "SEAMCALL", "660f01cf"),
        ("ud2", "UD2", "0f0b"),
        ("enqcmds", "ENQCMDS", "f30f38f807"),
    ):
        yield Row(
            f"ud.{key}",
            f"{what} is #UD",
            OTHER,
            DISPATCH,
            (code(text, rdi=at.BUFFER, rsi=at.BUFFER),),
            {"vector": 6, "at": 0},
        )
    for key, what, text in (  # enabled by CPUID bits that this TD does not have: MKTME (PCONFIG) and WAITPKG
        ("pconfig", "PCONFIG", "0f01c5"),
        ("tpause", "TPAUSE", "660faef1"),
        ("umwait", "UMWAIT", "f20faef1"),
        ("umonitor", "UMONITOR", "f30faef7"),
    ):
        for cs, suffix, where in ((at.CS64, "", ""), (at.USER_CS, "_user", " in user mode, too")):
            yield Row(
                f"ud.{key}{suffix}",
                f"{what} is #UD{where}",
                OTHER,
                "td_vmcs_init.c init_td_vmcs_exec_control_field",
                (code(text, rdi=at.BUFFER, cs=cs),),
                {"vector": 6, "at": 0},
            )
    for key, what, address in (
        ("lowest", "The lowest address that is not canonical", 1 << 47),
        ("highest", "The highest address that is not canonical", (1 << 64) - (1 << 47) - 4),
        ("mapped", "An address that is not canonical, its low 48 bits being mapped,", 1 << 48 | at.BUFFER),
    ):
        yield Row(
            f"gp.canonical_{key}",
            f"{what} is #GP(0), and CR2 stays",
            OTHER,
            "Intel SDM volume 1, 3.3.7.1, canonical addressing",
            (code("8b07", rdi=address),),
            {"vector": 13, "error": 0, "at": 0, "cr2": 0},
            status="simplified",
            why="of an access by way of the stack pointer it is #GP(0), too, in place of #SS(0)",
        )
    for key, what, text in (("mfence", "MFENCE", "0faef0"), ("rdfsbase", "RDFSBASE", "f30faec0")):
        yield Row(
            f"native.{key}",
            f"{what}, which shares its opcode with UMWAIT, is native",
            OTHER,
            "Intel SDM volume 2, MFENCE, RDFSBASE",
            (code("0f20e0 0d00000100 0f22e0" + text, rax=0),),  # CR4.FSGSBASE
            {"vector": 3},
        )
    yield Row(
        "gp.rdpmc",
        "RDPMC without PERFMON is #GP(0)",
        OTHER,
        "td_other_exits.c td_rdpmc_exit",
        (code("0f33", rcx=0),),
        {"vector": 13, "error": 0, "at": 0},
    )
    yield Row(
        "native.pause", "PAUSE is native", OTHER, DISPATCH, (code("f390"),), {"vector": 3, "changed": 0}
    )
    yield Row(
        "native.rdtsc",
        "RDTSC is native",
        OTHER,
        DISPATCH,
        (code("0f31 89c1 0f31 29c8 c1e81f"),),
        {"vector": 3, "rax": 0},
    )
    yield Row(
        "native.rdtscp",
        "RDTSCP is native and gives TSC_AUX",
        OTHER,
        DISPATCH,
        (code("0f30", rcx=0xC0000103, rax=9, rdx=0), code("0f01f9")),
        {"vector": 3, "rcx": 9},
    )
    yield Row(
        "native.rdrand",
        "RDRAND is native and sets CF",
        OTHER,
        DISPATCH,
        (code("0fc7f0 0f92c0 0fb6c0"),),
        {"vector": 3, "rax": 1},
    )
    yield Row(
        "native.invlpg", "INVLPG is native", OTHER, DISPATCH, (code("0f013f", rdi=at.BUFFER),), {"vector": 3}
    )
    yield Row(
        "native.mov_dr",
        "MOV to and from DR is native",
        OTHER,
        DISPATCH,
        (code("0f23c0 0f21c1", rax=0x1234),),
        {"vector": 3, "rcx": 0x1234},
    )
    cr8 = "CR8 is the upper half of the x2APIC's TPR"
    steps = (code("440f22c0 440f20c1", rax=5), code("0f32", rcx=0x808))
    yield Row("native.mov_cr8", cr8, OTHER, DISPATCH, steps, {"0.vector": 3, "0.rcx": 5, "rax": 0x50})
    yield Row(
        "native.mov_cr8_tpr",
        "and the TPR is CR8",
        OTHER,
        DISPATCH,
        (code("0f30", rcx=0x808, rax=0x73, rdx=0), code("440f20c1")),
        {"vector": 3, "rcx": 7},
    )
    gp = {"vector": 13, "error": 0, "at": 0}
    yield Row(
        "gp.cr8",
        "CR8 above 15 is #GP(0)",
        OTHER,
        "Intel SDM volume 2, MOV to control registers",
        (code("440f22c0", rax=0x10),),
        gp,
    )
    user_cr8 = code("440f20c1", cs=at.USER_CS)
    yield Row(
        "gp.cr8_user",
        "CR8 in user mode is #GP(0)",
        OTHER,
        "Intel SDM volume 2, MOV to control registers",
        (user_cr8,),
        gp,
    )
    sidt = code("0f010f 0fb70f", rdi=at.BUFFER)
    yield Row("native.sidt", "SIDT is native", OTHER, DISPATCH, (sidt,), {"vector": 3, "rcx": 511})
    yield Row(
        "triple_fault",
        "A triple fault ends the TD",
        OTHER,
        DISPATCH,
        (code("0f0117 0f011f 0f0b", rdi=at.BUFFER),),
        end="triple-fault",
    )
    for key, what in (
        ("init", "INIT, SIPI, task switch, bus lock exits"),
        ("mc", "#MC"),
        ("smi", "SMI"),
        ("enqcmd", "ENQCMD with a bad PASID is #GP(0)"),
    ):
        yield absent(f"async.{key}", what, OTHER, "no such event is made by this VMM", DISPATCH)


def rows() -> Iterator[Row]:
    """All rows of this part."""
    yield from _others()
