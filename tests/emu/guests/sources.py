"""Where in the sources are the functions and tables that rows name? Line numbers of intel/tdx-module."""

from __future__ import annotations

import re

TAG = "TDX_1.5.01"
# File of the module, and the line where what a row names begins.
MODULE: dict[str, dict[str, int]] = {
    "include/auto_gen/cpuid_configurations.c": {
        "cpuid_lookup": 32,
    },
    "include/auto_gen/global_sys_fields_lookup.c": {
        "global_sys_lookup": 31,
    },
    "include/auto_gen/msr_config_lookup.c": {
        "msr_lookup": 31,
    },
    "include/auto_gen/tdr_tdcs_fields_lookup.c": {
        "tdr_tdcs_lookup": 31,
    },
    "include/auto_gen/tdvps_fields_lookup.c": {
        "tdvps_lookup": 31,
    },
    "include/tdx_api_defs.h": {
        "report_mac_struct_s": 695,
        "td_info_s": 759,
        "tee_tcb_info_s": 726,
    },
    "src/common/data_structures/td_vmcs_init.c": {
        "init_td_vmcs": 406,
        "init_td_vmcs_exec_control_field": 176,
        "init_tdcs_dependent_fields_in_vmcs": 251,
        "td_vmcs_migrated_state_init_map": 34,
        "td_vmcs_non_migrated_state_init_map": 66,
    },
    "src/common/helpers/helpers.c": {
        "check_guest_xcr0_value": 1540,
        "check_walk_and_map_guest_side_gpa": 837,
        "write_guest_cr0": 1248,
        "write_guest_cr4": 1336,
    },
    "src/common/metadata_handlers/metadata_generic.c": {
        "md_check_as_single_element_id": 100,
        "md_dump_sequence": 872,
    },
    "src/common/metadata_handlers/metadata_generic.h": {
        "is_null_field_id": 222,
    },
    "src/common/metadata_handlers/metadata_sys.c": {
        "md_sys_get_first_element_val_and_ptr": 38,
    },
    "src/common/metadata_handlers/metadata_td.c": {
        "md_td_write_element": 700,
    },
    "src/common/metadata_handlers/metadata_vp.c": {
        "md_vp_write_element": 1413,
    },
    "src/td_dispatcher/tdx_td_dispatcher.c": {
        "td_call": 220,
        "tdx_td_dispatcher": 712,
    },
    "src/td_dispatcher/vm_exits/td_cpuid.c": {
        "td_cpuid_exit": 45,
    },
    "src/td_dispatcher/vm_exits/td_ept_violation.c": {
        "td_ept_violation_exit": 43,
    },
    "src/td_dispatcher/vm_exits/td_msr_access.c": {
        "td_rdmsr_exit": 440,
        "td_wrmsr_exit": 348,
        "wrmsr_ia32_efer": 232,
    },
    "src/td_dispatcher/vm_exits/td_other_exits.c": {
        "td_cr_access_exit": 98,
        "td_nmi_exit": 301,
        "td_rdpmc_exit": 44,
        "tdx_inject_ve": 245,
    },
    "src/td_dispatcher/vm_exits/tdg_mem_page_accept.c": {
        "tdg_mem_page_accept": 144,
    },
    "src/td_dispatcher/vm_exits/tdg_mem_page_attr_rd.c": {
        "tdg_mem_page_attr_rd": 43,
    },
    "src/td_dispatcher/vm_exits/tdg_mem_page_attr_wr.c": {
        "tdg_mem_page_attr_wr": 172,
    },
    "src/td_dispatcher/vm_exits/tdg_mr_report.c": {
        "tdg_mr_report": 42,
    },
    "src/td_dispatcher/vm_exits/tdg_mr_rtmr_extend.c": {
        "tdg_mr_rtmr_extend": 40,
    },
    "src/td_dispatcher/vm_exits/tdg_mr_verifyreport.c": {
        "tdg_mr_verifyreport": 38,
    },
    "src/td_dispatcher/vm_exits/tdg_sys_rd.c": {
        "tdg_sys_rd": 38,
    },
    "src/td_dispatcher/vm_exits/tdg_sys_rdall.c": {
        "tdg_sys_rdall": 38,
    },
    "src/td_dispatcher/vm_exits/tdg_vm_rd_wr.c": {
        "tdg_vm_rd_wr": 39,
    },
    "src/td_dispatcher/vm_exits/tdg_vp_cpuidve_set.c": {
        "tdg_vp_cpuidve_set": 39,
    },
    "src/td_dispatcher/vm_exits/tdg_vp_info.c": {
        "tdg_vp_info": 39,
    },
    "src/td_dispatcher/vm_exits/tdg_vp_invept.c": {
        "tdg_vp_invept": 39,
    },
    "src/td_dispatcher/vm_exits/tdg_vp_invvpid.c": {
        "tdg_vp_invvpid": 82,
    },
    "src/td_dispatcher/vm_exits/tdg_vp_rd_wr.c": {
        "tdg_vp_rd_wr": 38,
    },
    "src/td_dispatcher/vm_exits/tdg_vp_veinfo_get.c": {
        "tdg_vp_veinfo_get": 36,
    },
    "src/td_dispatcher/vm_exits/tdg_vp_vmcall.c": {
        "tdg_vp_vmcall": 76,
    },
    "src/td_transitions/tdg_vp_enter.c": {
        "tdg_vp_enter": 78,
    },
    "src/vmm_dispatcher/api_calls/tdh_vp_init.c": {
        "init_vcpu_gprs_and_registers": 45,
        "init_vcpu_msrs": 84,
        "tdh_vp_init": 94,
    },
    "src/vmm_dispatcher/migration_api_calls/tdg_servtd_rd_wr.c": {
        "tdg_servtd_rd_wr": 50,
    },
}
# Files of Linux and QEMU. Their functions move from release to release, and rows name the functions.
NEWER = "intel/tdx-module commit db57c638520a"
TABLES = "intel/tdx-module 1666adc494db, include/auto_gen_2_0"  # of the newest commit that has them
OTHERS = {
    "newer td_cpuid.c": f"{NEWER}, src/td_dispatcher/vm_exits/td_cpuid.c",
    "newer td_msr_access.c": f"{NEWER}, src/td_dispatcher/vm_exits/td_msr_access.c",
    "newer metadata_td.c": f"{NEWER}, src/common/metadata_handlers/metadata_td.c",
    "newer helpers.c": f"{NEWER}, src/common/helpers/helpers.c",
    "newer tdx_td_dispatcher.c": f"{NEWER}, src/td_dispatcher/tdx_td_dispatcher.c",
    "newer tdg_vp_veinfo_get.c": f"{NEWER}, src/td_dispatcher/vm_exits/tdg_vp_veinfo_get.c",
    "newer td_ept_violation.c": f"{NEWER}, src/td_dispatcher/vm_exits/td_ept_violation.c",
    "newer td_other_exits.c": f"{NEWER}, src/td_dispatcher/vm_exits/td_other_exits.c",
    "newer tdr_tdcs_fields_lookup.c": f"{NEWER}, include/auto_gen_2_0/tdr_tdcs_fields_lookup.c",
    "newer cpuid_configurations.c": f"{TABLES}/cpuid_configurations.c",
    "newer msr_config_lookup.c": f"{TABLES}/msr_config_lookup.c",
    "KVM tdx.c": "Linux 6.16, arch/x86/kvm/vmx/tdx.c",
    "KVM x86.c": "Linux 6.16, arch/x86/kvm/x86.c",
    "KVM lapic.c": "Linux 6.16, arch/x86/kvm/lapic.c",
    "QEMU tdx.c": "QEMU 10.1, target/i386/kvm/tdx.c",
    "QEMU accel/kvm/kvm-all.c": "QEMU 10.1, accel/kvm/kvm-all.c",
    "QEMU hw/nvram/fw_cfg.c": "QEMU 10.2, hw/nvram/fw_cfg.c",
    "QEMU hw/i386/fw_cfg.c": "QEMU 10.2, hw/i386/fw_cfg.c",
    "QEMU hw/i386/x86-common.c": "QEMU 10.2, hw/i386/x86-common.c",
    "QEMU hw/i386/acpi-build.c": "QEMU 10.2, hw/i386/acpi-build.c",
    "QEMU hw/pci/pci_host.c": "QEMU 10.2, hw/pci/pci_host.c",
    "QEMU hw/pci/pcie_host.c": "QEMU 10.2, hw/pci/pcie_host.c",
    "QEMU hw/pci-host/q35.c": "QEMU 10.2, hw/pci-host/q35.c",
    "QEMU hw/acpi/core.c": "QEMU 10.2, hw/acpi/core.c",
    "QEMU hw/isa/lpc_ich9.c": "QEMU 10.2, hw/isa/lpc_ich9.c",
}
_FILE = re.compile(r"((?:KVM |QEMU |newer )?[\w/-]+\.[ch])(?: (\w+))?")


def named(source: str) -> list[tuple[str, str]]:
    """File and function of each place that a row's source names; "" where it names a whole file.

    A name without a file belongs to the file before it. What is no code, such as a manual, has no places.
    """
    found: list[tuple[str, str]] = []
    for part in source.split(", "):
        if match := _FILE.fullmatch(part):
            file = f"KVM {match[1]}" if f"KVM {match[1]}" in OTHERS else match[1]
            found.append((file, match[2] or ""))
        elif found and re.fullmatch(r"\w+", part):
            found.append((found[-1][0], part))
        else:
            return []
    return found


def lines() -> list[str]:
    """The rows of the table of definitions."""
    places = [(path, *each) for path, names in sorted(MODULE.items()) for each in names.items()]
    return [f"| `{name}` | {path}:{line} |" for path, name, line in places]
