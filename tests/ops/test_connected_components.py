from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from torch._subclasses.fake_tensor import FakeTensorMode

from sam2_hq.ops.connected_components import (
    KERNEL_SOURCE,
    backend,
    connected_components,
    get_connected_components,
    label_with_kernels,
)
from sam2_hq.ops.cuda_module import CudaModule, compile_cubin, open_driver

SHAPES = [
    (3, 5, 7),
    (1, 1, 9),
    (2, 9, 1),
    (1, 1, 1),
    (4, 16, 16),
    (2, 33, 20),
    (0, 4, 4),
    (2, 0, 3),
]


def oracle(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N, H, W] -> labels and areas, pixel by pixel from the definition."""
    labels, areas = np.zeros(masks.shape, np.int32), np.zeros(masks.shape, np.int32)
    for image, mask in enumerate(masks):
        numbers, count = ndimage.label(mask, np.ones((3, 3)))
        for number in range(1, count + 1):
            y, x = np.nonzero(numbers == number)
            labels[image, y, x] = 1 + (2 * (y // 2) * mask.shape[1] + 2 * (x // 2)).min()
            areas[image, y, x] = len(y)
    return labels, areas


def noise(shape: tuple[int, int, int], density: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < density


def check(masks: np.ndarray, labels: torch.Tensor, areas: torch.Tensor) -> None:
    expected_labels, expected_areas = oracle(masks)
    assert labels.dtype == areas.dtype == torch.int32
    assert labels.shape == areas.shape == (len(masks), 1, *masks.shape[1:])
    np.testing.assert_array_equal(labels[:, 0].cpu().numpy(), expected_labels)
    np.testing.assert_array_equal(areas[:, 0].cpu().numpy(), expected_areas)


masks_of_any_size = arrays(bool, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=14))


class TestOnTheCPU:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("density", [0.0, 0.3, 0.6, 1.0])
    def test_labels_and_areas_follow_the_definition(self, shape, density):
        masks = noise(shape, density)
        check(masks, *connected_components(torch.from_numpy(masks)[:, None]))

    @given(masks_of_any_size)
    @settings(max_examples=150)
    def test_any_mask_follows_the_definition(self, masks):
        check(masks, *connected_components(torch.from_numpy(masks)[:, None]))

    def test_a_drawn_mask_has_the_published_labels(self):
        mask = torch.tensor([[1, 0, 0, 0, 1], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 0, 0, 1]])
        labels, areas = connected_components(mask[None, None].bool())
        assert labels[0, 0].tolist() == [
            [1, 0, 0, 0, 5],
            [0, 1, 0, 0, 5],
            [0, 0, 0, 0, 0],
            [11, 11, 0, 0, 15],
        ]
        assert areas[0, 0].tolist() == [
            [2, 0, 0, 0, 2],
            [0, 2, 0, 0, 2],
            [0, 0, 0, 0, 0],
            [2, 2, 0, 0, 1],
        ]

    def test_any_value_but_zero_is_foreground(self):
        mask = torch.tensor([[[[0, 3, 255]]]], dtype=torch.uint8)
        assert connected_components(mask)[1].tolist() == [[[[0, 2, 2]]]]

    def test_the_published_name_takes_other_dtypes(self):
        mask = torch.tensor([[[[0.0, 1.0]]]])
        assert get_connected_components(mask)[0].tolist() == [[[[0, 1]]]]

    def test_a_view_with_strides_is_labelled_as_its_copy(self):
        mask = torch.from_numpy(noise((2, 12, 10), 0.5))[:, None].transpose(2, 3)[..., ::2]
        for viewed, copied in zip(
            connected_components(mask), connected_components(mask.clone()), strict=True
        ):
            assert torch.equal(viewed, copied)

    @pytest.mark.parametrize(
        ("mask", "error", "words"),
        [
            (torch.zeros(1, 1, 2, 2), TypeError, "mask must be bool or uint8, got torch.float32"),
            (
                torch.zeros(2, 2, dtype=torch.bool),
                ValueError,
                r"must be \[N, 1, H, W\], got \[2, 2\]",
            ),
            (torch.zeros(1, 2, 2, 2, dtype=torch.bool), ValueError, r"got \[1, 2, 2, 2\]"),
        ],
    )
    def test_a_wrong_mask_is_named(self, mask, error, words):
        with pytest.raises(error, match=words):
            connected_components(mask)

    def test_it_can_be_traced_and_passes_the_checks_of_custom_operators(self):
        mask = torch.from_numpy(noise((2, 6, 5), 0.5))[:, None]
        operator = torch.ops.sam2_hq.connected_components.default
        torch.library.opcheck(operator, (mask,))
        assert torch.Tag.pt2_compliant_tag in operator.tags
        with FakeTensorMode():
            labels, areas = connected_components(torch.empty(3, 1, 8, 9, dtype=torch.bool))
        assert labels.shape == areas.shape == (3, 1, 8, 9)

    @pytest.mark.parametrize("again", ["importlib.reload(before)", "del sys.modules[name]"])
    def test_the_module_can_be_imported_again(self, again: str):
        # As notebooks and test runners do. In a process of its own: others keep what they have.
        script = f"""
