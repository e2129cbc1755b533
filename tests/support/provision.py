"""``python -m tests.support.provision``: bring what the tests need beside Python packages."""

import shutil
import sys

from tests.support.browser import NoBrowserError, apt_install, find_or_install
from tests.support.debian import NoProgramError
from tests.support.kubernetes_tools import NoToolsError, helm, older_kubectl
from tests.support.prometheus import PROMETHEUS, VICTORIA_METRICS


class NoRError(RuntimeError):
    """There is no R and none could be installed."""


def rscript() -> str:
    """The path of Rscript, installed by apt when it is missing and we are root."""
    program = shutil.which("Rscript")
    if program is None and apt_install("r-base-core"):
        program = shutil.which("Rscript")
    if program is None:
        raise NoRError("The tests of R packages need Rscript. Install R (Debian and Ubuntu: r-base-core).")
    return program


def main() -> int:
    try:
        print(f"browser: {find_or_install()}")
        print(f"R: {rscript()}")
        print(f"Prometheus: {PROMETHEUS.find_or_unpack()}, {VICTORIA_METRICS.find_or_unpack()}")
        print(f"kubectl and helm: {older_kubectl()}, {helm()}", flush=True)
    except (NoBrowserError, NoRError, NoProgramError, NoToolsError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
