"""Attaching a pool to a model: hooks on its linear layers, and the routes that they follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from ..errors import ArgumentError, ClosedError
from ..pool import Pool
from ..route import Route
from .binding import AttachError, Binding, bind
from .native import NativeBackend
from .rows import RowsBackend


class _Batch:
    """What the hooks of one attachment share: how many prompts have routes, and how many tokens a forward pass has."""

    def __init__(self) -> None:
        self.prompts = 1
        self.tokens: tuple[int, ...] = ()


class _Slot:
    """What one module's hook reads: its plan, None where no route changes the module."""

    def __init__(self, binding: Binding, batch: _Batch) -> None:
        self.binding, self.batch, self.plan = binding, batch, None
        self.expert = _is_expert(binding.path)


def attach(model: nn.Module, pool: Pool, *, backend: Literal["auto", "native", "torch"] = "auto",
           rename: Callable[[str], str] | None = None, skip: Iterable[str] = (), dtype: torch.dtype = torch.float32,
           cache_bytes: int = 0, threads: int | None = None) -> "Attachment":
    """Attaches a pool to a model.

    The pool's modules are found in the model by their names, `rename`d where given; those in `skip` are left alone.
    AttachError, with the model untouched, when a module is missing, is no linear layer or has other widths.

    backend: "native" computes with libhilora on the processor, in float32, bfloat16 or float16 as the layer does;
    "torch" with plain operations on any device from rows of `dtype`, float32 for exactness; "auto" is native where all
    layers are on the processor. cache_bytes and threads are those of the session that decodes (and, native, computes).
    """
    bindings = bind(model, pool, rename, skip)
    if backend == "auto":
        devices = {weight.device.type for binding in bindings for weight in binding.module.parameters()}
        backend = "native" if devices <= {"cpu"} else "torch"
    if backend == "native":
        engine = NativeBackend(pool, cache_bytes, threads)
    elif backend == "torch":
        engine = RowsBackend(pool, cache_bytes, threads, dtype)
    else:
        raise ValueError(f"backend {backend!r} is none of auto, native, torch")
    return Attachment(model, pool, bindings, engine)


