"""The run: from a folder of images to a fine-tuned model, on one process or many, and on after a stop."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ftlab import data, pretrained
from ftlab.checkpoints import LoadReceipt, load, load_into, restore, save
from ftlab.checkpoints.content import Checkpoint
from ftlab.data.images import Images
from ftlab.finetune import precision, rundir
from ftlab.finetune.features import lay_channels_last, once
from ftlab.finetune.images import Reader, order
from ftlab.finetune.plan import Plan, build_optimizer, build_schedule, choose, freeze_rest
from ftlab.finetune.ranks import OtherRankError, Ranks, joined, restarted
from ftlab.freezing import FreezeAudit, audit
from ftlab.random_state import keep_random_state
from ftlab.surgery import replace_head
from ftlab.training import Evaluation, History
from ftlab.training.caching.memory_format import in_format
from ftlab.training.stepping import Stepper

Say = Callable[[str], Any]
SAVE_EVERY = 300.0  # seconds: as much work is lost at most


def run(
    folder: str | Path, out: str | Path, *, resume: bool = False, say: Say = print, **choices: Any
) -> History:
    """Fine-tune a pretrained model on the images in `folder`; everything about it is in `out` afterwards.

    Under torchrun each process calls this, and they share the work: the result is the same within floating
    point. The run can be ended at any moment and goes on with `resume=True` where it last saved, to the same
    bits as if it had not been ended. Its news, its history and its files count the epochs from 1.

    Args:
        folder: One folder of images per class, as `ftlab.data.folder` takes it.
        out: The folder of the run, made here: `plan.json`, `best.pt`, `last.pt`, `report.html`.
        resume: Go on with the run in `out`. After a restart by torchrun this is so by itself.
        say: Is given each line of news, on rank 0.
        **choices: As the attributes of `Plan`; what is not given is chosen, and the plan says why.

    Raises:
        FileExistsError: There is a run in `out` and `resume` is off.
        FileNotFoundError: There are no images, or nothing to resume.
        ValueError: The images are not ready for training, or a choice is not possible.
        OSError: `out` cannot be written. Files that were whole before stay whole.
    """
    with joined() as ranks:
        speak = say if ranks.is_first else _silent
        going_on = resume or (restarted() and rundir.has_run(Path(out)))
        task = ranks.first(lambda: _prepare(Path(folder), Path(out), going_on, choices, ranks.device, speak))
        return _Run(ranks, Path(out), *task, speak).go()


def _silent(line: str) -> None:
    """Say nothing: rank 0 speaks."""


def _prepare(
    folder: Path, out: Path, resume: bool, choices: dict[str, Any], device: torch.device, say: Say
) -> tuple:
    """Return plan, splits and what was saved; rank 0 looks at the files, once for all."""
    if resume:
        plan, classes = rundir.read_plan(out)
        rundir.agree(plan, {"folder": str(folder)} | choices, out)
    else:
        plan = choose([1], {"folder": str(folder)} | choices)  # a wrong choice is said before the images are read
    # Here first: what has to be fetched is fetched once, before a folder is made.
    model = pretrained.load(plan.backbone)
    splits = [split(plan, side) for side in ("train", "val")]
    if resume:
        saved = rundir.load_last(out, splits, classes)
        say(
            f"going on after step {saved['extra']['step']} of the run in {out}"
            if saved
            else f"beginning the run in {out}"
        )
        return plan, splits, saved
    counts = torch.bincount(torch.tensor(splits[0].targets)).tolist()
    plan = choose(counts, {"folder": str(folder)} | choices, precision.suits(model, device))
    rundir.begin(out, plan, splits[0].classes)
    say(repr(plan))
    return plan, splits, None


def split(plan: Plan, side: str) -> Images:
    """Return the images of one side, "train" or "val", as the plan divides them."""
    return data.folder(plan.folder, side, val_fraction=plan.val_fraction, seed=plan.seed, skip_bad=plan.skip_bad)


class _Run:
    """One process's part of a run."""

    def __init__(
        self, ranks: Ranks, out: Path, plan: Plan, splits: list[Images], saved: dict | None, say: Say
    ) -> None:
        self.ranks, self.out, self.plan, self.say = ranks, out, plan, say
        prepare = pretrained.preprocessing(plan.backbone, size=plan.size)
        self.train = Reader(splits[0], prepare, seed=plan.seed, augment=plan.augment)
        self.val = Reader(splits[1], prepare)
        self.weight = _class_weights(splits[0]).to(ranks.device) if plan.balance else None
        self.steps = -(-len(splits[0]) // plan.batch_size)  # per epoch
        self.model, self.receipt = planned_model(plan, splits[0].classes)
        self.model.to(ranks.device)
        self.optimizer = build_optimizer(self.model, plan)
        self.schedule = build_schedule(self.optimizer, plan.epochs * self.steps)
        self.stepper = Stepper(self.optimizer, ranks.device, precision=plan.precision, scheduler=self.schedule)
        self.history, self.step, self.sums = History(), 0, torch.zeros(3, dtype=torch.float64)
        self.before = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.audit = self._check_freeze()
        self.trained, (self.train, self.val) = once(self.model, [self.train, self.val], ranks, say)
        self.channels_last = self.trained is self.model and lay_channels_last(self.model, self.val, ranks.device)
        if saved:
            self._restore(saved)

    def go(self) -> History:
        """Train to the end of the plan, save, and write the report."""
        model = DistributedDataParallel(self.trained) if self.ranks.size > 1 else self.trained
        saved_at = time.monotonic()
        while self.step < self.plan.epochs * self.steps:
            epoch, first = divmod(self.step, self.steps)
            batches = self._batches(epoch, first)
            if self.ranks.is_first:  # a bar where somebody looks: disable=None leaves files and pipes alone
                text = f"epoch {epoch + 1} of {self.plan.epochs}"
                batches = tqdm(batches, text, self.steps, initial=first, leave=False, disable=None)
            for images, targets, count in batches:
                self._one_step(model, images, targets, count)
                due = self.step % self.steps and time.monotonic() - saved_at > SAVE_EVERY
                if due and self.ranks.is_first:  # after the last batch the epoch is to be ended first
                    self._save_last()
                    saved_at = time.monotonic()
            self._end_epoch(epoch + 1)
        return self._finish()

    def _batches(self, epoch: int, first: int):
        """Yield this rank's share of each global batch, from batch `first` on, and the size of the whole."""
        positions = order(len(self.train.images), self.plan.seed, epoch)
        size = self.plan.batch_size
        batches = [positions[start : start + size] for start in range(first * size, len(positions), size)]
        shares = [self.ranks.share(batch) for batch in batches]
        for (images, targets), batch in zip(self.train.batches(shares, epoch), batches, strict=True):
            yield self._put(images), targets.to(self.ranks.device), len(batch)

    def _put(self, images: Tensor) -> Tensor:
        images = images.to(self.ranks.device)
        return in_format(images) if self.channels_last else images

    def _one_step(self, model: nn.Module, images: Tensor, targets: Tensor, count: int) -> None:
        self.stepper.begin()
        with self.stepper.autocast():
            logits = model(images)
        # The sum over the share, over the whole batch: DDP takes the mean over the ranks, so times their number.
        total = F.cross_entropy(logits.float(), targets, weight=self.weight, reduction="sum")
        self.rate = self.schedule.get_last_lr()[0]
        self.stepper.add(total * self.ranks.size / count, len(images))
        right = (logits.argmax(1) == targets).sum()
        # Over all ranks in each step, so that rank 0 can save in the middle of an epoch.
        self.sums += self.ranks.sum(
            torch.stack([total.detach(), right, right.new_tensor(len(targets))]).double()
        ).cpu()
        self.step += 1

    def _end_epoch(self, epoch: int) -> None:
        """Measure, save and say how the epoch went; it is counted from 1 wherever somebody reads it."""
        loss, right, count = self.sums.tolist()
        self._check_loss(loss, epoch)
        measured = self._evaluate()
        row = {"epoch": epoch, "lr": self.rate, "train loss": loss / count, "train accuracy": right / count}
        row |= {"val loss": measured.loss, "val accuracy": measured.accuracy}
        self.history.rows.append(row)
        self.sums.zero_()
        if self.ranks.is_first:
            if self.history.best is row:  # before last.pt: a stop between the two then repeats this epoch
                save(self.out / rundir.BEST, model=self.model, extra={"epoch": epoch})
            self._save_last()
        self.say(
            f"epoch {epoch} of {self.plan.epochs}: "
            + ", ".join(f"{k} {v:.3f}" for k, v in row.items() if " " in k)
        )

    def _check_loss(self, loss: float, epoch: int) -> None:
        """End a run that has lost its numbers, before it is saved; the sum is the same on all ranks."""
        if math.isfinite(loss):
            return
        smaller = f"a learning rate below {self.plan.lr:g} (--lr)"
        other = ", or --precision float32" if self.plan.precision != "float32" else ""
        problem = (
            f"the loss is {loss} in epoch {epoch}: nothing can be learned from there. "
            f"Begin a new run with {smaller}{other}"
        )
        raise ValueError(problem) if self.ranks.is_first else OtherRankError(problem)

    def _evaluate(self) -> Evaluation:
        """Measure the model on the validation images, shared among the ranks."""
        images = self.val.images
        mine = self.ranks.share(range(len(images)))
        size = self.plan.batch_size
        parts = [mine[start : start + size] for start in range(0, len(mine), size)] or [mine]
        with torch.no_grad():
            logits = [self.trained(self._put(batch)).cpu() for batch, _ in self.val.batches(parts)]
        logits = self.ranks.gather(torch.cat(logits), len(images))
        targets = self.val.targets(range(len(images)))
        return Evaluation(
            F.cross_entropy(logits, targets).item(), targets, logits.softmax(1), list(images.classes)
        )

    def _check_freeze(self) -> FreezeAudit:
        """Audit one real step: what the plan freezes must hold. The model is as before."""
        images, targets = next(self.train.batches([range(2)]))
        images, targets = images.to(self.ranks.device), targets.to(self.ranks.device)
        found = audit(self.model, lambda: self._audited_step(images, targets), optimizer=self.optimizer)
        if found.leaks:
            raise RuntimeError(f"frozen tensors moved in the first step: {found.leaks}")
        return found

    def _audited_step(self, images: Tensor, targets: Tensor) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(images), targets).backward()
        self.optimizer.step()

    def _save_last(self) -> None:
        save(
            self.out / rundir.LAST,
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.schedule,
            scaler=self._scaler(),
            extra={
                "step": self.step,
                "rows": self.history.rows,
                "sums": self.sums,
                "images": rundir.fingerprint([self.train.images, self.val.images]),
            },
        )

    def _restore(self, saved: Checkpoint) -> None:
        restore(
            saved,
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.schedule,
            scaler=self._scaler(),
        )
        self.step, self.sums = saved["extra"]["step"], saved["extra"]["sums"]
        self.history.rows.extend(saved["extra"]["rows"])

    def _scaler(self) -> GradScaler | None:
        """Return the scaler if there is something of it to save: in float16 only."""
        return self.stepper.scaler if self.stepper.scaler.is_enabled() else None

    def _finish(self) -> History:
        best = self.ranks.first(lambda: load(self.out / rundir.BEST))
        last = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.model.load_state_dict(best["model"])
        evaluation = self._evaluate()
        if self.ranks.is_first:
            from ftlab.finetune import report  # draws: loads matplotlib

            report.write(
                self.out,
                self.plan,
                self.history,
                evaluation,
                self.val.images,
                self.receipt,
                self.audit,
                self.before,
                last,
                {"processes": str(self.ranks.size), "device": self.ranks.device.type},
            )
            self.say(f"done: {evaluation!r} (epoch {best['extra']['epoch']}); see {self.out / rundir.REPORT}")
        return self.history


def _class_weights(images: Images) -> Tensor:
    """Return a weight per class, so that each class counts the same and the mean over all images is 1."""
    counts = torch.bincount(torch.tensor(images.targets), minlength=len(images.classes))
    return len(images) / (len(counts) * counts)


def planned_model(plan: Plan, classes: list[str]) -> tuple[nn.Module, LoadReceipt]:
    """Return the pretrained model with a new head, frozen as planned, in eval mode; same seed, same model.

    The receipt proves which share of it came with the weights; too little is an error.
    """
    with keep_random_state(plan.seed):
        # Not num_classes=: torchvision's own first values of a small head are far too large to begin with.
        model = pretrained.load(plan.backbone, weights=None)
        replace_head(model, len(classes))
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    weights = pretrained.load(plan.backbone).state_dict()
    receipt = load_into(model, {name: t for name, t in weights.items() if t.shape == own.get(name)})
    freeze_rest(model, plan, pretrained.preprocessing(plan.backbone, size=plan.size).crop_size[0])
    return model.eval(), receipt
