"""One-row scikit-learn over HTTP: the model server against a bare Starlette app around the same model.

`python benchmarks/serving.py [--seconds 5] [--connections 8]` builds an environment with scikit-learn as a pod
would, serves the iris example in both ways and prints requests per second and latencies of each, then their
ratios. Both run in the same environment, one after the other, driven by this process over keep-alive connections.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "platform"))

from serving.environment import build_files

EXAMPLE = REPOSITORY / "examples" / "sklearn-classifier"

# What anybody would write first: no logs, no numbers, no drain, nothing but the answer.
BARE = """
import sys
sys.path.insert(0, {package!r})
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse
from starlette.routing import Route
from deployment import Deployment
import uvicorn

model = Deployment({package!r}, {{}})

async def request(request):
    return JSONResponse({{"result": await run_in_threadpool(model.request, await request.json())}})

app = Starlette(routes=[Route("/request", request, methods=["POST"])])
uvicorn.run(app, host="127.0.0.1", port={port}, access_log=False, log_level="warning")
"""


def build(folder: Path) -> Path:
    """An environment for the example, kept in `folder`; returns its interpreter."""
    with tempfile.TemporaryDirectory() as mounted:
        for name, content in build_files("python", (EXAMPLE / "requirements.txt").read_text()).items():
            (Path(mounted) / name).write_bytes(content)
        environ = dict(os.environ, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        command = [sys.base_prefix + "/bin/python3", f"{mounted}/build.py", "--hash", "bench"]
        done = subprocess.run(
            [*command, "--environments", str(folder)],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(done.stdout)
    return folder / "bench" / "bin" / "python"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(command: list[str], port: int, **variables: str) -> subprocess.Popen[bytes]:
    """Start a server and wait until it answers the example's request."""
    environ = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **variables}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while True:
        try:
            asyncio.run(drive(port, 1, 0.0))
            return process
        except (OSError, asyncio.IncompleteReadError, RuntimeError):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                sys.exit(f"{command[-1][:40]} does not answer.")
            time.sleep(0.1)


async def drive(port: int, connections: int, seconds: float) -> list[float]:
    """Latencies in seconds of requests sent one after the other on each of `connections` for `seconds`."""
    body = json.dumps(json.loads((EXAMPLE / "request.json").read_text())).encode()
    head = f"POST /request HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
    message = head.encode() + body
    until = time.perf_counter() + seconds
    latencies: list[float] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            began = time.perf_counter()
            writer.write(message)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(answer.partition(b"content-length: ")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            if not answer.startswith(b"http/1.1 200"):
                raise RuntimeError(answer.decode())
            now = time.perf_counter()
            latencies.append(now - began)
            if now > until:
                break
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one() for _ in range(connections)))
    return latencies


def measure(port: int, connections: int, seconds: float) -> dict[str, float]:
    asyncio.run(drive(port, connections, min(seconds, 1.0)))
    began = time.perf_counter()
    latencies = sorted(asyncio.run(drive(port, connections, seconds)))
    passed = time.perf_counter() - began
    return {
        "requests/s": len(latencies) / passed,
        "p50 ms": latencies[len(latencies) // 2] * 1000,
        "p99 ms": latencies[int(len(latencies) * 0.99)] * 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--environments", type=Path, help="where environments are kept between runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        python = str(build(options.environments or Path(temporary)))
        rows = {}
        for name in ("bare Starlette", "model server"):
            port = free_port()
            if name == "bare Starlette":
                command = [python, "-c", BARE.format(package=str(EXAMPLE), port=port)]
                process = start(command, port)
            else:
                variables = {"PILOTHOUSE_PACKAGE_DIR": str(EXAMPLE), "PILOTHOUSE_PORT": str(port)}
                process = start([python, "-m", "pilothouse_serving"], port, **variables)
            try:
                rows[name] = measure(port, options.connections, options.seconds)
            finally:
                process.kill()
                process.wait()
    columns = list(next(iter(rows.values())))
    print(f"{'':16}" + "".join(f"{column:>12}" for column in columns))
    for name, row in rows.items():
        print(f"{name:16}" + "".join(f"{row[column]:12.2f}" for column in columns))
    bare, ours = rows["bare Starlette"], rows["model server"]
    print(f"{'ratio':16}" + "".join(f"{ours[column] / bare[column]:12.2f}" for column in columns))


if __name__ == "__main__":
    main()
