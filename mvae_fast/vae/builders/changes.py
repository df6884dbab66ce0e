"""What of a model is not what its description makes."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from torch import nn

from mvae_fast.vae.likelihoods import Likelihood

Settings = dict[str, Any]

# Not of the description: the mode, which loading sets, a model's own description, and a counter.
_OTHER = {"training", "config", "classes", "evaluations"}
_PLAIN = (type(None), bool, int, float, str, tuple, list, dict)


def changes(model: nn.Module, described: nn.Module) -> tuple[list[str], list[str]]:
    """How a model differs from what its description makes.

    Returns:
        A sentence for each part that would not load, or load as something else: modules,
        parameters, hooks, and functions and likelihoods of parts. And a phrase for each setting,
        such as a flow's ``n_steps``, that loading would undo.
    """
    ours, theirs = dict(model.named_modules()), dict(described.named_modules())
    parts = _differences(
        {name: type(part).__name__ for name, part in ours.items()},
        {name: type(part).__name__ for name, part in theirs.items()},
    )
    # Without duplicates: of tied parameters, which load untied, only one has a name here.
    for tensors in ("named_parameters", "named_buffers"):
        parts += _differences(
            *(
                {name: tuple(tensor.shape) for name, tensor in getattr(part, tensors)()}
                for part in (model, described)
            )
        )
    lost = []
    for name in [name for name in ours if name in theirs]:
        if isinstance(ours[name], Likelihood) and repr(ours[name]) != repr(theirs[name]):
            parts.append(f"{name} was replaced")
        parts += _differences(*(_hooks(name, part[name]) for part in (ours, theirs)))
        for setting, one, two in _unequal(*(_settings(part[name]) for part in (ours, theirs))):
            # Around the whole model people put their own functions, to watch it.
            if name and not (isinstance(one, _PLAIN) and isinstance(two, _PLAIN)):
                parts.append(f"{name}.{setting} was replaced")
            else:
                lost.append(f"{name}.{setting}={one!r} (not {two!r})".lstrip("."))
    return parts, lost


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    return [
        f"{name or 'the model'} is {ours.get(name, 'missing')}, not {theirs.get(name, 'there')}"
        for name in {**ours, **theirs}
        if ours.get(name) != theirs.get(name)
    ]


def _hooks(name: str, part: nn.Module) -> Mapping[str, str]:
    kinds = {kind: hooks for kind, hooks in vars(part).items() if "_hooks" in kind and hooks}
    return {f"{name}.{kind}": f"of {len(hooks)} functions" for kind, hooks in kinds.items()}


def _settings(part: nn.Module) -> Settings:
    found = {}
    for name, value in vars(part).items():
        public = name.lstrip("_")
        if isinstance(getattr(type(part), public, None), property):
            found[public] = getattr(part, public)
        elif is_dataclass(value):  # the settings of a FastCNF
            found |= vars(value)
        elif not name.startswith("_"):
            found[name] = value
    return {name: value for name, value in found.items() if name not in _OTHER}


def _unequal(ours: Settings, theirs: Settings) -> list[tuple[str, Any, Any]]:
    return [
        (name, ours.get(name), theirs.get(name))
        for name in {**ours, **theirs}
        if not (name in ours and name in theirs and _equal(ours[name], theirs[name]))
    ]


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, Likelihood):
        return type(one) is type(two) and vars(one) == vars(two)
    return bool(type(one) is type(two) and one == two)
