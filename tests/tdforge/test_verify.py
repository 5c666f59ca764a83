"""Does `verify` take what openssl signed for the key that was enrolled, and nothing else?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cfvbyhand as hand
import pytest
from complaint import said
from opensslkeys import key, numbers, signed_payload
from tdvfimage import image_for_direct_boot, regions

from formats.tdvf import SectionType
from formats.units import FOUR_GIB
from gen.core import hostlib
from image.write import Placed, write_image
from tdforge.cli import main

START, SIZE = 0xB000, 0x2000  # of the CFV, in the sample image's file
PAYLOAD = b"what is to be started"
NAMES = ("p384", "rsa")
UNCHECKED = (
    "not checked, as only the flow tells: its minimum SVN (--minimum-svn) and what it revokes (--revoked)"
)


def image(folder: Path, config: bytes) -> Path:
    """The sample image with these bytes in its CFV."""
    data = bytearray(image_for_direct_boot())
    data[START : START + SIZE] = config.ljust(SIZE, b"\0")
    path = folder / "image.bin"
    path.write_bytes(data)
    return path


def enrolled(folder: Path, name: str) -> Path:
    """The sample image with the trust anchor of a key, packed by hand."""
    digest = hashlib.sha384(numbers(name)).digest()
    return image(folder, hand.volume(SIZE, hand.file(hand.ANCHOR_FILE, hand.anchor(digest))))


def verify(at: Path, data: bytes, *more: str) -> int:
    path = at.with_name("signed")
    path.write_bytes(data)
    return main(["verify", str(at), str(path), *more])


@pytest.mark.parametrize("name", NAMES)
def test_what_openssl_signed(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(enrolled(tmp_path, name), signed_payload(name, PAYLOAD, 3, 4)) == 0
    said_of_it, unchecked = capsys.readouterr().out.splitlines()
    assert said_of_it.endswith("), version 3, SVN 4")
    assert unchecked == UNCHECKED
    assert verify(enrolled(tmp_path, name), signed_payload(name, PAYLOAD) + b"behind") == 0


@pytest.mark.parametrize("name", NAMES)
def test_what_we_signed_for_what_we_enrolled(name: str, tmp_path: Path) -> None:
    at, out = image(tmp_path, b""), tmp_path / "out"
    (tmp_path / "payload").write_bytes(PAYLOAD)
    assert main(["enroll", str(at), "--key", str(key(name, "pem", public=True)), "-o", str(at)]) == 0
    words = ["sign", str(tmp_path / "payload"), "--key", str(key(name)), "--version", "1", "--svn", "1"]
    assert main([*words, "-o", str(out)]) == 0
    assert main(["verify", str(at), str(out)]) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_anywhere(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In each byte of the header, of the payload, at both ends of each number of key and signature."""
    at, good = enrolled(tmp_path, name), signed_payload(name, PAYLOAD)
    length = 48 + len(PAYLOAD)
    parts = (48, 48, 48, 48) if name == "p384" else (384, 8, 384)
    ends = [sum(parts[:index]) for index in range(len(parts) + 1)]
    places = [
        *range(length),
        *(length + each for each in ends[:-1]),
        *(length + each - 1 for each in ends[1:]),
    ]
    for place in places:
        data = bytearray(good)
        data[place] ^= 1 << place % 8
        assert verify(at, bytes(data)) == 1, place
        said(capsys)
    assert verify(at, good) == 0


