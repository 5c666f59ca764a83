"""Does secure_boot.tdf start what its anchor's key signed, and nothing else? In the emulated TD."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha384
from pathlib import Path

import pytest
from keys import EcKey, RsaKey
from securebytes import ANCHOR_FILE, ECDSA, RSA, anchor, file, head, volume
from tdbox import LINUX, Firmware, Stopped, finish, launched, made

from dsl.api import check_source
from emu.api import Report, run
from formats import bundle
from gen.build import build

FLOW = LINUX.with_name("secure_boot.tdf")
STARTED = "tdforge tiny payload: started\n"
CFV_SIZE = 0x40000
Key = EcKey | RsaKey


@dataclass(frozen=True)
class Secure:
    """The image before anything was enrolled, and keys of both kinds."""

    firmware: Firmware
    keys: dict[str, Key]

    @contextmanager
    def booting(self, cfv: bytes, payload: bytes, until: str) -> Iterator[Stopped]:
        """A run with this volume, and with these bytes at the start of the Payload section."""
        gpa, size = self.firmware.section("anchors")
        at = gpa - (1 << 32) + len(self.firmware.image)
        image = self.firmware.image[:at] + cfv + self.firmware.image[at + size :]
        config = replace(self.firmware.config, image=image, until=until)
        assert config.kernel is not None
        with launched(config) as machine:
            start, _ = self.firmware.section("payload")
            machine.memory.write(start, payload.ljust(len(config.kernel), b"\0"))
            yield finish(machine, config)

    def booted(self, cfv: bytes, payload: bytes) -> Report:
        """A run up to the payload's first words."""
        with self.booting(cfv, payload, f"console:{STARTED}") as td:
            return td.report

    def fatal(self, error: str, cfv: bytes, payload: bytes) -> None:
        report = self.booted(cfv, payload)
        assert (report.end["reason"], report.handoff) == ("fatal", None), report.end
        assert error in str(report.end["detail"])


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, tiny: bytes) -> Secure:
    keys: dict[str, Key] = {"ec": EcKey("p384"), "rsa": RsaKey("rsa"), "other": EcKey("other")}
    return Secure(made(FLOW, tmp_path_factory.mktemp("secure"), tiny), keys)


def signed(key: Key, payload: bytes, svn: int = 1, algorithm: int | None = None) -> bytes:
    covered = head(payload, svn, algorithm or (ECDSA if isinstance(key, EcKey) else RSA)) + payload
    return covered + key.public + key.sign(covered)


def enrolled(key: Key, *before: bytes) -> bytes:
    return bytes(volume(*before, file(ANCHOR_FILE, anchor(key.public)), size=CFV_SIZE))


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("name", ["ec", "rsa"])
def test_a_signed_kernel_starts_with_td_shims_events(secure: Secure, tiny: bytes, name: str) -> None:
    key = secure.keys[name]
    report = secure.booted(enrolled(key), signed(key, tiny, svn=5))
    assert str(report.console).endswith(STARTED), report.end
    events = {str(e["description"]): (e["rtmr"], e["digest"]) for e in report.events}
    policy = sha384(anchor(key.public)).hexdigest()
    assert events["secure_policy_db"] == events["secure_authority"] == (0, policy)
    assert events["td_payload_svn"] == (1, sha384((5).to_bytes(8, "little")).hexdigest())
    assert events["td_payload"] == (1, sha384(tiny).hexdigest())
    order = [str(e["description"]) for e in report.events if e["rtmr"] == 1]
    assert order[:3] == ["td_payload_svn", "td_payload", "td_payload_info"]


def test_the_vmm_loads_a_signed_file_as_it_is(secure: Secure, tiny: bytes) -> None:
    """Without an enrolled anchor it starts nothing."""
    payload = signed(secure.keys["ec"], tiny)
    report = run(replace(secure.firmware.config, kernel=payload))
    assert (report.end["reason"], report.handoff) == ("fatal", None)
    assert "malformed firmware volume" in str(report.end["detail"])


def test_a_signed_bundle_has_its_initrd(secure: Secure, tiny: bytes) -> None:
    key, initrd = secure.keys["ec"], b"an initrd" * 1000
    payload = signed(key, bundle.write(tiny, initrd))
    with secure.booting(enrolled(key), payload, "handoff") as td:
        start, count = (int.from_bytes(td.read(td.boot_params + at, 4), "little") for at in (0x218, 0x21C))
        assert td.read(start, count) == initrd


