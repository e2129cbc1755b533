"""The server over real HTTP, with user code of all shapes, in an environment as pods have it."""

import gzip
import json
import re
import struct
import threading
import zlib

import httpx
import pytest

KITCHEN_SINK = """
import asyncio, datetime, os, sys, threading, time

class Refused(Exception):
    public_error_message = "only numbers, please"

class Deployment:
    def __init__(self, base_directory, context):
        print("hello from init")
        self.base_directory, self.context = base_directory, context
        self.thread = threading.current_thread() is threading.main_thread()

    def request(self, data, context):
        kind = data["do"] if isinstance(data, dict) else data
        if kind == "echo":
            return data
        if kind == "context":
            return {key: value for key, value in context.items() if not callable(value)}
        if kind == "init":
            return {"context": self.context, "base": self.base_directory, "cwd": os.getcwd(), "main": self.thread}
        if kind == "raise":
            return self.deeper()
        if kind == "refuse":
            raise Refused()
        if kind == "exit":
            sys.exit(3)
        if kind == "object":
            return object()
        if kind == "nan":
            return {"x": float("nan"), "at": datetime.date(2026, 1, 2)}
        if kind == "sleep":
            time.sleep(data["seconds"])
            return "slept"
        if kind == "parts":
            for part in data["parts"]:
                context["streaming_update"](part)
            return "whole"
        if kind == "yield":
            return self.generate(data)
        return kind

    def deeper(self):
        raise ValueError("no such thing")

    def generate(self, data):
        for part in data["parts"]:
            if part == "raise":
                raise ValueError("in the middle")
            yield part
"""


@pytest.fixture(scope="module")
def demo(plain, tmp_path_factory):
    from .harness import Server

    package = tmp_path_factory.mktemp("package")
    (package / "deployment.py").write_text(KITCHEN_SINK)
    context = {"input_fields": [{"name": "do", "data_type": "string"}], "environment_variable_names": ["MINE", "GONE"]}
    variables = {"MINE": "1", "PILOTHOUSE_CONTEXT": json.dumps(context), "PILOTHOUSE_MAX_BODY_BYTES": "100000"}
    with Server(plain, package, PILOTHOUSE_PROJECT="team", PILOTHOUSE_REVISION="r1", **variables) as server:
        server.wait_ready()
        yield server


def test_a_structured_request(demo):
    answer = demo.post("/request", {"do": "echo", "n": [1, 2.5, None, "é"]})
    assert answer.status_code == 200
    assert answer.json() == {"result": {"do": "echo", "n": [1, 2.5, None, "é"]}}


def test_plain_requests_are_json_strings_or_text(demo):
    assert demo.request("just text") == "just text"
    answer = demo.client.post("/request", content="more é".encode(), headers={"Content-Type": "text/plain"})
    assert answer.json() == {"result": "more é"}


def test_the_contexts_have_the_keys_of_ubiops(demo):
    started = demo.request({"do": "init"})
    assert started["main"] is True
    assert started["base"] == started["cwd"]
    context = started["context"]
    assert context["environment_variables"] == {"MINE": "1"}
    assert (context["project"], context["deployment"], context["version"]) == ("team", "demo", "v1")
    assert (context["input_type"], context["process_id"]) == ("structured", 0)
    headers = {"X-Request-Id": "abc-1", "X-Pilothouse-User-Id": "u1", "X-Pilothouse-Request-Mode": "batch"}
    answer = demo.post("/request", {"do": "context"}, headers=headers)
    assert answer.json()["result"] == {"id": "abc-1", "request_mode": "batch", "user_id": "u1"}
    assert answer.headers["x-request-id"] == "abc-1"


def test_a_request_id_is_made_where_none_fits(demo):
    fresh = demo.post("/request", "x").headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f-]{36}", fresh)
    assert demo.post("/request", "x", headers={"X-Request-Id": "a b{}"}).headers["x-request-id"] != "a b{}"


