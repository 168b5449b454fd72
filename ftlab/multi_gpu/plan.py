"""A small training with several ranks, planned: who gets which images, what meets where, the script."""

from dataclasses import dataclass
from typing import Any

from ftlab.multi_gpu.sampling import EachOnceSampler, shares
from ftlab.table import Table, Tabled

WRAPPERS = ("DistributedDataParallel", "DataParallel", "fully_shard", "none")
SAMPLERS = ("DistributedSampler", "DistributedSampler, no set_epoch", "each image once", "none")
BATCH_NORMS = ("each rank's own", "SyncBatchNorm")
EPOCHS = 2


@dataclass(frozen=True, repr=False)
class RanksPlan(Tabled):
    """What a training with these choices does, before it is run; the repr is the table.

    Attributes:
        ranks: How many processes; for DataParallel, how many GPUs of one process.
        batch_size: Images per step and process; DataParallel cuts them into parts.
        images: How many images there are.
        wrapper: One of `WRAPPERS`.
        sampler: One of `SAMPLERS`.
        batch_norm: One of `BATCH_NORMS`.

    Example:
        >>> plan = RanksPlan(ranks=2, batch_size=2, images=4, sampler="each image once")
        >>> plan.batches(epoch=0)
        [[[0, 2]], [[1, 3]]]
    """

    ranks: int = 2
    batch_size: int = 2
    images: int = 8
    wrapper: str = "DistributedDataParallel"
    sampler: str = "DistributedSampler"
    batch_norm: str = "each rank's own"

    def __post_init__(self) -> None:
        for name, known in (("wrapper", WRAPPERS), ("sampler", SAMPLERS), ("batch_norm", BATCH_NORMS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(map(repr, known))}, not {getattr(self, name)!r}")
        if min(self.ranks, self.batch_size, self.images) < 1:
            raise ValueError("ranks, batch_size and images are 1 or more")

    @property
    def processes(self) -> int:
        """How many processes there are: DataParallel has one, with a thread per GPU."""
        return 1 if self.wrapper == "DataParallel" else self.ranks

    @property
    def prefix(self) -> str:
        """What stands in front of the names in the wrapper's own `state_dict`."""
        return "module." if self.wrapper in ("DistributedDataParallel", "DataParallel") else ""

    def batches(self, epoch: int) -> list[list[list[int]]]:
        """Return the positions of the images: for each process, for each step."""
        return [
            [share[i : i + self.batch_size] for i in range(0, len(share), self.batch_size)]
            for share in self._shares(epoch)
        ]

    def _shares(self, epoch: int) -> list[list[int]]:
        if self.sampler == "none":
            return [list(range(self.images))] * self.processes
        if self.sampler == "each image once":
            return [list(EachOnceSampler(self.images, r, self.processes)) for r in range(self.processes)]
        found = shares(self.images, self.processes, epochs=EPOCHS, set_epoch=self.sampler == "DistributedSampler")
        return [list(share) for share in found.epochs[epoch]]

    @property
    def hangs(self) -> bool:
        """Whether a rank comes to wait for others that have no batch left."""
        together = self.wrapper in ("DistributedDataParallel", "fully_shard")
        return together and len({len(rank) for rank in self.batches(0)}) > 1

    def notes(self) -> list[str]:
        """Return what there is to know about these choices, in sentences."""
        first, second = self.batches(0), self.batches(1)
        given = [image for rank in first for batch in rank for image in batch]
        found = [_MEETING[self.wrapper], f"a full step sees {self.processes * self.batch_size} images"]
        if twice := len(given) - len(set(given)):
            found.append(f"{twice} images of an epoch are gone through more than once")
        if first == second and self.sampler != "none":
            found.append("the second epoch has the order of the first")
        if self.sampler == "none" and self.processes > 1:
            found.append("every rank does the same work: that is no faster than one")
        if self.hangs:
            found.append("it hangs: the rank with a batch more waits for the others, which are done")
        elif any(len(set(map(len, step))) > 1 for step in zip(*first, strict=False)):
            found.append("in some steps the ranks have unequal numbers of images, but count the same")
        found.append(_statistics(self))
        return found

    def table(self) -> Table:
        """Return which process gets which images, epoch by epoch."""
        rows = [
            [epoch, rank, "  ".join(str(batch) for batch in batches)]
            for epoch in range(EPOCHS)
            for rank, batches in enumerate(self.batches(epoch))
        ]
        return Table(["epoch", "rank", "images of each step"], rows, note="; ".join(self.notes()))

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {
            "batches": [self.batches(epoch) for epoch in range(EPOCHS)],
            "notes": self.notes(),
            "prefix": self.prefix,
            "hangs": self.hangs,
        }

    def script(self) -> str:
        """Return the training as a script for torchrun; it needs nothing of ftlab."""
        kinds = [self.wrapper] if self.wrapper in ("DistributedDataParallel", "DataParallel") else []
        lines = [f"# torchrun --nproc-per-node={self.processes} train.py", "import gc", "import os", ""]
        lines += ["import torch", "import torch.distributed as dist", "import torch.nn.functional as F"]
        lines += ["from torch import nn"]
        lines += ["from torch.distributed.fsdp import fully_shard"] if self.wrapper == "fully_shard" else []
        lines += [f"from torch.nn.parallel import {kind}" for kind in kinds]
        distributed = self.sampler.startswith("DistributedSampler")
        lines += [f"from torch.utils.data import DataLoader, {'DistributedSampler, ' * distributed}TensorDataset"]
        body = _BODY.format(
            images=self.images,
            batch_norm=_SYNC if self.batch_norm == "SyncBatchNorm" else "",
            wrap=_WRAP[self.wrapper],
            sampler=_SAMPLER[self.sampler.partition(",")[0]],
            batch_size=self.batch_size,
            epochs=EPOCHS,
            set_epoch="        sampler.set_epoch(epoch)\n" if self.sampler == "DistributedSampler" else "",
        )
        return "\n".join(lines) + body


def _statistics(plan: RanksPlan) -> str:
    if plan.batch_norm == "SyncBatchNorm":
        return "batch norm takes its statistics over all ranks; on the CPU PyTorch refuses to train with it"
    if plan.wrapper == "DataParallel":
        return "batch norm's statistics come from the part of the first GPU"
    return "each rank's batch norm has the statistics of its own images; rank 0's are saved"


_MEETING = {
    "DistributedDataParallel": "backward averages the gradients over the ranks, and all make the same step",
    "DataParallel": "one process; backward sums the gradients of the copies in the model on the first GPU",
    "fully_shard": "backward averages the gradients over the ranks, and each keeps the rows that it owns",
    "none": "the gradients meet nowhere: each rank trains a model of its own",
}
_WRAP = {
    "DistributedDataParallel": "model = DistributedDataParallel(model)",
    "DataParallel": "model = DataParallel(model)",
    "fully_shard": "fully_shard(model)",
    "none": "# nothing is wrapped: the ranks know nothing of each other",
}
_SYNC = "\n    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)"
_SAMPLER = {
    "DistributedSampler": "DistributedSampler(dataset)",
    "each image once": "range(dist.get_rank(), len(dataset), dist.get_world_size())",
    "none": "range(len(dataset))",
}
_BODY = """


def main():
    device = torch.device("cpu")
    if torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"]):  # a GPU for each process
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    torch.manual_seed(0)
    dataset = TensorDataset(torch.arange({images}), torch.randn({images}, 3, 8, 8), torch.arange({images}) % 2)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).to(device){batch_norm}
    {wrap}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sampler = {sampler}
    batches = DataLoader(dataset, batch_size={batch_size}, sampler=sampler)
    for epoch in range({epochs}):
{set_epoch}        for numbers, images, targets in batches:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images.to(device)), targets.to(device))
            loss.backward()
            optimizer.step()
            print(f"epoch {{epoch}}: images {{numbers.tolist()}}, loss {{loss.item():.4f}}")
    if dist.get_rank() == 0:
        print("the first name in the file:", next(iter(model.state_dict())))


main()
gc.collect()  # the model must be gone before the group is
dist.barrier()
dist.destroy_process_group()
"""
