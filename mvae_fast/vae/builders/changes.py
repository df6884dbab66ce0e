"""What of a model is not what its description makes."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from torch import nn

from mvae_fast.vae.likelihoods import Likelihood

Settings = dict[str, Any]

# Not of the description: the mode, which loading sets, a model's own description, and a counter.
_OTHER = {"training", "config", "evaluations"}
_PLAIN = (type(None), bool, int, float, str, tuple, list, dict)


def changed_parts(model: nn.Module, described: nn.Module) -> list[str]:
    """What of a model would not load, or load as something else, as its description makes it:
    modules, parameters, hooks, and functions and likelihoods of parts.

    Returns:
        A sentence for each difference.
    """
    ours, theirs = dict(model.named_modules()), dict(described.named_modules())
    found = _differences(
        {name: type(part).__name__ for name, part in ours.items()},
        {name: type(part).__name__ for name, part in theirs.items()},
    )
    # Without duplicates: of tied parameters, which load untied, only one has a name here.
    for tensors in ("named_parameters", "named_buffers"):
        found += _differences(
            *(
                {name: tuple(tensor.shape) for name, tensor in getattr(part, tensors)()}
                for part in (model, described)
            )
        )
    for name in ours.keys() & theirs.keys():
        found += _differences(*(_hooks(name, part[name]) for part in (ours, theirs)))
        if not name:
            continue  # around the whole model people put their own functions, to watch it
        settings, described_settings = (_settings(part[name]) for part in (ours, theirs))
        found += [
            f"{name}.{setting} was replaced"
            for setting in _unequal(settings, described_settings)
            if not _is_plain(setting, settings, described_settings)
        ]
    return found


def changed_settings(model: nn.Module, described: nn.Module) -> list[str]:
    """Settings that differ, such as a flow's ``n_steps``: loading would undo them.

    Returns:
        A phrase for each.
    """
    found = []
    others = dict(described.named_modules())
    for name, part in model.named_modules():
        ours, theirs = _settings(part), _settings(others[name])
        found += [
            f"{name}.{setting}={ours.get(setting)!r} (not {theirs.get(setting)!r})".lstrip(".")
            for setting in _unequal(ours, theirs)
        ]
    return found


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


def _unequal(ours: Settings, theirs: Settings) -> list[str]:
    return [
        name
        for name in {**ours, **theirs}
        if not (name in ours and name in theirs and _equal(ours[name], theirs[name]))
    ]


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, Likelihood):
        return type(one) is type(two) and vars(one) == vars(two)
    return bool(type(one) is type(two) and one == two)


def _is_plain(name: str, *settings: Settings) -> bool:
    return all(isinstance(values.get(name), _PLAIN) for values in settings)
