"""From a pool's modules to a model's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

from ..errors import ArgumentError
from ..pool import Module, Pool

_SHOWN = 8


class AttachError(ArgumentError):
    """The pool and the model do not fit each other. The model is as it was."""


@dataclass(frozen=True)
class Binding:
    """A module of the pool and the one of the model that it stands for."""

    entry: Module
    path: str
    module: nn.Module


def widths(module: nn.Module) -> tuple[int, int] | None:
    """d_in and d_out of a linear layer: nn.Linear and what looks like it (quantised ones), and transformers' Conv1D,
    which holds its weight transposed. None for any other module."""
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
        return tuple(module.weight.shape)
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return module.in_features, module.out_features
    return None


def bind(model: nn.Module, pool: Pool, rename: Callable[[str], str] | None, skip: Iterable[str]) -> list[Binding]:
    """The bindings of all modules of the pool but those named in skip. AttachError names all that do not fit."""
    known, skipped, found, faults = dict(model.named_modules(remove_duplicate=False)), set(skip), [], []
    entries = pool.modules()
    unknown = skipped - {entry.name for entry in entries}
    if unknown:
        raise AttachError(f"skip names modules that the pool does not have: {_list(sorted(unknown))}")
    missing = []
    for entry in (each for each in entries if each.name not in skipped):
        path = rename(entry.name) if rename else entry.name
        module = known.get(path)
        if entry.kind != "linear":
            faults.append(f"{entry.name} is of kind {entry.kind}, and only linear modules can be routed")
        elif module is None:
            missing.append(path)
        elif (fault := _fault(entry, path, module)) is not None:
            faults.append(fault)
        else:
            found.append(Binding(entry, path, module))
    if missing:
        faults.insert(0, f"the model has no module {_list(missing)}{_hint(missing[0], known)}")
    taken: dict[int, str] = {}
    for binding in found:
        other = taken.setdefault(id(binding.module), binding.path)
        if other != binding.path:
            faults.append(f"{other} and {binding.path} are the same module of the model")
    if faults:
        base = pool.info().base_model or "no recorded base model"
        raise AttachError(f"the pool (for {base}) does not fit this {type(model).__name__}: {_list(faults, '; ')} "
                          "(remedy: attach to the base model of the pool, or leave modules out with skip=[...])")
    return found


def _fault(entry: Module, path: str, module: nn.Module) -> str | None:
    shape = widths(module)
    if shape is None:
        return f"{path} is a {type(module).__name__}, and only linear layers can be routed"
    if shape != (entry.d_in, entry.d_out):
        return f"{path} maps {shape[0]} to {shape[1]}, in the pool {entry.d_in} to {entry.d_out}"
    return None


def _list(names: list[str], separator: str = ", ") -> str:
    more = len(names) - _SHOWN
    return separator.join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _hint(path: str, known: dict[str, nn.Module]) -> str:
    """Where the model has the module under a longer or a shorter name, that name."""
    for name in known:
        if name and (name.endswith(f".{path}") or path.endswith(f".{name}") and "." in name):
            return f" (but {name}: map the names with rename=...)"
        if name.endswith(f"{path}.base_layer"):
            return " (PEFT has wrapped it: attach to the model without PEFT's adapters)"
    return ""
