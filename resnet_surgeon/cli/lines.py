"""A list of lines of text as people give it: the items themselves, or the name of a file that has one a line."""

from __future__ import annotations

import os

from resnet_surgeon.errors import AccessError, printable

_LONGEST = 1 << 24  # bytes of a file


def lines(typed: str, separator: str) -> tuple[str, ...]:
    """The items between the separators; one alone that is the path of a file stands for its lines.

    Raises AccessError for a file that cannot be read, or is no text in UTF-8.
    """
    items = tuple(item.strip() for item in typed.split(separator))
    is_path = len(items) == 1 and (os.sep in typed or "." in typed or os.path.isfile(typed))
    return _in_file(typed) if is_path else items


def _in_file(path: str) -> tuple[str, ...]:
    try:
        with open(path, "rb") as file:
            data = file.read(_LONGEST + 1)
        if len(data) > _LONGEST:
            raise AccessError(f"it has more than {_LONGEST} bytes", subject=path)
        text = data.decode("utf-8-sig")
    except OSError as error:
        hint = f"to give the names themselves, separate them by commas; {printable(path)} is taken for a file's name"
        raise AccessError(f"cannot be read: {error.strerror}", subject=path, hint=hint) from None
    except UnicodeDecodeError:
        raise AccessError("it is no text in UTF-8", subject=path, hint="write one name a line, in UTF-8") from None
    return tuple(line.strip() for line in text.splitlines() if line.strip())
