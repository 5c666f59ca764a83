"""What can a TD choose about #VE, and what does it learn of each? Fields and numbers of modules after 1.5.01.

Source: intel/tdx-module commit db57c638520a: auto_gen_2_0/tdr_tdcs_fields_lookup.h, td_control_structures.h
(td_ctls_t, feature_paravirt_ctls_t), helpers.h (ve_category_e), tdx_api_defs.h (tdx_features_enum0_t,
exit_reason_and_ve_category_t).
"""

from __future__ import annotations

VE_REDUCTION_VALID = 0x911000000000001A  # 1: TD_CTLS.REDUCE_VE can be set
FEATURE_PARAVIRT_CTLS = 0x9110000300000022
PARAVIRT_BITS = 0xFFF  # of FEATURE_PARAVIRT_CTLS: a feature each, which REDUCE_VE then leaves to the VMM
LOCK = 1 << 63  # of TD_CTLS: neither it nor FEATURE_PARAVIRT_CTLS changes any more
FEATURE_CPUID2, FEATURE_VE_REDUCTION, FEATURE_VE_INTR_STATE = 1 << 29, 1 << 30, 1 << 46  # of TDX_FEATURES0

# Why there was a #VE: TDG.VP.VEINFO.GET version 1 and later, RCX bits 39:32
CATEGORY = 32
ARCH = 0  # the CPU raised it: shared memory that the VMM has not mapped
PENDING = 1  # a page that the TD has not accepted
RESERVED_GPA_BITS = 2
CONFIG_PARAVIRT = 0x10  # the VMM's, and TD_CTLS or another choice of the TD can make it none
NON_CONFIG_PARAVIRT = 0x11  # the VMM's
UNSUPPORTED_FEATURE = 0x80  # a mistake of the TD: no VMM can do it
