"""Use the result of a run: what is on these images?"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ftlab import pretrained
from ftlab.checkpoints import load
from ftlab.data.images import read_image
from ftlab.finetune import rundir


@dataclass(frozen=True)
class Prediction:
    """What the model says about one file.

    Attributes:
        file: The path.
        scores: The most probable classes with their probabilities, the best first; empty if it cannot be read.
        problem: Why the file could not be read; empty if it could.
    """

    file: str
    scores: dict[str, float]
    problem: str = ""

    def __str__(self) -> str:
        said = ", ".join(f"{name} {score:.0%}" for name, score in self.scores.items())
        return f"{self.file}: {said or self.problem}"


def predict(out: str | Path, files: Iterable[str | Path], *, top: int = 3) -> Iterator[Prediction]:
    """Yield what the best model of a run says about each image file; one that is no image is said to be none.

    Args:
        out: The folder of the run.
        files: Paths of images, or of folders, of which every file is taken.
        top: How many classes per image.

    Raises:
        FileNotFoundError: `out` is no folder of a run, or the run has not finished an epoch.
        ValueError: `top` is below 1, or the files of the run cannot be read.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1, not {top}")
    plan, classes = rundir.read_plan(Path(out))
    model = load_best(out)
    prepare = pretrained.preprocessing(plan.backbone, size=plan.size)
    for file in _flat(files):
        try:
            image = prepare(read_image(file))
        except Exception as error:
            yield Prediction(str(file), {}, f"cannot be read ({type(error).__name__}: {error})")
            continue
        with torch.inference_mode():
            probabilities = model(image[None]).softmax(1)[0]
        values, numbers = probabilities.topk(min(top, len(classes)))
        yield Prediction(
            str(file), {classes[n]: v for n, v in zip(numbers.tolist(), values.tolist(), strict=True)}
        )


def load_best(out: str | Path) -> nn.Module:
    """Return the best model of a run, in eval mode.

    Raises:
        FileNotFoundError: `out` is no folder of a run, or the run has not finished an epoch.
    """
    plan, classes = rundir.read_plan(Path(out))
    file = Path(out) / rundir.BEST
    if not file.exists():
        raise FileNotFoundError(f"the run in {out} has not finished an epoch: there is no {rundir.BEST} yet")
    model = pretrained.load(plan.backbone, weights=None, num_classes=len(classes))
    model.load_state_dict(load(file)["model"])
    return model.eval()


def _flat(files: Iterable[str | Path]) -> Iterator[Path]:
    for file in map(Path, files):
        if file.is_dir():
            yield from sorted(
                path for path in file.rglob("*") if path.is_file() and not path.name.startswith(".")
            )
        else:
            yield file
