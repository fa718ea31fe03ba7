"""The user's cache folder: what is measured or compiled once for a machine."""

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """Return `$XDG_CACHE_HOME/wirework` (`~/.cache/wirework` by default), or None without a home.

    The folder need not exist.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        root = folder if folder.is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return root / "wirework"
