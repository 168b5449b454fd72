"""The `ftlab` command. It starts fast: a command imports what is slow to load when it runs.

To add a command, write `_add_NAME(commands)`, which declares its arguments and sets `run`, a function that
takes the parsed arguments and returns the exit code, and name it in `main`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ftlab import __version__
from ftlab.finetune.command import add_finetune, add_predict
from ftlab.lessons import hand_out

FOLDER = "ftlab-lessons"
FIRST = "00_welcome.ipynb"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0 for done, 1 for not possible, 2 for not understood."""
    parser = argparse.ArgumentParser(prog="ftlab", description="ftlab, the fine-tuning lab", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"ftlab {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_lab, _add_lessons, _add_fetch, _add_doctor, add_finetune, add_predict):
        add(commands)
    args, args.rest = parser.parse_known_args(arguments)
    if args.rest and args.run is not _lab:
        parser.error(f"unrecognized arguments: {' '.join(args.rest)}")
    return args.run(args)


def _add_lab(commands: argparse._SubParsersAction) -> None:
    lab = commands.add_parser(
        "lab",
        help="open your own copies of the lessons in JupyterLab",
        description="Copy the lessons into FOLDER, never over a file that you changed, and open them in "
        "JupyterLab. All further arguments go to JupyterLab.",
        usage=f"ftlab lab [FOLDER] [JupyterLab's arguments, such as --no-browser --port 9000]\n\n"
        f"FOLDER is {FOLDER} in the current folder, unless it is named as the first argument.",
        allow_abbrev=False,
    )
    lab.set_defaults(run=_lab)


def _add_lessons(commands: argparse._SubParsersAction) -> None:
    lessons = commands.add_parser(
        "lessons",
        help="only copy the lessons",
        description="Copy the lessons into FOLDER, never over a file that you changed: "
        "a newer lesson is put beside it.",
    )
    lessons.add_argument("folder", metavar="FOLDER", nargs="?", default=FOLDER, help=f"where to ({FOLDER})")
    lessons.set_defaults(run=_lessons)


def _add_fetch(commands: argparse._SubParsersAction) -> None:
    fetch = commands.add_parser(
        "fetch",
        help="fetch pretrained weights before class",
        description="Fetch weights of torchvision's models into a folder that can be copied to the students' "
        "machines. A file that is there already is not fetched again.",
    )
    fetch.add_argument(
        "names",
        metavar="NAME",
        nargs="+",
        help="a model such as resnet18, or one of its weights such as ResNet50_Weights.IMAGENET1K_V1",
    )
    fetch.add_argument("--to", metavar="FOLDER", help="where to (torch's own cache)")
    fetch.set_defaults(run=_fetch)


def _add_doctor(commands: argparse._SubParsersAction) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="say what is in a checkpoint file, and why it does not load",
        description="Look into a checkpoint file without running it. With --model, say why it does not load into "
        "that model, with the code that loads it. Exit code: 0 fine, 1 findings, 2 it cannot be read.",
    )
    doctor.add_argument(
        "file", metavar="FILE", help="a .pt, .pth, .pkl, .bin, .safetensors, or a folder of shards"
    )
    doctor.add_argument("--model", metavar="NAME", default="", help="the model it is meant for, such as resnet18")
    doctor.add_argument("--classes", metavar="N", type=int, default=0, help="outputs of that model (1000)")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(run=_doctor)


def _lab(args: argparse.Namespace) -> int:
    named = bool(args.rest) and not args.rest[0].startswith("-")
    folder = _copy_lessons(args.rest[0] if named else FOLDER)
    try:
        from jupyterlab.labapp import LabApp
    except ImportError as error:
        raise SystemExit(
            f"ftlab: JupyterLab does not start ({error}). Try: {sys.executable} -m pip install jupyterlab"
        ) from None
    first = [f"--LabApp.default_url=/lab/tree/{FIRST}"] if (folder / FIRST).exists() else []
    LabApp.launch_instance([str(folder), *first, *args.rest[named:]])
    return 0


def _lessons(args: argparse.Namespace) -> int:
    _copy_lessons(args.folder)
    return 0


def _fetch(args: argparse.Namespace) -> int:
    from ftlab.pretrained.fetching import fetch_all, instructions

    home = Path(args.to).expanduser().absolute() if args.to else None
    try:
        results = fetch_all(
            args.names, home, say=lambda result: print(f"{result.name}: {result.done}", flush=True)
        )
    except KeyboardInterrupt:
        raise SystemExit("ftlab: stopped; the files that were whole are kept") from None
    if any(result.ok for result in results):
        print(instructions(home))
    return 0 if all(result.ok for result in results) else 1


def _doctor(args: argparse.Namespace) -> int:
    from ftlab.checkpoints.doctor import examine

    if args.classes < 0 or (args.classes and not args.model):
        print("ftlab: --classes is the number of outputs, 1 or more, of the model in --model", file=sys.stderr)
        return 2
    code, text = examine(args.file, args.model, args.classes, as_json=args.json)
    sys.stdout.reconfigure(errors="backslashreplace")  # a name of a file may be no text
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stdout = None
    return code


def _copy_lessons(name: str) -> Path:
    """Hand the lessons out and say what was done; end the program in plain words if that is not possible."""
    folder = Path(name).expanduser().absolute()
    try:
        done = hand_out(folder)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise SystemExit(f"ftlab: {error.filename} is in the way of the lessons; name another folder") from None
    except PermissionError as error:
        raise SystemExit(f"ftlab: {error.filename} may not be written; name another folder") from None
    except OSError as error:
        raise SystemExit(
            f"ftlab: the lessons could not be written to {folder}: {error.strerror or error}"
        ) from None
    except ValueError as error:
        raise SystemExit(f"ftlab: {error}") from None
    news = [f"  {row['lesson']}: {row['done']}" for row in done.to_dict() if row["done"] != "as it was"]
    print(f"{len(done)} lessons in {folder}", *news, sep="\n")
    return folder
