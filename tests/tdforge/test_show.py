"""Does a boot report say what its figures mean?"""

from __future__ import annotations

import io

from rich.console import Console

from tdforge.show import print_run


def test_all_added_pages_are_in_mrtd() -> None:
    """TDH.MEM.PAGE.ADD extends MRTD with the address of each page, TDH.MR.EXTEND with the content of some."""
    pages = {"added": 4184, "extended": 9, "accepted_2m": 127, "accepted_4k": 448}
    text = io.StringIO()
    print_run(Console(file=text, width=200), {"instructions": 1, "tdcalls": {}, "pages": pages})
    assert "4,184 of 4 KiB at launch, all in MRTD by address, 9 by content" in text.getvalue()
