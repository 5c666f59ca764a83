"""Is MRTD what the TDX module would compute, by a second computation that shares nothing with the product?"""

from __future__ import annotations

import hashlib
import struct

import pytest
from debian import ovmf
from hypothesis import given
from hypothesis import strategies as st
from refusals import one_line
from tdvfimage import code, image_for_direct_boot, image_for_qemu, patched, records, regions

from formats.errors import FormatError
from formats.tdvf import SectionType
from formats.units import FOUR_GIB
from image.mrtd import Order, Vmm, mrtd
from image.write import Placed, write_image


def by_the_specification(
    image: bytes, two_pass: bool, pages: list[tuple[int, bytes | None]] | None = None
) -> str:
    """Intel TDX Module ABI, MRTD: 128 bytes for each ADD, 128 + 256 for each EXTEND; by struct."""
    stream = b""
    groups: list[list[tuple[int, bytes | None]]] = [pages] if pages else []
    for item in records(image) if pages is None else ():
        group = []
        for offset in range(0, item.memory_size if not item.attributes & 2 else 0, 4096):
            start = item.data_offset + offset
            group.append(
                (item.address + offset, image[start : start + 4096] if item.attributes & 1 else None)
            )
        groups.append(group)
    for group in groups:
        adds = [b"MEM.PAGE.ADD\0\0\0\0" + struct.pack("<Q", gpa) + bytes(104) for gpa, _ in group]
        extends = [
            b"".join(
                b"MR.EXTEND\0\0\0\0\0\0\0" + struct.pack("<Q", gpa + i) + bytes(104) + content[i : i + 256]
                for i in range(0, 4096, 256)
            )
            if content is not None
            else b""
            for gpa, content in group
        ]
        stream += (
            b"".join(adds + extends)
            if two_pass
            else b"".join(a + e for a, e in zip(adds, extends, strict=True))
        )
    return hashlib.sha384(stream).hexdigest()


@pytest.mark.parametrize("image", [image_for_qemu(), image_for_direct_boot()], ids=["qemu", "direct-boot"])
def test_both_orders(image: bytes) -> None:
    single, double = mrtd(image), mrtd(image, Order.TWO_PASS)
    assert single.digest.hex() == by_the_specification(image, two_pass=False)
    assert double.digest.hex() == by_the_specification(image, two_pass=True)
    assert single.digest != double.digest
    pages = sum(item.memory_size // 4096 for item in records(image))
    assert (single.pages_added, single.chunks_extended) == (pages, 3 * 16)
    assert (double.pages_added, double.chunks_extended) == (pages, 3 * 16)


@pytest.mark.parametrize("attributes", [2, 3])
def test_pages_that_the_td_accepts_later_are_not_in_it(attributes: int) -> None:
    """PAGE.AUG: no TDH.MEM.PAGE.ADD. The three VMMs that are named take no notice of that attribute."""
    image = patched(image_for_direct_boot(), 5, attributes=attributes, memory_size=1 << 31)
    found = mrtd(image)
    assert found.digest.hex() == by_the_specification(image, two_pass=False)
    assert mrtd(image, Order.TWO_PASS).digest.hex() == by_the_specification(image, two_pass=True)
    assert (found.pages_added, found.chunks_extended) == (3 + 2 + 16 + 8 + 1, 3 * 16)
    small = patched(image, 5, attributes=2, memory_size=0x2000)
    assert [mrtd(small, vmm=vmm).pages_added for vmm in (None, *Vmm)] == [30, 32, 32, 32]


@pytest.mark.parametrize("kind", [7, 8])
def test_a_section_without_memory_adds_nothing(kind: int) -> None:
    image = patched(image_for_direct_boot(), 5, type=kind, address=0, memory_size=0)
    for vmm in (None, *Vmm):
        assert mrtd(image, vmm=vmm).digest.hex() == by_the_specification(image, two_pass=False)


def test_a_foreign_image() -> None:
    image = ovmf().read_bytes()
    assert mrtd(image).digest.hex() == by_the_specification(image, two_pass=False)
    assert mrtd(image, Order.TWO_PASS).digest.hex() == by_the_specification(image, two_pass=True)


def test_the_computation_by_hand_meets_published_vectors() -> None:
    """Values given with the ABI's rule; the judge is judged."""
    page = bytes(i % 256 for i in range(4096))
    pages: list[tuple[int, bytes | None]] = [(0x80_0000, page), (0x80_1000, bytes(4096))]
    assert by_the_specification(b"", False, pages).startswith(
        "c41527c4db3ed59e4bfb5443e20b7f1d0514cc60b54d7a6f9"
    )
    assert by_the_specification(b"", True, pages).startswith(
        "aeed2ba26d77e417e5334fdc8749b97df5e41b1ce837ddfbc1"
    )
    assert by_the_specification(b"", False, [(0xFFFF_F000, None)]).startswith(
        "8d411e4377a0da03b249acbe9a7939b44b"
    )


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 3))
def test_any_layout(bfv: int, hob: int, temps: int) -> None:
    found = [
        Placed("code", SectionType.BFV, FOUR_GIB - bfv * 0x1000, bfv * 0x1000, 1, code(bfv * 0x1000)),
        Placed("hob", SectionType.TD_HOB, 0x80_0000, hob * 0x1000),
        *(Placed(f"t{i}", SectionType.TEMP_MEM, 0x90_0000 + i * 0x2000, 0x2000) for i in range(temps)),
    ]
    image = write_image(found)
    assert mrtd(image).digest.hex() == by_the_specification(image, two_pass=False)
    assert mrtd(image, Order.TWO_PASS).digest.hex() == by_the_specification(image, two_pass=True)


