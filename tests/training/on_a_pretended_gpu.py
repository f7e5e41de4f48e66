"""What a GPU would be asked to do, told by a device that is pretended.

Its tensors are kept and computed by the processor, but nothing may be mixed with the processor's own that a GPU would
refuse, and whatever would make a processor wait for it is counted.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from cryohydra import _device
from cryohydra.config import build
from cryohydra.training.gibbs import GibbsSampling
from cryohydra.training.ground import Ground

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"), reason="an older PyTorch"
)

aten = torch.ops.aten

INDEXES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
COPIES = {aten.copy_.default, aten._to_copy.default}
WAITS = {
    *(aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.bincount.default),
    *(aten.equal.default, aten.is_nonzero.default, aten.repeat_interleave.Tensor, aten._unique2.default),
    *(aten.unique_dim.default, aten.unique_consecutive.default, aten._linalg_check_errors.default),
}
"""What comes to an end only when the device has answered; copies from one to the other do, too."""


class OnGpu(torch.Tensor):
    """A tensor of the processor that says it lies elsewhere."""

    kept: torch.Tensor

    @staticmethod
    def __new__(cls, kept: torch.Tensor) -> "OnGpu":
        return torch.Tensor._make_wrapper_subclass(
            cls,
            kept.shape,
            strides=kept.stride(),
            storage_offset=kept.storage_offset(),
            dtype=kept.dtype,
            device=torch.device("pretended:0"),
        )

    def __init__(self, kept: torch.Tensor):
        self.kept = kept

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of the pretended device")


class PretendedGpu(TorchDispatchMode):
    """Within it, tensors can be on `device`."""

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("pretended:0")
        self.num_calls = 0
        self.num_waits = 0
        """How often a processor would stand still until the device is done."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        flat, _ = tree_flatten((args, kwargs))
        there = [one for one in flat if isinstance(one, OnGpu)]
        here = [one for one in flat if isinstance(one, torch.Tensor) and not isinstance(one, OnGpu)]
        wanted = kwargs.get("device")
        goes_there = bool(there) if wanted is None else torch.device(wanted).type == self.device.type
        self._refuse_what_a_gpu_would(func, args, there, here, goes_there, flat)
        if there or goes_there:
            self.num_calls += 1
            self.num_waits += self._waits(func, args, kwargs, bool(there), goes_there)
        kwargs |= {} if wanted is None else {"device": "cpu"}
        args_here, kwargs_here = tree_map(lambda one: one.kept if isinstance(one, OnGpu) else one, (args, kwargs))
        out = func(*args_here, **kwargs_here)
        known = {id(one.kept): one for one in there} | {id(one): one for one in here}

        def come_back(one: Any) -> Any:
            if not isinstance(one, torch.Tensor) or id(one) in known:
                return known.get(id(one), one)
            return OnGpu(one) if goes_there else one

        return tree_map(come_back, out)

    def _refuse_what_a_gpu_would(
        self, func: Any, args: Any, there: list[Any], here: list[Any], goes_there: bool, flat: list[Any]
    ) -> None:
        # What is copied, or only says where, may lie on the processor.
        if there and func not in INDEXES | COPIES and any(one.dim() > 0 for one in here):
            raise RuntimeError(f"{func}: two devices")
        if there and func in INDEXES:
            values = args[2] if len(args) > 2 else args[0]
            if not isinstance(args[0], OnGpu) or not (isinstance(values, OnGpu) or values.dim() == 0):
                raise RuntimeError(f"{func}: two devices")
        if goes_there and any(isinstance(one, torch.Generator) for one in flat):
            raise RuntimeError(f"{func}: a generator of the processor's draws on the device")

    def _waits(self, func: Any, args: Any, kwargs: dict[str, Any], was_there: bool, goes_there: bool) -> bool:
        if func in INDEXES:
            where = [one for one in args[1] if one is not None]
            return any(one.dtype == torch.bool or not isinstance(one, OnGpu) for one in where)
        if func is aten.copy_.default:
            return isinstance(args[0], OnGpu) != isinstance(args[1], OnGpu) and not (len(args) > 2 and args[2])
        if func is aten._to_copy.default:
            return was_there != goes_there and not kwargs.get("non_blocking", False)
        return func in WAITS


class _Module:
    """What PyTorch asks of a device."""

    is_initialized = is_available = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        """It draws nothing itself."""

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16]


@pytest.fixture(scope="module")
def backend() -> Iterator[None]:
    """Tell PyTorch of the device; for good, there is no way back."""
    backend_registration._setup_privateuseone_for_python_backend("pretended", backend_module=_Module())
    library = torch.library.Library("_", "IMPL")
    library.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    torch._C._set_only_lift_cpu_tensors(True)
    yield
    torch._C._set_only_lift_cpu_tensors(False)