def test_a_failing_function_is_500_with_the_users_traceback(demo):
    answer = demo.post("/request", {"do": "raise"})
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert (error["type"], error["message"]) == ("ValueError", "no such thing")
    lines = error["traceback"].splitlines()
    assert "deployment.py" in lines[1]
    assert lines[-1] == "ValueError: no such thing"
    assert "pilothouse_serving" not in error["traceback"]
    assert "ValueError: no such thing" in demo.log


def test_public_error_message_is_what_the_caller_reads(demo):
    assert demo.post("/request", {"do": "refuse"}).json()["error"]["message"] == "only numbers, please"


def test_exit_in_a_request_does_not_end_the_server(demo):
    assert demo.post("/request", {"do": "exit"}).json()["error"]["type"] == "SystemExit"
    assert demo.request("still here") == "still here"


def test_results_without_a_json_form_are_told(demo):
    answer = demo.post("/request", {"do": "object"})
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "ResultNotSerializable"
    assert demo.request({"do": "nan"}) == {"x": None, "at": "2026-01-02"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("POST", "/request", b"{", 400, "InvalidInput"),
        ("POST", "/request", b"", 400, "InvalidInput"),
        ("POST", "/requests", b"{}", 422, "InvalidInput"),
        ("POST", "/request", b'"' + b"x" * 100_001 + b'"', 413, "BodyTooLarge"),
        ("GET", "/request", None, 405, "NotAllowed"),
        ("GET", "/nowhere", None, 404, "NotFound"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_shape(demo, method, path, body, status, kind):
    answer = demo.client.request(method, path, content=body)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"type", "message", "traceback"}
    assert answer.json()["error"]["type"] == kind
    assert answer.json()["error"]["message"]


def test_a_body_without_a_declared_length_is_limited_too(demo):
    answer = demo.client.post("/request", content=(b"x" * 10_000 for _ in range(11)))
    assert answer.status_code == 413


def bare_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", bare_deflate), ("identity", bytes)],
)
def test_a_compressed_body_is_unpacked_up_to_the_limit(demo, encoding, pack):
    def post(body):
        return demo.client.post("/request", content=body, headers={"Content-Encoding": encoding})

    assert post(pack(b'"hello"')).json() == {"result": "hello"}
    bomb = post(pack(b'"' + b"x" * 50_000_000 + b'"'))
    assert (bomb.status_code, bomb.json()["error"]["type"]) == (413, "BodyTooLarge")
    if pack is not bytes:
        for broken in (b'"hello"', pack(b'"hello"')[:-3], b""):
            assert post(broken).status_code == 400, broken
            assert f"not whole {encoding} data" in post(broken).json()["error"]["message"]


def test_another_compression_is_refused(demo):
    answer = demo.client.post("/request", content=b'"x"', headers={"Content-Encoding": "br"})
    assert answer.status_code == 415
    assert "use gzip or deflate" in answer.json()["error"]["message"]


def test_a_batch_answers_each_item_by_itself(demo):
    answer = demo.post("/requests", ["a", {"do": "raise"}, {"do": "echo"}])
    assert answer.status_code == 200
    first, second, third = answer.json()["results"]
    assert first == {"result": "a"}
    assert second["error"]["message"] == "no such thing"
    assert third == {"result": {"do": "echo"}}
    assert demo.post("/requests", []).json() == {"results": []}


def test_streaming_by_callback(demo):
    events = demo.stream({"do": "parts", "parts": ["one", {"n": 2}, "two\nlines"]})
    assert events == [
        ("message", "one"),
        ("message", '{"n":2}'),
        ("message", "two\nlines"),
        ("result", '{"result":"whole"}'),
    ]
    assert demo.request({"do": "parts", "parts": ["one"]}) == "whole"


def test_streaming_by_generator(demo):
    events = demo.stream({"do": "yield", "parts": ["a", "b"]})
    assert events == [("message", "a"), ("message", "b"), ("result", '{"result":"ab"}')]
    assert demo.request({"do": "yield", "parts": ["a", "b"]}) == "ab"
    assert demo.request({"do": "yield", "parts": ["a", 1]}) == ["a", 1]


