"""Do the options for TD_PARAMS and page adding reach the TD, and are wrong values refused in one line?"""

import json
from pathlib import Path

import pytest

from emu.tdx.params import TdParams
from formats.tdx import td
from tdforge.building import build_flow
from tdforge.cli import main, parser
from tdforge.flows import find_flow
from tdforge.td_options import parameters
from tdforge.tiny import tiny_payload

ONE, TWO, THREE = (bytes([value]) * 48 for value in (1, 2, 3))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", TdParams()),
        ("--attributes 0x40000000", TdParams(attributes=td.PKS)),
        (
            "--attributes sept_ve_disable,debug",
            TdParams(attributes=td.SEPT_VE_DISABLE | td.DEBUG),
        ),
        ("--xfam 0xe7", TdParams(xfam=0xE7)),
        ("--gpaw 52", TdParams(config_flags=td.CONFIG_GPAW52 | td.CONFIG_NO_RBP_MOD)),
        ("--rbp-mod", TdParams(config_flags=0)),
        (
            f"--mrconfigid {ONE.hex()} --mrowner {TWO.hex()} --mrownerconfig {THREE.hex()}",
            TdParams(mrconfigid=ONE, mrowner=TWO, mrownerconfig=THREE),
        ),
    ],
)
def test_options_become_td_params(words: str, expected: TdParams) -> None:
    assert parameters(parser().parse_args(["run", "image.bin", *words.split()])) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--attributes secret", "'secret' is not an attribute; expected a number or names from debug,"),
        ("--attributes 0x", "'0x' is not a number"),
        ("--attributes=-1", "'-1' is not an attribute"),
        ("--xfam x87", "'x87' is not a number"),
        ("--xfam 0x10000000000000000", "is not a number of up to 64 bits"),
        ("--gpaw 47", "invalid choice: "),
        ("--mrowner 00", "'00' is not 48 bytes"),
        ("--mrconfigid " + "g" * 96, "is not 48 bytes"),
        ("--mrtd-order backwards", "invalid choice: 'backwards'"),
        ("--host-page-size 1G", "invalid choice: '1G'"),
    ],
)
def test_wrong_values_exit_2(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["run", "image.bin", *words.split()])
    assert leave.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """linux.bin and a tiny payload."""
    folder = tmp_path_factory.mktemp("td")
    build_flow(find_flow("linux"), folder)
    (folder / "tiny").write_bytes(tiny_payload())
    return folder


def run(folder: Path, *words: str) -> int:
    return main(
        ["run", str(folder / "linux.bin"), "--kernel", str(folder / "tiny"), "--memory", "64M", *words]
    )


def test_they_reach_the_td(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for words in (
        "",
        "--mrtd-order two-pass",
        "--host-page-size 4K",
        "--gpaw 52",
        "--attributes sept_ve_disable,pks",
    ):
        assert run(folder, "--json", *words.split()) == 0, words
        found[words] = json.loads(capsys.readouterr().out)
    manifest = json.loads((folder / "linux.json").read_text())
    assert found[""]["mrtd"] == manifest["mrtd"]["single-pass"]
    assert found["--mrtd-order two-pass"]["mrtd"] == manifest["mrtd"]["two-pass"]
    assert found[""]["pages"]["accepted_2m"] > 0
    assert found["--host-page-size 4K"]["pages"]["accepted_2m"] == 0
    assert found["--gpaw 52"]["handoff"] == found[""]["handoff"]
    assert run(folder, "--attributes", "debug") == 1
    assert "fatal: tdforge: SEPT_VE_DISABLE is not set" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--attributes 2", "attributes 0x2: bits 0x2 are not supported"),
        ("--attributes debug,migratable", "MIGRATABLE excludes DEBUG"),
        ("--xfam 1", "xfam 0x1: no legal combination"),
    ],
)
def test_what_the_module_refuses(
    folder: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, *words.split()) == 1
    (line,) = [row for row in capsys.readouterr().err.splitlines() if row.startswith("tdforge: ")]
    assert message in line


def test_a_snapshot_keeps_them(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    point = str(tmp_path / "point")
    assert run(folder, "--gpaw", "52", "--mrowner", TWO.hex(), "--save", point) == 0
    assert main(["run", "--resume", point, "--until", "halt"]) == 0
    capsys.readouterr()
    for words in (["--gpaw", "52"], ["--memory", "64M"], ["--attributes", "0"]):
        assert main(["run", "--resume", point, "--until", "halt", *words]) == 1
        said = capsys.readouterr().err
        assert said == f"tdforge: {words[0]} cannot be given with --resume: the snapshot holds it\n"
