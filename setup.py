"""Builds the native kernel; everything else stands in pyproject.toml."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, CompileError, ExecError, PlatformError

NATIVE = Path("src/uploadguard/_native")
# -ffp-contract=off: the bit-exact PDQ path must round like the reference, so no fused multiply-add there.
COMPILE_ARGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra"]
# For tests/sanitize.sh: a kernel that stops at the first access out of bounds and at undefined behaviour.
SANITIZE_ARGS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
SANITIZE = os.environ.get("UPLOADGUARD_SANITIZE") == "1"
NO_COMPILER = (
    "uploadguard needs its native kernel, and no working C compiler with the Python headers was found. "
    "Install them and try again: on Debian or Ubuntu 'apt-get install gcc python3-dev', "
    "on Fedora 'dnf install gcc python3-devel', on Alpine 'apk add gcc musl-dev python3-dev', "
    "on macOS 'xcode-select --install'."
)


def _reason(error: BaseException) -> str:
    """Why the compiler failed, on one line: the errors of setuptools quote its whole command."""
    if error.__context__ is not None and not isinstance(error, OSError):
        return _reason(error.__context__)
    if isinstance(error, subprocess.CalledProcessError):
        return f"{error.cmd[0]} ended with status {error.returncode}; what it said stands above"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error).partition("\n")[0][:200]


class BuildKernel(build_ext):
    """Says what to install where the kernel cannot be compiled, in place of a page of compiler output alone."""

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except (CCompilerError, CompileError, ExecError, PlatformError, OSError) as error:
            raise SystemExit(f"\nerror: {NO_COMPILER}\n({_reason(error)})") from None


setup(
    ext_modules=[
        Extension(
            "uploadguard._native._kernel",
            sources=sorted(str(path) for path in NATIVE.glob("*.c")),
            depends=sorted(str(path) for path in NATIVE.glob("*.h")),
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            extra_compile_args=[
                *COMPILE_ARGS,
                *(["-O1", "-g", "-fno-omit-frame-pointer", *SANITIZE_ARGS] if SANITIZE else []),
            ],
            extra_link_args=SANITIZE_ARGS if SANITIZE else [],
            libraries=["m"],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
    cmdclass={"build_ext": BuildKernel},
)
