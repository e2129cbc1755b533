"""Cluster addresses and node ports of services."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable
from typing import Any

from localcluster.apiserver.status import Cause
from localcluster.apiserver.validation.base import show

Object = dict[str, Any]

SERVICE_NETWORK = ipaddress.ip_network("10.96.0.0/16")
NODE_PORTS = range(30000, 32768)
_random = random.SystemRandom()


class Addresses:
    """Which addresses and ports are taken."""

    def __init__(self, services: Iterable[Object]) -> None:
        self.addresses: set[str] = set()
        self.ports: set[int] = set()
        for service in services:
            self._take(service["spec"])

    def _take(self, spec: Object) -> None:
        self.addresses.update(one for one in spec.get("clusterIPs") or () if one != "None")
        self.ports.update(port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort"))

    def release(self, spec: Object) -> None:
        """Give back what a deleted service, or one that changed, held."""
        self.addresses.difference_update(spec.get("clusterIPs") or ())
        self.ports.difference_update(port.get("nodePort", 0) for port in spec.get("ports") or ())

    def allocate(self, spec: Object, old: Object | None, *, keep: bool = True) -> list[Cause]:
        """Complete a service's spec with addresses and ports; the causes when a wanted one is not free."""
        causes: list[Cause] = []
        kind = spec.get("type", "ClusterIP")
        if kind == "ExternalName":
            for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
                spec.pop(key, None)
        else:
            self._address(spec, old, causes)
            spec.setdefault("ipFamilies", ["IPv4"])
            spec.setdefault("ipFamilyPolicy", "SingleStack")
        wants_ports = kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True))
        held = {port.get("nodePort") for port in (old or {}).get("ports") or ()}
        for index, port in enumerate(spec.get("ports") or ()):
            if wants_ports:
                self._port(port, index, old, held, causes)
            elif kind == "ClusterIP":
                port.pop("nodePort", None)
        if not causes and keep:
            if old is not None:
                self.release(old)
            self._take(spec)
        return causes

    def _address(self, spec: Object, old: Object | None, causes: list[Cause]) -> None:
        wanted = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or ()), "")
        held = (old or {}).get("clusterIP", "")
        if not wanted:
            wanted = held or self._free_address()
        elif wanted not in ("None", held):
            try:
                inside = ipaddress.ip_address(wanted) in SERVICE_NETWORK
            except ValueError:
                inside = False
            problem = ""
            if not inside:
                problem = "the provided network does not match the current range"
            elif wanted in self.addresses:
                problem = "provided IP is already allocated"
            if problem:
                text = f"Invalid value: {show([wanted])}: failed to allocate IP {wanted}: {problem}"
                causes.append(Cause("FieldValueInvalid", text, "spec.clusterIPs"))
        spec["clusterIP"] = wanted
        spec["clusterIPs"] = [wanted]

    def _free_address(self) -> str:
        while True:
            candidate = str(SERVICE_NETWORK[_random.randrange(256, SERVICE_NETWORK.num_addresses - 1)])
            if candidate not in self.addresses:
                return candidate

    def _port(self, port: Object, index: int, old: Object | None, held: set[Any], causes: list[Cause]) -> None:
        wanted = port.get("nodePort")
        where = f"spec.ports[{index}].nodePort"
        if wanted:
            if wanted not in NODE_PORTS:
                text = (
                    f"Invalid value: {wanted}: provided port is not in the valid range. "
                    "The range of valid ports is 30000-32767"
                )
                causes.append(Cause("FieldValueInvalid", text, where))
            elif wanted in self.ports and wanted not in held:
                text = f"Invalid value: {wanted}: provided port is already allocated"
                causes.append(Cause("FieldValueInvalid", text, where))
            return
        for previous in (old or {}).get("ports") or ():
            if previous.get("port") == port["port"] and previous.get("nodePort"):
                port["nodePort"] = previous["nodePort"]
                return
        free = [number for number in NODE_PORTS if number not in self.ports]
        port["nodePort"] = _random.choice(free)
        self.ports.add(port["nodePort"])
