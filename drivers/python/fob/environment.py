"""Sets the function's variables and secrets, and keeps the secrets out of its log and errors."""

import _locale
import os
import time
from binascii import Error as NotBase64
from binascii import a2b_base64

LEAST = 6  # bytes of a value that is hidden; shorter ones occur in too many words
LINE = 16  # the same for one line of a value that has several

hidden = []  # what is replaced, longest first: as bytes, and as text if it is text


def read(document):
    """Removes env and secrets from the document to load, and returns both, with names and values as bytes.

    Raises a ValueError that says what is wrong.
    """
    env, secrets = ({} if given is None else given for given in (document.pop("env", None), document.pop("secrets", None)))
    for what, given in (("env", env), ("secrets", secrets)):
        if type(given) is not dict or not all(type(value) is str for value in given.values()):
            raise ValueError(f"{what} must be an object of strings")
    if secrets and not os.environ.get("FOB_SECRETS"):
        raise ValueError("there are secrets, and FOB_SECRETS names no folder for them")
    try:
        return (
            {name.encode(): value.encode() for name, value in env.items()},
            {name.encode(): a2b_base64(value, strict_mode=True) for name, value in secrets.items()},
        )
    except NotBase64:
        raise ValueError("secrets must be in base64") from None


def install(env, secrets):
    """Sets the variables and writes the files. Raises an OSError if that fails."""
    for value in secrets.values():
        lines = value.splitlines()
        found = [value, value.strip(), *(line for line in map(bytes.strip, lines) if len(lines) > 1 and len(line) >= LINE)]
        hidden.extend((v, text_of(v)) for v in found if len(v) >= LEAST)
    hidden.sort(key=lambda pair: -len(pair[0]))
    for name, value in secrets.items():
        path = os.path.join(os.environb[b"FOB_SECRETS"], name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400), "wb") as file:
            file.write(value)
        if b"\0" not in value and text_of(value) is not None:
            os.environb[name] = value
    for name, value in env.items():
        os.environb[name] = value
    _apply([name for name in (*env, *secrets) if name in os.environb])


# mallopt's numbers for the variables that the C library reads as the process starts.
MALLOC = {b"MALLOC_TRIM_THRESHOLD_": -1, b"MALLOC_TOP_PAD_": -2, b"MALLOC_MMAP_THRESHOLD_": -3, b"MALLOC_MMAP_MAX_": -4,
          b"MALLOC_PERTURB_": -6, b"MALLOC_ARENA_TEST": -7, b"MALLOC_ARENA_MAX": -8}  # fmt: skip


def _apply(names):
    """Applies variables that are only read as a process starts. This one started before it had them."""
    if b"TZ" in names:
        time.tzset()
    if any(name == b"LANG" or name.startswith(b"LC_") for name in names):
        try:
            _locale.setlocale(_locale.LC_CTYPE, "")
        except _locale.Error:  # there is no such locale; a starting process would ignore that, too
            pass
    for name in MALLOC.keys() & set(names):
        import ctypes

        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        value = os.environb[name]
        if mallopt is not None and value.isdigit():
            mallopt(MALLOC[name], min(int(value), 2**31 - 1))


def text_of(value):
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def hide(data):
    """Returns bytes without the values of secrets."""
    for value, _ in hidden:
        data = data.replace(value, b"***")
    return data


def settled(data):
    """Returns how many bytes of data can be shown although more follows: those before the beginning of a secret."""
    end = len(data)
    for value, _ in hidden:
        for n in range(min(len(value) - 1, len(data)), len(data) - end, -1):
            if data[-1] == value[n - 1] and data.endswith(value[:n]):
                end = len(data) - n
    # A secret may begin within another one, which must not be cut in two.
    before = None
    while before != end:
        before = end
        for value, _ in hidden:
            at = data.rfind(value, 0, end - 1 + len(value)) if end else -1
            if at >= 0 and at + len(value) > end:
                end = at
    return end


def hide_text(text):
    """Returns text without the values of secrets."""
    for _, value in hidden:
        if value is not None:
            text = text.replace(value, "***")
    return text