import importlib, sys, torch
name = "sam2_hq.ops.connected_components"
before = importlib.import_module(name)
{again}
after = importlib.import_module(name)
mask = torch.ones(1, 1, 2, 3, dtype=torch.bool)
assert all(int(module.connected_components(mask)[1].max()) == 6 for module in (before, after))
"""
        subprocess.run([sys.executable, "-c", script], check=True)

    def test_the_backend_says_why(self):
        assert backend("cpu") == "SciPy on the CPU (tensors on cpu)"
        if not torch.cuda.is_available():
            assert "no CUDA device" in backend("cuda")


@pytest.fixture(scope="module")
def cpu_driver(tmp_path_factory) -> ctypes.CDLL:
    """The driver calls, over the kernels compiled for the CPU."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    library = tmp_path_factory.mktemp("driver") / "driver.so"
    shim = Path(__file__).with_name("cpu_driver.cpp")
    flags = ["-O2", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-pthread", "-shared", "-fPIC"]
    command = [compiler, *flags, f'-DKERNELS="{KERNEL_SOURCE}"', str(shim), "-o", str(library)]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library))


class TestTheKernelsOnTheCPU:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("density", [0.0, 0.3, 0.6, 1.0])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_labels_and_areas_follow_the_definition(self, cpu_driver, shape, density, seed):
        cpu_driver.set_order(seed, 1)
        masks = noise(shape, density, seed)
        module = CudaModule(cpu_driver, b"")
        check(masks, *label_with_kernels(module, torch.from_numpy(masks)[:, None], stream=0))

    @given(masks=masks_of_any_size, seed=st.integers(0, 2**31))
    @settings(max_examples=150)
    def test_the_order_of_threads_does_not_matter(self, cpu_driver, masks, seed):
        cpu_driver.set_order(seed, 1)
        module = CudaModule(cpu_driver, b"")
        check(masks, *label_with_kernels(module, torch.from_numpy(masks)[:, None], stream=0))

    @pytest.mark.parametrize("density", [0.35, 0.45, 0.6])
    def test_threads_that_truly_race_agree_with_scipy(self, cpu_driver, density):
        masks = torch.from_numpy(noise((4, 201, 151), density))[:, None]
        expected = connected_components(masks)
        for seed in range(1, 9):
            cpu_driver.set_order(seed, 4)
            found = label_with_kernels(CudaModule(cpu_driver, b""), masks, stream=0)
            assert all(map(torch.equal, found, expected))

    def test_a_refusal_of_the_driver_is_raised_in_its_words(self, cpu_driver):
        with pytest.raises(RuntimeError, match="cuModuleLoadData failed: no kernel image"):
            CudaModule(cpu_driver, b"broken")
        with pytest.raises(RuntimeError, match="kernel nothing failed: named symbol not found"):
            CudaModule(cpu_driver, b"").launch("nothing", 1, (), stream=0)


class TestTheKernelsAsMachineCode:
    @pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
    def test_nvrtc_compiles_the_source(self, architecture):
        try:
            cubin = compile_cubin(KERNEL_SOURCE.read_text(), architecture)
        except RuntimeError as error:
            if "not installed" in str(error):
                pytest.skip(str(error))
            raise
        assert cubin[:4] == b"\x7fELF"
        assert b"join_neighbours" in cubin

    @pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
    def test_nvcc_compiles_the_source(self, architecture, tmp_path):
        nvcc = shutil.which("nvcc")
        if nvcc is None:
            pytest.skip("no nvcc; NVRTC has its own test")
        cubin = tmp_path / "kernels.cubin"
        command = [nvcc, "-cubin", f"-arch={architecture}", "-Werror", "all-warnings"]
        subprocess.run([*command, str(KERNEL_SOURCE), "-o", str(cubin)], check=True)
        assert cubin.read_bytes()[:4] == b"\x7fELF"

    def test_an_error_in_the_source_comes_with_the_log(self):
        try:
            compile_cubin("", "sm_90")
        except RuntimeError as error:
            pytest.skip(str(error))
        with pytest.raises(RuntimeError, match='identifier "nonsense" is undefined'):
            compile_cubin("__device__ int f() { return nonsense; }", "sm_90")

    def test_a_missing_driver_is_a_named_error(self):
        if torch.cuda.is_available():
            pytest.skip("there is a driver")
        with pytest.raises(RuntimeError, match="CUDA driver library cannot be opened"):
            open_driver()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnAGPU:
    def test_the_kernels_are_used(self):
        assert backend("cuda").startswith("CUDA kernels")

    @pytest.mark.parametrize("shape", [*SHAPES, (20, 256, 256), (3, 1023, 767)])
    @pytest.mark.parametrize("density", [0.0, 0.4, 0.6, 1.0])
    def test_labels_and_areas_equal_those_of_the_cpu(self, shape, density):
        masks = torch.from_numpy(noise(shape, density))[:, None]
        for found, expected in zip(
            connected_components(masks.cuda()), connected_components(masks), strict=True
        ):
            assert torch.equal(found.cpu(), expected)

    def test_the_current_stream_is_respected(self):
        masks = torch.from_numpy(noise((8, 512, 512), 0.5))[:, None]
        with torch.cuda.stream(torch.cuda.Stream()):
            labels, _ = connected_components(masks.cuda())
            found = labels.cpu()
        assert torch.equal(found, connected_components(masks)[0])
