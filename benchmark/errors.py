"""What a user can get wrong: one exception, whose message is one line."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class InputError(Exception):
    """The user's input is wrong; the message is one line: what was wrong, what was expected, what to do."""


def unknown(kind: str, name: str, valid: Iterable[str]) -> InputError:
    """The error for a name that does not exist: the nearest valid one, and all of them."""
    valid = list(valid)
    near = difflib.get_close_matches(name.replace("-", "_"), valid, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {kind} {name!r}.{hint} Valid: {', '.join(valid)}")


@contextlib.contextmanager
def one_line(*kinds: type[Exception], prefix: str = "") -> Iterator[None]:
    """Errors of these kinds inside are the user's: their message, after ``prefix``, as InputError."""
    try:
        yield
    except kinds as error:
        raise InputError(f"{prefix}{error}") from None
