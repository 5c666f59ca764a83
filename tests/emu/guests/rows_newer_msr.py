"""Which MSRs does a TD reach under a TDX module after 1.5.01, by what it chose?"""

from __future__ import annotations

from collections.abc import Iterator

from .rows import ALL_ONES, Row, tdcall
from .rows_msr import GP, READ, VE, WRITE, outcome, rdmsr, wrmsr
from .rows_newer import EST, ID, MCA, MTRR, REDUCE, TD_CTLS, TOPOLOGY, TSC_DEADLINE, control, newer, paravirt

MSR = "newer td_msr_access.c td_rdmsr_exit, td_wrmsr_exit, newer msr_config_lookup.c msr_lookup"


def _reduced() -> Iterator[Row]:
    yield newer(
        "msr.id.off",
        "x2APIC id without ENUM_TOPOLOGY: #VE",
        MSR,
        (control(0), rdmsr(0x802)),
        outcome(1, VE, READ),
    )
    read = {**outcome(1, "native", READ), "1.rax": ID, "1.rdx": 0}
    yield newer("msr.id", "x2APIC id with ENUM_TOPOLOGY", MSR, (control(TOPOLOGY), rdmsr(0x802)), read)
    yield newer(
        "msr.id.write",
        "Write of the x2APIC id",
        MSR,
        (control(TOPOLOGY), wrmsr(0x802, 0)),
        outcome(1, GP, WRITE),
    )
    for key, index, is_write, kind in (
        ("apic_base", 0x1B, False, VE),
        ("x2apic_version", 0x803, False, VE),
        ("icr", 0x830, True, VE),
        ("initial_count", 0x838, True, VE),
        ("cstar", 0xC0000083, True, VE),
        ("outside", 0x4000, False, VE),
        ("kvm", 0x4B564D00, False, VE),
        ("mtrrcap", 0xFE, False, GP),
        ("mtrr_fixed", 0x250, True, GP),
        ("mcg_cap", 0x179, False, GP),
        ("mc0_ctl", 0x400, True, GP),
        ("tsc_deadline", 0x6E0, True, GP),
        ("tsc_adjust", 0x3B, False, GP),
        ("energy_perf_bias", 0x1B0, False, GP),
        ("mcu_opt_ctrl", 0x123, False, GP),
        ("unknown", 0x1F00, False, GP),
    ):
        step, reason = (wrmsr(index, 0), WRITE) if is_write else (rdmsr(index), READ)
        what = f"{'WRMSR' if is_write else 'RDMSR'} {index:X} with REDUCE_VE: {kind}"
        yield newer(f"msr.{key}", what, MSR, (control(REDUCE), step), outcome(1, kind, reason))
        if kind == GP:
            what = what.replace(f"with REDUCE_VE: {kind}", "without REDUCE_VE: #VE")
            yield newer(f"msr.{key}.ve", what, MSR, (control(TOPOLOGY), step), outcome(1, VE, reason))
    for key, index, value in (
        ("feature_control", 0x3A, 1),
        ("ppin_ctl", 0x4E, 1),
        ("bios_sign_id", 0x8B, 0xFFFFFFFF),
        ("platform_info", 0xCE, 0),
        ("feature_enables", 0x140, 0),
        ("misc_enable", 0x1A0, 0x1001),
    ):
        expect = {**outcome(1, "native", READ), "1.rax": value, "1.rdx": 0}
        yield newer(
            f"msr.{key}", f"RDMSR {index:X} with REDUCE_VE", MSR, (control(REDUCE), rdmsr(index)), expect
        )
    for key, index, value in (("smi_count", 0x34, 0x123456789), ("misc_enable.write", 0x1A0, 0x1000)):
        expect = {**outcome(1, "native", WRITE), "rax": value & 0xFFFFFFFF, "rdx": value >> 32}
        yield newer(
            f"msr.{key}",
            f"WRMSR {index:X} with REDUCE_VE is kept",
            MSR,
            (control(REDUCE), wrmsr(index, value), rdmsr(index)),
            expect,
        )
    yield newer(
        "msr.misc_enable.gp",
        "WRMSR 1A0 of a bit that is 0",
        MSR,
        (control(REDUCE), wrmsr(0x1A0, 2)),
        outcome(1, GP, WRITE),
    )
    yield newer(
        "msr.misc_enable.limit",
        "WRMSR 1A0 of the CPUID limit",
        MSR,
        (control(REDUCE), wrmsr(0x1A0, 1 << 22)),
        outcome(1, VE, WRITE),
    )
    for key, index, value, kind in (
        ("bios_updt_trig", 0x79, ALL_ONES >> 1, "native"),
        ("feature_enables.write", 0x140, 1, GP),
    ):
        yield newer(
            f"msr.{key}",
            f"WRMSR {index:X} with REDUCE_VE",
            MSR,
            (control(REDUCE), wrmsr(index, value)),
            outcome(1, kind, WRITE),
        )