@pytest.fixture
def gpu(backend: None) -> Iterator[PretendedGpu]:
    with PretendedGpu() as gpu:
        yield gpu


def test_what_a_gpu_refuses_is_refused(gpu: PretendedGpu) -> None:
    there = torch.zeros(3, device=gpu.device)
    with pytest.raises(RuntimeError, match="two devices"):
        there + torch.ones(3)
    with pytest.raises(RuntimeError, match="two devices"):
        torch.ones(3)[there.long()]
    with pytest.raises(RuntimeError, match="two devices"):
        there[torch.arange(2, device=gpu.device)] = torch.ones(2)
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, device=gpu.device, generator=torch.Generator())


def test_what_waits_is_counted(gpu: PretendedGpu) -> None:
    there = torch.zeros(3, device=gpu.device)
    assert (float((there + 1).sum()), gpu.num_waits) == (3.0, 1)
    there[there > 0] = 1
    assert gpu.num_waits == 2
    torch.ones(3).to(gpu.device)
    there.copy_(torch.ones(3), non_blocking=True)
    assert gpu.num_waits == 3


def _tables(state: Any) -> dict[str, torch.Tensor]:
    return {
        "rotation": state.poses.rotation.detach().cpu(),
        "shift_px": state.poses.shift_px.detach().cpu(),
        "log_evidence": state.classes.log_evidence.cpu(),
        "map": state.class_map(0).detach().cpu(),
    }


@pytest.mark.parametrize(
    "settings",
    [{"z_dim": 1}, {"quick_config": {"pose_estimation": "refine"}}, {"search": "exact"}],
    ids=["ab initio", "known poses", "exact search"],
)
def test_a_training_finds_there_what_it_finds_here(
    settings: dict[str, Any],
    gpu: PretendedGpu,
    prepare: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"epochs_sgd": 1, "n_imgs_pose_search": 1, "log_heavy_interval": 0} | settings
    found = {}
    for where in (torch.device("cpu"), gpu.device):
        monkeypatch.setattr(build, "default_device", lambda where=where: where)
        trainer, _ = prepare(tmp_path / where.type, **settings)
        trainer.run()
        assert trainer.state.poses.rotation.device == where
        found[where.type] = _tables(trainer.state)
    for name, expected in found["cpu"].items():
        torch.testing.assert_close(found["pretended"][name], expected)


def test_poses_are_drawn_there_as_here(
    gpu: PretendedGpu, prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for where in (torch.device("cpu"), gpu.device):
        monkeypatch.setattr(build, "default_device", lambda where=where: where)
        trainer, _ = prepare(tmp_path / where.type)
        state, plan = trainer.state, replace(trainer.stages[0].annealing, num_steps=14)
        sampling = GibbsSampling.from_nothing(
            state, Ground.of(state, plan.last_radius), plan, torch.arange(len(state)), 2
        )
        while not sampling.is_done:
            sampling.step(state)
        found[where.type] = sampling.log_evidence.cpu(), sampling.maps().cpu()
    for there, here in zip(found["pretended"], found["cpu"], strict=True):
        torch.testing.assert_close(there, here)


def test_calls_and_waits_do_not_grow_with_the_images(
    gpu: PretendedGpu, prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a step of each stage, whose images are one piece: no loop over them, nothing asked for each of them."""
    monkeypatch.setattr(build, "default_device", lambda: gpu.device)
    # As much at a time as on a GPU.
    monkeypatch.setattr(_device, "_numbers_at_a_time", lambda device: 2**27)

    def steps(num_images: int) -> Iterator[tuple[str, int, int]]:
        trainer, _ = prepare(tmp_path / "run", epochs_sgd=1, n_imgs_pose_search=1, log_heavy_interval=0)
        # Ab initio draws the poses of a sixth of its images in a step.
        trainer.stages[0].num_images = 6 * num_images
        for stage in trainer.stages:
            stage.begin(trainer.state)
            for _ in range(2):
                batch = next(stage.batches(trainer.state))
                # Those held out go through refinement by themselves.
                taught = batch[~trainer.state.is_held_out(batch)][:num_images]
                calls, waits = gpu.num_calls, gpu.num_waits
                stage.step(trainer.state, taught)
                yield stage.name, gpu.num_calls - calls, gpu.num_waits - waits
            stage.end(trainer.state, lambda note: None)

    # What is made once and kept is made in the first.
    _, few, many = (list(steps(num_images)) for num_images in (3, 3, 6))
    assert [name for name, *_ in few] == ["ab initio"] * 2 + ["search"] * 2 + ["refinement"] * 2
    assert many == few
