"""Serve the simulator until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import errno
import ipaddress
import json
import shlex
import signal
import sys

from airflow_status_provider.simulator.server import DIALECTS, GENERATIONS, Simulator

PUSH_EVERY = 5.0
"""Seconds: a new user's document push sensor sees one soon."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_status_provider.simulator",
        description="Simulate Areal, Tagger, Organizer and Haidy on one loopback port.",
    )
    parser.add_argument("--port", type=int, default=8000, help="0 picks a free one (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (default: %(default)s)")
    parser.add_argument("--dialect", choices=DIALECTS, default=DIALECTS[0], help="default: %(default)s")
    parser.add_argument("--generation", choices=GENERATIONS, default=GENERATIONS[0], help="of the Organizer")
    parser.add_argument("--speed", type=float, default=1.0, help="divides every simulated duration")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a job (default: %(default)s)")
    slow = parser.add_argument_group(
        "as slow and as strict as real servers are (seconds are divided by --speed)"
    )
    slow.add_argument(
        "--block", type=float, default=0.0, help="a document blocks the whole server for so long"
    )
    slow.add_argument("--login-cost", type=float, default=0.0, help="so does each login")
    slow.add_argument("--late-start", type=float, default=0.0, help="a start is carried out so much later")
    slow.add_argument("--late-answer", type=float, default=0.0, help="a start is answered so much later")
    for name in ("--login-limit", "--start-limit"):
        slow.add_argument(name, type=limit, metavar="N/SECONDS", help="more are answered with 429")
    options = parser.parse_args()
    if not options.speed > 0 or not options.seconds >= 0:
        parser.error("--speed must be positive and --seconds not negative")
    return options


def limit(text: str) -> tuple[int, float]:
    """What ``--login-limit`` and ``--start-limit`` say."""
    count, _, seconds = text.partition("/")
    try:
        found = int(count), float(seconds)
    except ValueError:
        found = 0, 0.0
    if not (found[0] > 0 and found[1] > 0):
        raise argparse.ArgumentTypeError(f"10/300 is 10 in 300 seconds; {text!r} is not like that")
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _serve(options: argparse.Namespace) -> None:
    simulator = Simulator(
        dialect=options.dialect,
        # "localhost" may be two addresses, and port 0 would then be two ports.
        host="127.0.0.1" if options.host == "localhost" else options.host,
        port=options.port,
        speed=options.speed,
        generation=options.generation,
    )
    for service in (simulator.areal, simulator.tagger, simulator.organizer, simulator.haidy):
        service.script.seconds = options.seconds
        for name in ("block", "login_cost", "late_start", "late_answer", "login_limit", "start_limit"):
            setattr(service.faults, name, getattr(options, name))
    simulator.areal.script.push_every = PUSH_EVERY
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with simulator:
        print(f"{options.dialect} dialect, listening on {simulator.url}")
        for conn_id, connection in simulator.connections().items():
            print(f"export AIRFLOW_CONN_{conn_id.upper()}={shlex.quote(json.dumps(connection))}")
        sys.stdout.flush()
        await stopped.wait()


def main() -> int:
    options = _options()
    if not _is_loopback(options.host):
        print(f"refusing to listen on {options.host}: only loopback addresses are allowed", file=sys.stderr)
        return 1
    try:
        asyncio.run(_serve(options))
    except (OSError, OverflowError) as error:
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "the port is in use" if in_use else error
        print(f"cannot listen on {options.host}:{options.port}: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
