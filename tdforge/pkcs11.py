"""How does a key sign that never leaves its token? Through the token's own library, by PKCS#11.

Source: PKCS#11 2.40, base specification (functions, attributes) and current mechanisms; RFC 7512 (the URI
that names a key).
"""

import getpass
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from cffi import FFI
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from formats.signed import SALT_SIZE, SIGNATURE_SIZES, Algorithm
from image.keys import KINDS, PublicKey, algorithm, fitting, public_part
from tdforge.errors import UserError
from tdforge.files import read

SCHEME = "pkcs11:"
ATTRIBUTES = ("token", "slot-id", "object", "id", "type", "module-path", "pin-value", "pin-source")

_DECLARED = """
    typedef unsigned long number;
    typedef struct { number type; void *value; number size; } attribute;
    typedef struct { number type; void *parameter; number size; } mechanism;
    typedef struct { number hash, mgf, salt; } pss;
    typedef struct { unsigned char label[32], maker[32], model[16], serial[16]; number flags, sizes[10];
                     unsigned char versions[4], time[16]; } token;
    typedef struct { unsigned char version[2]; void *functions[68]; } functions;
    number C_GetFunctionList(functions **);
"""
# Of the functions used: place in the list, parameters. Each returns a number, 0 if it is done.
_FUNCTIONS = {
    "C_Initialize": (0, "void *"),
    "C_Finalize": (1, "void *"),
    "C_GetSlotList": (4, "unsigned char, number *, number *"),
    "C_GetTokenInfo": (6, "number, token *"),
    "C_OpenSession": (12, "number, number, void *, void *, number *"),
    "C_Login": (18, "number, number, char *, number"),
    "C_GetAttributeValue": (24, "number, number, attribute *, number"),
    "C_FindObjectsInit": (26, "number, attribute *, number"),
    "C_FindObjects": (27, "number, number *, number, number *"),
    "C_FindObjectsFinal": (28, "number"),
    "C_SignInit": (42, "number, mechanism *, number"),
    "C_Sign": (43, "number, unsigned char *, number, unsigned char *, number *"),
}
_PRESENT, _SERIAL_SESSION, _USER, _INITIALIZED = 1, 4, 1, 0x400
_CLASS, _LABEL, _KEY_TYPE, _ID = 0, 3, 0x100, 0x102
_MODULUS, _EXPONENT, _EC_PARAMS, _EC_POINT = 0x120, 0x122, 0x180, 0x181
_PUBLIC, _PRIVATE = 2, 3
_RSA, _EC = 0, 3
_RSA_PKCS_PSS, _ECDSA, _SHA384, _MGF1_SHA384 = 0x0D, 0x1041, 0x260, 3
_P384 = bytes.fromhex("06052b81040022")  # secp384r1, 1.3.132.0.34, in DER
_POINT_SIZE = 1 + 48 + 48  # uncompressed; most tokens put it into an OCTET STRING
_REASONS = {0x30: "device error", 0xA0: "wrong PIN", 0xA4: "PIN locked", 0xE0: "no token", 0x101: "no login"}


@dataclass(frozen=True)
class Token:
    """A token that is logged in, and the name and id of a key on it."""

    ffi: Any
    functions: Any
    session: int
    wanted: dict[int, bytes]
    name: str

    def call(self, function: str, *words: Any) -> None:
        """Raises UserError."""
        _call(self.ffi, self.functions, function, *words)

    def public_key(self) -> PublicKey:
        """Raises UserError: no such key; FormatError: one that signs no payload."""
        key = self._object(_PUBLIC)
        kind = int.from_bytes(self._value(key, _KEY_TYPE), "little")
        try:
            if kind == _RSA:
                numbers = (int.from_bytes(self._value(key, each), "big") for each in (_EXPONENT, _MODULUS))
                return public_part(fitting(rsa.RSAPublicNumbers(*numbers).public_key(), place=self.name))
            if kind == _EC and self._value(key, _EC_PARAMS) == _P384:
                point = self._value(key, _EC_POINT)[-_POINT_SIZE:]
                return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), point)
        except ValueError as error:
            raise UserError(f"{self.name}: the token's public key is none: {error}") from error
        raise UserError(f"{self.name}: expected {KINDS}")

    def sign(self, message: bytes, key: PublicKey) -> bytes:
        """The signature over `message` by the private part of `key`. Raises UserError."""
        kind, digest = algorithm(key), hashlib.sha384(message).digest()
        how = self.ffi.new("mechanism *", {"type": _ECDSA})
        parameter = self.ffi.new("pss *", {"hash": _SHA384, "mgf": _MGF1_SHA384, "salt": SALT_SIZE})
        if kind is Algorithm.RSA_3072_PSS:
            how.type, how.parameter, how.size = _RSA_PKCS_PSS, parameter, self.ffi.sizeof("pss")
        self.call("C_SignInit", self.session, how, self._object(_PRIVATE))
        signature = self.ffi.new("unsigned char[]", SIGNATURE_SIZES[kind])
        size = self.ffi.new("number *", len(signature))
        self.call("C_Sign", self.session, digest, len(digest), signature, size)
        return bytes(signature)[: size[0]]

    def _object(self, kind: int) -> int:
        wanted = {_CLASS: kind.to_bytes(self.ffi.sizeof("number"), "little"), **self.wanted}
        kept = [self.ffi.from_buffer(value) for value in wanted.values()]
        rows = [(each, value, len(value)) for each, value in zip(wanted, kept, strict=True)]
        self.call("C_FindObjectsInit", self.session, self.ffi.new("attribute[]", rows), len(rows))
        found, count = self.ffi.new("number[2]"), self.ffi.new("number *")
        self.call("C_FindObjects", self.session, found, len(found), count)
        self.call("C_FindObjectsFinal", self.session)
        if count[0] != 1:
            what = "private" if kind == _PRIVATE else "public"
            much = "more than one" if count[0] else "no"
            raise UserError(f"{self.name}: found {much} such {what} key, expected one")
        return int(found[0])

    def _value(self, key: int, which: int) -> bytes:
        item = self.ffi.new("attribute *", {"type": which})
        self.call("C_GetAttributeValue", self.session, key, item, 1)
        value = self.ffi.new("unsigned char[]", item.size)
        item.value = value
        self.call("C_GetAttributeValue", self.session, key, item, 1)
        return bytes(value)


