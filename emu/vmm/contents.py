"""What lies in the VMM's own mapping of the guest's memory before the launch? TDH.MEM.PAGE.ADD copies pages
out of it: what is written outside the pages that are added never reaches the TD.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Contents:
    """Writes in their order; all else is zero."""

    writes: list[tuple[int, bytes]] = field(default_factory=list)

    def write(self, gpa: int, data: bytes) -> None:
        """Puts bytes there, over what was there."""
        if data:
            self.writes.append((gpa, data))

    def read(self, gpa: int, size: int) -> bytes:
        """The bytes of a range, up to the last one that was written: the rest of it is zero."""
        found = bytearray()
        for start, data in self.writes:
            low, high = max(start, gpa), min(start + len(data), gpa + size)
            if low < high:
                found.extend(bytes(max(high - gpa - len(found), 0)))
                found[low - gpa : high - gpa] = data[low - start : high - start]
        return bytes(found)
