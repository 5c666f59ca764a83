"""What does a boot of each shipped flow cost, up to the hand-over? Exact counts, for docs/performance.md."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dsl.api import shipped_flows
from emu.api import Report, RunConfig
from formats import cfv, tdvf
from formats.units import MIB
from gen.link.sample import sample
from image.enroll import enroll
from image.keys import RSA_BITS, PrivateKey, key_hash, signature_with
from image.sign import sign
from tdforge import show
from tdforge.apt import Say
from tdforge.boot import CMDLINE
from tdforge.building import build_flow
from tdforge.errors import UserError
from tdforge.files import read
from tdforge.kernel import vmlinux
from tdforge.running import symbols_of

MEMORY = 256 * MIB
# Symbols of the C core whose instructions are hashing.
HASHING = ("sha384_blocks",)
HOSTS = {"qemu": "qemu", "alioth": "alioth", "vmlinux": "dragonball"}  # of a flow; others: td-shim-spec
SIGNED, BUILT_IN = "secure_boot", ("payload", "service_td")  # the latter with the sample in the image
PUBLIC_EXPONENT = 65537


def keys() -> dict[str, PrivateKey]:
    """One of each kind that a payload can be signed with."""
    return {
        "ECDSA": ec.generate_private_key(ec.SECP384R1()),
        "RSA": rsa.generate_private_key(PUBLIC_EXPONENT, RSA_BITS),
    }


def to_handoff(image: Path, memory: int, kernel: bytes | None, **more: Any) -> RunConfig:
    """A run of a built image that ends at the hand-over, with hashing counted apart; `more`: what differs.
    UserError: no such image.
    """
    config = RunConfig(
        read(image, "image"), str(image), memory, kernel=kernel, cmdline="" if kernel is None else CMDLINE,
        until="handoff", elf=symbols_of(image), skip_count=HASHING,
    )  # fmt: skip
    return replace(config, **more)


def met(report: Report, what: str) -> Report:
    """The report of a run that came to where it should. UserError: how it ended instead."""
    if not report.met:
        raise UserError(f"{what}; {show.end_line(report.to_json()['end'])}")
    return report


def configurations(kernel: bytes, out: Path, say: Say) -> dict[str, RunConfig]:
    """A run of each flow with what it starts, by the column's name. Raises UserError."""
    found: dict[str, RunConfig] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sample.elf"
        file.write_bytes(sample("elf"))
        for name, flow in shipped_flows().items():
            built_in = name in BUILT_IN
            image = build_flow(flow, out, payload=file if built_in else None).image
            given = None if built_in else vmlinux(kernel, say) if name == "vmlinux" else kernel
            config = to_handoff(image, MEMORY, given, vmm=HOSTS.get(name, RunConfig.vmm))
            found |= signed(config) if name == SIGNED else {name: config}
    return found


def sizes(config: RunConfig) -> dict[str, int]:
    """Of the image file, and of the firmware itself."""
    return {"image file, bytes": len(config.image), "BFV, bytes": bfv_bytes(config.image)}


def bfv_bytes(image: bytes) -> int:
    """Bytes of the image's BFV sections."""
    sections = tdvf.metadata(image).sections
    return sum(item.memory_size for item in sections if item.type == tdvf.SectionType.BFV)


def signed(config: RunConfig) -> dict[str, RunConfig]:
    """The same with a signed kernel and the anchor of its key, for a key of each kind."""
    assert config.kernel is not None
    found = {}
    for kind, key in keys().items():
        public = key.public_key()
        image = enroll(config.image, [(cfv.ANCHOR_FILE, cfv.anchor(key_hash(public)))])
        payload = sign(config.kernel, 1, 1, public, partial(signature_with, key))
        found[f"{SIGNED}, {kind}"] = replace(config, image=image, kernel=payload)
    return found
