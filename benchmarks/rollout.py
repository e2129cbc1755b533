"""From the upload of a revision to its first answer, against `kubectl apply` of the same pod to its first answer.

`python benchmarks/rollout.py [--repeat 5]` starts the whole platform, deploys once so that the environment is warm,
and then does both in turn. The pod that kubectl applies is the template of the platform's own Deployment: the same
package, environment, probes and resources.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx

from benchmarks.support import PROJECT, Platform, platform

NAMESPACE = f"ph-{PROJECT}"


def through_platform(bench: Platform, version: str, number: int) -> float:
    began = time.monotonic()
    bench.upload(version, number)
    bench.answered_by(version, number)
    return time.monotonic() - began


def by_kubectl(bench: Platform, name: str, number: int) -> float:
    (deployment,) = bench.objects("deployments")
    template = deployment["spec"]["template"]
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": template["spec"]}
    began = time.monotonic()
    bench.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=json.dumps(manifest))
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}"
    try:
        with httpx.Client(timeout=10) as client:
            address = ""
            while time.monotonic() - began < 120:
                if not address:
                    pod = json.loads(bench.kubectl("get", "--raw", path))
                    address = pod["status"].get("podIP", "")
                    port = pod["spec"]["containers"][0]["ports"][0]["containerPort"]
                    continue
                try:
                    response = client.post(f"http://{address}:{port}/request", json={})
                except httpx.TransportError:
                    time.sleep(0.01)
                    continue
                if response.status_code == 200 and response.json()["result"]["number"] == number:
                    return time.monotonic() - began
        raise SystemExit("the pod that kubectl applied did not answer within 120 s")
    finally:
        bench.kubectl("-n", NAMESPACE, "delete", "pod", name, "--wait=false")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with platform() as bench:
        version = bench.deployment("echo")
        cold = through_platform(bench, version, 0)
        print(f"upload to answer, cold environment: {cold:.2f} s", flush=True)
        here, there = [], []
        for number in range(1, options.repeat + 1):
            here.append(through_platform(bench, version, number))
            time.sleep(6)  # the instance before has ended by now
            there.append(by_kubectl(bench, f"plain-{number}", number))
            time.sleep(6)
            print(f"upload to answer {here[-1]:6.2f} s   kubectl apply to answer {there[-1]:6.2f} s", flush=True)
        ours, theirs = statistics.median(here), statistics.median(there)
        print(f"median           {ours:6.2f} s                           {theirs:6.2f} s")
        print(f"the platform adds {ours - theirs:.2f} s (ratio {ours / theirs:.2f})")


if __name__ == "__main__":
    main()
