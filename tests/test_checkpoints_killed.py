"""A save that is killed, or whose disk is full, leaves the old file whole."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

from ftlab import checkpoints

HEAD = """
import json, os, random, resource, signal, sys, time
from pathlib import Path
import torch
from torch import nn
from ftlab.checkpoints.loading import load
from ftlab.checkpoints.saving import save
torch.set_num_threads(1)
path = Path(sys.argv[1])

def save_version(version):
    model = nn.Linear(500, 200)
    nn.init.constant_(model.weight, version)
    save(path, model=model, extra={"version": version}, sha256=True)

def save_in_place(version):  # as one does without knowing
    torch.save({"model": {"weight": torch.full((200, 500), version)}, "extra": {"version": version}}, path)

def whole_version():
    try:
        found = load(path)
    except ValueError:
        return None
    version = found["extra"]["version"]
    return version if (found["model"]["weight"] == version).all() else None
"""

KILL = """
write = {"save": save_version, "in place": save_in_place}[sys.argv[2]]
dice, broken, cut, versions = random.Random(0), 0, 0, set()
write(1)
for number in range(int(sys.argv[3])):
    done_end, tell_end = os.pipe()
    child = os.fork()  # torch is imported once, and has one thread
    if child == 0:
        for version in range(number * 1000 + 2, number * 1000 + 1000):
            write(version)
            os.write(tell_end, b".")
        os._exit(0)
    os.close(tell_end)
    os.read(done_end, 1)  # one save is done; the next is under way, and takes about as long as it takes
    start = time.perf_counter()
    os.read(done_end, 1)
    time.sleep(dice.uniform(0, time.perf_counter() - start))  # so the kill comes at any moment of the third
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(done_end)
    version = whole_version()
    broken += version is None
    versions.add(version)
    cut += any(name.endswith(".part") for name in os.listdir(path.parent))
if sys.argv[2] == "save":
    write(0)
left = sorted(os.listdir(path.parent))
print(json.dumps({"broken": broken, "cut": cut, "versions": len(versions), "left": left}))
"""

FULL = """
save_version(1)
before = path.read_bytes()
said = []
for room in (0, 10, 1000, 20_000, 300_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))  # no file may grow beyond this
    try:
        save_version(2)
    except OSError as error:
        said.append(str(error))
    assert path.read_bytes() == before and whole_version() == 1, room
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
print(json.dumps({"said": said, "left": sorted(os.listdir(path.parent))}))
"""

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills and limits are those of POSIX")


def run(script: str, *args: str) -> dict:
    command = [sys.executable, "-c", HEAD + script, *args]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def fast_folder(tmp_path):
    """A folder in memory where there is one: what a kill does, it does there too, and no disk is waited for."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@posix
def test_killed_200_times_the_file_is_always_whole_and_the_next_save_cleans_up(fast_folder):
    found = run(KILL, str(fast_folder / "last.pt"), "save", "200")
    assert found["broken"] == 0
    assert found["cut"] > 0  # else no kill came in the middle of a save, and nothing was tested
    assert found["versions"] == 200  # before each kill a new version was there, whole
    assert found["left"] == ["last.pt", "last.pt.sha256"]


@posix
def test_the_same_kills_break_a_file_that_is_written_in_place(fast_folder):
    assert run(KILL, str(fast_folder / "last.pt"), "in place", "60")["broken"] > 0


@posix
def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path):
    found = run(FULL, str(tmp_path / "last.pt"))
    assert len(found["said"]) == 5
    for said in found["said"]:
        assert "last.pt could not be written: File too large; the old file is as it was" in said
    assert found["left"] == ["last.pt", "last.pt.sha256"]


@posix
def test_litter_of_another_living_save_is_left_alone(tmp_path):
    from ftlab.checkpoints.replacing import NewFile

    path = tmp_path / "last.pt"
    (tmp_path / ".last.pt.0badf00d.part").write_bytes(b"half")
    (tmp_path / ".other.pt.0badf00d.part").write_bytes(b"half")
    with NewFile(path) as one:
        one.write(b"one")
        with NewFile(path) as other:
            other.write(b"other")
            other.put_in_place()
        assert one.part.exists()
        one.put_in_place()
    assert path.read_bytes() == b"one"
    assert names(tmp_path) == [".other.pt.0badf00d.part", "last.pt"]


def test_an_interrupt_in_the_middle_removes_the_half_file(tmp_path):
    from ftlab.checkpoints.replacing import NewFile

    path = tmp_path / "last.pt"
    path.write_bytes(b"old")

    def write_and_stop():
        with NewFile(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["last.pt"]


@posix
def test_a_folder_that_may_not_be_written_is_named():
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)  # nobody: root may write everywhere
        with pytest.raises(PermissionError, match=f"nothing can be written into '{folder}'"):
            checkpoints.save(folder / "last.pt", model=nn.Linear(1, 1))
    finally:
        if root:
            os.seteuid(0)
    assert names(folder) == []
    folder.rmdir()


def test_a_missing_folder_and_a_folder_for_a_file_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere.*mkdir"):
        checkpoints.save(tmp_path / "nowhere" / "last.pt", model=nn.Linear(1, 1))
    with pytest.raises(IsADirectoryError, match="give the name of a file in it"):
        checkpoints.save(tmp_path, model=nn.Linear(1, 1))


@posix
def test_a_link_stays_a_link_and_the_rights_stay(tmp_path):
    real, link = tmp_path / "real.pt", tmp_path / "link.pt"
    checkpoints.save(real, model=nn.Linear(1, 1))
    real.chmod(0o600)
    link.symlink_to(real)
    checkpoints.save(link, model=nn.Linear(2, 1))
    assert link.is_symlink()
    assert checkpoints.load(real)["model"]["weight"].shape == (1, 2)
    assert real.stat().st_mode & 0o777 == 0o600


def test_a_mapped_checkpoint_survives_the_next_save(tmp_path):
    path, model = tmp_path / "last.pt", nn.Linear(3, 3)
    checkpoints.save(path, model=model)
    mapped = checkpoints.load(path, mmap=True)["model"]["weight"]
    checkpoints.save(path, model=nn.Linear(3, 3))
    assert torch.equal(mapped, model.weight)
