"""Which rows are there, in which order?"""

from __future__ import annotations

import functools

from . import (
    rows_access,
    rows_control,
    rows_conversion,
    rows_cpuid,
    rows_entry,
    rows_exceptions,
    rows_field_values,
    rows_fields,
    rows_measure,
    rows_msr,
    rows_newer,
    rows_newer_cpuid,
    rows_newer_msr,
    rows_newer_ve,
    rows_pages,
    rows_q35,
    rows_tdcall,
    rows_ve,
    rows_vmcall,
)
from .rows import Row

PARTS = (
    rows_entry,
    rows_control,
    rows_tdcall,
    rows_measure,
    rows_fields,
    rows_field_values,
    rows_pages,
    rows_conversion,
    rows_vmcall,
    rows_ve,
    rows_exceptions,
    rows_access,
    rows_cpuid,
    rows_msr,
    rows_q35,
    rows_newer,
    rows_newer_cpuid,
    rows_newer_msr,
    rows_newer_ve,
)


@functools.cache
def suite() -> tuple[Row, ...]:
    """Every row; keys are unique."""
    found = tuple(row for part in PARTS for row in part.rows())
    keys = [row.key for row in found]
    assert len(keys) == len(set(keys)), sorted(key for key in keys if keys.count(key) > 1)
    return found
