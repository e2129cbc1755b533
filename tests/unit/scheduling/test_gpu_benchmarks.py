"""The packing benchmark reads other traces of the same form and ends with one JSON object."""

import gzip
import json

import pytest

from benchmarks import gpu_packing
from benchmarks.gpu_trace import arrivals, read_nodes, read_tasks, replay
from deployments.scheduling.baselines import BestFit
from deployments.scheduling.shapes import Shape

NODES = """sn,cpu_milli,memory_mib,gpu,model
n1,64000,262144,4,A
n2,64000,262144,2,B
n3,32000,131072,0,
"""
TASKS = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec
t1,4000,8192,1,1000,
t2,2000,4096,1,500,A|B
t3,8000,8192,0,1000,
t4,8000,8192,2,1000,B
t5,2000,4096,1,500,
"""


@pytest.fixture
def trace(tmp_path):
    (tmp_path / "nodes.csv").write_text(NODES)
    (tmp_path / "tasks.csv").write_text(TASKS)
    return tmp_path


def test_columns_are_read_with_cpu_only_tasks_taking_no_gpu(trace):
    tasks = read_tasks(trace / "tasks.csv")
    assert tasks[1] == Shape(2000, 4096, 1, 500, frozenset({"A", "B"}))
    assert tasks[2] == Shape(8000, 8192)
    assert [node.gpus for node in read_nodes(trace / "nodes.csv")] == [4, 2, 0]


def test_the_last_columns_may_be_missing(trace):
    short = "\n".join(line.rsplit(",", 1)[0] for line in TASKS.splitlines())
    (trace / "tasks.csv").write_text(short)
    assert all(not task.models for task in read_tasks(trace / "tasks.csv"))


def test_traces_without_memory_are_placed_by_cpu_and_gpu(trace):
    lines = [line.split(",") for line in TASKS.splitlines()]
    (trace / "tasks.csv").write_text("\n".join(",".join(line[:2] + line[3:]) for line in lines))
    tasks = read_tasks(trace / "tasks.csv")
    assert {task.memory_mib for task in tasks} == {0}
    assert replay(read_nodes(trace / "nodes.csv"), tasks, BestFit, seed=1).allocated[-1] > 50


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,cpu_milli\nx,1\n", "'num_gpu' is missing"),
        (TASKS.splitlines()[0], "no rows"),
        ("", "is empty"),
        ("\r\n\r\n", "is empty"),
        (TASKS.replace("t3,8000", "t3,many"), "tasks.csv, line 4, column cpu_milli: 'many' is not a number"),
        (TASKS.replace("t3,8000", "t3,-1"), "line 4, column cpu_milli: '-1' is not allowed"),
        (TASKS.replace("t3,8000", "t3,0.5"), "line 4, column cpu_milli: '0.5' is not allowed"),
        (TASKS.replace("t3,8000", "t3,inf"), "line 4, column cpu_milli: 'inf' is not allowed"),
        (TASKS.replace("t3,8000", "t3,"), "line 4, column cpu_milli: '' is not a number"),
        (TASKS.replace("1,500,A|B", "1,5000,A|B"), "line 3, column gpu_milli: '5000' is above 1000"),
        (TASKS.replace("1,500,A|B", "1,500,A,B"), "line 3: has 7 cells for 6 columns"),
        (TASKS.replace("memory_mib", "cpu_milli"), "'cpu_milli' is there twice"),
    ],
)
def test_unusable_files_are_refused_with_the_reason(trace, text, says):
    (trace / "tasks.csv").write_text(text, newline="")
    with pytest.raises(SystemExit) as refused:
        read_tasks(trace / "tasks.csv")
    assert says in str(refused.value)


def test_files_that_cannot_be_read_are_named(trace):
    for name, data, says in (
        ("absent.csv", None, "No such file"),
        ("latin.csv", b"sn,cpu_milli,gpu\n\xe9,1,1\n", "byte 17 is not UTF-8"),
        ("cut.csv.gz", gzip.compress(NODES.encode())[:-9], "end"),
    ):
        if data is not None:
            (trace / name).write_bytes(data)
        with pytest.raises(SystemExit) as refused:
            read_nodes(trace / name)
        assert name in str(refused.value)
        assert says in str(refused.value)


def test_a_node_named_twice_is_refused_with_both_lines(trace):
    (trace / "nodes.csv").write_text(NODES.replace("n2", "n1"))
    with pytest.raises(SystemExit, match="line 3, column sn: 'n1' is that of line 2 too"):
        read_nodes(trace / "nodes.csv")


def test_forms_of_the_same_file_read_the_same(trace):
    """Line ends, byte order marks, gzip, blank lines, more columns, other orders of columns."""
    expected = read_tasks(trace / "tasks.csv")
    header, *lines = TASKS.splitlines()
    turned = "\n".join(",".join(reversed(line.split(","))) for line in (header, *lines))
    more = "\n".join(f"{line},{'owner' if line == header else 'x'}" for line in (header, *lines))
    spaced = TASKS.replace(",", " , ")
    whole = TASKS.replace("t1,4000", "t1,4000.0")
    listed = TASKS.replace("A|B", "\"['A', 'B']\"")
    for data in (
        TASKS.replace("\n", "\r\n").encode(),
        TASKS.encode("utf-8-sig"),
        gzip.compress(TASKS.encode()),
        TASKS.replace("\n", "\n\n").encode(),
        *(text.encode() for text in (turned, more, spaced, whole, listed)),
    ):
        (trace / "tasks.csv").write_bytes(data)
        assert read_tasks(trace / "tasks.csv") == expected


def test_gpus_without_a_share_are_whole(trace):
    (trace / "tasks.csv").write_text("name,cpu_milli,num_gpu,gpu_milli\na,1,2,\nb,1,,\n")
    assert read_tasks(trace / "tasks.csv") == [Shape(1, 0, 2, 1000), Shape(1, 0)]


def test_arrivals_are_all_tasks_shuffled_and_then_draws(trace):
    tasks = read_tasks(trace / "tasks.csv")
    sequence = arrivals(tasks, 6000, 1.3, seed=1)
    assert sorted(map(repr, sequence[: len(tasks)])) == sorted(map(repr, tasks))
    assert sum(t.demand_milli for t in sequence) >= 7800 > sum(t.demand_milli for t in sequence[:-1])
    assert sequence == arrivals(tasks, 6000, 1.3, seed=1)
    assert sequence != arrivals(tasks, 6000, 1.3, seed=2)


def test_allocation_never_exceeds_demand_or_capacity(trace):
    curve = replay(read_nodes(trace / "nodes.csv"), read_tasks(trace / "tasks.csv"), BestFit, seed=3)
    assert (curve.allocated <= curve.demand + 1e-9).all()
    assert curve.allocated.max() <= 100
    assert curve.at(100) <= curve.at(130)


def test_every_policy_runs_and_the_last_line_is_json(trace, capsys):
    arguments = ["--nodes", str(trace / "nodes.csv"), "--tasks", str(trace / "tasks.csv"), "--seeds", "1-2"]
    assert gpu_packing.main([*arguments, "--plot", str(trace / "plot.svg")]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(result) == ["pilothouse", "fgd", "bestfit", "dotprod", "packing", "random"]
    assert all(set(row) == {"95", "100", "130", "std", "decisions_per_s"} for row in result.values())
    assert all(0 < row["95"] <= row["100"] <= row["130"] <= 100 for row in result.values())
    assert (trace / "plot.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(("option", "value"), [("--policies", "magic"), ("--seeds", "5-1"), ("--copies", "0")])
def test_unknown_options_are_named(trace, capsys, option, value):
    with pytest.raises(SystemExit):
        gpu_packing.main(["--nodes", str(trace / "nodes.csv"), "--tasks", str(trace / "tasks.csv"), option, value])
    assert option in capsys.readouterr().err
