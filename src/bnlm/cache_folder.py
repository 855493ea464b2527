"""Where what was downloaded or compiled is kept between runs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder of ours among the user's caches: `$XDG_CACHE_HOME/bnlm`, or `~/.cache/bnlm`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bnlm"


def keep_compiled_code() -> None:
    """Let torch's compiler keep its code in `cache_folder()`, unless `TORCHINDUCTOR_CACHE_DIR` says where.

    By itself it keeps it among the temporary files, which a restart of the machine takes away. Where the folder cannot
    be written to, that stays so.
    """
    folder = cache_folder() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
