"""Does a boot report say what its figures mean?"""

from __future__ import annotations

import io

from rich.console import Console

from tdforge.show import print_measurements, print_run


def test_all_added_pages_are_in_mrtd() -> None:
    """TDH.MEM.PAGE.ADD extends MRTD with the address of each page, TDH.MR.EXTEND with the content of some."""
    pages = {"added": 4184, "extended": 9, "accepted_2m": 127, "accepted_4k": 448}
    pages |= {"accepted_2m_by_payload": 23, "accepted_4k_by_payload": 0}
    text = io.StringIO()
    report = {"instructions": 1, "instructions_all": 1, "aps": [], "tdcalls": {}, "pages": pages}
    print_run(Console(file=text, width=200), report)
    assert "4,184 of 4 KiB at launch, all in MRTD by address, 9 by content" in text.getvalue()
    assert "by the payload  23 of 2 MiB, 0 of 4 KiB of these" in text.getvalue()


def test_an_event_without_words_is_named_by_its_type() -> None:
    digest = "00" * 48
    events = [
        {"rtmr": 0, "type": "EV_EFI_GPT_EVENT", "digest": digest, "description": ""},
        {"rtmr": 0, "type": "EV_IPL", "digest": digest, "description": "grub_cmd"},
        {"rtmr": 1, "type": "EV_IPL", "digest": digest, "description": "initrd"},
    ]
    text = io.StringIO()
    report = {"mrtd": digest, "rtmr": [digest] * 4, "events": events}
    print_measurements(Console(file=text, width=200), report)
    lines = text.getvalue().splitlines()
    assert "RTMR[0]   EV_EFI_GPT_EVENT" in lines
    assert "RTMR[0]   grub_cmd (EV_IPL)" in lines
    assert "RTMR[1]   initrd: the initrd (EV_IPL)" in lines
