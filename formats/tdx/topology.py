"""How does a TD learn its vCPUs' x2APIC ids from the TDX module? Fields that modules after 1.5.01 have.

Sources: Intel TDX Module ABI, "TD-scope metadata"; Linux arch/x86/coco/tdx/tdx.c,
enable_cpu_topology_enumeration.
"""

from __future__ import annotations

TOPOLOGY_ENUM_CONFIGURED = 0x9100000000000019  # 1: the host gave each vCPU an id, and all differ
TD_CTLS = 0x1110000300000017
ENUM_TOPOLOGY = 1 << 1  # of TD_CTLS: CPUID leaves 0xB and 0x1F and MSR 0x802 are the module's answers
VIRT_CPUID2 = 1 << 2  # CPUID leaf 2 is the module's answer
REDUCE_VE = 1 << 3  # implies both; what is neither emulated nor paravirtualised is no #VE
FEATURE_ENUM_TOPOLOGY = 1 << 20  # of TDX_FEATURES0