class Attachment:
    """A pool attached to a model. Until routes are set the model computes what it did before.

    One thread at a time, as for the model itself. detach(), or leaving a `with` block, takes all hooks off again."""

    def __init__(self, model: nn.Module, pool: Pool, bindings: list[Binding],
                 engine: NativeBackend | RowsBackend) -> None:
        self.model, self.pool = model, pool
        self._engine, self._routes, self._plan, self._batch = engine, None, None, _Batch()
        self._slots = [_Slot(binding, self._batch) for binding in bindings]
        self._hooks = [slot.binding.module.register_forward_hook(_hook(slot, engine)) for slot in self._slots]
        self._hooks += [part.register_forward_pre_hook(_counter(self._batch), with_kwargs=True)
                        for part in _entrances(model)]

    @property
    def backend(self) -> str:
        return self._engine.name

    @property
    def modules(self) -> list[str]:
        """The paths of the model's modules that the pool may change."""
        return [slot.binding.path for slot in self._slots]

    @property
    def routes(self) -> list[Route] | None:
        """The routes in force, one per prompt; None for the plain model."""
        return self._routes

    @contextmanager
    def use(self, routes: Route | Sequence[Route] | None) -> Iterator["Attachment"]:
        """Routes for a block: one for all prompts, or one for each prompt of the batches inside. What was in force
        before comes back after it."""
        before = self._routes
        self.set(routes)
        try:
            yield self
        finally:
            if self._hooks:
                self.set(before)

    def set(self, routes: Route | Sequence[Route] | None) -> None:
        """Routes from now on; None for the plain model.

        All rows are decoded here: what is damaged raises CorruptError here and not inside a forward pass, and what was
        in force before stays in force. A batch must have as many rows as there are routes, or a multiple: beams and
        returned sequences of a prompt follow each other, as generate() has them. A cache of keys and values belongs to
        the routes that it was computed with.
        """
        if not self._hooks:
            raise ClosedError("this attachment is detached")
        wanted = [routes] if isinstance(routes, Route) else list(routes) if routes is not None else None
        if wanted == []:
            raise ArgumentError("no routes: give one for each prompt, or None for the plain model")
        plan = None
        if wanted is not None:
            distinct = {route.digest: route for route in wanted}
            places = {digest: place for place, digest in enumerate(distinct)}
            index = [places[route.digest] for route in wanted]
            try:
                plan = self._engine.prepare([slot.binding for slot in self._slots], list(distinct.values()), index)
            except BaseException:
                self._restore()
                raise
        self._adopt(wanted, plan)

    def _restore(self) -> None:
        try:
            self._engine.restore(self._plan)
        except BaseException:
            self._adopt(None, None)
            raise

    def _adopt(self, routes: list[Route] | None, plan) -> None:
        self._routes, self._plan = routes, plan
        self._batch.prompts = len(routes) if routes is not None else 1
        for slot in self._slots:
            slot.plan = plan.get(slot.binding.path) if isinstance(plan, dict) else plan

    def detach(self) -> None:
        """Takes the hooks off: the model is what it was before. Detaching twice is fine."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._adopt(None, None)
        self._engine.close()

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def __repr__(self) -> str:
        state = "detached" if not self._hooks else f"{len(self._slots)} modules, backend {self.backend}"
        return f"<hilora.torch.Attachment to {type(self.model).__name__}: {state}>"


def _hook(slot: _Slot, engine: NativeBackend | RowsBackend):
    def hook(_module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor | None:
        x = args[0]
        if slot.plan is None or x.numel() == 0:
            return None
        _check_batch(slot, x)
        return engine.update(_here(slot, x), slot.binding, x, output)

    return hook


def _here(slot: _Slot, x: torch.Tensor):
    """The slot's plan on the device of x."""
    rows = getattr(slot.plan, "a", None)
    if rows is not None and rows.device != x.device:
        slot.plan = slot.plan.to(x.device)
    return slot.plan


def _check_batch(slot: _Slot, x: torch.Tensor) -> None:
    """Whether prompt i owns the i-th of equal parts of x's tokens."""
    prompts = slot.batch.prompts
    if prompts == 1:
        return
    if x.dim() >= 3 and not slot.expert:
        if x.shape[0] % prompts:
            raise ArgumentError(f"{slot.binding.path}: a batch of {x.shape[0]} rows, but routes for {prompts} prompts: "
                                "a multiple of them is expected")
    elif slot.expert or x.dim() < 2 or x.shape[0] not in slot.batch.tokens or x.shape[0] % prompts:
        raise ArgumentError(f"{slot.binding.path}: an input of shape {tuple(x.shape)} does not tell which of {prompts} "
                            "prompts a token belongs to (a mixture of experts?): give one prompt at a time")


def _is_expert(path: str) -> bool:
    """Whether a router hands a layer its tokens: then even as many as the pass has are in an order of its own."""
    return any("expert" in part and "shared" not in part for part in path.split("."))


def _entrances(model: nn.Module) -> list[nn.Module]:
    """Where tokens come in: the model, and an encoder that generate() calls by itself."""
    encoder = model.get_encoder() if getattr(getattr(model, "config", None), "is_encoder_decoder", False) else None
    return [model] if encoder is None or encoder is model else [model, encoder]


def _counter(batch: _Batch):
    """Notes how many tokens the pass has, for layers whose input has lost the batch dimension."""

    def count(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        if batch.prompts > 1:
            given = [*args, *kwargs.values()]
            batch.tokens = tuple(each.shape[0] * each.shape[1] for each in given
                                 if isinstance(each, torch.Tensor) and each.dim() >= 2)

    return count


__all__ = ["AttachError", "Attachment", "attach"]
