"""Are the bytes that the prelude says an event takes those that the C core writes? The proof of `fits` rests
on them."""

from dsl.capabilities import prelude
from formats.eventlog import LOG_END_SIZE
from gen.core.hostlib import load

CORE = load(sanitize=True)
LIB = CORE.lib
EFFECTS = prelude().effects


def log_of(size: int):
    memory = CORE.guarded(size)
    log = CORE.new("log")
    status = LIB.start_log(CORE.span(memory.address, size), log)
    return memory, log, status


def test_a_started_log_fits_exactly() -> None:
    size = EFFECTS["start_log"].log_bytes
    memory, log, status = log_of(size)
    assert (status, log.used + LOG_END_SIZE) == (0, size)
    assert memory
    assert log_of(size - 1)[2] != 0


def test_events_take_what_is_declared_and_no_more() -> None:
    for length in (0, 1, 16, 4096):
        for name in (b"", b"td_hob", b"sixteen bytes ok"):
            data, label = CORE.span(bytes(length)), CORE.span(name)
            events = {
                "measure_platform_config": lambda log, out, d=data, n=label: LIB.log_platform_config(
                    log, 0, n, d, out
                ),
                "measure_blob": lambda log, out, d=data, n=label: LIB.log_blob(log, 0, n, d, out),
                "measure_number": lambda log, out, n=label: LIB.log_number(log, 0, n, 7, out),
                "separate": lambda log, out: LIB.log_separator(log, 0, out),
            }
            for primitive, call in events.items():
                effects = EFFECTS[primitive]
                sizes = {"data": length, "name": len(name)}
                declared = effects.log_bytes + sum(sizes[p] for p in effects.log_sizes)
                base = EFFECTS["start_log"].log_bytes
                for room, fits in ((declared, True), (declared - 1, False)):
                    memory, log, status = log_of(base + room)
                    assert (memory is not None, status) == (True, 0)
                    assert (call(log, CORE.new("digest")) == 0) is fits, (primitive, length, name)


def test_the_largest_list_of_cpus_takes_what_is_declared() -> None:
    names = prelude()
    largest = names.constants["MAX_CPUS"].value
    cpus = CORE.new("cpus")
    cpus.ids = CORE.span(bytes(4 * largest))[0]
    base = EFFECTS["start_log"].log_bytes
    for room, fits in ((0, True), (-1, False)):
        memory, log, status = log_of(base + EFFECTS["measure_cpus"].log_bytes + room)
        assert (memory is not None, status) == (True, 0)
        assert (LIB.log_cpus(log, 0, CORE.span(b"td_cpus"), cpus, CORE.new("digest")) == 0) is fits
    cpus.ids = CORE.span(bytes(4 * (largest + 1)))[0]
    memory, log, status = log_of(1 << 20)
    error = names.errors["cpus_too_many"].number
    assert (memory is not None, status) == (True, 0)
    assert LIB.log_cpus(log, 0, CORE.span(b"td_cpus"), cpus, CORE.new("digest")) == error


def test_every_primitive_that_logs_is_compared() -> None:
    logging = {name for name, effects in EFFECTS.items() if effects.log_bytes}
    kinds = ("platform_config", "blob", "number", "cpus")
    assert logging == {"start_log", "separate", *(f"measure_{kind}" for kind in kinds)}
