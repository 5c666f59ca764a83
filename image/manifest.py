"""What does a build record about its image? `build/<flow>.json`, the same bytes for the same image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import metadata as packages
from typing import Any

from formats import igvm as igvm_file
from formats.tdvf import TYPE_NAMES
from image.mrtd import Order, igvm_mrtd, mrtd
from image.write import Placed, metadata_sections

FORMAT = 1  # of the manifest; grows when a key changes its meaning
_TOOLS = ("ziglang", "construct", "lark")  # what the bytes of an image depend on


def tool_versions() -> dict[str, str]:
    """Versions of the installed tools an image's bytes depend on; those without package data are left out."""
    found: dict[str, str] = {}
    for name in _TOOLS:
        try:
            found[name] = packages.version(name)
        except packages.PackageNotFoundError:
            continue
    return found


def manifest(
    name: str,
    version: Sequence[int],
    svn: int,
    image: bytes,
    sections: Sequence[Placed],
    *,
    bfv_used: int,
    tools: Mapping[str, str],
    files: Mapping[str, tuple[str, bytes]] | None = None,
    declared: Mapping[str, str] | None = None,
    igvm: bytes | None = None,
    registers: Sequence[bytes] | None = None,
) -> dict[str, Any]:
    """The facts of a build. `bfv_used`: bytes of the BFV that hold code or data, by the linker's account;
    `files`: name and content of the file that fills a section, by section; `declared`: FILE:LINE of the
    flow's declaration, by section; `igvm`: the IGVM file of the image, if there is one; `registers`:
    RTMR[0] to RTMR[3] at the handoff, if the image alone determines them."""
    measured = mrtd(image, Order.SINGLE_PASS)
    return {
        "format": FORMAT,
        "name": name,
        "version": ".".join(str(part) for part in version),
        "svn": svn,
        "image": _digests(image),
        "mrtd": {
            str(Order.SINGLE_PASS): measured.digest.hex(),
            str(Order.TWO_PASS): mrtd(image, Order.TWO_PASS).digest.hex(),
        },
        "launch": {"pages_added": measured.pages_added, "chunks_extended": measured.chunks_extended},
        "bfv_used": bfv_used,
        "sections": [
            {
                "name": placed.name,
                "type": TYPE_NAMES[placed.type],
                "gpa": section.address,
                "size": section.memory_size,
                "data_offset": section.data_offset,
                "raw_size": section.raw_size,
                "attributes": section.attributes,
                **_file(files or {}, placed.name),
                **({"declared": declared[placed.name]} if declared and placed.name in declared else {}),
            }
            for placed, section in zip(sections, metadata_sections(sections), strict=True)
        ],
        "tools": dict(tools),
        **({"igvm": _igvm(igvm)} if igvm else {}),
        **({"rtmr": [register.hex() for register in registers]} if registers else {}),
    }


def _digests(content: bytes) -> dict[str, Any]:
    return {
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "sha384": hashlib.sha384(content).hexdigest(),
    }


def _igvm(content: bytes) -> dict[str, Any]:
    measured = igvm_mrtd(igvm_file.read(content))
    return {
        **_digests(content),
        "mrtd": measured.digest.hex(),
        "pages_added": measured.pages_added,
        "chunks_extended": measured.chunks_extended,
    }


def _file(files: Mapping[str, tuple[str, bytes]], section: str) -> dict[str, Any]:
    if section not in files:
        return {}
    name, content = files[section]
    return {"file": {"name": name, "size": len(content), "sha384": hashlib.sha384(content).hexdigest()}}


def manifest_bytes(facts: Mapping[str, Any]) -> bytes:
    """The file's content: sorted keys, two-space indent, a final newline."""
    return (json.dumps(facts, indent=2, sort_keys=True) + "\n").encode()
