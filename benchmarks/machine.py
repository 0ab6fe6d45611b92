"""What the figures were measured on."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("crosslmm", "numpy", "scipy", "pandas", "formulaic", "numba", "scikit-sparse")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def describe() -> dict[str, str]:
    """Processor, memory, system, versions, BLAS and thread settings."""
    threads = [f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if name in os.environ]
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{_memory_gb():.0f} GB",
        "system": f"{_os_name()}, {platform.machine()}",
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {package_version(name)}" for name in PACKAGES),
        "numpy_blas": _numpy_blas(),
        "cholmod_blas": _cholmod_blas(),
        "threads": ", ".join(threads) or "as each library chooses",
    }


def memory_bytes() -> int:
    """Physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _memory_gb() -> float:
    return memory_bytes() / 2**30


def _field(path: str, name: str) -> str:
    file = Path(path)
    if not file.exists():
        return ""
    lines = (line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    return next((value.strip() for key, value in lines if key.strip() == name), "")


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def package_version(package: str) -> str:
    """Installed version; a package that runs from its source tree has none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _numpy_blas() -> str:
    import numpy as np

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{blas['name']} {blas['version']}"


def _cholmod_blas() -> str:
    """File that CHOLMOD's calls of BLAS go to: on Debian an alternative of ``libblas.so.3``."""
    try:
        import sksparse.cholmod  # noqa: F401  loads the library into this process
    except ImportError:
        return "no scikit-sparse"
    maps = Path("/proc/self/maps")
    files = {line.split()[-1] for line in maps.read_text().splitlines()} if maps.exists() else set()
    return ", ".join(sorted(file for file in files if "/libblas" in file)) or "unknown"
