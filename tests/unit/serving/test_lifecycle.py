"""From start to end of a server: failing to load, being ready, draining, several processes."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from .packages import DEPLOYMENT


@pytest.mark.parametrize(
    ("code", "last_line"),
    [
        ("import nonexistent_module\n", "deployment.py failed at import: ModuleNotFoundError: No module named"),
        ("class Deployment(:\n", "deployment.py cannot be read: SyntaxError"),
        ("x = 1\n", "deployment.py has no class named 'Deployment'."),
        ("class Deployment: ...\n", "The class 'Deployment' has neither a method 'request' nor 'requests'."),
        (
            "class Deployment:\n    def __init__(self):\n        raise OSError('no weights')\n",
            "Deployment.__init__ failed: OSError: no weights",
        ),
        ("import sys; sys.exit(0)\n", "deployment.py failed at import: SystemExit: 0"),
    ],
)
def test_code_that_cannot_be_loaded_ends_the_server_with_the_reason_last(serve, plain, code, last_line):
    server = serve(plain, code, ready=False)
    assert server.wait_exit() == 1
    assert server.log.splitlines()[-1].startswith(last_line)
    if "import nonexistent" in code:
        # Short enough for a termination message, which keeps the log's last 2048 bytes.
        assert "Traceback (most recent call last)" in server.log[-2048:]
        assert "pilothouse_serving" not in server.log


def test_a_package_without_entry_point_is_told(serve, plain):
    server = serve(plain, {"readme.txt": ""}, ready=False)
    assert server.wait_exit() == 1
    assert server.log.splitlines()[-1] == "The package has no deployment.py."


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PILOTHOUSE_PORT": "ninety"}, "PILOTHOUSE_PORT is 'ninety'"),
        ({"PILOTHOUSE_PROCESSES": "0"}, "PILOTHOUSE_PROCESSES is '0'"),
        ({"PILOTHOUSE_CONTEXT": "["}, "PILOTHOUSE_CONTEXT is not JSON"),
        ({"PILOTHOUSE_PACKAGE_DIR": ""}, "PILOTHOUSE_PACKAGE_DIR is not set"),
        ({"POD_IP": "192.0.2.1"}, "192.0.2.1 port"),
        ({"PILOTHOUSE_MODEL_FRAMEWORK": "fortran"}, "PILOTHOUSE_MODEL_FRAMEWORK is 'fortran'"),
    ],
)
def test_settings_that_cannot_be_used_are_named(serve, plain, variables, said):
    server = serve(plain, DEPLOYMENT, ready=False, **variables)
    assert server.wait_exit() == 1
    assert said in server.log


def test_not_ready_until_loaded_then_ready(serve, plain, tmp_path):
    gate = tmp_path / "gate"
    code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\n" + DEPLOYMENT
    server = serve(plain, code, ready=False)
    server.wait_for(lambda: server.status("/v2/health/live") == 200)
    assert server.status("/v2/health/ready") == 503
    assert server.post("/request", {}).status_code == 503
    assert server.client.get("/v2/models/demo").json() == {
        "error": "The model is still being loaded; try again when it is ready."
    }
    gate.touch()
    server.wait_ready()
    assert server.request({"a": 1}) == {"a": 1}


def test_told_to_stop_while_loading_it_stops_at_once(serve, plain):
    server = serve(plain, "import time\ntime.sleep(3600)\n", ready=False)
    server.wait_for(lambda: server.status("/v2/health/live") == 200)
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_exit() == 0


def test_draining_turns_readiness_off_and_finishes_what_runs(serve, plain):
    code = (
        "import time\nclass Deployment:\n    def request(self, data):\n        time.sleep(data)\n        return data\n"
    )
    server = serve(plain, code, PILOTHOUSE_DRAIN_SECONDS="2")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(httpx.post, server.url + "/request", json=1.0, timeout=30, trust_env=False)
        server.wait_for(lambda: "pilothouse_requests_in_flight 1" in server.client.get("/metrics").text)
        server.process.send_signal(signal.SIGTERM)
        # User code sleeps in the main thread: the signal must not wait for it.
        server.wait_for(lambda: server.status("/v2/health/ready") == 503)
        assert server.status("/v2/health/live") == 200
        late = server.post("/request", 0)
        assert late.status_code == 200
        assert late.headers["connection"] == "close"
        assert running.result().json() == {"result": 1.0}
    assert server.wait_exit() == 0


def test_rolling_over_under_load_fails_no_request(serve, plain):
    """Two servers take turns as two revisions do: new requests go to whichever says that it is ready."""
    code = (
        "import time\nclass Deployment:\n    def request(self, data):\n        time.sleep(0.005)\n        return data\n"
    )
    servers = [serve(plain, code, PILOTHOUSE_DRAIN_SECONDS="1") for _ in range(2)]
    targets = [server.url for server in servers]
    current = [targets[0]]
    stop = threading.Event()
    failures: list[str] = []
    answered = [0]

    def load() -> None:
        with httpx.Client(timeout=30, trust_env=False) as client:
            while not stop.is_set():
                try:
                    answer = client.post(current[0] + "/request", json=1)
                    if answer.status_code != 200:
                        failures.append(answer.text)
                except httpx.TransportError as error:
                    failures.append(repr(error))
                answered[0] += 1

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    servers[1].wait_for(lambda: answered[0] > 50)
    servers[0].process.send_signal(signal.SIGTERM)
    # An endpoint is taken out some time after the pod is told to stop, not before.
    before = answered[0]
    servers[1].wait_for(lambda: answered[0] > before + 50)
    current[0] = targets[1]
    assert servers[0].wait_exit() == 0
    before = answered[0]
    servers[1].wait_for(lambda: answered[0] > before + 50)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


ASYNCHRONOUS = """
import asyncio
class Deployment:
    def __init__(self):
        self.waiting, self.most = 0, 0
    async def request(self, data, context):
        if data == "most":
            return self.most
        if data == "fail":
            raise ValueError("async")
        if data == "parts":
            for number in range(3):
                context["streaming_update"](str(number))
                await asyncio.sleep(0)
            return "done"
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        while self.most < 5:
            await asyncio.sleep(0.001)
        self.waiting -= 1
        return data
