"""Which sessions exist, and what do they run? `nox -l` lists them; `./run NAME` needs no installed nox.

All sessions share one environment, `.nox/env-<python version>`: the compiler wheel alone takes 400 MB.
`.nox/env` links to the one used last.
"""

import hashlib
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox
from nox.command import CommandFailed

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from host.cache import cache_dir  # noqa: E402 (the checkout is no installed package here)
from tdforge.apt import Apt, alone, tree_digest  # noqa: E402
from tdforge.checkout import own  # noqa: E402
from tdforge.errors import UserError  # noqa: E402

ENV = ROOT / ".nox" / f"env-{sys.version_info.major}.{sys.version_info.minor}"
PYTHON = str(ENV / "bin" / "python")
STAMP = ENV / "tdforge-stamp"
LINK = ENV.parent / "env"

# PeachPy, upstream commit 257881e as Debian ships it (python3-peachpy 0.0~git20211013.257881e-1.1, bookworm
# and trixie): digest of the package's .py files by tdforge.apt.tree_digest.
PEACHPY_DIGEST = "3f0ea00beaecf4d645c23e09597374efb688214905a79a735531e513108c29c9"
PEACHPY_PLACE = "usr/lib/python3/dist-packages/peachpy"

nox.needs_version = ">=2022.11.21"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "tests"]
# nox looks for uv even if no session creates an environment; its absence is irrelevant.
logging.getLogger("nox").addFilter(lambda record: "uv binary" not in record.getMessage())


def say(text: str) -> None:
    """Prints one line of progress."""
    print(f"tdforge: {text}", file=sys.stderr, flush=True)


def peachpy_source() -> Path:
    """The verified PeachPy package folder in the cache; fetched from Debian once."""
    kept = cache_dir() / f"peachpy-{PEACHPY_DIGEST[:16]}"
    source = kept / PEACHPY_PLACE
    if not source.is_dir():
        if not Apt.available():
            raise UserError(
                "PeachPy comes from Debian's package python3-peachpy and this machine has no apt; "
                f"unpack that package into {kept} by hand"
            )
        with alone(cache_dir()):
            Apt(cache_dir(), say).unpack(["python3-peachpy"], kept, only=(PEACHPY_PLACE,))
    if (found := tree_digest(source, "*.py")) != PEACHPY_DIGEST:
        raise UserError(
            f"{source}: tree digest is {found}, not {PEACHPY_DIGEST}; remove {kept} and try again"
        )
    return source


def install_peachpy() -> None:
    """Copy PeachPy into the environment and compile it, without its one warning on Python 3.12 and newer."""
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    place = Path(subprocess.check_output([PYTHON, "-c", ask], text=True).strip()) / "peachpy"
    shutil.copytree(peachpy_source(), place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([PYTHON, "-W", "ignore", "-m", "compileall", "-q", str(place)], check=True)


def wanted_stamp() -> str:
    """A digest of the environment's sources; if it differs, the environment has to be renewed."""
    total = hashlib.sha256()
    for part in (ROOT / "pyproject.toml", ROOT / "noxfile.py", ROOT / "tdforge" / "apt.py"):
        total.update(part.read_bytes())
    total.update(f"{sys.version} {sys.base_prefix} {ENV}".encode())
    return total.hexdigest()


def make_environment() -> None:
    """Make or renew the shared environment. Raises UserError or CalledProcessError."""
    say(f"preparing {ENV.relative_to(ROOT)} (once; about 700 MB, most of it the compiler)")
    peachpy_source()  # before the long part: it is the more likely failure
    if not Path(PYTHON).exists() or not STAMP.is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENV)], check=True)
    STAMP.unlink(missing_ok=True)
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--editable", f"{ROOT}[tests,lint]"], check=True)
    install_peachpy()
    STAMP.write_text(wanted_stamp())


def prepare(session: nox.Session) -> None:
    """Bring the shared environment up to date; nothing to do when its stamp matches."""
    try:
        own(ROOT, ENV)
        with alone(ENV.parent, "use a checkout of your own"):  # a second ./run waits here
            if not STAMP.is_file() or STAMP.read_text() != wanted_stamp():
                make_environment()
            LINK.unlink(missing_ok=True)
            LINK.symlink_to(ENV.name)
    except UserError as error:
        session.error(str(error))
    except subprocess.CalledProcessError as error:
        say(f"{' '.join(error.cmd)}: exit code {error.returncode}")
        session.error("could not prepare the environment (see above); the first call needs the network")
    os.environ["PATH"] = f"{ENV / 'bin'}{os.pathsep}{os.environ['PATH']}"