def _always() -> Iterator[Row]:
    """What TD_CTLS does not change."""
    for key, index, what in (
        ("perf_status", 0x198, "PERF_STATUS without EST in CPUID"),
        ("therm_status", 0x19C, "THERM_STATUS without ACPI in CPUID"),
        ("therm2_ctl", 0x19D, "THERM2_CTL without TM2 in CPUID"),
        ("qos_cfg", 0xC81, "L3_QOS_CFG without RDT-A in CPUID"),
        ("qm_evtsel", 0xC8D, "QM_EVTSEL without RDT-M in CPUID"),
        ("pebs_base", 0x3F4, "PEBS_BASE"),
        ("seam_sai_mode", 0x550, "SEAM_SAI_MODE"),
        ("x2apic_83b", 0x83B, "x2APIC reserved"),
        ("pmc_gp0_ctr", 0x1900, "PMC_GP0_CTR without PERFMON"),
        ("pmc_fx6_cfg_c", 0x199B, "PMC_FX6_CFG_C"),
    ):
        yield newer(
            f"msr.{key}", f"RDMSR and WRMSR {index:X}, {what}: {GP}", MSR,
            (control(TOPOLOGY), rdmsr(index), wrmsr(index, 0)), outcome(1, GP, READ) | outcome(2, GP, WRITE),
        )  # fmt: skip
    for key, index, what in (
        ("core_capabilities", 0xCF, "CORE_CAPABILITIES"),
        ("mtrrcap", 0xFE, "MTRRCAP"),
        ("mcg_cap", 0x179, "MCG_CAP"),
        ("x2apic_version", 0x803, "x2APIC version"),
        ("ldr", 0x80D, "x2APIC LDR"),
        ("current_count", 0x839, "x2APIC current count"),
    ):
        yield newer(
            f"msr.{key}.write", f"{what}, {index:X}, is read-only: RDMSR {VE}, WRMSR {GP}", MSR,
            (control(TOPOLOGY), rdmsr(index), wrmsr(index, 0)), outcome(1, VE, READ) | outcome(2, GP, WRITE),
        )  # fmt: skip
    yield newer(
        "msr.debug_interface", f"DEBUG_INTERFACE, C80: RDMSR {GP}, WRMSR {VE}", MSR,
        (control(TOPOLOGY), rdmsr(0xC80), wrmsr(0xC80, 0)), outcome(1, GP, READ) | outcome(2, VE, WRITE),
    )  # fmt: skip


def _paravirt() -> Iterator[Row]:
    for key, bits, index, kind in (
        ("mtrr", MTRR, 0xFE, VE),
        ("mtrr_fixed", MTRR, 0x250, VE),
        ("mca", MCA, 0x179, VE),
        ("mca_bank", MCA, 0x473, VE),
        ("tsc_deadline", TSC_DEADLINE, 0x6E0, VE),
        ("est", EST, 0x198, GP),
        ("other", MTRR, 0x179, GP),
    ):
        yield newer(
            f"msr.paravirt.{key}",
            f"RDMSR {index:X} with REDUCE_VE and FEATURE_PARAVIRT_CTLS {bits:X}: {kind}", MSR,
            (control(REDUCE), paravirt(bits), rdmsr(index)), outcome(2, kind, READ),
        )  # fmt: skip
    off = tdcall(8, rcx=0, rdx=TD_CTLS, r8=0, r9=REDUCE)
    yield newer(
        "msr.misc_enable.later", "MISC_ENABLE reads what was written under REDUCE_VE, without it, too", MSR,
        (control(REDUCE), wrmsr(0x1A0, 0x1000), off, rdmsr(0x1A0)), {"1.vector": 3, "rax": 0x1000, "rdx": 0},
    )  # fmt: skip
    yield newer(
        "msr.misc_enable.order", "WRMSR 1A0 of MONITOR and xTPR: the change of MONITOR counts first", MSR,
        (control(REDUCE), wrmsr(0x1A0, 1 << 18 | 1 << 23)), outcome(1, VE, WRITE),
    )  # fmt: skip


def rows() -> Iterator[Row]:
    """This part of the section."""
    yield from _reduced()
    yield from _always()
    yield from _paravirt()
