"""Build steps beside pyproject.toml: configs into the package, CUDA kernels to machine code.

`SAM2_BUILD_CUDA=0` skips the kernels; `SAM2_BUILD_ALLOW_ERRORS=0` makes a failure to compile them
fatal. Without machine code they are compiled at run time, with the same result.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
from pathlib import Path

from setuptools import Command, setup
from setuptools.command.build import build
from setuptools.command.build_py import build_py

KERNEL_SOURCE = Path("sam2_hq") / "csrc" / "connected_components.cu"


CONFIGS = Path("configs")


class BuildPackage(build_py):
    """Put the configs into the package; an editable install finds them beside it."""

    def run(self) -> None:
        """Build as usual, then copy."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "sam2_hq" / "configs"
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build in the same folder
            shutil.copytree(CONFIGS, target)

    def get_source_files(self) -> list[str]:
        """Part of setuptools' protocol: what a source distribution must carry."""
        return [*super().get_source_files(), *map(str, CONFIGS.rglob("*.yaml"))]


class BuildKernels(Command):
    """Compile the kernels into one fatbin for every major GPU generation; needs nvcc alone."""

    description = "compile CUDA kernels with nvcc"
    user_options = [("build-lib=", "b", "folder of the built package")]  # noqa: RUF012 (distutils)

    def initialize_options(self) -> None:
        """Called by setuptools before the options are read."""
        self.build_lib: str | None = None
        self.editable_mode = False

    def finalize_options(self) -> None:
        """Take the folder of the `build` command."""
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self) -> None:
        """Compile, or say why not."""
        nvcc = find_nvcc()
        if os.environ.get("SAM2_BUILD_CUDA", "1") == "0" or nvcc is None:
            logging.info("CUDA kernels are left to the run-time compiler")
            return
        try:
            compile_kernels(nvcc, self._output())
        except (OSError, subprocess.CalledProcessError) as error:
            if os.environ.get("SAM2_BUILD_ALLOW_ERRORS", "1") == "0":
                raise
            logging.warning("CUDA kernels are left to the run-time compiler: %s", error)

    def get_source_files(self) -> list[str]:
        """Part of setuptools' protocol for a step of `build`."""
        return [str(KERNEL_SOURCE)]

    def get_outputs(self) -> list[str]:
        """Part of setuptools' protocol for a step of `build`."""
        return [str(self._output())] if self._output().is_file() else []

    def get_output_mapping(self) -> dict[str, str]:
        """Part of setuptools' protocol for a step of `build`."""
        return {}

    def _output(self) -> Path:
        folder = Path() if self.editable_mode else Path(self.build_lib or "build")
        digest = hashlib.sha256(KERNEL_SOURCE.read_bytes()).hexdigest()[:16]
        return folder / KERNEL_SOURCE.with_name(f"connected_components.{digest}.fatbin")


def find_nvcc() -> str | None:
    """Nvcc of `CUDA_HOME`, else of the search path."""
    home = os.environ.get("CUDA_HOME")
    return (home and shutil.which(str(Path(home) / "bin" / "nvcc"))) or shutil.which("nvcc")


def compile_kernels(nvcc: str, output: Path) -> None:
    """Write the fatbin whole or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".partial")
    command = [nvcc, "-fatbin", "-arch=all-major", str(KERNEL_SOURCE), "-o", str(partial)]
    try:
        subprocess.run(command, check=True)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


build.sub_commands.append(("build_kernels", None))
setup(cmdclass={"build_py": BuildPackage, "build_kernels": BuildKernels})
