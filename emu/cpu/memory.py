"""What lies at a guest-physical address, and in which state is the page? A view of the native core's
tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from emu.cpu import pagestate
from formats.units import LARGE_PAGE, PAGE


@dataclass(frozen=True)
class Memory:
    """Private memory, its shared alias and page states of one TD."""

    ffi: Any
    lib: Any
    vm: Any
    layout: Any

    @property
    def span(self) -> int:
        """Bytes of guest-physical space that can be backed."""
        return int(self.layout.span)

    @property
    def shared_bit(self) -> int:
        """The address bit that selects the shared alias."""
        return int(self.layout.shared_bit)

    def state(self, gpa: int) -> int:
        """The `pagestate` byte of the page, unmapped beyond the backed space."""
        return int(self.layout.pages[gpa >> 12]) if gpa < self.span else 0

    def is_backed(self, gpa: int) -> bool:
        """Whether the page is the TD's, in whatever state; device memory is not."""
        return bool(self.state(gpa))

    def is_large(self, gpa: int) -> bool:
        """Whether a 2 MiB page is there."""
        return bool(self.state(gpa) & pagestate.LARGE)

    def read(self, gpa: int, size: int, shared: bool = False) -> bytes:
        """Bytes as the module or the host sees them; no state check."""
        base = self.layout.shared if shared else self.layout.ram
        return bytes(self.ffi.buffer(base + gpa, size))

    def write(self, gpa: int, data: bytes, shared: bool = False) -> None:
        """Writes without a state check."""
        base = self.layout.shared if shared else self.layout.ram
        self.ffi.memmove(base + gpa, data, len(data))
        if not shared:
            self.lib.td_host_wrote(self.vm, gpa, len(data))

    def used(self) -> Iterator[tuple[int, bytes]]:
        """GPA and content of each run of private pages that are not all zeros."""
        base, span = self.layout.ram, self.span
        room = int(self.lib.td_used_pages(base, span, self.ffi.NULL, 0))
        numbers = self.ffi.new("uint32_t[]", max(room, 1))
        count = min(room, int(self.lib.td_used_pages(base, span, numbers, room)))
        pages = [int(number) for number in numbers[0:count]]
        for _, run in groupby(enumerate(pages), lambda pair: pair[1] - pair[0]):
            found = [page for _, page in run]
            yield found[0] * PAGE, self.read(found[0] * PAGE, len(found) * PAGE)

    def set_states(self, gpa: int, size: int, state: int) -> None:
        """Gives all pages of a range one `pagestate` byte."""
        self.lib.td_set_pages(self.vm, gpa, size // PAGE, state)

    def states(self, gpa: int, size: int) -> bytes:
        """The `pagestate` bytes of a range."""
        return bytes(self.ffi.buffer(self.layout.pages + (gpa >> 12), size // PAGE))

    def is_accepted(self, gpa: int, size: int) -> bool:
        """Whether all pages of a range are private and accessible."""
        return {state & pagestate.STATE for state in set(self.states(gpa, size))} == {pagestate.MAPPED}

    def is_pending(self, gpa: int, size: int) -> bool:
        """Whether all pages of a range wait to be accepted."""
        return {state & pagestate.STATE for state in set(self.states(gpa, size))} == {pagestate.PENDING}

    def split(self, gpa: int, size: int) -> None:
        """TDH.MEM.PAGE.DEMOTE of every 2 MiB page that the range touches."""
        for chunk in range(gpa // LARGE_PAGE * LARGE_PAGE, gpa + size, LARGE_PAGE):
            if self.is_large(chunk):
                self.set_states(chunk, LARGE_PAGE, self.state(chunk) & ~pagestate.LARGE)

    def remove(self, gpa: int, size: int, again: bool = True) -> None:
        """TDH.MEM.RANGE.BLOCK and PAGE.REMOVE of whole private pages. With `again` the VMM adds new ones on
        demand, which are pending and will be zero; without it they stay away.
        """
        self.split(gpa, size)
        self.lib.td_discard(self.vm, gpa, size)
        self.set_states(gpa, size, pagestate.PENDING if again else pagestate.UNMAPPED)

    def add_ram(self, start: int, end: int, large: bool) -> None:
        """RAM that the VMM would augment on demand; `large`: whether it may use 2 MiB pages."""
        pending = pagestate.PENDING
        self.set_states(start, end - start, pending)
        first, last = -(-start // LARGE_PAGE) * LARGE_PAGE, end // LARGE_PAGE * LARGE_PAGE
        if large and last > first:
            self.set_states(first, last - first, pending | pagestate.LARGE)

    def add_pages(self, gpa: int, content: bytes, size: int, measured: bool) -> None:
        """TDH.MEM.PAGE.ADD of `size` bytes: pages are there, accepted, and their 2 MiB chunk is split."""
        self.split(gpa, size)
        flags = pagestate.MAPPED | pagestate.ADDED | (pagestate.MEASURED if measured else 0)
        self.set_states(gpa, size, flags)
        self.write(gpa, content)
