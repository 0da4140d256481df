"""Models that are files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shoal.errors import OptionError

#: Files whose reading can run any code in them.
_PICKLES = (".joblib", ".pkl", ".pickle")
_STATES = (".pt", ".pth", ".bin", ".safetensors")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The weights of a model, read from a file, with what makes a model of them.

    It is read once, in the driver, and put into the cluster: replicas need no shared file system.

    Attributes
    ----------
    weights
        A state dict (torch), or the model itself.
    factory
        Makes the module that takes the state dict, in every replica: a class or a function, with *arguments*.
    """

    weights: Any
    factory: Callable[..., Any] | None = None
    arguments: tuple[Any, ...] = ()

    @classmethod
    def from_file(
        cls, path: str | Path, factory: Callable[..., Any] | None = None, *arguments: Any, trust: bool = False
    ) -> Checkpoint:
        """Read a checkpoint.

        Parameters
        ----------
        path
            - ``.safetensors``: a state dict; needs the package ``safetensors`` and a *factory*;
            - ``.pt``, ``.pth``, ``.bin``: a state dict that ``torch.save`` wrote, read with ``weights_only=True``, so
              that nothing in it is run; needs a *factory*. The entry ``"state_dict"`` or ``"model_state_dict"`` is
              taken if there is one;
            - ``.joblib``, ``.pkl``: a model of scikit-learn or the like. These are pickles: reading one runs whatever
              its author put in, so it needs *trust*.
        factory, arguments
            ``factory(*arguments)`` makes the module.
        trust
            You know who wrote the file.

        Raises
        ------
        OptionError
            The file is of another kind, is a pickle without *trust*, or has no *factory* where it needs one.
        FileNotFoundError
            There is no such file.
        """
        path = Path(path)
        if path.suffix not in _PICKLES + _STATES:
            raise OptionError(
                f"`{path.name}` is no checkpoint that shoal reads: {', '.join(_STATES + _PICKLES)}. Load it yourself "
                "and give the model.",
                option="path",
            )
        if not path.is_file():
            raise FileNotFoundError(f"There is no checkpoint `{path}`.")
        if path.suffix in _PICKLES:
            return cls(_read_pickle(path, trust))
        if factory is None:
            raise OptionError(
                f"`{path.name}` holds weights only: give a `factory` that makes the module they belong to.",
                option="factory",
            )
        return cls(_read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path), factory, arguments)

    def build(self) -> Any:
        """Return the model; a module's parameters are the weights themselves, not copies."""
        if self.factory is None:
            return self.weights
        import torch

        with torch.device("meta"):  # its own weights would be memory and time for nothing
            module = self.factory(*self.arguments)
        left = module.load_state_dict(self.weights, assign=True, strict=True)
        assert not left.missing_keys
        if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
            # buffers that a state dict does not hold: only the factory knows their values
            module = self.factory(*self.arguments)
            module.load_state_dict(self.weights, assign=True, strict=True)
        return module


def _read_torch(path: Path) -> Any:
    import torch

    found = torch.load(path, map_location="cpu", weights_only=True)
    for name in ("state_dict", "model_state_dict"):
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            return found[name]
    return found


def _read_safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(path)


def _read_pickle(path: Path, trust: bool) -> Any:
    if not trust:
        raise OptionError(
            f"`{path.name}` is a pickle: to read it runs whatever its author put in. If you know who wrote it, pass "
            "`trust=True`.",
            option="trust",
        )
    import joblib

    return joblib.load(path)


__all__ = ["Checkpoint"]
