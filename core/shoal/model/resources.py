"""Resource vectors: what a node has, what a task or an actor asks for.

A vector is a sorted tuple of ``(name, amount)`` pairs with positive amounts. It is hashable, so it can name a
*scheduling class*, and it travels in messages as it is. Amounts are rounded to 1e-4, so that a thousand grants of
0.1 CPU and their returns leave exactly what was there before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shoal.model.amounts import format_nbytes

Resources = tuple[tuple[str, float], ...]


def make_resources(amounts: Mapping[str, float]) -> Resources:
    """Return the vector of *amounts*; zero entries are left out."""
    return tuple(sorted((name, round(float(amount), 4)) for name, amount in amounts.items() if round(float(amount), 4)))


def from_wire(pairs: Iterable[Iterable[object]]) -> Resources:
    """Rebuild a vector from what a message carried."""
    return tuple((str(name), float(amount)) for name, amount in pairs)  # type: ignore[arg-type]


def fits(asked: Resources, free: Mapping[str, float]) -> bool:
    """Whether *free* covers *asked*."""
    return all(free.get(name, 0.0) >= amount for name, amount in asked)


def take(asked: Resources, free: dict[str, float]) -> None:
    """Subtract *asked* from *free*. The result may go below zero for work that resumes after a wait."""
    for name, amount in asked:
        free[name] = round(free.get(name, 0.0) - amount, 4)


def give(asked: Resources, free: dict[str, float]) -> None:
    """Add *asked* back to *free*."""
    for name, amount in asked:
        free[name] = round(free.get(name, 0.0) + amount, 4)


def describe(asked: Resources) -> str:
    """Say *asked* in words: ``memory=2000000000 (1.9 GiB), num_cpus=2``."""
    return ", ".join(f"{name}={format_amount(name, amount)}" for name, amount in asked) or "nothing"


def format_amount(name: str, amount: float) -> str:
    """Say how much of a resource: exactly, and bytes in a unit that people read as well."""
    exact = f"{amount:.15g}"
    return f"{exact} ({format_nbytes(amount)})" if name == "memory" and amount >= 1024 else exact
