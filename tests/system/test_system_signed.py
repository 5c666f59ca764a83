"""Is an executable entered if it is signed with the anchor's key, and never otherwise? In the emulated TD.

tests/dsl/flows/signed_executable.tdf takes it from its VMM; the same flow `from payload` has it in the image.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import oracle
import pytest
from opensslkeys import numbers, signed_payload
from securebytes import ANCHOR_FILE, anchor, file, volume
from tdbox import EXECUTABLE, Firmware, finish, launched, made

from emu.api import Report
from formats import tdvf
from gen.link.sample import sample

FLOW = EXECUTABLE.with_name("signed_executable.tdf")
GOOD = "tdforge sample: all good"
LOADED, BUILT_IN = "loaded", "built in"


@dataclass(frozen=True)
class Place:
    """Where the payload comes from: an image without anchor and payload."""

    firmware: Firmware
    built_in: bool

    def booted(self, key: str, payload: bytes, vcpus: int = 1) -> Report:
        """A run with the anchor of a key, to the sample's last words."""
        image = bytearray(self.firmware.image)
        sections = {section.type: section for section in tdvf.metadata(bytes(image)).sections}
        config = sections[tdvf.SectionType.CFV]
        put(image, config, bytes(volume(file(ANCHOR_FILE, anchor(numbers(key))), size=config.raw_size)))
        place = sections[tdvf.SectionType.PAYLOAD]
        if self.built_in:
            put(image, place, payload.ljust(place.raw_size, b"\0"))
        run = replace(self.firmware.config, image=bytes(image), vcpus=vcpus, until=f"console:{GOOD}")
        with launched(run) as machine:
            if not self.built_in:
                machine.memory.write(place.address, payload.ljust(place.memory_size, b"\0"))
            return finish(machine, run).report


def put(image: bytearray, section: tdvf.Section, data: bytes) -> None:
    """The bytes of a section in the image file."""
    assert len(data) == section.raw_size
    image[section.data_offset : section.data_offset + len(data)] = data


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Place]:
    folder = tmp_path_factory.mktemp("signed")
    (folder / "signed").write_bytes(signed_payload("p384", sample("elf")))
    text = re.sub(r" *parameters .*\n", "", FLOW.read_text())
    (folder / "built_in.tdf").write_text(re.sub(r"(payload +Payload.*)", r"\1 from payload", text))
    loaded = made(FLOW, folder, b"")
    built_in = made(folder / "built_in.tdf", folder, b"", folder / "signed")
    taken = replace(loaded.config, kernel=sample("elf"), cmdline="")
    given = replace(built_in.config, kernel=None, cmdline="")
    return {
        LOADED: Place(replace(loaded, config=taken), False),
        BUILT_IN: Place(replace(built_in, config=given), True),
    }


@pytest.mark.parametrize(
    ("place", "name", "key", "vcpus"),
    [
        (LOADED, "elf", "rsa", 1),
        (LOADED, "elf", "p384", 64),
        (LOADED, "pe", "rsa", 4),
        (LOADED, "pe", "p384", 64),
        (BUILT_IN, "elf", "p384", 4),
        (BUILT_IN, "pe", "rsa", 1),
    ],
)
def test_a_signed_executable_is_entered(
    places: dict[str, Place], place: str, name: str, key: str, vcpus: int
) -> None:
    """Not every product: what verifies does not see the format, what places does not see the key, and other
    CPUs are parked whatever runs.
    """
    report = places[place].booted(key, signed_payload(key, sample(name)), vcpus)
    assert report.met, (report.end, report.console)
    assert "FAILED" not in report.console
    assert all(ap["parked"] for ap in report.aps)
    assert report.rtmr[1] == oracle.extended(sample(name), bytes(4))


Change = Callable[[bytes], bytes]


def flipped(at: int) -> Change:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at:][1:]


CHANGES: dict[str, tuple[Change, str]] = {
    "unsigned": (lambda data: data[48:], "the payload is not signed"),
    "header": (flipped(30), "signature is wrong"),
    "payload": (flipped(2000), "signature is wrong"),
    "key": (flipped(-97), "another key"),
    "signature": (flipped(-5), "signature is wrong"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("place", "name"), [(LOADED, "elf"), (BUILT_IN, "pe")])
def test_unsigned_or_one_flipped_bit_is_fatal(
    places: dict[str, Place], place: str, name: str, change: str
) -> None:
    make, said = CHANGES[change]
    report = places[place].booted("p384", make(signed_payload("p384", sample(name))))
    assert (report.end["reason"], report.handoff) == ("fatal", None), report.end
    assert said in str(report.end["detail"])
    assert GOOD not in report.console


def test_another_key_is_fatal_even_in_mrtd(places: dict[str, Place]) -> None:
    """What lies in the image is trusted, and has to be signed all the same."""
    report = places[BUILT_IN].booted("p384", signed_payload("other", sample("elf")))
    assert "another key" in str(report.end["detail"])
    assert report.handoff is None
