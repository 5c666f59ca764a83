"""Which rules are there, and which code does each report? One line a rule of this room."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """`code`: what a diagnostic says; None where the reporter chooses it (a step's rule, a result's type)."""

    code: str | None
    says: str


RULES = {
    # trust of values
    "branch": Rule("T01", "a branch depends only on recorded values, or all ways but one end in an error"),
    "repeat": Rule("T01", "a loop runs over a list whose length is recorded"),
    "error decides": Rule(
        "T01", "a flow does not continue after an error that depends on an unrecorded value"
    ),
    "refusal": Rule("T01", "no step depends on whether the VMM refuses a call"),
    "optional": Rule("T01", "an optional event is the last event of an RTMR with a separator"),
    "recorded argument": Rule("T01", "a number that a step depends on is recorded"),
    "recorded place": Rule("T01", "where a part of memory begins is recorded"),
    "recorded size": Rule("T01", "how much memory a step is given is recorded"),
    "measured argument": Rule("T01", "bytes and records have the trust level that their parameter requires"),
    "shared argument": Rule("T02", "shared memory goes only to a parameter that takes shared memory"),
    "bounded argument": Rule("T03", "a number that a step depends on is bounded"),
    "bounded index": Rule("T03", "an index or a bound of a slice is checked before it is used"),
    "result": Rule(None, "the result of a flow has the promised trust level"),
    # shared memory
    "read once": Rule("T02", "shared bytes are read once"),
    "share reserved": Rule("T02", "memory that is shared is reserved in the E820"),
    # order of steps
    "missing step": Rule(None, "a step that is needed was taken on every path"),
    "repeated step": Rule(None, "a step that is taken once was taken on no path before"),
    "missing mark": Rule(None, "the object that a step needs is the one another step made so"),
    "late step": Rule(None, "what has to come before a step does not come after it"),
    "abandoned step": Rule(None, "a flow does not continue after a failed step with lasting effects"),
    "carved": Rule(None, "a memory region is used after the step that makes it usable"),
    "unsigned": Rule(None, "in a firmware that names a trust anchor, only authorised bytes run"),
    "rtmr": Rule("T07", "firmware measures into RTMR 0 and 1, by a constant number"),
    # memory that is written
    "write rw": Rule("T05", "only memory that is mapped rw is written"),
    "write loaded": Rule("T06", "the image, and memory that the VMM loaded, are not overwritten"),
    "write over": Rule("T06", "the output of a step, and memory that it points to, is not overwritten"),
    "write overlap": Rule("T06", "no argument of a call lies where the call writes another"),
    "span": Rule("T06", "an argument of a step has the size and the alignment that it needs"),
    "kept": Rule("T06", "memory that the OS reads later lies where the E820 keeps it private"),
    "owned": Rule("T06", "memory of generated code is not named"),
    # the event log
    "log text": Rule("T10", "a text that goes to the event log is a constant that fits its event"),
    "log size": Rule("T10", "how many bytes a measurement logs is known"),
    "log room": Rule("T10", "the event log holds the worst case"),
    # paths
    "ends": Rule("T08", "a path ends in a handoff, an error or the result that is promised"),
    "unread": Rule("T08", "something depends on the result of a flow"),
    "unreachable": Rule("T08", "every statement can be reached"),
    "calls": Rule("T10", "the calls of flows are few enough to follow"),
}
