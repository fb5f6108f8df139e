"""Run the Dockerfile's steps in a clean Debian root, where no container engine runs.

Needs root and debootstrap. Each stage gets a root of its own under build/debian. Debian's Python stands for
the image's. Settings of pip that point at this machine's files are followed into the root by bind mounts, in
a mount namespace of this run's own: when it is killed they go with it, and no later run deletes through them.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
ROOTS = REPOSITORY / "build" / "debian"
SUITE = "bookworm"
PACKAGES = "python3,python3-venv,python3-dev,ca-certificates"
TOOLS = ("debootstrap", "chroot", "mount", "umount", "unshare")
_INSIDE = "QUARRY_OWN_MOUNTS"


def main() -> None:
    """Run all steps, then ask the command for its help as the image's user."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        sys.exit(f"needs root and {', '.join(TOOLS)}; missing: {', '.join(missing) or 'root'}")
    if _INSIDE not in os.environ:
        os.environ[_INSIDE] = "1"
        own = ["unshare", "--mount", "--propagation", "private", sys.executable, __file__]
        os.execvp(own[0], own)  # noqa: S606 (no shell is wanted)
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for keyword, rest in steps((REPOSITORY / "Dockerfile").read_text()):
        print(f"{keyword} {rest}", flush=True)
        if keyword == "FROM":
            name = rest.partition(" AS ")[2] or "final"
            stage = stages[name] = Stage(ROOTS / name)
        else:
            if stage is None:
                sys.exit("the Dockerfile does not begin with FROM")
            stage.step(keyword, rest, stages)
    if stage is None:
        sys.exit("the Dockerfile has no stage")
    stage.run("quarry --help")
    stage.run("python -c 'import engine._native, rag.app, ingest.library'")
    size = subprocess.run(["du", "-sm", stage.root / "opt"], capture_output=True, text=True, check=True)
    print(f"/opt of the image: {size.stdout.split()[0]} MB")
    if stage.run("command -v g++", check=False) == 0:
        sys.exit("the last stage holds a compiler")


def steps(text: str) -> list[tuple[str, str]]:
    """Cut a Dockerfile into keywords and what follows them."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines]


class Stage:
    """A root in which steps are run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.user = "root"
        self.folder = "/"
        self.environment = {
            "PATH": "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
        }
        self.environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        if root.exists():
            if mounted := _mounts_below(root):
                sys.exit(f"{mounted[0]} is mounted: umount it first, or removing {root} would empty it")
            shutil.rmtree(root)
        root.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, root], check=True)
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")

    def step(self, keyword: str, rest: str, stages: dict[str, "Stage"]) -> None:
        """Follow one step."""
        if keyword == "RUN":
            self.run(rest)
        elif keyword == "WORKDIR":
            self.folder = rest
            (self.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif keyword == "COPY":
            self.copy(rest, stages)
        elif keyword == "USER":
            self.user = rest
        elif keyword == "ENV":
            for assignment in shlex.split(rest):
                name, _, value = assignment.partition("=")
                self.environment[name] = value.replace("$PATH", self.environment["PATH"])
        elif keyword not in ("ARG", "EXPOSE", "VOLUME", "HEALTHCHECK", "STOPSIGNAL", "CMD"):
            sys.exit(f"{keyword} is not known here")

    def copy(self, rest: str, stages: dict[str, "Stage"]) -> None:
        """Copy files of the repository, or of another stage."""
        source_root = REPOSITORY
        if match := re.match(r"--from=(\S+) ", rest):
            source_root, rest = stages[match[1]].root, rest[match.end() :]
        *sources, target = rest.split()
        place = self.root / (target if target.startswith("/") else f"{self.folder}/{target}").lstrip("/")
        for source in sources:
            path = source_root / source.lstrip("/")
            if path.is_dir():
                shutil.copytree(path, place, symlinks=True, dirs_exist_ok=True)
            elif target.endswith("/") or target == "./":
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, place)
            else:
                shutil.copy2(path, place)

    def run(self, command: str, *, check: bool = True) -> int:
        """Run a command as the stage's user, with this machine's name servers and files of pip."""
        shutil.copy2("/etc/resolv.conf", self.root / "etc/resolv.conf")
        mounted = [self.mount(path) for path in ("/proc", "/dev", *_of_pip())]
        try:
            who = ["--userspec", self.user] if self.user != "root" else []
            shell = f"cd {shlex.quote(self.folder)} && {command}"
            arguments = ["chroot", *who, self.root, "/bin/sh", "-ec", shell]
            done = subprocess.run(arguments, env=self.environment, check=False)
        finally:
            for place in reversed(mounted):
                subprocess.run(["umount", "-l", place], check=True)
        if check and done.returncode != 0:
            sys.exit(f"the step failed with status {done.returncode}: {command}")
        return done.returncode

    def mount(self, path: str) -> Path:
        """Show a file or folder of this machine in the root."""
        place = self.root / path.lstrip("/")
        if Path(path).is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        subprocess.run(["mount", "--bind", path, place], check=True)
        return place


def _mounts_below(folder: Path) -> list[str]:
    """Name what is mounted in a folder."""
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [place for place in places if Path(place).is_relative_to(folder)]


def _of_pip() -> list[str]:
    """Name the files and folders that this machine's pip is configured by."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "debug"], capture_output=True, text=True, check=True
    ).stdout
    listed += subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    files = [
        line.strip().partition(", exists: True")[0] for line in listed.splitlines() if "exists: True" in line
    ]
    named = re.findall(r"(?:file://)?(/[\w./-]+)", listed)
    # An index of files names those that lie beside it.
    places = [Path(path).parent if Path(path).name == "simple" else Path(path) for path in (*files, *named)]
    found = dict.fromkeys(place for place in places if place.exists() and len(place.parts) > 2)
    return [str(place) for place in found if place.is_file() or not place.is_relative_to("/etc")]


if __name__ == "__main__":
    main()
