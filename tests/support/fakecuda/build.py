"""PyCUDA and cuda-python from their releases, on a CUDA driver in host memory.

`python -m tests.support.fakecuda.build` builds them now: two minutes on two cores, once. They are
kept in build/fakecuda, in a folder named after what they are made of.
"""

from __future__ import annotations

import fcntl
import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PYCUDA = "pycuda==2026.1"
PACKAGES = ("cuda-bindings==13.5.0", "pytools>=2026.1", "platformdirs>=4")
HEADERS = tuple(f"nvidia-cuda-{name}==13.*" for name in ("runtime", "crt", "profiler-api"))
SOURCE = Path(__file__).with_name("libcuda.c")
CACHE = Path(__file__).resolve().parents[3] / "build" / "fakecuda"
LIBRARY = "libcuda.so.1"
# Neither is timed: a quick build is worth more than fast code.
SITECONF = """
CUDA_ENABLE_CURAND = False
CUDA_INC_DIR = [{headers!r}]
CUDADRV_LIB_DIR = [{stub!r}]
CXXFLAGS = ["-O0", "-g0", "-w"]
"""


def missing_tools() -> list[str]:
    """Programs that building them takes, and that are not here."""
    return [name for name in ("cc", "c++", "nm") if shutil.which(name) is None]


def site() -> Path:
    """The folder with the packages and the driver, built if there is none."""
    parts = (PYCUDA, *PACKAGES, *HEADERS, SITECONF, platform.machine(), sys.version)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    folder = CACHE / key
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                _install(Path(scratch))
                (Path(scratch) / "site").rename(folder)
        _compile_driver(folder)
    return folder


def _install(scratch: Path) -> None:
    headers, site, stub = (scratch / name for name in ("headers", "site", "stub"))
    _pip("install", "--no-deps", "--target", str(headers), *HEADERS)
    _pip("install", "--target", str(site), *PACKAGES)
    _pip("download", "--no-deps", "--no-binary", "pycuda", "--dest", str(scratch), PYCUDA)
    (archive,) = scratch.glob("pycuda-*.tar.gz")
    shutil.unpack_archive(archive, scratch, filter="data")
    source = archive.with_name(archive.name.removesuffix(".tar.gz"))
    # Enough to link with: a shared library may leave functions open.
    stub.mkdir()
    empty = ["-x", "c", "/dev/null", f"-Wl,-soname,{LIBRARY}"]
    _run("cc", "-shared", *empty, "-o", str(stub / "libcuda.so"))
    (include,) = headers.glob("nvidia/*/include")
    text = SITECONF.format(headers=str(include), stub=str(stub))
    (source / "siteconf.py").write_text(text)
    with (source / "setup.cfg").open("a") as config:
        config.write("\n[build_ext]\nparallel = 2\n")
    # From a folder, which leaves nothing in pip's own cache.
    _pip("install", "--no-deps", "--target", str(site), str(source))


def _compile_driver(site: Path) -> None:
    """The driver, and what else PyCUDA wants to find in one: functions that say no."""
    library = site / LIBRARY
    if library.exists() and library.stat().st_mtime > SOURCE.stat().st_mtime:
        return
    (extension,) = site.glob("pycuda/_driver*.so")
    listed = _run("nm", "-D", "--undefined-only", str(extension))
    names = [word for word in listed.split() if word.startswith("cu")]
    refusals = "".join(f"int __attribute__((weak)) {n}(void) {{ return 801; }}\n" for n in names)
    (site / "refusals.c").write_text(refusals)
    command = ["cc", "-O1", "-w", "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}"]
    temporary = site / f"{LIBRARY}.new"
    sources = [str(SOURCE), str(site / "refusals.c")]
    _run(*command, "-o", str(temporary), *sources, "-ldl")
    temporary.replace(library)


def _pip(*arguments: str) -> None:
    _run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def _run(*command: str) -> str:
    """What a command prints. Raises RuntimeError with its errors if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    print(site())
