"""R packages: a real R beside the server."""

import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving import environment

from .harness import Server, build

CODE = """
init <- function(base_directory, context) {
  print(paste("hello from", context$deployment, "in", basename(base_directory)))
  cars_model <<- lm(dist ~ speed, data = cars)
}

request <- function(input_data, base_directory, context) {
  switch(input_data$do,
    echo = input_data$value,
    lm = list(distance = predict(cars_model, data.frame(speed = input_data$speed))),
    context = list(id = context$id, mode = context$request_mode, wd = identical(getwd(), base_directory)),
    frame = data.frame(a = 1:2, b = c("x", NA)),
    matrix = matrix(1:6, 2),
    number = list(
      third = 1 / 3, big = 2^53 - 1, na = NA_real_, inf = Inf, one = I(1), none = list(), date = as.Date("2026-01-02")
    ),
    stop = deeper(),
    exit = quit(status = 3),
    stream = {
      for (part in input_data$parts) context$streaming_update(part)
      "whole"
    },
    fun = identity
  )
}

deeper <- function() stop("no such thing")
"""


@pytest.fixture(scope="module")
def demo(plain, rscript, tmp_path_factory):
    package = tmp_path_factory.mktemp("package")
    (package / "deployment.R").write_text(CODE)
    with Server(plain, package) as server:
        server.wait_ready()
        yield server


def echo(server: Server, value: object) -> object:
    return server.request({"do": "echo", "value": value})


@pytest.mark.parametrize(
    "value",
    [
        1,
        -2.5,
        1e300,
        1 / 3,
        123456789012345,
        True,
        "text",
        "",
        'quotes " and \\ and / and \n\t\r\x01 and é and 🙂',
        "system('id'); quit()",
        [1, 2, 3],
        [0.1, 0.2],
        ["a", "b"],
        [True, False],
        [1, "a", None, [2, 3]],
        [[1, 2], [3, 4]],
        [],
        {"a": {"b": [1, {"c": "d"}]}, "with space": 1, "`": "back\\tick"},
    ],
    ids=repr,
)
def test_json_goes_through_r_unchanged(demo, value):
    assert echo(demo, value) == value


def test_results_of_rs_own_kinds(demo):
    assert demo.request({"do": "lm", "speed": 21})["distance"] == pytest.approx(65.0014890510949, abs=1e-12)
    assert demo.request({"do": "lm", "speed": [4, 5]})["distance"] == pytest.approx([-1.84945985, 2.08294891])
    assert demo.request({"do": "frame"}) == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
    assert demo.request({"do": "matrix"}) == [[1, 3, 5], [2, 4, 6]]
    numbers = demo.request({"do": "number"})
    assert numbers == {
        "third": 1 / 3,
        "big": 2**53 - 1,
        "na": None,
        "inf": None,
        "one": [1],
        "none": [],
        "date": "2026-01-02",
    }


def test_contexts(demo):
    answer = demo.post("/request", {"do": "context"}, headers={"X-Request-Id": "r-1"})
    assert answer.json()["result"] == {"id": "r-1", "mode": "express", "wd": True}
    assert "hello from demo in package" in demo.log


def test_an_r_error_is_told_with_its_calls(demo):
    answer = demo.post("/request", {"do": "stop"})
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert (error["type"], error["message"]) == ("RError", "no such thing")
    assert "deeper()" in error["traceback"]
    assert "tryCatch" not in error["traceback"]
    assert demo.post("/request", {"do": "fun"}).json()["error"]["message"].startswith("A result of class 'function'")


def test_input_that_r_cannot_hold_is_refused(demo):
    answer = demo.post("/request", {"do": "echo", "value": "nul \0"})
    assert answer.status_code == 422
    assert echo(demo, "fine") == "fine"


def test_streaming(demo):
    events = demo.stream({"do": "stream", "parts": ["a", "b"]})
    assert events == [("message", "a"), ("message", "b"), ("result", '{"result":"whole"}')]


def test_batch_v1_and_v2(demo):
    batch = demo.post("/requests", [{"do": "echo", "value": 1}, {"do": "stop"}]).json()["results"]
    assert batch[0] == {"result": 1}
    assert batch[1]["error"]["message"] == "no such thing"
    instances = [{"do": "echo", "value": "x"}]
    assert demo.post("/v1/models/demo:predict", {"instances": instances}).json() == {"predictions": ["x"]}
    inputs = [
        {"name": "do", "datatype": "BYTES", "shape": [1], "data": ["echo"]},
        {"name": "value", "datatype": "FP64", "shape": [2], "data": [1.5, 2.5]},
    ]
    [output] = demo.post("/v2/models/demo/infer", {"inputs": inputs}).json()["outputs"]
    assert output == {"name": "result", "datatype": "FP64", "shape": [2], "data": [1.5, 2.5]}


