"""Is TD_PARAMS made of JSON field by field, and is each mistake in it named?"""

from __future__ import annotations

import json
import struct
from typing import Any
from uuid import UUID

import pytest

from formats.described import read_td_info, read_td_params, td_info, td_params
from formats.errors import FormatError

FIELDS: dict[str, Any] = {
    "attributes": "0x10000000",
    "xfam": "3",
    "maxvcpus": 4,
    "numl2vms": 0,
    "msrconfigctls": 1,
    "eptpcontrols": 2,
    "configflags": "ff",
    "tscfrequency": 40,
    "mrconfigid": "01" * 48,
    "mrowner": "0x" + "02" * 48,
    "mrownerconfig": [3] * 48,
    "ia32archcapabilitiesconfig": "ffffffffffffffff",
    "mrconfigsvn": 5,
    "mrownerconfigsvn": 0xFFFF,
    "cpuid_config": "00" * 767 + "06",
}


def made(**changes: Any) -> bytes:
    return td_params(json.dumps(FIELDS | changes), place="p.json")


def test_each_field_is_where_the_module_has_it() -> None:
    numbers = (0x1000_0000, 3, 4, 0, 1, 2, 0xFF, 40)
    digests = (b"\1" * 48, b"\2" * 48, b"\3" * 48)
    last = ((1 << 64) - 1, 5, 0xFFFF, bytes(767) + b"\6")
    assert made() == struct.pack("<QQHBB4xQQH38x48s48s48sQHH20x768s", *numbers, *digests, *last)
    read = read_td_params(made())
    assert read is not None
    assert read.keys() == FIELDS.keys()
    assert (read["configflags"], read["mrowner"]) == (0xFF, "02" * 48)


@pytest.mark.parametrize(
    ("changes", "place", "found", "expected"),
    [
        ({"atributes": 1}, "p.json: atributes", "an unknown field", "attributes, xfam, maxvcpus"),
        ({"reserved_014": 0}, "p.json: reserved_014", "an unknown field", "attributes"),
        ({"maxvcpus": 0x1_0000}, "p.json: maxvcpus", "65536", "a number of 2 bytes"),
        ({"numl2vms": -1}, "p.json: numl2vms", "-1", "a number of 1 bytes"),
        ({"xfam": "three"}, "p.json: xfam", '"three"', "or one as hexadecimal text"),
        ({"xfam": True}, "p.json: xfam", "true", "a number of 8 bytes"),
        ({"xfam": 1.5}, "p.json: xfam", "1.5", "a number of 8 bytes"),
        ({"mrowner": "00" * 47}, "p.json: mrowner", "47 bytes", "48 bytes"),
        ({"mrowner": [0] * 49}, "p.json: mrowner", "49 bytes", "48 bytes"),
        ({"mrowner": [256] * 48}, "p.json: mrowner", "[256, 256", "48 bytes"),
        ({"mrowner": "zz"}, "p.json: mrowner", '"zz"', "48 bytes, as hexadecimal text"),
        ({"mrowner": [True] * 48}, "p.json: mrowner", "[true, true", "48 bytes"),
        ({"mrowner": 48}, "p.json: mrowner", "48", "48 bytes, as hexadecimal text"),
    ],
)
def test_a_field_that_is_wrong(changes: dict[str, Any], place: str, found: str, expected: str) -> None:
    with pytest.raises(FormatError) as caught:
        made(**changes)
    assert caught.value.place == place
    assert caught.value.found.startswith(found)
    assert expected in caught.value.expected


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_is_missing(name: str) -> None:
    with pytest.raises(FormatError, match=f"p.json: {name}: found no such field"):
        td_params(json.dumps({k: v for k, v in FIELDS.items() if k != name}), place="p.json")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "no JSON"),
        ("[]", "a list"),
        ("[" * 100_000, r"no JSON \(maximum recursion depth"),
        ('{"mrowner": ' + "[" * 100_000, r"no JSON \(maximum recursion depth"),
    ],
    ids=["cut", "list", "deep", "deep field"],
)
def test_what_is_no_object(text: str, found: str) -> None:
    with pytest.raises(FormatError, match=f"p.json: found {found}"):
        td_params(text, place="p.json")


def test_a_field_twice() -> None:
    text = json.dumps(FIELDS)[:-1] + ', "xfam": 7}'
    with pytest.raises(FormatError, match=r"p\.json: xfam: found this field twice, expected each field"):
        td_params(text, place="p.json")


def test_lists_as_deep_as_can_be_read() -> None:
    """Where there is room to read them, and none to write them."""
    text = json.dumps({name: value for name, value in FIELDS.items() if name != "mrowner"})
    for depth in range(900, 1000):
        deep = f'{text[:-1]}, "mrowner": {"[" * depth}{"]" * depth}}}'
        with pytest.raises(FormatError):
            td_params(deep, place="p.json")


def test_td_info_by_hand() -> None:
    guid = UUID("00112233-4455-6677-8899-aabbccddeeff")
    made = td_info(guid, (1, 2, 3), 4, b"abc")
    assert made == guid.bytes_le + struct.pack("<III", 31, 0x01020003, 4) + b"abc"
    read = read_td_info(made)
    assert read is not None
    assert (read.guid, read.version, read.svn, read.data) == (str(guid), (1, 2, 3), 4, b"abc".hex())