def test_what_changes_mrtd_and_what_does_not() -> None:
    image = image_for_qemu()
    start = records(image)[0].data_offset
    flipped = image[: start + 5] + bytes([image[start + 5] ^ 1]) + image[start + 6 :]
    config = records(image)[1].data_offset
    other_config = image[:config] + b"\x55" + image[config + 1 :]
    assert mrtd(flipped).digest != mrtd(image).digest
    assert mrtd(other_config).digest == mrtd(image).digest
    longer = [*regions(direct=False)[:3], Placed("stack", SectionType.TEMP_MEM, 0x81_0000, 0x9000)]
    assert mrtd(write_image(longer)).digest != mrtd(image).digest
    reordered = [regions(direct=False)[i] for i in (0, 1, 3, 2)]
    assert mrtd(write_image(reordered)).digest != mrtd(image).digest


def test_unequal_sizes_need_a_vmm() -> None:
    """QEMU measures the file bytes that follow, the others zeros."""
    image = patched(image_for_qemu(), 0, raw_size=0x2000)
    with pytest.raises(
        FormatError, match="raw size 0x2000, memory size 0x3000, expected equal sizes, or a named VMM"
    ):
        mrtd(image)
    qemu, *zeroing = (
        mrtd(image, vmm=vmm).digest.hex() for vmm in (Vmm.QEMU, Vmm.CLOUD_HYPERVISOR, Vmm.DRAGONBALL)
    )
    assert qemu == by_the_specification(image, two_pass=False)
    pages: list[tuple[int, bytes | None]] = []
    for item in records(image):
        for offset in range(0, item.memory_size, 4096):
            raw = image[item.data_offset :][:0x2000][offset : offset + 4096].ljust(4096, b"\0")
            pages.append((item.address + offset, raw if item.attributes & 1 else None))
    assert zeroing == [by_the_specification(b"", False, pages)] * 2


def test_cloud_hypervisor_measures_only_attributes_of_exactly_one() -> None:
    image = patched(image_for_qemu(), 0, attributes=3)
    assert mrtd(image, vmm=Vmm.CLOUD_HYPERVISOR).chunks_extended == 0
    assert mrtd(image, vmm=Vmm.QEMU).chunks_extended == 48


def test_one_page_more_than_a_gib_is_no_launch() -> None:
    image = image_for_direct_boot()
    others = sum(item.memory_size for index, item in enumerate(records(image)) if index != 3)
    with pytest.raises(FormatError, match="at most 1 GiB"):
        mrtd(patched(image, 3, memory_size=(1 << 30) + 4096 - others))


@pytest.mark.parametrize(
    ("section", "fields", "text"),
    [
        (5, {"attributes": 1}, "measured content that the VMM supplies"),
        (2, {"attributes": 1}, "measured content that the VMM supplies"),
        (0, {"data_offset": 0xF000}, "expected data inside the file"),
        (3, {"memory_size": 0x800}, "4 KiB pages: no VMM can add it"),
        (3, {"memory_size": 1 << 40}, "at most 1 GiB"),
    ],
)
def test_what_cannot_be_known_is_told(section: int, fields: dict[str, int], text: str) -> None:
    with pytest.raises(FormatError) as caught:
        mrtd(patched(image_for_direct_boot(), section, **fields), place="linux.bin")
    assert text in str(caught.value)
    assert str(caught.value).startswith("linux.bin")


@given(st.data())
def test_a_mutated_image_gives_a_value_or_one_line(data: st.DataObject) -> None:
    image = bytearray(image_for_direct_boot())
    for _ in range(data.draw(st.integers(1, 4))):
        image[-data.draw(st.integers(0x321, 0x400))] = data.draw(st.integers(0, 255))
    with one_line():
        found = mrtd(
            bytes(image), data.draw(st.sampled_from(Order)), data.draw(st.sampled_from([None, *Vmm]))
        )
        assert found.chunks_extended <= 16 * found.pages_added