def test_a_stream_that_fails_says_so_in_its_last_event(demo):
    events = demo.stream({"do": "yield", "parts": ["a", "raise"]})
    assert events[0] == ("message", "a")
    assert events[1][0] == "error"
    assert json.loads(events[1][1])["error"]["message"] == "in the middle"


def test_a_stream_that_fails_before_its_first_part_is_an_ordinary_error(demo):
    answer = demo.post("/request", {"do": "raise"}, headers={"Accept": "text/event-stream"})
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "ValueError"


def test_a_long_stream_arrives_whole(demo):
    parts = [f"part {number}" for number in range(2000)]
    events = demo.stream({"do": "yield", "parts": parts})
    assert [data for event, data in events if event == "message"] == parts


def test_a_client_that_leaves_a_stream_frees_the_worker(demo):
    stream = demo.iter_stream({"do": "yield", "parts": ["x"] * 1_000})
    assert next(stream) == ("message", "x")
    stream.close()
    assert demo.request("next") == "next"


def test_health_answers_while_user_code_is_busy(demo):
    busy = threading.Thread(target=demo.request, args=[{"do": "sleep", "seconds": 1}])
    busy.start()
    with httpx.Client(base_url=demo.url, trust_env=False) as client:
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.get("/v2/health/ready").json() == {"ready": True}
        assert busy.is_alive()
    busy.join()


def test_v2(demo):
    about = demo.client.get("/v2").json()
    assert about == {"name": "pilothouse", "version": "2.0", "extensions": ["binary_tensor_data"]}
    described = demo.client.get("/v2/models/demo").json()
    assert (described["name"], described["versions"], described["platform"]) == ("demo", ["v1"], "python")
    assert demo.client.get("/v2/models/demo/ready").json() == {"name": "demo", "ready": True}
    body = {
        "id": "7",
        "inputs": [
            {"name": "do", "datatype": "BYTES", "shape": [1], "data": ["echo"]},
            {"name": "rows", "datatype": "INT64", "shape": [2, 2], "data": [1, 2, 3, 4]},
        ],
        "outputs": [{"name": "rows"}],
    }
    for path in ("/v2/models/demo/infer", "/v2/models/demo/versions/v1/infer"):
        answer = demo.post(path, body).json()
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("demo", "v1", "7")
        assert answer["outputs"] == [{"name": "rows", "datatype": "INT64", "shape": [2, 2], "data": [1, 2, 3, 4]}]


def test_v2_errors_are_text_as_the_protocol_says(demo):
    missing = demo.post("/v2/models/other/infer", {})
    assert (missing.status_code, missing.json()) == (404, {"error": "There is no model 'other' here; this is 'demo'."})
    assert demo.client.get("/v2/models/demo/versions/v9").status_code == 404
    bad = demo.post("/v2/models/demo/infer", {"inputs": []})
    assert bad.status_code == 400
    assert "'inputs' is missing" in bad.json()["error"]
    inputs = [{"name": "do", "datatype": "BYTES", "shape": [1], "data": ["raise"]}]
    failed = demo.post("/v2/models/demo/infer", {"inputs": inputs})
    assert (failed.status_code, failed.json()) == (500, {"error": "no such thing"})


