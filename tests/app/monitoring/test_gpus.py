"""What an exporter of GPU numbers says, whatever version of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.metrics.gpus import MIB, GpuUsage, parse

WHOLE = """# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a",device="nvidia0",Hostname="n",container="serving",namespace="p",pod="a"} 90
DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-b",device="nvidia1",Hostname="n",container="serving",namespace="p",pod="a"} 10
DCGM_FI_DEV_GPU_UTIL{gpu="2",UUID="GPU-c",device="nvidia2",Hostname="n",container="serving",namespace="q",pod="a"} 0
DCGM_FI_DEV_GPU_UTIL{gpu="3",UUID="GPU-d",device="nvidia3",Hostname="n"} 50
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-a",device="nvidia0",Hostname="n",container="serving",namespace="p",pod="a"} 100
DCGM_FI_DEV_FB_USED{gpu="1",UUID="GPU-b",device="nvidia1",Hostname="n",container="serving",namespace="p",pod="a"} 28
DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu="0",UUID="GPU-a",device="nvidia0",namespace="p",pod="a"} 0.7
"""

SLICES = """
DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu="0",UUID="GPU-a",GPU_I_PROFILE="1g.10gb",GPU_I_ID="7",namespace="p",pod="a"} 0.25
DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu="0",UUID="GPU-a",GPU_I_PROFILE="1g.10gb",GPU_I_ID="8",namespace="p",pod="b"} 0.75
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a",GPU_I_PROFILE="1g.10gb",GPU_I_ID="7",namespace="p",pod="a"} 0
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-a",GPU_I_PROFILE="1g.10gb",GPU_I_ID="7",namespace="p",pod="a"} 5
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-a",GPU_I_PROFILE="1g.10gb",GPU_I_ID="8",namespace="p",pod="b"} 6
"""


def test_devices_are_told_by_the_pod_that_holds_them() -> None:
    found = parse(WHOLE)
    assert found == {("p", "a"): GpuUsage(2, pytest.approx(1.0), 128 * MIB), ("q", "a"): GpuUsage(1, 0.0, 0.0)}
    assert (found["p", "a"].idle, found["q", "a"].idle) == (False, True)


def test_of_slices_the_share_of_active_engines_counts() -> None:
    assert parse(SLICES) == {("p", "a"): GpuUsage(1, 0.25, 5 * MIB), ("p", "b"): GpuUsage(1, 0.75, 6 * MIB)}


@pytest.mark.parametrize(
    "labels",
    ['pod_name="a",pod_namespace="p"', 'exported_pod="a",exported_namespace="p",pod="exporter",namespace="gpu"'],
)
def test_other_names_of_the_labels_are_known(labels: str) -> None:
    assert parse(f'DCGM_FI_DEV_GPU_UTIL{{UUID="GPU-a",{labels}}} 40') == {("p", "a"): GpuUsage(1, 0.4, 0.0)}


@pytest.mark.parametrize("value", ["-1", "1e9", "250"])
def test_a_share_is_one(value: str) -> None:
    (found,) = parse(f'DCGM_FI_DEV_GPU_UTIL{{UUID="x",namespace="p",pod="a"}} {value}').values()
    assert 0 <= found.busy <= 1


@given(st.text())
def test_no_text_is_too_strange(text: str) -> None:
    parse(text)
    parse("DCGM_FI_DEV_GPU_UTIL{" + text + "} 1")
