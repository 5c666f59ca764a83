"""Do `sign` and `enroll` take the keys that people have, and say in one line what is wrong?"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from urllib.parse import quote

import cfvbyhand as hand
import pytest
import softhsm
from complaint import said
from opensslkeys import key, numbers, verified
from tdvfimage import regions

from formats.tdvf import SectionType
from image.inspect import inspect
from image.mrtd import mrtd
from image.write import write_image
from tdforge.cli import main

SIZES = {"p384": 192, "rsa": 776}
GUID = "F10E684E-3ABD-20E4-5932-8F973C355E57"
PAYLOAD = b"what is to be started"


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    path = tmp_path / "payload"
    path.write_bytes(PAYLOAD)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image with an empty CFV."""
    empty = [item for item in regions(direct=True) if item.type != SectionType.CFV]
    config = next(item for item in regions(direct=True) if item.type == SectionType.CFV)
    path = tmp_path / "image.bin"
    sections = [
        *empty,
        type(config)("config", config.type, config.address, config.size, 0, bytes(config.size)),
    ]
    path.write_bytes(write_image(sections, "direct-boot"))
    return path


def sign(payload: Path, *more: str) -> int:
    out = payload.with_name("signed")
    return main(["sign", str(payload), "--version", "1", "--svn", "0x2", "-o", str(out), *more])


def is_signed(name: str, folder: Path) -> bool:
    """Whether openssl takes the file `signed`."""
    data = (folder / "signed").read_bytes()
    length = len(data) - SIZES[name]
    assert (data[48:length], data[32:40]) == (PAYLOAD, b"\2" + bytes(7))
    assert data[length:].startswith(numbers(name))
    return verified(name, data[:length], data[length + len(numbers(name)) :], folder)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("form", ["pem", "der"])
def test_sign_with_a_key_in_a_file(
    name: str, form: str, payload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sign(payload, "--key", str(key(name, form))) == 0
    assert is_signed(name, payload.parent)
    text = capsys.readouterr().out
    assert "version 1, SVN 2" in text
    assert hashlib.sha384(numbers(name)).hexdigest() in text


def test_the_algorithm_follows_the_key(payload: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--key", str(key("p384")), "--algorithm")
    assert sign(payload, *words, "ecdsa-p384-sha384") == 0
    assert sign(payload, *words, "rsa-3072-pss-sha384") == 1
    assert said(capsys) == "tdforge: --algorithm is rsa-3072-pss-sha384, the key is for ecdsa-p384-sha384\n"


DIGEST = ("pkeyutl", "-sign", "-pkeyopt", "digest:sha384")
PSS = ("-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "rsa_pss_saltlen:48", "-pkeyopt", "rsa_mgf1_md:sha384")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("p384", ("dgst", "-sha384", "-sign")),
        ("p384", (*DIGEST, "-inkey")),
        ("rsa", (*DIGEST, *PSS, "-inkey")),
    ],
)
def test_sign_with_a_command(name: str, words: tuple[str, ...], payload: Path) -> None:
    """openssl itself: of the bytes, or of their digest."""
    command = " ".join(("openssl", *words, f"'{key(name)}'"))
    more = ("--digest",) if words[0] == "pkeyutl" else ()
    public = str(key(name, "der", public=True))
    assert sign(payload, "--signer", command, "--public-key", public, *more) == 0
    assert is_signed(name, payload.parent)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("false", "the signer 'false' ended with exit code 1"),
        ("no-such-program-here", "cannot run the signer 'no-such-program-here': "),
        ("'", 'cannot run the signer "\'": No closing quotation'),
        ("", "expected --key, or"),
        ("   ", "cannot run the signer '   ': it names no program"),
        ("yes", "the signer 'yes' printed over 2000 bytes, expected a signature"),
        ("true", "the signer's output: found 0 bytes, expected a signature of 96 bytes, or the same in DER"),
        (
            f"{sys.executable} -c 'print(end=96*chr(1))'",
            "the signer's output: found a signature that the key refuses",
        ),
    ],
)
def test_a_command_that_does_not_sign(
    command: str, says: str, payload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--signer", command, "--public-key", str(key("p384", "pem", public=True)))
    if not command:
        with pytest.raises(SystemExit):
            sign(payload, *words)
        assert says in capsys.readouterr().err
        return
    assert sign(payload, *words) == 1
    assert says in said(capsys)
    assert not (payload.parent / "signed").exists()


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--key", "k", "--signer", "s", "--public-key", "p"],
        ["--key", "k", "--public-key", "p"],
        ["--signer", "s"],
        ["--public-key", "p"],
        ["--key", "k", "--digest"],
        ["--key", "k", "--key", "l"],
        ["--key", "k", "--svn", "3"],
        ["--key", "k", "-o", "other"],
        ["--key", "k", "--algorithm", "rsa"],
    ],
    ids=" ".join,
)
def test_wrong_use_exits_2(more: list[str], payload: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        sign(payload, *more)
    assert leave.value.code == 2
    assert "usage: tdforge" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["-1", "0x10000000000000000", "one"])
