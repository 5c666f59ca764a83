"""How do files of Debian packages get here without root?

Only the standard library is used: the nox sessions call this before anything is installed.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tdforge.errors import UserError

Say = Callable[[str], None]


@contextmanager
def alone(folder: Path, otherwise: str = "set XDG_CACHE_HOME to a writable folder") -> Iterator[None]:
    """One process at a time fills `folder`, which is made.

    Raises UserError if it cannot be written to; `otherwise` is what a person does then.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}); {otherwise}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"tdforge: waiting for another process at work in {folder}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def tree_digest(root: Path, pattern: str) -> str:
    """SHA-256 (hex) over relative path and SHA-256 of every file below `root` that matches `pattern`.

    Independent of archive format, time stamps and the package's own revision number.
    """
    total = hashlib.sha256()
    for name, file in sorted((file.relative_to(root).as_posix(), file) for file in root.rglob(pattern)):
        total.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def files_digest(files: Iterable[Path]) -> str:
    """SHA-256 (hex) over the SHA-256 (a line each, sorted) of all files: pins a set of packages."""
    lines = sorted(f"{hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Suite:
    """A suite of a Debian archive, whatever release the machine runs: "trixie", "trixie-backports"."""

    name: str
    uri: str = "http://deb.debian.org/debian"
    keyring: Path = Path(
        "/usr/share/keyrings/debian-archive-keyring.gpg"
    )  # of package debian-archive-keyring

    @property
    def sources(self) -> str:
        """A sources.list(5). Backports take what they do not have from the release they are for."""
        names = dict.fromkeys((self.name.removesuffix("-backports"), self.name))
        return "".join(f"deb [signed-by={self.keyring}] {self.uri} {name} main\n" for name in names)


class Apt:
    """apt for one ordinary user.

    Without a suite: the system's sources and keys, own lists where the system has none. With one: that suite
    alone, with own lists, checked with its keyring. Nothing of the system counts as installed then, so that
    `missing` names all that a package needs.
    """

    def __init__(self, cache: Path, say: Say = lambda text: None, suite: Suite | None = None) -> None:
        self._suite = suite
        self._state = cache / (f"apt-{suite.name}" if suite else "apt")
        self._say = say
        self._options: tuple[str, ...] = self._private_options() if suite or self._has_private_lists() else ()

    @staticmethod
    def available() -> bool:
        """True on a machine that has apt."""
        return all(shutil.which(tool) for tool in ("apt-get", "apt-cache", "dpkg-deb"))

    def names(self, pattern: str) -> list[str]:
        """Package names that match a whole regular expression; fetches package lists if there are none."""
        self._require()
        found = self._names(pattern)
        if not found and not self._has_private_lists():
            self._update()
            found = self._names(pattern)
        return found

    def depends(self, package: str) -> list[str]:
        """Names that `package` depends on, candidate version; [] if the package is unknown."""
        self._require()
        text = self._run("apt-cache", "show", "--no-all-versions", package, check=False)
        field = re.search(r"^Depends: (.*)$", text, re.MULTILINE)
        return (
            [re.split(r"[\s(:]", part.strip(), maxsplit=1)[0] for part in field[1].split(",")]
            if field
            else []
        )

    def missing(self, package: str) -> list[str]:
        """`package` and those that it needs and this machine lacks: what `apt-get install` would bring."""
        self._require()
        if not self._names(re.escape(package)):
            self._update()
        plan = self._run("apt-get", "--simulate", "--no-install-recommends", "install", package)
        return re.findall(r"^Inst (\S+)", plan, re.MULTILINE)

    def unpack(
        self,
        packages: Sequence[str],
        into: Path,
        only: tuple[str, ...] = ("",),
        digest: str | None = None,
        pinned: bool = True,
    ) -> None:
        """Download the candidate versions of `packages` and put their files below `into`, which is emptied
        first.

        `only`: prefixes of the paths to keep, such as "boot/"; a kernel package is mostly modules.
        `digest`: files_digest of the packages, which a named suite must have unless `pinned` is False, for
        work that wants whatever the suite has today. UserError if it differs.
        """
        self._require()
        into.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into.parent) as scratch:
            tree = Path(scratch) / "tree"
            tree.mkdir()
            debs = self._download(packages, Path(scratch))
            if (digest or (self._suite and pinned)) and (found := files_digest(debs)) != digest:
                names = ", ".join(deb.name for deb in debs)
                raise UserError(f"{names}: digest is {found}, expected {digest or 'a pinned digest'}")
            for deb in debs:
                _extract(deb, tree, only)
            if into.exists():
                shutil.rmtree(into)
            tree.rename(into)

    def _download(self, packages: Sequence[str], folder: Path) -> list[Path]:
        names = " ".join(packages)
        self._say(f"downloading Debian package {names}{f' of {self._suite.name}' if self._suite else ''}")
        try:
            self._run("apt-get", "-q", "download", *packages, cwd=folder)
        except UserError:
            self._update()  # no lists yet, or lists that name a version the archive has dropped
            self._run("apt-get", "-q", "download", *packages, cwd=folder)
        debs = sorted(folder.glob("*.deb"))
        if len(debs) != len(packages):
            raise UserError(f"apt-get download {names}: expected {len(packages)} .deb, found {len(debs)}")
        return debs

    def _names(self, pattern: str) -> list[str]:
        names: Iterable[str] = self._run("apt-cache", "pkgnames", check=False).split()
        return sorted(name for name in names if re.fullmatch(pattern, name))

    def _has_private_lists(self) -> bool:
        return any((self._state / "lists").glob("*_Packages*"))

    def _private_options(self) -> tuple[str, ...]:
        settings = {
            "Dir::State::lists": self._state / "lists",
            "Dir::Cache": self._state / "cache",
            "APT::Sandbox::User": "root",  # no switch to _apt: it could not write to a user's folder
        }
        if self._suite:
            own = {"sourcelist": self._state / "sources.list", "sourceparts": "-", "trusted": "/dev/null"}
            own |= {"trustedparts": "-", "preferences": "/dev/null", "preferencesparts": "-"}
            settings |= {f"Dir::Etc::{key}": value for key, value in own.items()}
            settings |= {
                "Dir::State::status": self._state / "status",  # empty: nothing is installed
                "APT::Default-Release": self._suite.name,
                "Acquire::AllowInsecureRepositories": "false",
                "Acquire::Languages": "none",
            }
        return tuple(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))

    def _update(self) -> None:
        self._say("fetching Debian's package lists (without root, kept in the cache)")
        for folder in ("lists/partial", "cache/archives/partial"):
            (self._state / folder).mkdir(parents=True, exist_ok=True)
        if self._suite:
            if not self._suite.keyring.is_file():
                lack = "install package debian-archive-keyring"
                raise UserError(f"{self._suite.keyring} (Debian's archive keys) does not exist; {lack}")
            (self._state / "sources.list").write_text(self._suite.sources)
            (self._state / "status").touch()
        self._options = self._private_options()
        self._run("apt-get", "-q", "update")
        if not self._has_private_lists():  # apt-get calls that a success
            raise UserError("cannot fetch Debian's package lists; is the network available?")

    def _require(self) -> None:
        if not self.available():
            raise UserError(
                "cannot fetch Debian packages: this machine has no apt (apt-get, apt-cache, dpkg-deb)"
            )

    def _run(self, tool: str, *words: str, cwd: Path | None = None, check: bool = True) -> str:
        options = self._options if tool.startswith("apt") else ()
        done = subprocess.run(
            [tool, *options, *words],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
        if check and done.returncode != 0:
            lines = [
                line for line in done.stderr.splitlines() if line.startswith("E: ")
            ] or done.stderr.splitlines()[-1:]
            raise UserError(f"{tool} {' '.join(words)}: {' '.join(lines) or f'exit code {done.returncode}'}")
        return done.stdout


def _extract(deb: Path, into: Path, only: tuple[str, ...]) -> None:
    """Regular files, and links to them, that stay below `into`: Debian 12's Python 3.11.2 has no extraction
    filters yet.
    """
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    root = into.resolve()
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as unpacker,
        tarfile.open(fileobj=unpacker.stdout, mode="r|") as archive,
    ):
        for member in archive:
            name = member.name.removeprefix("./")
            target = (root / name).resolve()
            if not name.startswith(only) or not target.is_relative_to(root):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if member.issym() and (target.parent / member.linkname).resolve().is_relative_to(root):
                target.symlink_to(member.linkname)
            elif content := archive.extractfile(member) if member.isreg() else None:
                with target.open("wb") as file:
                    shutil.copyfileobj(content, file)
                target.chmod(0o755 if member.mode & 0o100 else 0o644)
    if unpacker.returncode != 0:
        raise UserError(f"{deb.name}: dpkg-deb could not unpack it (exit code {unpacker.returncode})")