def test_v2_with_tensors_as_bytes(demo):
    body = {
        "inputs": [
            {"name": "do", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 8}},
            {"name": "rows", "datatype": "FP32", "shape": [2, 1], "parameters": {"binary_data_size": 8}},
        ],
        "outputs": [{"name": "do"}, {"name": "rows", "parameters": {"binary_data": True}}],
    }
    told = json.dumps(body).encode()
    content = struct.pack("<I4s2f", 4, b"echo", 1.5, -2)
    headers = {"Inference-Header-Content-Length": str(len(told)), "Content-Type": "application/octet-stream"}
    answer = demo.client.post("/v2/models/demo/infer", content=told + content, headers=headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    assert json.loads(answer.content[:length])["outputs"] == [
        {"name": "do", "datatype": "BYTES", "shape": [1], "data": ["echo"]},
        {"name": "rows", "datatype": "FP64", "shape": [2, 1], "parameters": {"binary_data_size": 16}},
    ]
    assert struct.unpack("<2d", answer.content[length:]) == (1.5, -2)

    packed = demo.client.post(
        "/v2/models/demo/infer", content=gzip.compress(told + content), headers={**headers, "Content-Encoding": "gzip"}
    )
    assert packed.status_code == 200
    assert struct.unpack("<2d", packed.content[-16:]) == (1.5, -2)
    short = demo.client.post("/v2/models/demo/infer", content=told + content[:-1], headers=headers)
    assert short.status_code == 400
    assert "Input 'rows': binary_data_size is 8; 7 bytes are left" in short.json()["error"]
    assert demo.post("/v2/models/demo/infer", {**body, "inputs": [], "outputs": 5}).status_code == 400


def test_v1(demo):
    assert demo.client.get("/").json() == {"status": "alive"}
    assert demo.client.get("/v1/models").json() == {"models": ["demo"]}
    assert demo.client.get("/v1/models/demo").json() == {"name": "demo", "ready": True}
    assert demo.post("/v1/models/demo:predict", {"instances": ["a", "b"]}).json() == {"predictions": ["a", "b"]}
    assert "'instances' is missing" in demo.post("/v1/models/demo:predict", {}).json()["error"]


def test_metrics_count_requests_errors_and_seconds(demo):
    def value(line: str) -> float:
        found = re.search(rf"^{re.escape(line)} (\S+)$", demo.client.get("/metrics").text, re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    ok, failed = 'pilothouse_requests_total{handler="request",code="200"}', "pilothouse_request_errors_total"
    before = value(ok), value(failed + '{handler="request"}')
    demo.request("x")
    demo.post("/request", {"do": "raise"})
    assert (value(ok), value(failed + '{handler="request"}')) == (before[0] + 1, before[1] + 1)
    count = 'pilothouse_request_duration_seconds_count{handler="request"}'
    assert value(count) == value('pilothouse_request_duration_seconds_bucket{handler="request",le="+Inf"}') > 0
    assert value("pilothouse_init_seconds") > 0
    assert value("pilothouse_processes_ready") == 1
    assert value("pilothouse_requests_in_flight") == 0
    assert 'deployment="demo",instance="",project="team",revision="r1",version="v1"' in demo.client.get("/metrics").text


def test_the_start_of_the_process_and_of_loading_are_told_apart(serve, plain):
    slow = "import time\ntime.sleep(0.3)\nclass Deployment:\n    def __init__(self): time.sleep(0.2)\n"
    server = serve(plain, slow + "    def request(self, data): return data\n")
    text = server.client.get("/metrics").text
    found = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if re.match(r"\w+_seconds ", line)}
    began, loading = found["process_start_time_seconds"], found["pilothouse_load_start_time_seconds"]
    assert loading >= began + 0.3
    assert found["pilothouse_init_seconds"] >= 0.5
    # Series that a rate is taken of begin at zero.
    assert 'pilothouse_request_duration_seconds_count{handler="v2"} 0' in text
    assert 'pilothouse_requests_total{handler="request",code="200"} 0' in text


def test_the_log_has_a_line_per_request_and_what_was_printed(demo):
    demo.post("/request", {"do": "echo", "secret": "hunter2"}, headers={"X-Request-Id": "log-1"})
    demo.wait_for(lambda: any(line["request_id"] == "log-1" for line in demo.events("request")))
    line = next(line for line in demo.events("request") if line["request_id"] == "log-1")
    assert (line["method"], line["path"], line["status"], line["level"]) == ("POST", "/request", 200, "info")
    assert line["duration_ms"] > 0
    assert "hello from init\n" in demo.log
    assert "hunter2" not in demo.log
    assert not [line for line in demo.events("request") if "health" in line["path"]]