def test_no_number_of_64_bits(version: str, payload: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sign", str(payload), "--key", str(key("p384")), "--svn", "1", "-o", str(payload)]
    with pytest.raises(SystemExit):
        main([*words, f"--version={version}"])
    assert "argument --version: " in capsys.readouterr().err
    assert payload.read_bytes() == PAYLOAD


def test_numbers_of_64_bits(payload: Path) -> None:
    words = ["sign", str(payload), "--key", str(key("p384")), "--version", str(2**64 - 1), "--svn", "0"]
    assert main([*words, "-o", str(payload.with_name("signed"))]) == 0
    assert payload.with_name("signed").read_bytes()[24:40] == b"\xff" * 8 + bytes(8)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("p256", "found a key on the curve secp256r1"),
        ("ed25519", "found a key of another kind"),
        ("none", "cannot read key"),
    ],
)
def test_keys_that_cannot(name: str, says: str, payload: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sign(payload, "--key", "/none" if name == "none" else str(key(name))) == 1
    assert says in said(capsys)


def test_an_empty_payload(payload: Path, capsys: pytest.CaptureFixture[str]) -> None:
    payload.write_bytes(b"")
    assert sign(payload, "--key", str(key("p384"))) == 1
    assert said(capsys).startswith(f"tdforge: {payload}: found 0 bytes, expected 1 to ")


# ---- a token


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SoftHSM's library; its token has these keys."""
    keys = (("p384", "p384"), ("twin", "rsa"), ("p256", "p256"), ("twin", "other"))  # label, name
    return softhsm.token(tmp_path_factory.getbasetemp(), keys)


@pytest.fixture
def conf(library: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path_factory.getbasetemp() / "softhsm2.conf"))


def uri(path: str, library: Path | str, pin: str = f"pin-value={softhsm.PIN}") -> str:
    return f"pkcs11:{path}?module-path={library}&{pin}".rstrip("&")


TOKEN = f"token={quote(softhsm.LABEL)}"


@pytest.mark.usefixtures("conf")
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("p384", f"{TOKEN};object=p384"),
        ("p384", "id=%01"),
        ("rsa", f"{TOKEN};object=twin;id=%02;type=private"),
    ],
)
def test_sign_with_a_token(name: str, path: str, library: Path, payload: Path) -> None:
    assert sign(payload, "--key", uri(path, library)) == 0
    assert is_signed(name, payload.parent)


@pytest.mark.usefixtures("conf")
def test_the_public_key_may_lie_elsewhere(library: Path, payload: Path) -> None:
    public = ("--public-key", str(key("rsa", "pem", public=True)))
    assert sign(payload, "--key", uri("id=%02", library), *public) == 0
    assert is_signed("rsa", payload.parent)


@pytest.mark.usefixtures("conf")
def test_the_pin_may_stand_in_a_file(library: Path, payload: Path) -> None:
    pin = payload.with_name("pin")
    pin.write_text(f"{softhsm.PIN}\n")
    assert sign(payload, "--key", uri("id=%01", library, f"pin-source=file:{pin}")) == 0
    assert is_signed("p384", payload.parent)