"""


def test_coroutines_of_user_code_run_side_by_side(serve, plain):
    server = serve(plain, ASYNCHRONOUS)
    with ThreadPoolExecutor(5) as pool:
        assert sorted(pool.map(server.request, range(5))) == [0, 1, 2, 3, 4]
    assert server.request("most") == 5
    assert server.post("/request", "fail").json()["error"]["message"] == "async"
    parts = [("message", "0"), ("message", "1"), ("message", "2")]
    assert server.stream("parts") == [*parts, ("result", '{"result":"done"}')]
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_exit() == 0


def test_asynchronous_generators_stream(serve, plain):
    code = "class Deployment:\n    async def request(self, data):\n        for part in data:\n            yield part\n"
    server = serve(plain, code)
    assert server.stream(["a", "b"]) == [("message", "a"), ("message", "b"), ("result", '{"result":"ab"}')]
    assert server.request(["a", 1]) == ["a", 1]


def test_requests_takes_the_whole_batch_and_serves_single_requests_too(serve, plain):
    code = "class Deployment:\n    def requests(self, data, context):\n        return [[x, len(data)] for x in data]\n"
    server = serve(plain, code)
    assert server.post("/requests", [1, 2, 3]).json() == {"results": [{"result": [n, 3]} for n in (1, 2, 3)]}
    assert server.request("one") == ["one", 1]
    short = serve(plain, "class Deployment:\n    def requests(self, data):\n        return data[1:]\n")
    answer = short.post("/requests", [1, 2])
    assert answer.status_code == 500
    assert "1 results for 2 inputs" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("init", "request_method"),
    [
        ("self", "self, data"),
        ("self, base_directory", "self, data, context"),
        ("self, context", "self, data, request_context"),
        ("self, **kwargs", "self, data, *, context"),
        ("self, base_directory, context", "self, data, context=None"),
    ],
)
def test_methods_take_the_arguments_they_name(serve, plain, init, request_method):
    code = f"class Deployment:\n    def __init__({init}): pass\n    def request({request_method}): return data\n"
    assert serve(plain, code).request(1) == 1


def test_the_package_and_its_libraries_folder_can_be_imported(serve, plain, tmp_path):
    package = tmp_path / "p"
    (package / "libraries").mkdir(parents=True)
    (package / "libraries" / "lib.py").write_text("N = 1\n")
    (package / "beside.py").write_text("M = 2\n")
    (package / "deployment.py").write_text("import beside, lib\n" + DEPLOYMENT.replace("data\n", "[lib.N, beside.M]\n"))
    assert serve(plain, package).request({}) == [1, 2]


def test_too_many_waiting_requests_are_turned_away(serve, plain, tmp_path):
    gate = tmp_path / "gate"
    code = (
        f"import os, time\nclass Deployment:\n    def request(self, data):\n"
        f"        while not os.path.exists({str(gate)!r}): time.sleep(0.01)\n        return 1\n"
    )
    server = serve(plain, code, PILOTHOUSE_MAX_QUEUE="2")
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(server.request, {}) for _ in range(2)]
        server.wait_for(lambda: "pilothouse_requests_in_flight 2" in server.client.get("/metrics").text)
        turned_away = server.post("/request", {})
        gate.touch()
        assert [future.result() for future in waiting] == [1, 1]
    assert turned_away.status_code == 503
    assert turned_away.headers["retry-after"] == "1"
    assert turned_away.json()["error"]["type"] == "Overloaded"


PROCESS = """
import os, time
class Deployment:
    def __init__(self, context):
        self.number = context["process_id"]
    def request(self, data):
        if data == "die":
            os._exit(7)
        time.sleep(0.02)
        return [self.number, os.getpid()]