def python(session: nox.Session, *words: str) -> None:
    """Run the environment's Python with `words`, in the checkout."""
    session.run(PYTHON, *words, external=True, log=False)


@nox.session(python=False)
def build(session: nox.Session) -> None:
    """Build every flow of dsl/flows into build/, around the sample if a flow takes a payload."""
    prepare(session)
    sample = "build/sample.efi"
    python(session, "-m", "tdforge", "sample", "--format", "pe", "-o", sample)
    for flow in sorted((ROOT / "dsl" / "flows").glob("*.tdf")):
        taken = ["--payload", sample] if " from payload" in flow.read_text() else []
        python(session, "-m", "tdforge", "build", str(flow.relative_to(ROOT)), "-o", "build", *taken)


@nox.session(python=False)
def boot(session: nox.Session) -> None:
    """Build linux.tdf and boot Debian's kernel with it in the emulated TD; `-- --help` lists the options."""
    prepare(session)
    python(session, "-m", "tdforge.boot", *session.posargs)


@nox.session(python=False)
def qemu(session: nox.Session) -> None:
    """Build qemu.tdf and boot Debian's kernel with it on QEMU without TDX; `-- --help` lists the options."""
    prepare(session)
    python(session, "-m", "tdforge.qemu", *session.posargs)


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """Run the tests, two at a time; words after `--` go to pytest."""
    prepare(session)
    python(session, "-m", "pytest", "-n", "2", "--dist", "worksteal", *session.posargs)


@nox.session(python=False)
def lint(session: nox.Session) -> None:
    """Lint, format of code and flows, strict types; all of them, even after a failure."""
    prepare(session)
    broken = []
    folders = (ROOT / "dsl" / "flows", ROOT / "tests" / "dsl" / "flows")
    flows = [str(flow.relative_to(ROOT)) for folder in folders for flow in sorted(folder.glob("*.tdf"))]
    checks = (
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("tdforge", "fmt", "--check", *flows),
    )
    for words in checks:
        try:
            python(session, "-m", *words)
        except CommandFailed:
            broken.append(" ".join(words))
    if broken:
        session.error(f"failed: {', '.join(broken)}")


@nox.session(python=False)
def bench(session: nox.Session) -> None:
    """Measure a boot and hashing; writes docs/performance.md."""
    prepare(session)
    python(session, "-m", "tdforge.bench", *session.posargs)


@nox.session(python=False)
def kernels(session: nox.Session) -> None:
    """Boot every TDX kernel of Debian's mirrors in the emulated TD, print the table; `-- --help`."""
    prepare(session)
    python(session, "-m", "tdforge.kernels", *session.posargs)


@nox.session(python=False)
def campaign(session: nox.Session) -> None:
    """Boot with 2,000 mutated TD HOBs, then as many kernels, executables; `-- N` chooses another number."""
    prepare(session)
    for what in ("hob", "payload", "executable"):
        python(session, f"tests/system/{what}campaign.py", *session.posargs)


@nox.session(python=False)
def interference(session: nox.Session) -> None:
    """Generate flows, look for changes that a VMM makes without a trace; `-- --help` lists the options."""
    prepare(session)
    python(session, "tests/system/interferencecampaign.py", *session.posargs)


@nox.session(python=False)
def hostile(session: nox.Session) -> None:
    """Boot under 500 hostile VMMs and check how the runs end; `-- N` chooses another number."""
    prepare(session)
    python(session, "tests/system/hostilecampaign.py", *session.posargs)


@nox.session(python=False)
def fw_cfg(session: nox.Session) -> None:
    """Boot qemu.tdf from 1,000 lying fw_cfg devices; `-- --help` lists the options."""
    prepare(session)
    python(session, "tests/system/fwcfgcampaign.py", *session.posargs)


@nox.session(python=False)
def faults(session: nox.Session) -> None:
    """Boot each flow with an error of each TDCALL in turn; `-- --help` lists the options."""
    prepare(session)
    python(session, "tests/system/faultcampaign.py", *session.posargs)


@nox.session(python=False)
def mutants(session: nox.Session) -> None:
    """Try small faults on copies of the tree, list the unnoticed ones; `-- --help` lists the options."""
    prepare(session)
    python(session, "-m", "tests.mutants", *session.posargs)


@nox.session(python=False)
def logs(session: nox.Session) -> None:
    """Replay every event log of a folder against the quotes beside it: `-- DIR`."""
    prepare(session)
    python(session, "-m", "tdforge.logs", *session.posargs)


@nox.session(python=False)
def prove(session: nox.Session) -> None:
    """Prove the C core with CBMC; `-- --help` lists the options."""
    prepare(session)
    python(session, "-m", "tdforge.prove", *session.posargs)
