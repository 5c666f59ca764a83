"""Which MSR does a TD reach natively, which raises #VE, which #GP?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from . import layout as at
from .rows import Row, Step, code

SECTION, SOURCE = "5.6 MSRs", "msr_config_lookup.c msr_lookup, td_msr_access.c td_rdmsr_exit, td_wrmsr_exit"
READ, WRITE = 31, 32  # exit reasons
NATIVE, VE, GP = "native", "#VE", "#GP(0)"
NO_VMX = "reads zero; a module computes what a nested VM may use (virt_msr_helpers.c)"
KEPT = "kept per vCPU, without the effect it has on a CPU"


def rdmsr(index: int) -> Step:
    """RDMSR with all-ones where the result goes."""
    return code("0f32", rcx=index, rax=(1 << 64) - 1, rdx=(1 << 64) - 1)


def wrmsr(index: int, value: int) -> Step:
    """WRMSR."""
    return code("0f30", rcx=index, rax=value & 0xFFFFFFFF, rdx=value >> 32)


def outcome(step: int, kind: str, reason: int) -> dict[str, int]:
    """What that step must show."""
    if kind == VE:
        return {
            f"{step}.vector": 20,
            f"{step}.ve_rcx": reason,
            f"{step}.ve_rdx": 0,
            f"{step}.ve_r10": 2,
            f"{step}.at": 0,
        }
    if kind == GP:
        return {f"{step}.vector": 13, f"{step}.error": 0, f"{step}.at": 0}
    return {f"{step}.vector": 3}


@dataclass(frozen=True)
class Class:
    """MSRs of one behaviour, tried at their first and last number. `value` is what a read gives or, with
    `stored`, what is written first and must read back.
    """

    key: str
    what: str
    first: int
    last: int
    read: str
    write: str
    value: int | None = None
    stored: bool = False
    td: Mapping[str, int] = field(default_factory=dict)
    status: str = "exact"
    why: str = ""

    def rows(self) -> Iterator[Row]:
        """A row for reading and a row for writing."""
        numbers = (self.first,) if self.first == self.last else (self.first, self.last)
        name = f"{self.what} ({', '.join(f'{n:X}' for n in numbers)})".replace(", ", " to ")
        common = {"status": self.status, "why": self.why}
        refused = common if self.write == NATIVE else {}  # `why` tells what a value means
        expect: dict[str, int] = {}
        for step, _ in enumerate(numbers):
            expect |= outcome(step, self.read, READ)
            if self.value is not None and not self.stored and self.read == NATIVE:
                expect |= {f"{step}.rax": self.value & 0xFFFFFFFF, f"{step}.rdx": self.value >> 32}
        steps = tuple(map(rdmsr, numbers))
        yield Row(
            f"msr.{self.key}.read",
            f"RDMSR {name}: {self.read}",
            SECTION,
            SOURCE,
            steps,
            expect,
            td=self.td,
            **common,
        )
        steps, expect = (), {}
        for number in numbers:
            expect |= outcome(len(steps), self.write, WRITE)
            steps += (wrmsr(number, self.value or 0),)
            if self.stored and self.value is not None:
                steps += (rdmsr(number),)
                last = len(steps) - 1
                expect |= {f"{last}.rax": self.value & 0xFFFFFFFF, f"{last}.rdx": self.value >> 32}
        yield Row(
            f"msr.{self.key}.write",
            f"WRMSR {name}: {self.write}",
            SECTION,
            SOURCE,
            steps,
            expect,
            td=self.td,
            **refused,
        )


def _kept(key: str, what: str, first: int, last: int = 0, value: int | None = None, why: str = "") -> Class:
    return Class(
        key,
        what,
        first,
        last or first,
        NATIVE,
        NATIVE,
        value,
        value is not None,
        status="simplified" if why else "exact",
        why=why,
    )


XFAM_CET, XFAM_UINTR, XFAM_LBR, XFAM_PT = (
    {"xfam": 0x1803},
    {"xfam": 0x4003},
    {"xfam": 0x8003},
    {"xfam": 0x103},
)
NO_CPUID = "the emulated CPU does not have the feature, which is one of the two cases"
CLASSES = (
    _kept("spec_ctrl", "SPEC_CTRL", 0x48, value=1, why=KEPT),
    Class("pred_cmd", "PRED_CMD, which a CPU only writes", 0x49, 0x49, GP, NATIVE),
    Class("flush_cmd", "FLUSH_CMD, which a CPU only writes", 0x10B, 0x10B, GP, NATIVE),
    _kept("sysenter_cs", "SYSENTER_CS", 0x174, value=0x10),
    _kept("sysenter", "SYSENTER_ESP and EIP", 0x175, 0x176, value=0x12345678),
    _kept("pat", "PAT", 0x277, value=0x0007010600070106),
    _kept("ds_area", "DS_AREA", 0x600, value=0x1000, why=KEPT),
    _kept("tpr", "x2APIC TPR", 0x808, value=0x10),
    Class("ppr", "x2APIC PPR; writing is #GP on a CPU", 0x80A, 0x80A, NATIVE, GP, 0),
    Class("eoi", "x2APIC EOI; reading reads the virtual-APIC page", 0x80B, 0x80B, NATIVE, NATIVE, 0),
    Class("isr", "x2APIC ISR, TMR and IRR; writing is #GP on a CPU", 0x810, 0x827, NATIVE, GP, 0),
    _kept("star", "STAR and LSTAR", 0xC0000081, 0xC0000082, value=0x0000123400001234),
    _kept("fmask", "FMASK", 0xC0000084, value=0x47700),
    _kept("fs_base", "FS_BASE, GS_BASE, KERNEL_GS_BASE", 0xC0000100, 0xC0000102, value=0x7FFF12345678),
    _kept("tsc_aux", "TSC_AUX", 0xC0000103, value=7),
    Class("cstar", "CSTAR is not listed", 0xC0000083, 0xC0000083, VE, VE),
    Class("tsc", "TSC", 0x10, 0x10, NATIVE, VE),
    Class("umwait", "MISC_PACKAGE_CTLS", 0xBC, 0xBC, NATIVE, VE, status="simplified",
          why="reads zero, whatever a CPU has there"),
    Class("debug_interface", "DEBUG_INTERFACE", 0xC80, 0xC80, NATIVE, VE, status="simplified",
          why="reads zero, whatever a CPU has there"),
    Class("xapic_disable", "XAPIC_DISABLE_STATUS", 0xBD, 0xBD, NATIVE, GP, 1, status="exact"),
    Class("arch_capabilities", "ARCH_CAPABILITIES", 0x10A, 0x10A, NATIVE, GP, 0xF16B),
    Class("vmx_basic", "VMX_BASIC", 0x480, 0x480, NATIVE, GP, status="simplified", why=NO_VMX),
    Class("vmx_misc", "VMX_MISC to VMX_CR4_FIXED1", 0x485, 0x489, NATIVE, GP, status="simplified",
          why=NO_VMX),
    Class("vmx_procbased2", "VMX_PROCBASED_CTLS2 to VMX_PROCBASED_CTLS3", 0x48B, 0x492, NATIVE, GP,
          status="simplified", why=NO_VMX),
    Class("vmx_pinbased", "VMX_PINBASED_CTLS to VMX_ENTRY_CTLS", 0x481, 0x484, VE, GP),
    Class("vmx_vmcs_enum", "VMX_VMCS_ENUM", 0x48A, 0x48A, VE, GP),
    Class("perf_capabilities", "PERF_CAPABILITIES without PERFMON", 0x345, 0x345, NATIVE, GP, 0),
    Class("misc_enable", "MISC_ENABLE: PEBS unavailable, no counters", 0x1A0, 0x1A0, NATIVE, VE, 0x1001,
          status="simplified", why="other bits are those of the CPU, here fast strings only"),
    Class("cet_off", "CET without XFAM[12:11]", 0x6A0, 0x6A2, GP, GP),
    Class("pl_ssp_off", "PL0_SSP to INTERRUPT_SSP_TABLE without XFAM[12:11]", 0x6A4, 0x6A8, GP, GP),
    Class("pl_ssp", "PL0_SSP to INTERRUPT_SSP_TABLE with XFAM[12:11]", 0x6A4, 0x6A8, NATIVE, NATIVE, 0x1000,
          True, XFAM_CET, "simplified", KEPT),
    Class("cet", "U_CET, S_CET with XFAM[12:11]", 0x6A0, 0x6A2, NATIVE, NATIVE, 0, False, XFAM_CET,
          "simplified", KEPT),
    Class("pkrs_off", "PKRS without ATTRIBUTES.PKS", 0x6E1, 0x6E1, GP, GP),
    Class("pkrs", "PKRS with ATTRIBUTES.PKS", 0x6E1, 0x6E1, NATIVE, NATIVE, 4, True,
          {"attributes": 1 << 30 | 1 << 28}, "simplified", KEPT),
    Class("uintr_off", "UINTR without XFAM[14]", 0x985, 0x98A, GP, GP),
    Class("uintr", "UINTR with XFAM[14]", 0x985, 0x98A, NATIVE, NATIVE, 0, False, XFAM_UINTR,
          "simplified", KEPT),
    Class("lbr_off", "LBR_INFO without XFAM[15]", 0x1200, 0x12FF, GP, GP),
    Class("lbr_ctl_off", "LBR_CTL, LBR_DEPTH without XFAM[15]", 0x14CE, 0x14CF, GP, GP),
    Class("lbr_from_off", "LBR_FROM, LBR_TO without XFAM[15]", 0x1500, 0x16FF, GP, GP),
    Class("lbr", "LBR with XFAM[15]", 0x14CE, 0x14CF, NATIVE, NATIVE, 0, False, XFAM_LBR, "simplified", KEPT),
    Class("pt_off", "RTIT output without XFAM[8]", 0x560, 0x561, GP, GP),
    Class("pt_ctl_off", "RTIT_CTL to RTIT_CR3_MATCH without XFAM[8]", 0x570, 0x572, GP, GP),
    Class("pt_addr_off", "RTIT_ADDR without XFAM[8]", 0x580, 0x587, GP, GP),
    Class("pt", "RTIT with XFAM[8]", 0x560, 0x561, NATIVE, NATIVE, 0, False, XFAM_PT, "simplified", KEPT),
    Class("xfd", "XFD without the CPUID bit", 0x1C4, 0x1C5, GP, GP),
    Class("umwait_control", "UMWAIT_CONTROL without WAITPKG", 0xE1, 0xE1, GP, GP),
    Class("tsx_ctrl", "TSX_CTRL without TSX", 0x122, 0x122, GP, GP),
    Class("pmc", "PMC without PERFMON", 0xC1, 0xC8, GP, GP),
    Class("perfevtsel", "PERFEVTSEL without PERFMON", 0x186, 0x18D, GP, GP),
    Class("offcore", "OFFCORE_RSP without PERFMON", 0x1A6, 0x1A7, GP, GP),
    Class("fixed_ctr", "FIXED_CTR without PERFMON", 0x309, 0x310, GP, GP),
    Class("perf_metrics", "PERF_METRICS without PERFMON", 0x329, 0x329, GP, GP),
    Class("fixed_ctr_ctrl", "FIXED_CTR_CTRL to PERF_GLOBAL_INUSE without PERFMON", 0x38D, 0x392, GP, GP),
    Class("pebs", "PEBS_ENABLE, PEBS_DATA_CFG without PERFMON", 0x3F1, 0x3F2, GP, GP),
    Class("pebs_ld_lat", "PEBS_LD_LAT, PEBS_FRONTEND without PERFMON", 0x3F6, 0x3F7, GP, GP),
    Class("a_pmc", "A_PMC without PERFMON", 0x4C1, 0x4C8, GP, GP),
    Class("mktme", "MKTME_KEYID_PARTITIONING without MKTME", 0x87, 0x87, GP, GP),
    Class("tme", "TME without TME", 0x981, 0x984, GP, GP),
    Class("dca", "DCA without DCA", 0x1F8, 0x1FA, GP, GP),
    Class("sgx_hash", "SGXLEPUBKEYHASH", 0x8C, 0x8F, GP, GP),
    Class("98", "WBINVDP to SMM_MONITOR_CTL", 0x98, 0x9B, GP, GP),
    Class("smm_monitor", "SMBASE", 0x9E, 0x9E, GP, GP),
    Class("195", "OVERCLOCKING_STATUS", 0x195, 0x195, GP, GP),
    Class("276", "MSR 276", 0x276, 0x276, GP, GP),
    Class("sgx_owner", "SGX SVN status", 0x500, 0x500, GP, GP),
    Class("bndcfgs", "BNDCFGS", 0xD90, 0xD90, GP, GP),
    Class("pasid", "PASID", 0xD93, 0xD93, GP, GP),
    Class("x2apic_800", "x2APIC reserved", 0x800, 0x801, GP, GP),
    Class("x2apic_804", "x2APIC reserved", 0x804, 0x807, GP, GP),
    Class("x2apic_829", "x2APIC reserved", 0x829, 0x82E, GP, GP),
    Class("x2apic_831", "x2APIC reserved", 0x831, 0x831, GP, GP),
    Class("x2apic_840", "x2APIC reserved", 0x840, 0x8FF, GP, GP),
    Class("apic_base", "APIC_BASE", 0x1B, 0x1B, VE, VE),
    Class("feature_control", "FEATURE_CONTROL, TSC_ADJUST", 0x3A, 0x3B, VE, VE),
    Class("ucode", "BIOS_SIGN_ID", 0x8B, 0x8B, VE, VE),
    Class("mtrrcap", "MTRRCAP", 0xFE, 0xFE, VE, VE),
    Class("mtrr", "MTRR_PHYSBASE0 to MTRR before 276", 0x200, 0x275, VE, VE),
    Class("mtrr_def", "MSRs from 278 to MTRR_DEF_TYPE", 0x278, 0x2FF, VE, VE),
    Class("x2apic_id", "x2APIC ID and version", 0x802, 0x803, VE, VE),
    Class("x2apic_ldr", "x2APIC LDR", 0x80D, 0x80D, VE, VE),
    Class("x2apic_svr", "x2APIC SVR", 0x80F, 0x80F, VE, VE),
    Class("x2apic_esr", "x2APIC ESR", 0x828, 0x828, VE, VE),
    Class("x2apic_icr", "x2APIC CMCI and ICR", 0x82F, 0x830, VE, VE),
    Class("x2apic_lvt", "x2APIC LVT and timer", 0x832, 0x83E, VE, VE),
    Class("beyond_low", "MSRs beyond the bitmaps", 0x2000, 0xBFFFFFFF, VE, VE),
    Class("beyond_high", "MSRs beyond the bitmaps", 0xC0002000, 0xFFFFFFFF, VE, VE),
    Class("unlisted", "An MSR in the bitmaps without a row", 0x1FFF, 0x1FFF, VE, VE),
    Class("unlisted_high", "An MSR in the high bitmap without a row", 0xC0001FFF, 0xC0001FFF, VE, VE),
)  # fmt: skip


def _special() -> Iterator[Row]:
    def row(key: str, what: str, steps: tuple[Step, ...], expect: dict[str, int], **more: str) -> Row:
        return Row(f"msr.{key}", what, SECTION, SOURCE, steps, expect, **more)  # type: ignore[arg-type]

    yield row("xss.read", "RDMSR XSS is native", (rdmsr(0xDA0),), {"vector": 3, "rax": 0, "rdx": 0})
    yield row(
        "xss.outside", "A bit of XSS outside XFAM is #GP(0)", (wrmsr(0xDA0, 1 << 11),), outcome(0, GP, 0)
    )
    inside = (wrmsr(0xDA0, 0x1800), rdmsr(0xDA0))
    kept = row(
        "xss.inside", "Supervisor states of XFAM may be set", inside, {"0.vector": 3, "rax": 0x1800, "rdx": 0}
    )
    yield replace(kept, td=XFAM_CET)
    user = replace(
        row("xss.user_state", "A user state is no bit of XSS: #GP(0)", (wrmsr(0xDA0, 2),), outcome(0, GP, 0))
    )
    yield user
    yield row(
        "self_ipi.read",
        "RDMSR x2APIC SELF_IPI reads the virtual-APIC page",
        (rdmsr(0x83F),),
        {"vector": 3, "rax": 0, "rdx": 0},
    )
    yield row("self_ipi.write", "WRMSR x2APIC SELF_IPI is native", (wrmsr(0x83F, 0x40),), {"vector": 3})
    yield row(
        "self_ipi.high",
        "WRMSR x2APIC SELF_IPI beyond 255 is #GP(0)",
        (wrmsr(0x83F, 0x100),),
        outcome(0, GP, 0),
    )
    yield row(
        "debugctl.read", "RDMSR DEBUGCTL is emulated", (rdmsr(0x1D9),), {"vector": 3, "rax": 0, "rdx": 0}
    )
    yield row(
        "debugctl.lbr",
        "DEBUGCTL.BTF may be set",
        (wrmsr(0x1D9, 2), rdmsr(0x1D9)),
        {"0.vector": 3, "rax": 2},
        status="simplified",
        why="kept, but single steps do not go from branch to branch",
    )
    for bit in (3, 5, 16):
        yield row(
            f"debugctl.reserved{bit}",
            f"Reserved bit {bit} of DEBUGCTL is #GP(0)",
            (wrmsr(0x1D9, 1 << bit),),
            outcome(0, GP, 0),
        )
    yield row(
        "debugctl.tr", "DEBUGCTL.TR without BTS is #VE(32)", (wrmsr(0x1D9, 1 << 6),), outcome(0, VE, WRITE)
    )
    yield row(
        "debugctl.tr_bts",
        "DEBUGCTL.TR with BTS is granted",
        (wrmsr(0x1D9, 3 << 6), rdmsr(0x1D9)),
        {"0.vector": 3, "rax": 0xC0},
    )
    yield row(
        "debugctl.pmi",
        "DEBUGCTL bit 13 is ignored",
        (wrmsr(0x1D9, 1 << 13), rdmsr(0x1D9)),
        {"0.vector": 3, "rax": 0},
    )
    for key, what, index, value in (
        ("lstar", "LSTAR", 0xC0000082, 1 << 47),
        ("sysenter", "SYSENTER_EIP", 0x176, 1 << 63),
        ("fs_base", "FS_BASE", 0xC0000100, 1 << 47),
        ("gs_base", "GS_BASE", 0xC0000101, 0xFFFF << 48),
        ("kernel_gs_base", "KERNEL_GS_BASE", 0xC0000102, 1 << 62),
    ):
        yield row(
            f"canonical.{key}",
            f"An address in {what} that is not canonical is #GP(0)",
            (wrmsr(index, value),),
            outcome(0, GP, 0),
        )
    for key, what, index, value in (
        ("pat", "Memory type 2 in PAT", 0x277, 0x0007040600070402),
        ("fmask", "Bit 32 of FMASK", 0xC0000084, 1 << 32),
        ("tsc_aux", "Bit 32 of TSC_AUX", 0xC0000103, 1 << 32),
        ("spec_ctrl", "Bit 63 of SPEC_CTRL", 0x48, 1 << 63),
        ("pred_cmd", "Bit 63 of PRED_CMD", 0x49, 1 << 63),
    ):
        yield row(f"refused.{key}", f"{what} is #GP(0)", (wrmsr(index, value),), outcome(0, GP, 0))
    yield row(
        "high_halves", "RDMSR clears the upper halves of RAX and RDX", (rdmsr(0xBD),), {"rax": 1, "rdx": 0}
    )
    yield row(
        "ecx", "Only ECX selects the MSR", (code("0f32", rcx=0xABCD_0000_0000_00BD),), {"vector": 3, "rax": 1}
    )
    yield row(
        "user",
        "RDMSR in user mode is #GP(0), whatever the MSR",
        (code("0f32", cs=at.USER_CS, rcx=0x1B),),
        outcome(0, GP, 0),
    )
    yield row(
        "user_write",
        "WRMSR in user mode is #GP(0), whatever the MSR",
        (code("0f30", cs=at.USER_CS, rcx=0x1B, rax=0, rdx=0),),
        outcome(0, GP, 0),
    )
    yield row(
        "tsc_deadline.read",
        "RDMSR TSC_DEADLINE with the feature is #VE",
        (rdmsr(0x6E0),),
        outcome(0, VE, READ),
    )
    yield row(
        "tsc_deadline.write",
        "WRMSR TSC_DEADLINE with the feature is #VE",
        (wrmsr(0x6E0, 0),),
        outcome(0, VE, WRITE),
    )


def rows() -> Iterator[Row]:
    """All rows of this part."""
    for item in CLASSES:
        yield from item.rows()
    yield from _special()
