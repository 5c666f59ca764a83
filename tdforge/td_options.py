"""Which options choose what the host fixes when it creates the TD (TDH.MNG.INIT) and adds its pages?"""

import argparse

from emu.config import HOST_PAGE_SIZES
from emu.tdx.launch import ORDERS
from emu.tdx.params import DIGEST, TdParams
from formats.tdx import td
from tdforge.command import Options

ATTRIBUTES = {
    "debug": td.DEBUG,
    "sept_ve_disable": td.SEPT_VE_DISABLE,
    "migratable": td.MIGRATABLE,
    "pks": td.PKS,
    "perfmon": td.PERFMON,
}
DEFAULT = TdParams()


def number(text: str) -> int:
    """argparse type: a whole number, also as 0x..."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if value < 0 or value >> 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of up to 64 bits, such as 0x10000000")
    return value


def attributes(text: str) -> int:
    """argparse type: a number, or names of attributes."""
    if text[:1].isdigit():
        return number(text)
    value = 0
    for name in text.lower().split(","):
        if name not in ATTRIBUTES:
            raise argparse.ArgumentTypeError(
                f"{name!r} is not an attribute; expected a number or names from {','.join(ATTRIBUTES)}"
            )
        value |= ATTRIBUTES[name]
    return value


def digest(text: str) -> bytes:
    """argparse type: 48 bytes in hexadecimal."""
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != DIGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not {DIGEST} bytes ({2 * DIGEST} hexadecimal digits)")
    return value


def add_options(options: Options) -> None:
    """What TDH.MNG.INIT gets, and how pages are added and mapped."""
    options.add_argument(
        "--attributes", type=attributes, default=DEFAULT.attributes, metavar="BITS",
        help=f"a number, or names of {', '.join(ATTRIBUTES)}; default: sept_ve_disable",
    )  # fmt: skip
    options.add_argument(
        "--xfam", type=number, default=DEFAULT.xfam, metavar="BITS",
        help=f"the extended state that the guest may use; default: {DEFAULT.xfam:#x} (x87 and SSE)",
    )  # fmt: skip
    options.add_argument(
        "--gpaw", type=int, choices=(td.GPAW_NARROW, td.GPAW_WIDE), default=DEFAULT.gpaw,
        help="width of guest physical addresses, whose highest bit means shared; default: %(default)s",
    )  # fmt: skip
    options.add_argument(
        "--rbp-mod", action="store_true",
        help="leave out NO_RBP_MOD: TDVMCALL may expose RBP to the VMM, as guests from before 2024 do",
    )  # fmt: skip
    digests = {
        "mrconfigid": "of the configuration",
        "mrowner": "of the owner",
        "mrownerconfig": "of the owner's configuration",
    }
    for name, whose in digests.items():
        options.add_argument(
            f"--{name}", type=digest, default=getattr(DEFAULT, name), metavar="HEX",
            help=f"{DIGEST} bytes {whose}, as the TD report shows them; default: zeros",
        )  # fmt: skip
    options.add_argument(
        "--mrtd-order", choices=ORDERS, default=ORDERS[0],
        help="extend each page when it is added, or a section after all its pages; default: %(default)s",
    )  # fmt: skip
    options.add_argument(
        "--host-page-size", choices=HOST_PAGE_SIZES,
        help="how the host maps RAM; with 4K, accepting 2 MiB is SIZE_MISMATCH; default: that of the VMM",
    )  # fmt: skip
    options.add_argument(
        "--map-gpa-retry", action="store_true",
        help="MapGPA answers RETRY after each 2 MiB, not only when an interrupt waits",
    )  # fmt: skip


def parameters(given: argparse.Namespace) -> TdParams:
    """TD_PARAMS of the options."""
    flags = 0 if given.rbp_mod else td.CONFIG_NO_RBP_MOD
    if given.gpaw == td.GPAW_WIDE:
        flags |= td.CONFIG_GPAW52
    return TdParams(
        attributes=given.attributes,
        xfam=given.xfam,
        config_flags=flags,
        mrconfigid=given.mrconfigid,
        mrowner=given.mrowner,
        mrownerconfig=given.mrownerconfig,
    )
