import errno
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import ftlab
from ftlab import paths
from ftlab.cli import main
from ftlab.lessons import RECORD, hand_out


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """The originals: two lessons and a file that is none."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "00_welcome.ipynb").write_text("welcome, first edition")
    (shelf / "05_freezing.ipynb").write_text("freezing, first edition")
    (shelf / "execute.py").write_text("no lesson")
    monkeypatch.setattr(paths, "LESSONS", shelf)
    return shelf


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "mine"


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != RECORD}


def done(folder: Path) -> dict[str, str]:
    return {row["lesson"]: row["done"] for row in hand_out(folder).to_dict()}


FIRST = {"00_welcome.ipynb": "welcome, first edition", "05_freezing.ipynb": "freezing, first edition"}


# Handing out


def test_the_first_time_every_lesson_is_new(shelf, folder):
    assert done(folder) == {"00_welcome.ipynb": "new", "05_freezing.ipynb": "new"}
    assert contents(folder) == FIRST


def test_the_second_time_nothing_is_touched(shelf, folder):
    hand_out(folder)
    os.utime(folder / "00_welcome.ipynb", (1, 1))
    assert set(done(folder).values()) == {"as it was"}
    assert (folder / "00_welcome.ipynb").stat().st_mtime == 1


def test_an_unchanged_copy_is_refreshed_when_the_lesson_becomes_newer(shelf, folder):
    hand_out(folder)
    (shelf / "05_freezing.ipynb").write_text("freezing, second edition")
    assert done(folder) == {"00_welcome.ipynb": "as it was", "05_freezing.ipynb": "refreshed"}
    assert contents(folder) == FIRST | {"05_freezing.ipynb": "freezing, second edition"}


def test_a_changed_copy_is_kept(shelf, folder):
    hand_out(folder)
    (folder / "05_freezing.ipynb").write_text("my answers")
    assert done(folder)["05_freezing.ipynb"] == "yours, kept"
    assert contents(folder) == FIRST | {"05_freezing.ipynb": "my answers"}


def test_a_newer_lesson_is_put_beside_a_changed_copy_once(shelf, folder):
    hand_out(folder)
    (folder / "05_freezing.ipynb").write_text("my answers")
    (shelf / "05_freezing.ipynb").write_text("freezing, second edition")
    beside = f"05_freezing-{ftlab.__version__}.ipynb"
    assert done(folder)["05_freezing.ipynb"] == f"yours, kept; the newer lesson is {beside}"
    expected = FIRST | {"05_freezing.ipynb": "my answers", beside: "freezing, second edition"}
    assert contents(folder) == expected
    assert done(folder)["05_freezing.ipynb"] == "yours, kept"
    assert contents(folder) == expected
    (folder / beside).unlink()  # the learner does not want it
    assert done(folder)["05_freezing.ipynb"] == "yours, kept"
    assert not (folder / beside).exists()


def test_a_changed_copy_beside_is_kept_too(shelf, folder):
    hand_out(folder)
    (folder / "05_freezing.ipynb").write_text("my answers")
    beside = f"05_freezing-{ftlab.__version__}"
    for edition in ("second", "third", "fourth"):
        (shelf / "05_freezing.ipynb").write_text(f"freezing, {edition} edition")
        hand_out(folder)
        if edition == "second":
            (folder / f"{beside}.ipynb").write_text("my other answers")
    assert contents(folder) == FIRST | {
        "05_freezing.ipynb": "my answers",
        f"{beside}.ipynb": "my other answers",
        f"{beside}-2.ipynb": "freezing, fourth edition",  # the third edition was still as handed out
    }


def test_a_file_that_was_there_before_is_the_learners(shelf, folder):
    folder.mkdir()
    (folder / "00_welcome.ipynb").write_text("something of mine")
    assert "yours, kept" in done(folder)["00_welcome.ipynb"]
    assert contents(folder)["00_welcome.ipynb"] == "something of mine"
    assert contents(folder)[f"00_welcome-{ftlab.__version__}.ipynb"] == "welcome, first edition"


def test_a_deleted_copy_is_handed_out_again(shelf, folder):
    hand_out(folder)
    (folder / "05_freezing.ipynb").unlink()
    assert done(folder) == {"00_welcome.ipynb": "as it was", "05_freezing.ipynb": "new"}


@pytest.mark.parametrize("damage", ["", "{", "[]", '"text"', "\x00"])
def test_with_a_damaged_record_nothing_is_lost(shelf, folder, damage):
    hand_out(folder)
    (folder / "05_freezing.ipynb").write_text("my answers")
    (folder / RECORD).write_text(damage)
    (shelf / "00_welcome.ipynb").write_text("welcome, second edition")
    hand_out(folder)
    kept = contents(folder)
    assert kept["05_freezing.ipynb"] == "my answers"
    assert kept["00_welcome.ipynb"] == "welcome, first edition"  # nobody knows any more that it is unchanged
    assert json.loads((folder / RECORD).read_text())


@pytest.fixture
def full_disk(monkeypatch):
    """A disk on which there is no room left, as a system says it."""

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)


def test_a_full_disk_leaves_every_file_as_it_was(shelf, folder, request):
    hand_out(folder)
    record = (folder / RECORD).read_text()
    for lesson in FIRST:
        (shelf / lesson).write_text(f"second edition of {lesson}")
    request.getfixturevalue("full_disk")
    with pytest.raises(OSError, match="No space left"):
        hand_out(folder)
    assert contents(folder) == FIRST  # no half written file, no temporary one
    assert (folder / RECORD).read_text() == record


def test_the_originals_are_no_folder_for_copies(shelf):
    with pytest.raises(ValueError, match="name another folder for your copies"):
        hand_out(shelf)
    assert not (shelf / RECORD).exists()


def test_an_installation_without_lessons_says_how_to_repair_it(shelf, folder):
    for lesson in shelf.glob("*.ipynb"):
        lesson.unlink()
    with pytest.raises(FileNotFoundError, match="pip install --force-reinstall ftlab"):
        hand_out(folder)


def test_the_copies_can_be_written_even_if_the_originals_cannot(shelf, folder):
    (shelf / "00_welcome.ipynb").chmod(0o444)
    hand_out(folder)
    assert (folder / "00_welcome.ipynb").stat().st_mode & 0o200


# The command


def test_lessons_says_what_it_did(shelf, folder, capsys):
    assert main(["lessons", str(folder)]) == 0
    assert capsys.readouterr().out == (
        f"2 lessons in {folder}\n  00_welcome.ipynb: new\n  05_freezing.ipynb: new\n"
    )
    assert main(["lessons", str(folder)]) == 0
    assert capsys.readouterr().out == f"2 lessons in {folder}\n"


def test_lessons_go_into_the_current_folder_unless_told_otherwise(shelf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["lessons"])
    assert contents(tmp_path / "ftlab-lessons") == FIRST


@pytest.fixture
def started(monkeypatch):
    """What JupyterLab would be started with."""
    from jupyterlab.labapp import LabApp

    calls = []
    monkeypatch.setattr(LabApp, "launch_instance", calls.append)
    return calls


@pytest.mark.parametrize("rest", [[], ["--no-browser", "--port", "9000"], ["--version"], ["--ip=0.0.0.0"]])
@pytest.mark.parametrize("named", [True, False])
def test_lab_opens_the_welcome_and_passes_the_rest_on(shelf, tmp_path, monkeypatch, started, rest, named):
    monkeypatch.chdir(tmp_path)
    assert main(["lab", *["mine"][:named], *rest]) == 0
    folder = tmp_path / ("mine" if named else "ftlab-lessons")
    assert started == [[str(folder), "--LabApp.default_url=/lab/tree/00_welcome.ipynb", *rest]]
    assert contents(folder) == FIRST


def test_lab_opens_the_folder_if_there_is_no_welcome(shelf, folder, started):
    (shelf / "00_welcome.ipynb").unlink()
    main(["lab", str(folder)])
    assert started == [[str(folder)]]


def test_without_jupyterlab_lab_says_what_to_install(shelf, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", None)
    with pytest.raises(SystemExit, match="-m pip install jupyterlab"):
        main(["lab", str(folder)])


@pytest.mark.parametrize("place", ["taken", "taken/below"])
def test_a_file_in_the_way_is_named(shelf, tmp_path, place):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(SystemExit, match=r"taken.* is in the way of the lessons; name another folder"):
        main(["lessons", str(tmp_path / place)])
    assert (tmp_path / "taken").read_text() == "a file"


def test_a_folder_in_the_way_of_a_lesson_is_named(shelf, folder):
    (folder / "05_freezing.ipynb").mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"05_freezing\.ipynb is in the way"):
        main(["lessons", str(folder)])


@pytest.fixture
def nobody():
    """Be somebody who may not write everywhere, also where tests run as root."""
    if os.geteuid() != 0:
        yield
    else:
        os.seteuid(65534)
        yield
        os.seteuid(0)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("given", [0o555, 0o000])
def test_a_folder_that_may_not_be_written_is_named(shelf, folder, tmp_path, request, given):
    for above in (tmp_path.parent, tmp_path.parent.parent):
        above.chmod(0o755)
    folder.mkdir(mode=given)
    request.getfixturevalue("nobody")
    with pytest.raises(SystemExit, match=r"mine.* may not be written; name another folder"):
        main(["lessons", str(folder)])


def test_a_full_disk_is_said_in_plain_words(shelf, folder, full_disk):
    with pytest.raises(SystemExit, match=r"could not be written to .*mine: No space left on device$"):
        main(["lessons", str(folder)])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--version"], 0, f"ftlab {version('ftlab')}"),
        (["--help"], 0, "open your own copies of the lessons"),
        (["lab", "--help"], 0, "--no-browser --port 9000"),
        (["lessons", "--help"], 0, "never over a file that you changed"),
        ([], 2, "arguments are required: COMMAND"),
        (["lesson"], 2, "invalid choice: 'lesson'"),
        (["lessons", "a", "--port", "1"], 2, "unrecognized arguments: --port 1"),
    ],
)
@pytest.mark.parametrize(
    "command", [[sys.executable, "-m", "ftlab"], [str(Path(sys.executable).with_name("ftlab"))]]
)
def test_the_command_line_answers(tmp_path, command, arguments, code, says):
    ran = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, "Traceback" in ran.stderr) == (code, False)
    assert says in " ".join((ran.stdout if code == 0 else ran.stderr).split())
    assert list(tmp_path.iterdir()) == []
