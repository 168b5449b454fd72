"""The report of a run: one HTML file that stands alone."""

from base64 import b64encode
from html import escape
from pathlib import Path

from torch import Tensor

from ftlab import plots
from ftlab.checkpoints import LoadReceipt
from ftlab.data.images import Images
from ftlab.finetune import rundir
from ftlab.finetune.plan import Plan
from ftlab.freezing import FreezeAudit
from ftlab.parts import by_part
from ftlab.table import Table
from ftlab.training import Evaluation, History

STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8884; }
img { max-width: 100%; background: white; }
"""


def write(
    out: Path,
    plan: Plan,
    history: History,
    evaluation: Evaluation,
    images: Images,
    receipt: LoadReceipt,
    audit: FreezeAudit,
    before: dict[str, Tensor],
    after: dict[str, Tensor],
    machine: dict[str, str],
) -> None:
    """Write the report of a run that has ended.

    Args:
        out: The folder of the run.
        plan: What was done.
        history: Its epochs.
        evaluation: Of the best model on the validation images.
        images: The validation images.
        receipt: What came with the weights.
        audit: Of the first step.
        before: The parameters at the start, by name.
        after: The parameters at the end, by name.
        machine: What it was computed on at the end, by name.
    """
    made_with = rundir.versions() | machine | {"command": rundir.command(plan, out)}
    sections = {
        "What was done, and why": plan.table()._repr_html_(),
        "How it went": _picture(plots.history(history)) + history.table()._repr_html_(),
        "What is taken for what": _picture(plots.confusion(evaluation)),
        "The surest mistakes": _mistakes(images, evaluation),
        "What moved": moved(before, after)._repr_html_(),
        "What came with the weights": receipt._repr_html_(),
        "The first step, audited": audit._repr_html_(),
        "Made with": Table(["what", "which"], made_with.items())._repr_html_(),
    }
    body = "".join(f"<h2>{escape(title)}</h2>{content}" for title, content in sections.items())
    title = f"{escape(Path(plan.folder).name)}: {escape(repr(evaluation))}"
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><h1>{title}</h1>{body}</body></html>"
    )
    rundir.write_text(out / rundir.REPORT, page)


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> Table:
    """Return how far each part of the model has moved, relative to its size; "no" where nothing did."""
    rows = []
    for part, names in by_part({name: name for name in before}).items():
        size = sum(before[name].double().square().sum() for name in names).sqrt()
        way = sum((after[name].double() - before[name].double()).square().sum() for name in names).sqrt()
        rows.append([part, len(names), f"{way / size:.2%}" if way else "no"])
    return Table(["part", "tensors", "moved by"], rows)


def _picture(picture: plots.Picture) -> str:
    data = b64encode(picture._repr_png_()).decode()
    return f'<img alt="{escape(repr(picture))}" src="data:image/png;base64,{data}">'


def _mistakes(images: Images, evaluation: Evaluation) -> str:
    wrong = evaluation.worst(16)
    if not wrong:
        return "<p>None.</p>"
    names = "".join(f"<li>{escape(images.samples[position][0])}</li>" for position in wrong)
    return _picture(plots.mistakes(images, evaluation, 16)) + f"<ol>{names}</ol>"
