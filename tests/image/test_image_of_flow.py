"""Is the image of `linux.tdf` small, accepted by every rule, and the same wherever it is built?"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tdvfimage import records

from image.check import check_image

ROOT = Path(__file__).parents[2]
BUILD = """
import sys
from pathlib import Path
from gen.build import build
build(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def built(checkout: Path, out: Path) -> Path:
    """The image of linux.tdf, made by the sources of a checkout in a process of its own."""
    flow = checkout / "dsl" / "flows" / "linux.tdf"
    command = [sys.executable, "-c", BUILD, str(flow), str(out)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / "linux.bin"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT, tmp_path_factory.mktemp("build"))


def test_it_keeps_every_rule_and_is_small(image: Path) -> None:
    data = image.read_bytes()
    assert check_image(data, "direct-boot") == []
    (bfv,) = [item for item in records(data) if item.type == 0]
    assert bfv.memory_size <= 64 << 10
    assert sum(item.memory_size for item in records(data) if item.attributes & 1) // 4096 <= 16


def test_its_manifest_tells_the_truth(image: Path) -> None:
    data, facts = image.read_bytes(), json.loads(image.with_suffix(".json").read_bytes())
    assert facts["image"]["sha384"] == hashlib.sha384(data).hexdigest()
    assert [(s["gpa"], s["size"]) for s in facts["sections"]] == [
        (item.address, item.memory_size) for item in records(data)
    ]
    assert 0 < facts["bfv_used"] <= records(data)[0].memory_size
    assert str(image.parent) not in json.dumps(facts)


def test_another_directory_gives_the_same_bytes(image: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout elsewhere"
    for folder in ("dsl", "formats", "gen", "host", "image", "runtime-c"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    again = built(checkout, tmp_path / "out" / "deeper")
    assert again.read_bytes() == image.read_bytes()
    assert again.with_suffix(".json").read_bytes() == image.with_suffix(".json").read_bytes()
    assert again.with_suffix(".elf").read_bytes() == image.with_suffix(".elf").read_bytes()