def test_r_that_dies_is_started_again(demo):
    answer = demo.post("/request", {"do": "exit"})
    assert answer.status_code == 500
    assert "exit status 3" in answer.json()["error"]["message"]
    assert echo(demo, 1) == 1
    [event] = demo.events("R process ended")
    assert event["how"] == "exit status 3"
    assert demo.status("/v2/health/ready") == 200


def test_requests_gets_the_whole_batch(serve, plain, rscript):
    code = "requests <- function(input_data, context) lapply(input_data, function(item) item$n * length(input_data))\n"
    server = serve(plain, {"deployment.R": code})
    assert server.post("/requests", [{"n": 1}, {"n": 2}]).json() == {"results": [{"result": 2}, {"result": 4}]}
    assert server.request({"n": 5}) == 5


@pytest.mark.parametrize(
    ("code", "last_line"),
    [
        ("stop('bad start')\n", "deployment.R failed: bad start"),
        ("library(nonexistent)\n", "deployment.R failed: there is no package called"),
        ("x <- 1\n", "deployment.R failed: deployment.R has no function named 'request'."),
        ("init <- function() stop('no model')\nrequest <- function(x) x\n", "deployment.R failed: no model"),
        ("quit(status = 4)\n", "R ended while loading deployment.R (exit status 4)."),
    ],
)
def test_code_that_cannot_be_loaded_ends_the_server_with_the_reason_last(serve, plain, rscript, code, last_line):
    server = serve(plain, {"deployment.R": code}, ready=False)
    assert server.wait_exit() == 1
    assert server.log.splitlines()[-1].startswith(last_line)


def test_r_finishes_its_request_when_the_whole_process_group_is_told_to_stop(serve, plain, rscript):

    code = "request <- function(input_data) { Sys.sleep(input_data$seconds); 'slept' }\n"
    server = serve(plain, {"deployment.R": code})
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.request, {"seconds": 1})
        server.wait_for(lambda: "pilothouse_requests_in_flight 1" in server.client.get("/metrics").text)
        os.killpg(server.process.pid, signal.SIGTERM)
        assert running.result() == "slept"
    assert server.wait_exit() == 0


@pytest.fixture(scope="module")
def cran(tmp_path_factory, rscript) -> str:
    """A CRAN of our own with one package of two versions, the older in the archive, as on the real one."""
    root = tmp_path_factory.mktemp("cran")
    contrib = root / "src" / "contrib"
    archive = contrib / "Archive" / "tinypackage"
    archive.mkdir(parents=True)
    for version, folder in (("1.0", archive), ("2.0", contrib)):
        source = root / version / "tinypackage"
        source.mkdir(parents=True)
        fields = {
            "Package": "tinypackage",
            "Version": version,
            "Title": "Tiny",
            "Description": "Tiny.",
            "License": "GPL-3",
        }
        (source / "DESCRIPTION").write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
        (source / "NAMESPACE").write_text("export(version)\n")
        (source / "R").mkdir()
        (source / "R" / "version.R").write_text(f"version <- function() '{version}'\n")
        subprocess.run(["R", "CMD", "build", "--no-manual", source], cwd=folder, check=True, capture_output=True)
    write = f"tools::write_PACKAGES({str(contrib)!r}, type = 'source')"
    subprocess.run([rscript, "--vanilla", "-e", write], check=True, capture_output=True)
    return f"file://{root}"


@pytest.mark.parametrize(("version", "kind"), [("1.0", "renv.lock"), ("2.0", "renv.lock"), ("2.0", "script")])
def test_r_packages_are_installed_for_the_environment(tmp_path, serve, cran, version, kind):
    lock = {
        "R": {"Version": "4.2.0", "Repositories": [{"Name": "CRAN", "URL": cran}]},
        "Packages": {"tinypackage": {"Package": "tinypackage", "Version": version, "Source": "Repository"}},
    }
    script = f"install.packages('tinypackage', repos = '{cran}')\n"
    files = environment.build_files("r4.2", json.dumps(lock) if kind == "renv.lock" else script)
    result = build(tmp_path / "envs", "r", files)
    assert result.returncode == 0, result.stdout
    server = serve(tmp_path / "envs" / "r", {"deployment.R": "request <- function(x) tinypackage::version()\n"})
    assert server.request({}) == version


def test_r_packages_that_do_not_exist_fail_the_build_by_name(tmp_path, cran):
    lock = {
        "R": {"Repositories": [{"Name": "CRAN", "URL": cran}]},
        "Packages": {"tinypackage": {"Package": "tinypackage", "Version": "9.9", "Source": "Repository"}},
    }
    result = build(tmp_path, "r", environment.build_files("r4.2", json.dumps(lock)))
    assert result.returncode == 1
    assert "tinypackage 9.9" in result.stdout.splitlines()[-1]
    assert not (tmp_path / "r").exists()
