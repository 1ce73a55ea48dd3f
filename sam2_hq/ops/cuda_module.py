"""CUDA kernels without a compiled extension: NVRTC makes machine code, the driver launches it.

NVRTC comes with PyTorch for CUDA, the driver library with the graphics driver; both are called
through ctypes. Nothing here knows what a kernel does, and importing this file loads neither.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

THREADS = 256
"""Threads of a launch block."""


class CudaModule:
    """Kernels loaded into the current CUDA context, for the life of the process."""

    def __init__(self, driver: ctypes.CDLL, image: bytes) -> None:
        """Load a cubin or fatbin; RuntimeError in the driver's words where it does not fit."""
        self._driver = driver
        self._context = ctypes.c_void_p()
        self._module = ctypes.c_void_p()
        self._functions: dict[str, ctypes.c_void_p] = {}
        self._check("cuCtxGetCurrent", driver.cuCtxGetCurrent(ctypes.byref(self._context)))
        self._check("cuModuleLoadData", driver.cuModuleLoadData(ctypes.byref(self._module), image))

    def launch(
        self, kernel: str, threads: int, arguments: Sequence[Tensor | int], stream: int
    ) -> None:
        """Queue at least `threads` threads on the stream (a `cudaStream_t` as a number).

        Tensors arrive in the kernel as pointers, numbers as `int`. Raises RuntimeError if the
        driver refuses the launch.
        """
        # PyTorch binds the context to a thread with its first runtime call, maybe after this one.
        self._check("cuCtxSetCurrent", self._driver.cuCtxSetCurrent(self._context))
        values = [_as_argument(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        grid = -(-threads // THREADS)
        status = self._driver.cuLaunchKernel(
            self._function(kernel),
            *(ctypes.c_uint(size) for size in (grid, 1, 1, THREADS, 1, 1, 0)),
            ctypes.c_void_p(stream),
            pointers,
            None,
        )
        self._check(f"launch of {kernel}", status)

    def _function(self, kernel: str) -> ctypes.c_void_p:
        if kernel not in self._functions:
            function = ctypes.c_void_p()
            status = self._driver.cuModuleGetFunction(
                ctypes.byref(function), self._module, kernel.encode()
            )
            self._check(f"kernel {kernel}", status)
            self._functions[kernel] = function
        return self._functions[kernel]

    def _check(self, action: str, status: int) -> None:
        if status == 0:
            return
        text = ctypes.c_char_p()
        self._driver.cuGetErrorString(status, ctypes.byref(text))
        raise RuntimeError(f"CUDA driver: {action} failed: {(text.value or b'unknown').decode()}")


def _as_argument(argument: Tensor | int) -> ctypes.c_void_p | ctypes.c_int:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_int(argument)


def open_driver() -> ctypes.CDLL:
    """The CUDA driver library; RuntimeError where there is none."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise RuntimeError(f"the CUDA driver library cannot be opened: {error}") from error


def compile_cubin(source: str, architecture: str) -> bytes:
    """Compile CUDA C++ without includes to machine code with NVRTC.

    Args:
        source: text of the .cu file.
        architecture: such as `sm_90`.

    Raises:
        RuntimeError: without NVRTC, or with the compiler's log where the source does not compile.
    """
    nvrtc = _open_nvrtc()
    program = ctypes.c_void_p()
    _check_nvrtc(
        nvrtc,
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None
        ),
    )
    try:
        options = (ctypes.c_char_p * 1)(f"--gpu-architecture={architecture}".encode())
        status = nvrtc.nvrtcCompileProgram(program, 1, options)
        if status != 0:
            log = _read(nvrtc, "ProgramLog", program).rstrip(b"\0").decode(errors="replace")
            raise RuntimeError(f"NVRTC could not compile for {architecture}: {log.strip()}")
        return _read(nvrtc, "CUBIN", program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _read(nvrtc: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check_nvrtc(nvrtc, getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check_nvrtc(nvrtc, getattr(nvrtc, f"nvrtcGet{what}")(program, text))
    return text.raw


def _check_nvrtc(nvrtc: ctypes.CDLL, status: int) -> None:
    if status != 0:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(f"NVRTC: {nvrtc.nvrtcGetErrorString(status).decode()}")


@functools.cache
def _open_nvrtc() -> ctypes.CDLL:
    for file in _nvrtc_files():
        try:
            return ctypes.CDLL(file)
        except OSError:  # a leftover of another CUDA version; the next one may open
            continue
    raise RuntimeError("NVRTC, the run-time compiler of CUDA, is not installed")


def _nvrtc_files() -> Iterator[str]:
    """NVRTC of PyTorch's wheels, the version PyTorch was built for first; then the system's."""
    wanted = (torch.version.cuda or "").partition(".")[0]
    files: list[Path] = []
    for package in ("nvidia", "torch"):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations if spec else None) or ():
            for pattern in ("*/lib/libnvrtc.so*", "*/bin/nvrtc64*.dll", "lib/*nvrtc*64*.dll"):
                files += Path(folder).glob(pattern)
            files += Path(folder).glob("lib/libnvrtc*.so*")
    libraries = [file for file in files if "builtins" not in file.name]
    yield from map(
        str, sorted(libraries, key=lambda file: (f".so.{wanted}" not in file.name, file))
    )
    system = ctypes.util.find_library("nvrtc")
    if system:
        yield system