Change = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda s: s[48:], "the payload is not signed"),
        (lambda s: flipped(s, 0), "the payload is not signed"),
        (lambda s: flipped(s, 24), "signature is wrong"),
        (lambda s: flipped(s, 1000), "signature is wrong"),
        (lambda s: flipped(s, len(s) - 96 - 1), "another key"),
        (lambda s: flipped(s, len(s) - 1), "signature is wrong"),
        (lambda s: s[:20] + (len(s) - 192 + 16).to_bytes(4, "little") + s[24:], "another key"),
        (lambda s: s[:20] + (1 << 31).to_bytes(4, "little") + s[24:], "the payload is not signed"),
        (lambda s: s[:40] + b"\2" + s[41:], "another key"),
        (lambda s: s[:40] + b"\3" + s[41:], "the payload is not signed"),
    ],
    ids=[
        "unsigned",
        "type",
        "header",
        "payload",
        "key",
        "signature",
        "length",
        "long",
        "other-algorithm",
        "no-algorithm",
    ],
)
def test_a_payload_that_is_refused(secure: Secure, tiny: bytes, change: Change, error: str) -> None:
    key = secure.keys["ec"]
    secure.fatal(error, enrolled(key), change(signed(key, tiny)))


def test_another_key_and_a_lower_svn_are_refused(secure: Secure, tiny: bytes) -> None:
    key, other = secure.keys["ec"], secure.keys["other"]
    secure.fatal("another key", enrolled(key), signed(other, tiny))
    secure.fatal("SVN is too low", enrolled(key), signed(key, tiny, svn=0))


@pytest.mark.parametrize("broken", ["empty", "checksum", "first file", "no anchor"])
def test_a_volume_that_is_refused(secure: Secure, tiny: bytes, broken: str) -> None:
    key = secure.keys["ec"]
    good = file(bytes(16), b"settings")
    volumes = {
        "empty": (bytes(CFV_SIZE), "malformed firmware volume"),
        "checksum": (flipped(enrolled(key), 0x32), "malformed firmware volume"),
        "first file": (enrolled(key, flipped(good, 16)), "no trust anchor"),
        "no anchor": (bytes(volume(good, size=CFV_SIZE)), "no trust anchor"),
    }
    assert str(secure.booted(enrolled(key, good), signed(key, tiny)).console).endswith(STARTED)
    cfv, error = volumes[broken]
    secure.fatal(error, cfv, signed(key, tiny))


def test_what_is_revoked_does_not_start(secure: Secure, tiny: bytes, tmp_path: Path) -> None:
    key = secure.keys["ec"]
    text = FLOW.read_text()
    for name, digest in (("KEYS", sha384(key.public)), ("PAYLOADS", sha384(tiny))):
        before, _, rest = text.partition(f"REVOKED_{name}")
        listed = rest.replace("0" * 96, digest.hexdigest(), 1)
        flow = tmp_path / "secure_boot.tdf"
        flow.write_text(f"{before}REVOKED_{name}{listed}")
        revoking = replace(secure, firmware=made(flow, tmp_path / name, tiny))
        revoking.fatal("revoked", enrolled(key), signed(key, tiny))


def test_the_image_is_small_and_mrtd_is_that_of_any_anchor(secure: Secure, tmp_path: Path) -> None:
    (code,) = (s for s in secure.firmware.manifest["sections"] if s["name"] == "code")
    assert code["size"] <= 96 << 10
    (anchors,) = (s for s in secure.firmware.manifest["sections"] if s["name"] == "anchors")
    assert (anchors["size"], anchors["type"]) == (CFV_SIZE, "CFV")
    again = build(FLOW, tmp_path)
    assert json.loads(again.manifest.read_text())["mrtd"] == secure.firmware.manifest["mrtd"]


def test_without_verification_the_flow_is_refused() -> None:
    text = "\n".join(line for line in FLOW.read_text().splitlines() if "verify_signed(image" not in line)
    codes = {d.code for d in check_source(text).diagnostics}
    assert codes == {"T11"}