def signed_by_another() -> bytes:
    """With the enrolled key in it, but another's signature."""
    data = signed_payload("other", PAYLOAD)
    return data[: 48 + len(PAYLOAD)] + numbers("p384") + data[-96:]


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: PAYLOAD * 20, "found type 74616877-"),
        (lambda: signed_payload("other", PAYLOAD), "signed: its key has SHA-384 "),
        (lambda: signed_payload("rsa", PAYLOAD), "signed: its key has SHA-384 "),
        (lambda: signed_payload("p384", PAYLOAD)[:-1], "found 191 bytes, expected 192 of key and signature"),
        (signed_by_another, "signed: the signature is not that of the key over header and payload"),
    ],
    ids=["unsigned", "wrong key", "other algorithm", "cut", "signed by another"],
)
def test_what_is_refused(
    made: Callable[[], bytes], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(enrolled(tmp_path, "p384"), made()) == 1
    assert says in said(capsys)


def test_a_lower_svn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at, data = enrolled(tmp_path, "p384"), signed_payload("p384", PAYLOAD, 1, 4)
    assert verify(at, data, "--minimum-svn", "4") == 0
    assert verify(at, data, "--minimum-svn", "5") == 1
    assert said(capsys).endswith("found SVN 4, expected at least 5\n")


def test_a_revoked_key_and_a_revoked_payload(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at, data = enrolled(tmp_path, "p384"), signed_payload("p384", PAYLOAD)
    for what, digest in (("key", hashlib.sha384(numbers("p384"))), ("payload", hashlib.sha384(PAYLOAD))):
        revoked = ("--revoked", "00" * 48, "--revoked", digest.hexdigest().upper())
        assert verify(at, data, *revoked) == 1
        assert said(capsys).endswith(f"signed: the {what} is revoked, its SHA-384 is {digest.hexdigest()}\n")
    assert verify(at, data, "--revoked", "00" * 48) == 0
    assert capsys.readouterr().out.endswith("tells: its minimum SVN (--minimum-svn)\n")
    assert verify(at, data, "--revoked", "00" * 48, "--minimum-svn", "0") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    with pytest.raises(SystemExit):
        verify(at, data, "--revoked", "00" * 47)
    assert "is not 96 hexadecimal digits" in capsys.readouterr().err


def test_a_file_that_the_payload_section_does_not_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at, most = enrolled(tmp_path, "p384"), 0x2_0000
    data = signed_payload("p384", PAYLOAD)
    assert verify(at, data.ljust(most, b"\0")) == 0
    capsys.readouterr()
    assert verify(at, data.ljust(most + 1, b"\0")) == 1
    expected = "found 131,073 bytes, expected at most 131,072, the size of the image's Payload section\n"
    assert said(capsys).endswith(expected)


def test_one_of_two_volumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = [replace(item, data=bytes(item.size)) if item.data else item for item in regions(direct=True)[1:]]
    second = Placed("more", SectionType.CFV, FOUR_GIB - 0x9000, 0x2000, 0, bytes(0x2000))
    at, public = tmp_path / "image.bin", str(key("p384", "pem", public=True))
    at.write_bytes(write_image([regions(direct=True)[0], *empty, second], "direct-boot"))
    enrol = ["enroll", str(at), "--key", public, "-o", str(at)]
    assert main(enrol) == 1
    assert "(GPA 0xffffb000, GPA 0xffff7000), expected one of these: --cfv GPA" in said(capsys)
    assert main([*enrol, "--cfv", "0xffff8000"]) == 1
    assert said(capsys).endswith("expected one at GPA 0xffff8000\n")
    assert main([*enrol, "--cfv", "0xffff7000"]) == 0
    assert "in the CFV at GPA 0xffff7000" in capsys.readouterr().out
    data = signed_payload("p384", PAYLOAD)
    assert verify(at, data) == 1
    said(capsys)
    assert verify(at, data, "--cfv", "0xffffb000") == 1
    assert "found no trust anchor" in said(capsys)
    assert verify(at, data, "--cfv", "0xffff7000") == 0


LONG = hand.volume(SIZE, hand.file(hand.ANCHOR_FILE, hand.anchor(bytes(48)) + bytes(9)))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (b"", "found no trust anchor; enroll a key"),
        (hand.volume(SIZE), "found no trust anchor; enroll a key"),
        (
            hand.volume(SIZE, hand.file(hand.ANCHOR_FILE, b"x")),
            "trust anchor offset 0x0: found 1 bytes, expected 40",
        ),
        (hand.volume(SIZE, hand.file(hand.ANCHOR_FILE, hand.anchor(b""))), "found a length of 40"),
        (hand.volume(SIZE // 2), "found a volume of 0x1000 bytes, expected 0x2000"),
        (LONG, "trust anchor: found a file of 97 bytes, expected at most 96"),
    ],
    ids=["empty", "no anchor", "short anchor", "no hash", "short volume", "long anchor"],
)
def test_a_cfv_without_an_anchor(
    config: bytes, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(image(tmp_path, config), signed_payload("p384", PAYLOAD)) == 1
    assert says in said(capsys)


class Core:
    """The C core, one function of which only answers `status`."""

    def __init__(self, core: Any, name: str, status: int) -> None:
        self.core = core
        setattr(self, name, lambda *given: status)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.core, name)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Has a function of the C core answer an error of that name."""
    core = hostlib.load()

    def answer(name: str, error: str) -> None:
        lib = Core(core.lib, name, core.errors[error] if error else 0)
        monkeypatch.setattr(hostlib, "load", lambda: replace(core, lib=lib))

    return answer


@pytest.mark.parametrize("name", ["anchor_extent", "trust_anchor", "signed_payload", "verify_signed"])
def test_the_c_core_refuses(
    name: str, answers: Callable[[str, str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also what nothing else on the host finds wrong."""
    at, good = enrolled(tmp_path, "p384"), signed_payload("p384", PAYLOAD)
    answers(name, "payload_revoked")
    assert verify(at, good) == 1
    assert said(capsys).endswith(": secure boot: the payload or its key is revoked\n")


@pytest.mark.parametrize("made", [signed_by_another, lambda: signed_payload("other", PAYLOAD)])
def test_the_c_core_accepts(
    made: Callable[[], bytes], answers: Callable[[str, str], None], tmp_path: Path
) -> None:
    answers("verify_signed", "")
    assert verify(enrolled(tmp_path, "p384"), made(), "--minimum-svn", "9") == 0
