"""What does TDH.MNG.INIT fix for the life of a TD, and what may it not be? (intel/tdx-module TDX_1.5.01,
tdh_mng_init.c, helpers.c verify_td_attributes; Base spec "TD_PARAMS")
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.signals import EmuError
from formats.tdx.td import (
    ATTRIBUTES_SUPPORTED,
    CONFIG_GPAW52,
    CONFIG_NO_RBP_MOD,
    CONFIG_SUPPORTED,
    DEBUG,
    GPAW_NARROW,
    GPAW_WIDE,
    MIGRATABLE,
    PERFMON,
    SEPT_VE_DISABLE,
    XFAM_AMX,
    XFAM_AVX,
    XFAM_AVX512,
    XFAM_CET,
    XFAM_FIXED1,
    XFAM_SUPPORTED,
)

DIGEST = 48


@dataclass(frozen=True)
class Choices:
    """What a host or a platform may do either way. `rtmr_busy` and `accept_busy`: how many times the host
    holds the lock when the guest asks; `rtmr_free`: how many extensions come before that.
    `seamverifyreport`: whether the CPU has that instruction. `stop_at_refused_vmcall` ends the run with a
    diagnosis where a real guest would go on with an error status that most never look at.
    """

    rtmr_busy: int = 0
    rtmr_free: int = 0
    accept_busy: int = 0
    seamverifyreport: bool = True
    stop_at_refused_vmcall: bool = True


@dataclass(frozen=True)
class TdParams:
    """TD_PARAMS of one TD; `vcpus` are initialised, `max_vcpus` (0: as many) could be."""

    vcpus: int = 1
    attributes: int = SEPT_VE_DISABLE
    xfam: int = XFAM_FIXED1
    config_flags: int = CONFIG_NO_RBP_MOD
    tsc_25mhz: int = 40
    mrconfigid: bytes = bytes(DIGEST)
    mrowner: bytes = bytes(DIGEST)
    mrownerconfig: bytes = bytes(DIGEST)
    max_vcpus: int = 0
    choices: Choices = Choices()

    @property
    def gpaw(self) -> int:
        """Width of a guest physical address: 48 or 52 bits."""
        return GPAW_WIDE if self.config_flags & CONFIG_GPAW52 else GPAW_NARROW

    def check(self) -> None:
        """EmuError: what TDH.MNG.INIT refuses, in one line."""
        if bad := self.attributes & ~ATTRIBUTES_SUPPORTED:
            raise EmuError(f"attributes {self.attributes:#x}: bits {bad:#x} are not supported")
        if self.attributes & MIGRATABLE and self.attributes & (DEBUG | PERFMON):
            raise EmuError(f"attributes {self.attributes:#x}: MIGRATABLE excludes DEBUG and PERFMON")
        if bad := self.config_flags & ~CONFIG_SUPPORTED:
            raise EmuError(f"config flags {self.config_flags:#x}: bits {bad:#x} are not supported")
        if not xfam_legal(self.xfam):
            raise EmuError(f"xfam {self.xfam:#x}: no legal combination of the states in {XFAM_SUPPORTED:#x}")
        if not 4 <= self.tsc_25mhz <= 400:
            raise EmuError(f"TSC frequency {self.tsc_25mhz} * 25 MHz: expected 4 to 400")
        for name in ("mrconfigid", "mrowner", "mrownerconfig"):
            if len(value := getattr(self, name)) != DIGEST:
                raise EmuError(f"{name}: {len(value)} bytes, expected {DIGEST}")
        if self.max_vcpus and not self.vcpus <= self.max_vcpus <= 0xFFFF:
            raise EmuError(f"max vcpus {self.max_vcpus}: expected {self.vcpus} to 65535")


def xfam_legal(xfam: int) -> bool:
    """Whether XFAM names only states that exist, with those they need (Base spec, XFAM rules)."""
    if xfam & ~XFAM_SUPPORTED or xfam & XFAM_FIXED1 != XFAM_FIXED1:
        return False
    for group in (XFAM_AVX512, XFAM_CET, XFAM_AMX):
        if xfam & group not in (0, group):
            return False
    return not xfam & XFAM_AVX512 or bool(xfam & XFAM_AVX)
