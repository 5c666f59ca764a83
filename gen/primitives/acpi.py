"""How is it recorded what the ACPI tables say of the machine? The CPUs, as one event."""

from __future__ import annotations

from gen.primitives.builder import Body
from gen.primitives.measure import measure

BODIES: dict[str, Body] = {"measure_cpus": measure("log_cpus")}
