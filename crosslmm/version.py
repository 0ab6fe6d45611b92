"""The version of the package, and pickles that know it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from crosslmm.errors import ModelError

VERSION = "0.1.0"


class Versioned:
    """A frozen dataclass whose pickles are read by the version that wrote them, and refused by others.

    What is cached beside the fields is not pickled: it can hold memory of C libraries, and is made again.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # the arguments of the first function are read before the state is, which another version might not understand
        state = {field.name: self.__dict__[field.name] for field in fields(self)}  # type: ignore[arg-type]
        return blank, (type(self), VERSION), state


def blank(kind: type, version: str) -> Any:
    """An object without its fields.

    Raises
    ------
    ModelError
        The pickle was written by another version.
    """
    if version != VERSION:
        raise ModelError(
            f"this {kind.__name__} was pickled by crosslmm {version}, and this is crosslmm {VERSION}: pickles are "
            "for one "
            f"version. Read it with crosslmm {version}, or exchange fits between versions as text: "
            "json.dump(fit.to_dict(), "
            "file), and crosslmm.load_fit"
        )
    return object.__new__(kind)
