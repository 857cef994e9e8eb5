"""The packages of the extra ``map``, imported when they are used: together they take half of what torch takes."""

import importlib
import warnings
from typing import Any

from app.errors import PackageUnavailable


def extra(module: str) -> Any:
    """
    Raises:
        PackageUnavailable: it is not installed, and how it would be.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # umap says that tensorflow is missing
            return importlib.import_module(module)
    except ImportError as error:
        raise PackageUnavailable(
            f"This needs {module.partition('.')[0]}, which is not installed; pip install 'saescope[map]' brings it, "
            "and --method pca does without.",
            package=module,
        ) from error