@contextmanager
def token(uri: str) -> Iterator[Token]:
    """The token of a URI, logged in until the end of the block. Raises UserError."""
    given = _parsed(uri)
    name = uri.split("?")[0]  # the PIN stands behind it
    ffi = FFI()
    ffi.cdef(_DECLARED)
    listed = ffi.new("functions **")
    path = os.fsdecode(given["module-path"])
    try:
        library = ffi.dlopen(path)
        library.C_GetFunctionList(listed)
    except (OSError, AttributeError) as error:
        raise UserError(f"{name}: cannot load the token's library {path}: {error}") from error
    functions = listed[0].functions
    _call(ffi, functions, "C_Initialize", ffi.NULL)
    try:
        session = ffi.new("number *")
        slot = _slot(ffi, functions, given, name)
        _call(ffi, functions, "C_OpenSession", slot, _SERIAL_SESSION, ffi.NULL, ffi.NULL, session)
        pin = _pin(given, name)
        _call(ffi, functions, "C_Login", session[0], _USER, pin, len(pin))
        wanted = {kind: given[each] for each, kind in (("object", _LABEL), ("id", _ID)) if each in given}
        yield Token(ffi, functions, session[0], wanted, name)
    finally:
        _call(ffi, functions, "C_Finalize", ffi.NULL)


def _parsed(uri: str) -> dict[str, bytes]:
    given: dict[str, bytes] = {}
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    for part in filter(None, [*path.split(";"), *query.split("&")]):
        name, equals, value = part.partition("=")
        if not equals or name not in ATTRIBUTES or name in given:
            found = f"{name} twice" if name in given else name
            raise UserError(f"{SCHEME} URI: found {found}, expected at most once: {', '.join(ATTRIBUTES)}")
        given[name] = unquote_to_bytes(value)
    if "module-path" not in given or not {"object", "id"} & given.keys():
        raise UserError(f"{SCHEME} URI: expected `object` or `id`, and `module-path`, the token's library")
    return given


def _slot(ffi: Any, functions: Any, given: dict[str, bytes], name: str) -> int:
    count = ffi.new("number *")
    _call(ffi, functions, "C_GetSlotList", _PRESENT, ffi.NULL, count)
    slots = ffi.new("number[]", count[0])
    _call(ffi, functions, "C_GetSlotList", _PRESENT, slots, count)
    found = []
    for slot in slots:
        about = ffi.new("token *")
        _call(ffi, functions, "C_GetTokenInfo", slot, about)
        if not about.flags & _INITIALIZED:
            continue
        label = bytes(about.label).rstrip(b" ")
        number = str(slot).encode()
        if given.get("token", label) == label and given.get("slot-id", number) == number:
            found.append(int(slot))
    if len(found) != 1:
        raise UserError(f"{name}: found {len(found)} such tokens, expected one")
    return found[0]


def _pin(given: dict[str, bytes], name: str) -> bytes:
    if "pin-value" in given:
        return given["pin-value"]
    if "pin-source" not in given:
        if not sys.stdin.isatty():
            raise UserError(f"{name}: expected `pin-source=file:PATH` or `pin-value` behind a `?`")
        return getpass.getpass(f"PIN for {name}: ").encode()
    path = Path(os.fsdecode(given["pin-source"]).removeprefix("file:"))
    return read(path, "PIN").rstrip(b"\n")


def _call(ffi: Any, functions: Any, function: str, *words: Any) -> None:
    place, parameters = _FUNCTIONS[function]
    if code := ffi.cast(f"number (*)({parameters})", functions[place])(*words):
        reason = f" ({_REASONS[code]})" if code in _REASONS else ""
        raise UserError(f"the token's library: {function} ended with {code:#x}{reason}")
