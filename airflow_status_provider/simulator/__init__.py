"""The four services on loopback, to test DAGs offline.

``python -m airflow_status_provider.simulator`` serves them until Ctrl-C; the pytest fixture
``status_simulator`` is in ``airflow_status_provider.simulator.fixture``; and in code::

    with SimulatorThread(dialect="observed", speed=50) as simulated:
        tagger = simulated.simulator.tagger
        job_id = simulated.call(tagger.add, seconds=5, failed=1)
        tagger.faults.lose_terminal = True
        connections = simulated.connections()

``speed`` divides every simulated duration and keepalive period; token lifetimes and rate limits keep real
time, since clients see them. ``simulated.call(time.sleep, 2)`` stalls everything, as a blocked server does.
"""

from airflow_status_provider.simulator.faults import Faults
from airflow_status_provider.simulator.server import Seen, Simulator, SimulatorThread

__all__ = ["Faults", "Seen", "Simulator", "SimulatorThread"]
