"""``make run`` and ``make reset``."""

import os
from pathlib import Path

from devstack.orphans import Record
from devstack.ports import PortBusyError
from devstack.process import StartError
from devstack.stack import ADMIN_EMAIL, TITLES, Options, Stack
from devstack.statefolder import AlreadyRunningError, StateFolder
from devstack.supervisor import StoppedError, Supervisor, listen_for_signals
from devstack.terminal import Terminal


def _record(state: StateFolder) -> Record:
    return Record(state.path / "processes.json")


def _clear(state: StateFolder, terminal: Terminal) -> None:
    orphans = _record(state).clear_orphans()
    if orphans:
        terminal.note(f"Ended what an earlier run had left behind: {', '.join(orphans)}")


def run(folder: Path, port: int, *, seed: bool, terminal: Terminal | None = None) -> int:
    """Start everything, keep it running until a signal comes, stop everything. The exit status."""
    terminal = terminal or Terminal()
    state = StateFolder(folder)
    listen_for_signals()
    try:
        state.acquire()
        terminal.line(f"Pilothouse, data and logs in {state.path}")
        _clear(state, terminal)
        stack = Stack(Options(state, port))
    except (AlreadyRunningError, PortBusyError) as error:
        terminal.problem(str(error))
        state.release()
        return 1

    def publish(pids: dict[str, int]) -> None:
        state.write_dev_json(
            url=stack.url,
            admin={"email": ADMIN_EMAIL, "password": stack.admin_password},
            api_token=stack.admin_token,
            metrics_token=stack.metrics_token,
            kubeconfig=str(stack.kubeconfig),
            pids={"supervisor": os.getpid(), **pids},
        )

    supervisor = Supervisor(_record(state), terminal, publish)
    status = 0
    try:
        for sentence in stack.external_parts():
            terminal.note(sentence)
        supervisor.start_all(stack.servers(), TITLES)
        terminal.begin("prepare")
        supervisor.run_to_end(stack.prepare())
        terminal.done("prepare", TITLES["prepare"])
        supervisor.start_all(stack.platform(), TITLES)
        if seed and not state.seeded.exists():
            _seed(state, stack, supervisor, terminal)
        terminal.line(
            f"Pilothouse is ready: {stack.url}  sign in as {ADMIN_EMAIL} "
            f"with the password {state.secret('admin_password')}"
        )
        supervisor.keep_running()
    except StoppedError:
        pass
    except (StartError, OSError) as error:
        terminal.problem(str(error))
        status = 1
    finally:
        terminal.note("Stopping")
        supervisor.stop_all()
        state.dev_json.unlink(missing_ok=True)
        state.release()
    return status


def _seed(state: StateFolder, stack: Stack, supervisor: Supervisor, terminal: Terminal) -> None:
    """Once per folder: what a person deletes or changes in the demo stays so. The platform works without it."""
    terminal.begin("seed")
    try:
        supervisor.run_to_end(stack.seed(), terminal.note)
    except StartError as error:
        terminal.problem(f"There is no demo deployment; the next start tries again. {error}")
    else:
        state.seeded.touch()
        terminal.done("seed", TITLES["seed"])


def reset(folder: Path, terminal: Terminal | None = None) -> int:
    """Wipe the folder. The exit status."""
    terminal = terminal or Terminal()
    state = StateFolder(folder)
    try:
        state.acquire()
    except AlreadyRunningError as error:
        terminal.problem(str(error))
        return 1
    _clear(state, terminal)
    state.wipe()
    state.release()
    terminal.line(f"Removed {state.path}; the next start makes everything anew.")
    return 0