@pytest.mark.usefixtures("conf")
@pytest.mark.parametrize(
    ("path", "pin", "says"),
    [
        ("id=%01", "pin-value=9999", "the token's library: C_Login ended with 0xa0 (wrong PIN)"),
        ("id=%01", "", "pkcs11:id=%01: expected `pin-source=file:PATH` or `pin-value`"),
        ("id=%01", "pin-source=file:/none", "cannot read PIN /none"),
        ("id=%07", None, "pkcs11:id=%07: found no such public key, expected one"),
        ("object=p384;id=%02", None, "found no such public key"),
        ("object=twin", None, "pkcs11:object=twin: found more than one such public key, expected one"),
        ("id=%03", None, "pkcs11:id=%03: expected a key for ECDSA on P-384 or RSA"),
        ("token=other;id=%01", None, "pkcs11:token=other;id=%01: found 0 such tokens, expected one"),
        ("slot-id=77;id=%01", None, "found 0 such tokens"),
        (TOKEN, None, "pkcs11: URI: expected `object` or `id`, and `module-path`, the token's library"),
        ("id=%01;id=%02", None, "pkcs11: URI: found id twice, expected at most once: token, "),
        ("id=%01;colour=blue", None, "pkcs11: URI: found colour, expected"),
        ("id", None, "pkcs11: URI: found id, expected"),
    ],
)
def test_what_is_wrong_with_a_token(
    path: str, pin: str | None, says: str, library: Path, payload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = uri(path, library) if pin is None else uri(path, library, pin)
    assert sign(payload, "--key", words) == 1
    text = said(capsys)
    assert says in text
    assert softhsm.PIN not in text


@pytest.mark.parametrize("name", ["/none.so", "libc.so.6"])
def test_a_library_that_is_none(name: str, payload: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sign(payload, "--key", uri("id=%01", name)) == 1
    assert f"pkcs11:id=%01: cannot load the token's library {name}: " in said(capsys)


# ---- enrolling


def enroll(image: Path, *more: str) -> int:
    return main(["enroll", str(image), "-o", str(image.with_name("enrolled.bin")), *more])


@pytest.mark.parametrize(("name", "public"), [("p384", False), ("p384", True), ("rsa", True)])
def test_enroll(name: str, public: bool, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = hashlib.sha384(numbers(name))
    note = image.with_name("note=1")
    note.write_bytes(b"a note")
    assert enroll(image, "--key", str(key(name, "der", public)), "--file", f"{GUID}={note}") == 0
    text = capsys.readouterr().out
    assert f"trust anchor: SHA-384 {digest.hexdigest()}\n" in text
    assert text.endswith("MRTD does not change: it does not cover what lies in a CFV\n")
    done = image.with_name("enrolled.bin").read_bytes()
    start = done.index(b"_FVH", 0x100) - 0x28
    assert [(str(guid), data) for guid, _, data in hand.files(done[start : start + 0x2000])] == [
        (str(hand.ANCHOR_FILE), hand.anchor(digest.digest())),
        (GUID.lower(), b"a note"),
    ]
    assert mrtd(done) == mrtd(image.read_bytes())
    assert main(["inspect", str(image.with_name("enrolled.bin"))]) == 0
    assert f"trust anchor, SHA-384 {digest.hexdigest()}" in capsys.readouterr().out


def test_enroll_into_an_igvm_file(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its pages are those of the enrolled image; an IGVM file itself is no input."""
    words = ("--key", str(key("p384")))
    assert enroll(image, *words) == 0
    volume = image.with_name("enrolled.bin").read_bytes()[0xB000:0xC000]
    assert enroll(image, *words, "--format", "igvm") == 0
    file = image.with_name("enrolled.bin")
    assert volume.startswith(bytes(16) + b"\x7a\xc0\x73\x54")
    assert volume in file.read_bytes()
    assert file.read_bytes().startswith(b"IGVM")
    capsys.readouterr()
    assert main(["enroll", str(file), *words, "-o", str(file)]) == 1
    assert said(capsys).endswith("is an IGVM file; this takes the TDVF image that was built with it\n")


def test_an_image_may_be_enrolled_in_place(image: Path) -> None:
    for _ in range(2):
        assert main(["enroll", str(image), "-o", str(image), "--key", str(key("p384"))]) == 0
    assert len(inspect(image.read_bytes()).cfv[0].files) == 1


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            ["--file", f"{GUID}={{note}}", "--file", f"{GUID.lower()}={{note}}"],
            f"found file {GUID.lower()} twice",
        ),
        (
            ["--key", "{key}", "--file", f"{hand.ANCHOR_FILE}={{note}}"],
            f"found file {hand.ANCHOR_FILE} twice",
        ),
        (["--file", f"{GUID}={{big}}"], f"file {GUID.lower()}: found 9,000 bytes, expected at most 8,048"),
        (["--file", f"{GUID}=/none"], "cannot read file /none"),
        (["--key", "{note}"], "found no key in 6 bytes"),
    ],
)
def test_what_cannot_be_enrolled(
    more: list[str], says: str, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note, big = image.with_name("note"), image.with_name("big")
    note.write_bytes(b"a note")
    big.write_bytes(bytes(9000))
    assert enroll(image, *(word.format(note=note, big=big, key=key("p384")) for word in more)) == 1
    assert says in said(capsys)
    assert not image.with_name("enrolled.bin").exists()


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--key", "a", "--key", "b"],
        ["--file", "note"],
        ["--file", GUID],
        ["--file", f"{GUID}="],
        ["--file", f"{GUID[:-1]}=note"],
    ],
    ids=" ".join,
)
def test_wrong_use_of_enroll_exits_2(
    more: list[str], image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leave:
        enroll(image, *more)
    assert leave.value.code == 2
    assert "usage: tdforge" in capsys.readouterr().err


def test_an_image_without_a_cfv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image.bin"
    path.write_bytes(write_image([r for r in regions(True) if r.type != SectionType.CFV], "direct-boot"))
    assert enroll(path, "--key", str(key("p384"))) == 1
    assert f"{path}: found no CFV section, expected one, declared in its flow: `config CFV" in said(capsys)
