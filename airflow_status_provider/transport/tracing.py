"""The wait as a span in its task's trace, and ``traceparent`` for what is sent on that task's behalf.

Only where there is a trace: where Airflow's tracing is off (as it is by default) the current span records
nothing, and where OpenTelemetry is not there, nobody has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from airflow_status_provider.errors import StatusProviderError

Tell = Callable[[Mapping[str, str]], None]


def _trace() -> Any:
    """OpenTelemetry, if there is a trace under way."""
    trace = sys.modules.get("opentelemetry.trace")
    return trace if trace is not None and trace.get_current_span().is_recording() else None


def headers() -> dict[str, str]:
    """What passes the current span to a service."""
    carrier: dict[str, str] = {}
    if _trace() is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(carrier)
    return carrier


def span(attributes: Mapping[str, str]) -> AbstractContextManager[Tell]:
    """The current span's child for a wait; what it gives takes more attributes."""
    trace = _trace()
    return _NONE if trace is None else _child(trace, attributes)


def _nobody(more: Mapping[str, str]) -> None:
    """Stands in while there is no trace."""


# one for all: thousands of waits may hold it
_NONE = nullcontext[Tell](_nobody)


@contextmanager
def _child(trace: Any, attributes: Mapping[str, str]) -> Iterator[Tell]:
    tracer = trace.get_tracer("airflow_status_provider")
    # a recorded exception would bring its causes along, and other libraries' words may quote a credential
    quiet = {"record_exception": False, "set_status_on_exception": False}
    with tracer.start_as_current_span(
        "airflow_status.wait", attributes=_named(attributes), **quiet
    ) as current:
        try:
            yield lambda more: current.set_attributes(_named(more))
        except Exception as error:
            words = str(error) if isinstance(error, StatusProviderError) else type(error).__name__
            current.set_status(trace.StatusCode.ERROR, words)
            raise


def _named(attributes: Mapping[str, str]) -> dict[str, str]:
    return {f"airflow_status.{name}": value for name, value in attributes.items()}