"""


def test_several_processes_share_the_port_and_their_numbers(serve, plain):
    server = serve(plain, PROCESS, PILOTHOUSE_PROCESSES="2")

    def ask(_: int) -> tuple[int, int]:
        return tuple(httpx.post(server.url + "/request", json=1, timeout=30, trust_env=False).json()["result"])

    with ThreadPoolExecutor(8) as pool:
        seen = set(pool.map(ask, range(60)))
    assert {number for number, _ in seen} == {0, 1}
    metrics = server.client.get("/metrics").text
    assert 'pilothouse_requests_total{handler="request",code="200"} 60' in metrics
    assert "pilothouse_processes_ready 2" in metrics

    with pytest.raises(httpx.TransportError):
        httpx.post(server.url + "/request", json="die", trust_env=False)
    server.wait_for(lambda: server.events("process ended"))
    # The other one serves on: the instance stays ready, and no request meets the one that still loads.
    for _ in range(5):
        assert server.status("/v2/health/ready") == 200
        ask(0)
    server.wait_for(lambda: len(server.events("ready")) == 3)
    with ThreadPoolExecutor(8) as pool:
        again = set(pool.map(ask, range(60)))
    assert {number for number, _ in again} == {0, 1}
    assert len({pid for _, pid in seen | again}) == 3

    server.process.send_signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    for _, pid in seen | again:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_one_process_that_cannot_load_ends_them_all(serve, plain):
    code = (
        "class Deployment:\n    def __init__(self, context):\n        if context['process_id'] == 1:\n"
        "            raise ValueError('second')\n    def request(self, data): return 1\n"
    )
    server = serve(plain, code, ready=False, PILOTHOUSE_PROCESSES="2")
    assert server.wait_exit() == 1
    assert "Deployment.__init__ failed: ValueError: second" in server.log


def test_more_threads_serve_side_by_side(serve, plain):
    code = (
        "import threading\nbarrier = threading.Barrier(3)\nclass Deployment:\n"
        "    def request(self, data):\n        barrier.wait(20)\n        return data\n"
    )
    server = serve(plain, code, PILOTHOUSE_THREADS="3")
    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(server.request, range(3))) == [0, 1, 2]


def test_user_code_may_use_signals_and_stay_stoppable(serve, plain):
    code = "import signal\nsignal.signal(signal.SIGUSR1, lambda *a: None)\n" + DEPLOYMENT
    server = serve(plain, code)
    server.process.send_signal(signal.SIGUSR1)
    assert server.request(1) == 1
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_exit() == 0


def test_a_request_whose_client_left_is_not_made(serve, plain, tmp_path):
    marker = tmp_path / "made"
    code = (
        f"import time\nclass Deployment:\n    def request(self, data):\n        time.sleep(data['sleep'])\n"
        f"        open({str(marker)!r}, 'a').write(data['name'])\n        return 1\n"
    )
    server = serve(plain, code)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.request, {"sleep": 2, "name": "first "})
        server.wait_for(lambda: "pilothouse_requests_in_flight 1" in server.client.get("/metrics").text)
        impatient = httpx.Client(base_url=server.url, timeout=0.2, trust_env=False)
        for more in ({}, {"headers": {"Accept": "text/event-stream"}}):
            with pytest.raises(httpx.ReadTimeout):
                impatient.post("/request", json={"sleep": 0, "name": "left "}, **more)
        impatient.close()
        server.wait_for(lambda: [line["status"] for line in server.events("request")].count(499) == 2)
        assert first.result() == 1
    assert server.request({"sleep": 0, "name": "last"}) == 1
    assert marker.read_text() == "first last"


def test_a_file_of_the_package_does_not_take_the_place_of_an_installed_module(serve, plain):
    files = {"uvicorn.py": "raise ValueError('shadow')\n", "json.py": "raise ValueError('shadow')\n"}
    server = serve(plain, {**files, "deployment.py": "import json\n" + DEPLOYMENT})
    assert server.request([1]) == [1]


def test_told_to_stop_while_several_processes_start_it_stops(serve, plain):
    server = serve(plain, "import time\ntime.sleep(3600)\n", ready=False, PILOTHOUSE_PROCESSES="3")
    server.wait_for(lambda: server.status("/v2/health/live") == 200)
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_exit() == 0
