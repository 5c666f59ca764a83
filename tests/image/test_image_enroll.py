"""Does what is enrolled lie in the CFV and nowhere else, with nothing of an earlier time behind it?"""

from __future__ import annotations

from uuid import UUID

import cfvbyhand as hand
import pytest
from tdvfimage import image_for_direct_boot, patched, regions

from formats import cfv
from formats.errors import FormatError
from formats.tdvf import SectionType
from formats.units import FOUR_GIB
from image.check import check_image
from image.enroll import EXAMPLE, contents, enroll, volume_section
from image.inspect import inspect
from image.mrtd import mrtd
from image.write import Placed, write_image

A, B = UUID("f10e684e-3abd-20e4-5932-8f973c355e57"), UUID(int=7)
HASH = bytes(range(48))
ANCHOR = (cfv.ANCHOR_FILE, cfv.anchor(HASH))
SIZE, START = 0x2000, 0xB000  # of the sample's CFV, in its file
CFV = 1  # its place among the sections
GPA = FOUR_GIB - 0x5000


def image_with(config: bytes = b"") -> bytes:
    """The sample with other bytes in its CFV."""
    image = bytearray(image_for_direct_boot())
    image[START : START + SIZE] = config.ljust(SIZE, b"\0")
    return bytes(image)


EMPTY = image_with()


def test_only_the_section_changes() -> None:
    done = enroll(EMPTY, [ANCHOR, (A, b"{}")])
    assert done[START : START + SIZE] == hand.volume(SIZE, hand.file(*ANCHOR), hand.file(A, b"{}"))
    assert (done[:START], done[START + SIZE :]) == (EMPTY[:START], EMPTY[START + SIZE :])
    assert check_image(done) == []
    assert mrtd(done) == mrtd(EMPTY)
    assert list(hand.files(done[START : START + SIZE])) == [(ANCHOR[0], 1, ANCHOR[1]), (A, 1, b"{}")]


def test_nothing_of_an_earlier_volume_is_left() -> None:
    first = enroll(EMPTY, [ANCHOR, (A, b"\xaa" * 5000)])
    assert enroll(first, [ANCHOR]) == enroll(EMPTY, [ANCHOR])
    assert enroll(first, [(B, b"")]) == enroll(EMPTY, [(B, b"")])


def test_other_data_stays() -> None:
    with pytest.raises(
        FormatError, match=r"CFV, GPA 0xffffb000: found data that is no firmware volume \(.*\), exp"
    ):
        enroll(image_for_direct_boot(), [ANCHOR])


def test_what_does_not_fit_is_refused_with_both_sizes() -> None:
    room = SIZE - 0x78 - 24
    assert enroll(EMPTY, [(A, bytes([1]) * room)])[START + SIZE - 1] == 1
    with pytest.raises(
        FormatError, match=rf"file {A}: found {room + 1:,} bytes, expected at most {room:,}, .*8,192"
    ):
        enroll(EMPTY, [(A, bytes(room + 1))])


def test_one_name_twice() -> None:
    with pytest.raises(FormatError, match=f"found file {A} twice"):
        enroll(EMPTY, [(A, b"1"), (B, b"2"), (A, b"3")])


def test_an_image_needs_one_cfv() -> None:
    without = [item for item in regions(direct=True) if item.type != SectionType.CFV]
    with pytest.raises(
        FormatError, match=r"x.bin: found no CFV section, expected one, declared in its flow: "
    ) as no:
        enroll(write_image(without, "direct-boot"), [ANCHOR], place="x.bin")
    assert EXAMPLE in str(no.value)
    second = Placed("more", SectionType.CFV, FOUR_GIB - 0x9000, 0x1000, 0, bytes(0x1000))
    two = write_image([*regions(direct=True), second], "direct-boot")
    assert volume_section(two, gpa=second.address).address == second.address
    with pytest.raises(
        FormatError,
        match=r"found 2 CFV sections \(GPA 0xffffb000, GPA 0xffff7000\), expected one of these: --cfv GPA",
    ):
        enroll(two, [ANCHOR])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"raw_size": 0x1000},
            "found 0x1000 bytes of data at file offset 0xb000, expected 0x2000 bytes inside",
        ),
        ({"data_offset": 0xF000}, "found 0x2000 bytes of data at file offset 0xf000"),
    ],
)
def test_a_cfv_that_is_not_whole_in_the_file(fields: dict[str, int], says: str) -> None:
    with pytest.raises(FormatError, match=f"CFV, GPA 0xffffb000: {says}"):
        enroll(patched(EMPTY, CFV, **fields), [ANCHOR])


def test_a_cfv_that_ends_with_the_file() -> None:
    image = patched(EMPTY, CFV, data_offset=0xE000)
    assert volume_section(image).data_offset == 0xE000


def test_inspect_shows_files_and_anchor() -> None:
    volume = hand.volume(
        SIZE, hand.file(*ANCHOR), hand.file(A, b"{}"), hand.file(B, b"z", kind=2), hand.file(ANCHOR[0], b"no")
    )
    info = inspect(image_with(volume))
    assert [(file.guid, file.type, file.size, file.anchor) for file in info.cfv[0].files] == [
        (str(cfv.ANCHOR_FILE), 1, 88, HASH.hex()),
        (str(A), 1, 2, None),
        (str(B), 2, 1, None),
        (str(cfv.ANCHOR_FILE), 1, 2, None),
    ]
    other = ANCHOR[1][:24] + b"\2" + ANCHOR[1][25:]
    file = inspect(image_with(hand.volume(SIZE, hand.file(ANCHOR[0], other)))).cfv[0].files[0]
    assert (file.anchor, file.content[:11], file.content[-10:]) == (None, "malformed: ", "1, SHA-384")
    typed = inspect(image_with(hand.volume(SIZE, hand.file(*ANCHOR, kind=2))))
    assert (typed.cfv[0].files[0].anchor, typed.cfv[0].files[0].content) == (None, "type 0x2")
    rows = info.cfv_rows()
    assert rows[1] == ("0xffffb000", str(cfv.ANCHOR_FILE), "88", f"trust anchor, SHA-384 {HASH.hex()}")
    assert rows[2] == ("0xffffb000", str(A), "2", "type 0x1")
    assert rows[4][3].startswith("malformed: ")
    assert rows[5] == ("0xffffb000", "-", "-", "the rest: zeros")


def test_inspect_shows_what_no_reader_finds() -> None:
    stray = image_with(hand.volume(SIZE, hand.file(*ANCHOR))[:-1] + b"\1")
    assert inspect(stray).cfv[0].rest.startswith("data that no reader finds, behind a file of 0x0 bytes")
    assert contents(EMPTY, [volume_section(EMPTY)])[0].rest == "zeros"
    assert inspect(EMPTY).cfv_rows()[1:] == [("0xffffb000", "-", "-", "zeros")]
    foreign = inspect(image_for_direct_boot())
    assert "no firmware volume: GPA 0xffffb000: found a zero vector 0707" in foreign.cfv_rows()[1][3]
    assert foreign.cfv[0].files == ()


def test_an_image_without_a_cfv_shows_none() -> None:
    image = write_image(
        [each for each in regions(direct=True) if each.type != SectionType.CFV], "direct-boot"
    )
    assert (inspect(image).cfv, inspect(image).cfv_rows()) == ((), [])
