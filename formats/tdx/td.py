"""What does TDH.MNG.INIT fix for the life of a TD? Bits of ATTRIBUTES, XFAM and CONFIG_FLAGS.

Source: Intel TDX Module 1.5 Base specification, "TD_PARAMS"; what is supported: intel/tdx-module TDX_1.5.01,
tdh_sys_init.c.
"""

from __future__ import annotations

DEBUG, SEPT_VE_DISABLE, MIGRATABLE, PKS, PERFMON = 1 << 0, 1 << 28, 1 << 29, 1 << 30, 1 << 63
ATTRIBUTES_SUPPORTED = DEBUG | SEPT_VE_DISABLE | MIGRATABLE | PKS | PERFMON
XFAM_FIXED1, XFAM_SUPPORTED = 3, 0x0006DBE7
XFAM_AVX, XFAM_AVX512, XFAM_CET, XFAM_AMX = 1 << 2, 7 << 5, 3 << 11, 3 << 17
CONFIG_GPAW52, CONFIG_FLEXIBLE_PENDING_VE, CONFIG_NO_RBP_MOD = 1 << 0, 1 << 1, 1 << 2
CONFIG_SUPPORTED = CONFIG_GPAW52 | CONFIG_FLEXIBLE_PENDING_VE | CONFIG_NO_RBP_MOD
GPAW_NARROW, GPAW_WIDE = 48, 52  # bits of a guest physical address; the topmost one means shared
