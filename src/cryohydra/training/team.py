"""Processes that train together: each looks at its share of the images, and all come to know the same.

Every member of a team holds all tables, maps and fields, and takes the same decisions from the same numbers. So each
keeps its generator in step with those of the others: what is drawn is drawn for a whole batch, and then shared.
"""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.nn import Parameter

from cryohydra._typing import Float, Int, Shaped, Tensor
from cryohydra.errors import ProcessLost

Rows = TypeVar("Rows", Tensor, range)
Made = TypeVar("Made")

_PATIENCE = timedelta(hours=2)
"""For members that write files or fit fields; one that has ended is noticed at once."""
_PAUSE_S, _LONGER, _LONGEST_PAUSE_S = 2e-5, 1.2, 2e-3
"""Between looks at whether others have answered, the longer the longer it takes: nothing much is waited for in vain."""


@dataclass(frozen=True)
class Team:
    """The members of a training, of which this process is one; of a team of one, nothing is copied or waited for.

    What has an answer from all members must be asked by all of them, in the same order.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    """On which this member works."""

    @property
    def is_first(self) -> bool:
        """Whether this member speaks and writes for all."""
        return self.rank == 0

    def share(self, rows: Rows) -> Rows:
        """What of some rows falls to this member: one after the other to each in turn."""
        return rows[self.rank :: self.size]

    def for_batch(self, num_images: int) -> "Team":
        """Those among whom a batch is shared; of fewer images than members each looks at all."""
        return self if num_images >= self.size else ALONE

    def gather(self, own: Shaped[Tensor, "m *row"], num_rows: int) -> Shaped[Tensor, "b *row"]:
        """The rows of all members, in the order in which they were shared.

        Args:
            own: One for each of this member's share; what is more is not used.
            num_rows: Of all members.
        """
        if self.size == 1:
            return own
        longest = -(-num_rows // self.size)
        padded = own.contiguous()
        if len(own) < longest:
            padded = torch.cat([own, own.new_zeros(longest - len(own), *own.shape[1:])])
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        with _companions():
            _finish([distributed.all_gather(parts, padded, async_op=True)])
        return torch.stack(parts, dim=1).flatten(0, 1)[:num_rows]

    def gather_all(self, own: Sequence[Tensor], num_rows: int) -> list[Tensor]:
        """What `gather` makes of several tensors, which travel together."""
        if self.size == 1:
            return list(own)
        # As bytes, whatever they are: a tensor may have one number for each row.
        rows = [one.unsqueeze(1).flatten(1).contiguous().view(torch.uint8) for one in own]
        parts = self.gather(torch.cat(rows, dim=1), num_rows).split([row.shape[1] for row in rows], dim=1)
        return [
            part.clone().flatten().view(one.dtype).reshape(num_rows, *one.shape[1:])
            for part, one in zip(parts, own, strict=True)
        ]

    def exchange(self, index: Int[Tensor, "b"], tables: Sequence[Tensor]) -> None:
        """Bring into every member's tables what each has changed in its share of some rows.

        Args:
            index: All these rows, on any device.
            tables: Rows first, whatever comes after.
        """
        if self.size == 1:
            return
        index = index.to(tables[0].device)
        own = self.share(index)
        found = self.gather_all([table[own] for table in tables], len(index))
        for table, rows in zip(tables, found, strict=True):
            table[index] = rows

    def sum(self, own: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """What the members have, summed: bit for bit the same for each."""
        if self.size == 1:
            return own
        total = own.clone(memory_format=torch.contiguous_format)
        with _companions():
            _finish([distributed.all_reduce(total, async_op=True)])
        return total

    def sum_gradients(self, parameters: Sequence[Parameter]) -> None:
        """Give every member the gradients of all; a parameter that none of them asked has none."""
        if self.size == 1 or not parameters:
            return
        has_any = parameters[0].new_tensor([float(one.grad is not None) for one in parameters])
        own = [(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in parameters]
        *gradients, has_any = self.sum(torch.cat([*own, has_any])).split([*map(len, own), len(parameters)])
        for one, gradient, count in zip(parameters, gradients, has_any.tolist(), strict=True):
            one.grad = gradient.view_as(one) if count else None

    def deal(self, num_things: int) -> range:
        """Which of some things this member works out; where there are too few, the last is made in vain, too.

        `gather` puts together what came of them.
        """
        return self.share(range(num_things)) or range(num_things - 1, num_things)

    def dealt(self, things: Shaped[Tensor, "k *row"]) -> Shaped[Tensor, "m *row"]:
        """Those of some things that fall to this member by `deal`; no copy."""
        own = self.deal(len(things))
        return things[own.start : own.stop : own.step]

    def sum_dealt(self, *own: Float[Tensor, "k *_"]) -> list[Float[Tensor, "m *_"]]:
        """Of several tensors the sums over all members of what falls to this one by `deal`."""
        if self.size == 1:
            return list(own)
        deals = [[*replace(self, rank=rank).deal(len(own[0]))] for rank in range(self.size)]
        most = max(map(len, deals))
        # To some falls one less than to others.
        dealt = torch.tensor([(deal * most)[:most] for deal in deals], device=own[0].device).flatten()
        sent = [one[dealt].contiguous() for one in own]
        received = [torch.empty_like(one) for one in sent]
        with _companions():
            pairs = zip(received, sent, strict=True)
            _finish([distributed.all_to_all_single(*pair, async_op=True) for pair in pairs])
        num_own = len(deals[self.rank])
        return [one.unflatten(0, (self.size, most)).sum(0)[:num_own] for one in received]

    def told(self, thing: Made | None) -> Made:
        """What the first member has; of the others, whatever they give is passed over."""
        found: Made = self._of_all(thing if self.is_first else None)[0]
        return found

    def once(self, work: Callable[[], Made], generator: torch.Generator) -> Made:
        """What the first member works out, told to all; whatever it draws, all have drawn.

        Args:
            work: Changes nothing but the generator, and asks nothing of the team.
        """
        if self.size == 1:
            return work()
        result, drawn = self.told((work(), generator.get_state()) if self.is_first else None)
        generator.set_state(drawn.cpu())
        return result

    def all_of(self, own: Sequence[Made], num_things: int) -> list[Made]:
        """What the members have made of their shares, in the order in which things were shared."""
        if self.size == 1:
            return list(own)
        parts = self._of_all(list(own))
        return [parts[i % self.size][i // self.size] for i in range(num_things)]

    def _of_all(self, thing: Any) -> list[Any]:
        """What each member has, whatever it is, its tensors on the device of this one."""
        if self.size == 1:
            return [thing]
        buffer = io.BytesIO()
        torch.save(thing, buffer)
        written = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
        sizes = self.gather(torch.tensor([len(written)]), self.size)
        padded = torch.zeros(int(sizes.max()), dtype=torch.uint8)
        padded[: len(written)] = written
        found = self.gather(padded[None], self.size)
        files = [io.BytesIO(one[: int(size)].numpy().tobytes()) for one, size in zip(found, sizes, strict=True)]
        # Written by this very program a moment ago.
        return [torch.load(file, map_location=self.device, weights_only=False) for file in files]


ALONE = Team()


@dataclass(frozen=True)
class SharedBatch:
    """A batch of images of which a member sees its share."""

    team: Team
    num_images: int
    """Of all members."""
    generator: torch.Generator
    """On the CPU."""

    def gather(self, *own: Shaped[Tensor, "m *_"]) -> list[Tensor]:
        """What each member has found of its images, as of the whole batch."""
        return self.team.gather_all(own, self.num_images)

    def mean(self, own: Float[Tensor, "m *row"]) -> Float[Tensor, "*row"]:
        """Over the images of all members."""
        return own.mean(0) if self.team.size == 1 else self.team.sum(own.sum(0)) / self.num_images

    def uniform(self, *shape: int) -> Float[Tensor, "m *row"]:
        """Numbers from 0 to 1 for each image of this member, drawn for all; on the CPU."""
        return self.team.share(torch.rand(self.num_images, *shape, generator=self.generator))

    def normal(self, *shape: int) -> Float[Tensor, "m *row"]:
        """The same from the standard normal distribution."""
        return self.team.share(torch.randn(self.num_images, *shape, generator=self.generator))


def join(rank: int, size: int, device: torch.device, meeting_place: str) -> Team:
    """Meet the other members.

    Args:
        device: On which this member works; of GPUs, each has its own.
        meeting_place: As `torch.distributed` takes it: "env://", or a file of which nothing is there yet.
    """
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with _companions():
        distributed.init_process_group(
            backend, init_method=meeting_place, rank=rank, world_size=size, timeout=_PATIENCE
        )
    return Team(rank, size, device)


def part() -> None:
    """Leave the others when all is done."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def _companions() -> Iterator[None]:
    """What fails between processes, in a sentence."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition(". ")[0]
        raise ProcessLost(
            "Another process of this training cannot be reached: it has stopped or failed, and may have said why. "
            f"`drgnai train --load` goes on from the last checkpoint. ({reason})"
        ) from error


def _finish(works: Sequence[Any]) -> None:
    """Wait in such a way that Ctrl-C is heard: whoever waits within a library is deaf."""
    for work in works:
        pause_s = _PAUSE_S
        while not work.is_completed():
            time.sleep(pause_s)
            pause_s = min(_LONGER * pause_s, _LONGEST_PAUSE_S)
        work.wait()
