"""The package as it is installed elsewhere: built, put into a fresh environment, and used from there."""

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import urllib.error
import zipfile
from pathlib import Path

import pytest

from ftlab import data
from tests.jupyterlab import Server

ROOT = Path(__file__).parents[1]
NOT_SOURCE = shutil.ignore_patterns(".venv", ".git", "artefacts", "dist", "__pycache__", ".*_cache", "*.egg-info")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of this checkout in which somebody has worked."""
    source = tmp_path_factory.mktemp("source") / "ftlab"
    shutil.copytree(ROOT, source, ignore=NOT_SOURCE)
    for junk in ("notebooks/.ipynb_checkpoints/00_welcome-checkpoint.ipynb", "data/__pycache__/make.pyc"):
        (source / junk).parent.mkdir(exist_ok=True)
        (source / junk).write_text("of no use to anybody else")
    return source


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    dist = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", dist, source], check=True, capture_output=True
    )
    (built,) = dist.iterdir()
    return built


@pytest.fixture(scope="module")
def binaries(wheel, tmp_path_factory) -> Path:
    """The commands of a fresh environment with the wheel; only the libraries are borrowed from this one."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    binaries = environment / ("Scripts" if os.name == "nt" else "bin")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        binaries / "python",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, wheel], check=True)
    inside = run(binaries / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(inside) / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return binaries


def run(*command: str | Path, cwd: Path | None = None) -> str:
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout


def files(folder: Path, pattern: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.glob(pattern) if path.is_file()}


def test_the_wheel_holds_the_lessons_and_the_data_and_nothing_else(source, wheel):
    names = zipfile.ZipFile(wheel).namelist()
    lessons = {name.removeprefix("ftlab/_lessons/") for name in names if name.startswith("ftlab/_lessons/")}
    images = {name.removeprefix("ftlab/_data/") for name in names if name.startswith("ftlab/_data/")}
    assert lessons == files(source / "notebooks", "*.ipynb")
    assert "00_welcome.ipynb" in lessons
    assert images == {name for name in files(source / "data", "**/*") if "__pycache__" not in name}
    assert {name.split("/")[0] for name in names} == {"ftlab", wheel.name.rsplit("-", 3)[0] + ".dist-info"}


def test_the_wheel_stays_small(wheel):
    assert wheel.stat().st_size < 12 * 2**20


def test_the_installed_package_finds_its_own_data(binaries, tmp_path):
    code = "from ftlab import data; print(data.__file__, len(data.emoji('train')), len(data.digits('val')))"
    file, emoji, digits = run(binaries / "python", "-c", code, cwd=tmp_path).split()
    assert Path(file).is_relative_to(binaries.parent)
    assert (int(emoji), int(digits)) == (len(data.emoji("train")), len(data.digits("val")))


def test_lessons_are_handed_out_as_they_are_in_the_checkout(source, binaries, tmp_path):
    said = run(binaries / "ftlab", "lessons", cwd=tmp_path)
    folder = tmp_path / "ftlab-lessons"
    assert said.startswith(f"{len(files(folder, '*.ipynb'))} lessons in {folder}")
    assert files(folder, "*.ipynb") == files(source / "notebooks", "*.ipynb")
    for lesson in folder.glob("*.ipynb"):
        assert lesson.read_bytes() == (source / "notebooks" / lesson.name).read_bytes()


@pytest.fixture
def lab(binaries, tmp_path):
    """Start `ftlab lab mine` with these further arguments."""
    servers = []

    def start(*arguments: str) -> Server:
        assets = Path(sysconfig.get_path("data")) / "share/jupyter/lab"  # borrowed like the libraries
        command = [str(binaries / "ftlab"), "lab", "mine", *arguments]
        servers.append(Server(command, tmp_path, JUPYTERLAB_DIR=str(assets)))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def answers(server: Server, address: str) -> bool:
    with socket.socket() as client:
        return client.connect_ex((address, server.port)) == 0


def test_lab_serves_the_copies_on_localhost_to_who_has_the_token(source, lab, tmp_path):
    server = lab()
    lessons = {item["name"] for item in server.api("contents")["content"]}
    assert lessons == files(source / "notebooks", "*.ipynb") == files(tmp_path / "mine", "*.ipynb")
    assert "/lab/tree/00_welcome.ipynb?token=" in server.log.read_text()
    for token in ("", "guessed"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            server.api("status", token=token)
    assert answers(server, "127.0.0.1")
    assert not answers(server, "127.0.0.2")  # another address of this machine


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has more than one loopback address")
def test_lab_listens_elsewhere_only_if_asked(lab):
    assert answers(lab("--ip=0.0.0.0"), "127.0.0.2")
