"""`ftlab finetune` and `ftlab predict`: the arguments, and what is said when something is not possible."""

import argparse
import json
import shlex
import sys

CHOICES = {  # of a plan: type, and what the help says
    "backbone": (str, "a pretrained model (efficientnet_lite0); ftlab fetch NAME downloads others before"),
    "size": (int, "height and width of the images in pixels (that of the weights)"),
    "strategy": (str, "what is trained: 'head', 'last third' or 'everything' (by the number of images)"),
    "epochs": (int, "how often the images are gone through"),
    "batch_size": (int, "images per step, over all processes (32)"),
    "lr": (float, "learning rate of the head (0.003)"),
    "body": (float, "learning rate of the body, as a share of the head's (0.1)"),
    "weight_decay": (float, "of AdamW (0.01)"),
    "precision": (
        str,
        "of the training steps: float32, bfloat16, float16, or auto, what suits the device (auto)",
    ),
    "seed": (int, "decides the split, the new head, the order and the augmentation (0)"),
    "val_fraction": (float, "how much of each class is for validation (0.3)"),
}


def add_finetune(commands: argparse._SubParsersAction) -> None:
    """Declare `ftlab finetune`."""
    parser = commands.add_parser(
        "finetune",
        help="fine-tune a pretrained model on a folder of images",
        description="Fine-tune a pretrained model on FOLDER, which has one folder of images per class. RUN then "
        "has the model (best.pt), a report (report.html) and what is needed to go on after a stop. What you do "
        "not choose is chosen, with a reason. "
        "On several processes: torchrun --nproc-per-node 2 -m ftlab finetune ...",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--out", metavar="RUN", required=True, help="the folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run in RUN")
    for name, (kind, text) in CHOICES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text, metavar=kind.__name__.upper())
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--balance", action=switch, help="let each class count the same in the loss")
    parser.add_argument("--augment", action=switch, help="show each image anew in each epoch")
    parser.add_argument("--skip-bad", action=switch, help="leave files out that are no images")
    parser.set_defaults(run=_finetune)


def add_predict(commands: argparse._SubParsersAction) -> None:
    """Declare `ftlab predict`."""
    parser = commands.add_parser(
        "predict",
        help="say what is on images, with the model of a run",
        description="Say what the best model of RUN sees on each image. "
        "The exit code is 1 if a file is no image.",
        allow_abbrev=False,
    )
    parser.add_argument("out", metavar="RUN")
    parser.add_argument("files", metavar="IMAGE", nargs="+", help="an image, or a folder of them")
    parser.add_argument("--top", type=int, default=3, metavar="INT", help="how many classes per image (3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.set_defaults(run=_predict)


def _finetune(args: argparse.Namespace) -> int:
    from ftlab.finetune.ranks import OtherRankError
    from ftlab.finetune.running import run

    names = [*CHOICES, "balance", "augment", "skip_bad"]
    choices = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    try:
        run(args.folder, args.out, resume=args.resume, say=_say, **choices)
    except OtherRankError:
        return 1  # rank 0 says why
    except KeyboardInterrupt:
        again = shlex.join(["ftlab", "finetune", args.folder, "--out", args.out, "--resume"])
        return _fail(f"stopped; {again} goes on")
    except (OSError, ValueError) as error:
        return _fail(str(error).replace("pass skip_bad=True", "give --skip-bad"))
    return 0


def _predict(args: argparse.Namespace) -> int:
    from ftlab.finetune.predicting import predict

    problems = 0
    try:
        for prediction in predict(args.out, args.files, top=args.top):
            problems += bool(prediction.problem)
            print(json.dumps(vars(prediction)) if args.json else prediction, flush=True)
    except (OSError, ValueError) as error:
        return _fail(error)
    return 1 if problems else 0


def _say(line: str) -> None:
    print(line, flush=True)


def _fail(problem: object) -> int:
    print(f"ftlab: {problem}", file=sys.stderr)
    return 1
