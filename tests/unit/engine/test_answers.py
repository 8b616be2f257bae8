"""Which jobs a client of the keeper cares for: found without a look at all of them, and not remembered for ever."""

from __future__ import annotations

import socket

from cloche.engine.answers import Client
from cloche.engine.job import Job, Jobs


def job(key: str) -> Job:
    return Job(key, None, {}, "")


def test_jobs_are_found_by_key_and_by_id() -> None:
    jobs, one, two = Jobs(), job("c1"), job("exec:c1:e1")
    jobs.add(one)
    jobs.add(two)
    assert (jobs.get("c1"), jobs.of("c1"), jobs.of("e1"), jobs.get("e1")) == (one, one, two, None)
    assert (len(jobs), "c1" in jobs, list(jobs)) == (2, True, [one, two])
    jobs.remove(two)
    assert (jobs.of("e1"), len(jobs)) == (None, 1)


def test_one_that_was_made_again_is_not_removed_with_the_one_before() -> None:
    jobs, before, again = Jobs(), job("c1"), job("c1")
    jobs.add(before)
    jobs.add(again)
    jobs.remove(before)
    assert (jobs.get("c1"), jobs.of("c1")) == (again, again)


def test_a_connection_that_sees_thousands_remembers_those_that_are_there() -> None:
    ours, theirs = socket.socketpair()
    client, jobs = Client(ours, ""), Jobs()
    stays = job("stays")
    jobs.add(stays)
    client.care(stays, jobs)
    for number in range(5000):
        passing = job(f"c{number}")
        client.care(passing, jobs)  # before it is added, as for one that is being made
        jobs.add(passing)
        assert {"stays", passing.ident} <= client.idents
        jobs.remove(passing)
    assert len(client.idents) < 100
    ours.close()
    theirs.close()
