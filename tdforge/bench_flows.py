"""What does a boot of each shipped flow cost, up to the hand-over? Exact counts, for docs/performance.md."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dsl.api import shipped_flows
from emu.config import RunConfig
from formats import cfv, tdvf
from formats.units import MIB
from gen.link.sample import sample
from image.enroll import enroll
from image.keys import RSA_BITS, PrivateKey, key_hash, signature_with
from image.sign import sign
from tdforge.apt import Say
from tdforge.boot import CMDLINE
from tdforge.building import build_flow
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


def configurations(kernel: bytes, out: Path, say: Say) -> dict[str, RunConfig]:
    """A run of each flow with what it starts, by the column's name. Raises UserError."""
    found: dict[str, RunConfig] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sample.elf"
        file.write_bytes(sample("elf"))
        for name, flow in shipped_flows().items():
            built_in = name in BUILT_IN
            image = build_flow(flow, out, payload=file if built_in else None).image
            config = RunConfig(
                image.read_bytes(),
                str(image),
                MEMORY,
                kernel=None if built_in else vmlinux(kernel, say) if name == "vmlinux" else kernel,
                cmdline="" if built_in else CMDLINE,
                until="handoff",
                elf=symbols_of(image),
                skip_count=HASHING,
                vmm=HOSTS.get(name, RunConfig.vmm),
            )
            found |= signed(config) if name == SIGNED else {name: config}
    return found


def sizes(config: RunConfig) -> dict[str, int]:
    """Of the image file, and of the firmware itself."""
    sections = tdvf.metadata(config.image).sections
    firmware = sum(item.memory_size for item in sections if item.type == tdvf.SectionType.BFV)
    return {"image file, bytes": len(config.image), "BFV, bytes": firmware}


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
