"""Which waits an update concerns: an index, so that an update costs what it concerns.

1. An update wakes only the waits whose state it can change, however many others share the account or the
   upload session.
2. What a wait need only count is counted once for all (``Tally``), and wakes nobody.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator

from airflow_status_provider.protocols.jobs import Tally, Topic
from airflow_status_provider.protocols.model import Update
from airflow_status_provider.waiting.waiter import Waiter

#: a crowd is worked through in slices of this size; in between other tasks have their turn
SLICE = 32


class Topics:
    """The waits of one account by topic."""

    def __init__(self) -> None:
        # most topics have one waiter, and a set of one weighs as much as the waiter itself
        self._members: dict[Topic, Waiter | set[Waiter]] = {}
        # the scopes that a (kind, id) is waited for in, where it is waited for by scope
        self._scopes: dict[Topic, set[str]] = {}
        self._tallies: weakref.WeakValueDictionary[Topic, Tally] = weakref.WeakValueDictionary()

    def add(self, waiter: Waiter) -> None:
        """Also for a waiter that is listed already and now wants other topics."""
        for topic in waiter.tracker.topics:
            members = self._members.setdefault(topic, waiter)
            if isinstance(members, set):
                members.add(waiter)
            elif members is not waiter:
                self._members[topic] = {members, waiter}
            if len(topic) > 2:
                self._scopes.setdefault(topic[:2], set()).add(topic[2])
        if (counted := waiter.tracker.tallied) is not None:
            waiter.tracker.tally(self._tallies.setdefault(counted, Tally()))

    def discard(self, waiter: Waiter) -> None:
        for topic in waiter.tracker.topics:
            members = self._members.get(topic)
            if isinstance(members, set):
                members.discard(waiter)
            if members is waiter or members == set():
                del self._members[topic]
                if len(topic) > 2:
                    self._scopes[topic[:2]].discard(topic[2])
                    if not self._scopes[topic[:2]]:
                        del self._scopes[topic[:2]]

    def count(self, update: Update) -> None:
        """Count an update for those who only count it."""
        if (tally := self._tallies.get((update.kind, update.job_id))) is not None:
            tally.count += 1

    def concerned(self, update: Update) -> Collection[Waiter]:
        """The waits whose state this update can change, as they are now."""
        topic = (update.kind, update.job_id)
        members = self._members.get(topic, ())
        if not self._scopes or (scopes := self._scopes.get(topic)) is None:
            return (members,) if isinstance(members, Waiter) else tuple(members)
        wanted = scopes if update.scope is None else scopes & {update.scope}
        return tuple(_each(members, *(self._members[*topic, scope] for scope in wanted)))

    def same_job(self, waiter: Waiter) -> Collection[Waiter]:
        """All waits for the job that this one waits for, this one too."""
        members = self._members.get(waiter.tracker.topics[0], waiter)
        return (members,) if isinstance(members, Waiter) else tuple(members)


def _each(*members: Waiter | Collection[Waiter]) -> Iterator[Waiter]:
    for one in members:
        if isinstance(one, Waiter):
            yield one
        else:
            yield from one
