"""Text from execution points in the node log of a run is read safely."""

from pathlib import Path

import pytest

from condor import eventlog
from condor.eventlog import NodeEnd

USAGE = "".join(
    f"\t\tUsr 0 00:00:00, Sys 0 00:00:00  -  {what} Usage\n"
    for what in ("Run Remote", "Run Local", "Total Remote", "Total Local")
)


def event(number: int, cluster: int, text: str, at: str = "19:00:00") -> str:
    return f"{number:03d} ({cluster:03d}.000.000) 2026-11-25 {at} {text}\n...\n"


def submitted(cluster: int, node: str) -> str:
    host = "Job submitted from host: <127.0.0.1:1>"
    return event(0, cluster, f"{host}\n    DAG Node: {node}")


def executing(cluster: int) -> str:
    return event(1, cluster, "Job executing on host: <127.0.0.1:1>")


def held(cluster: int, reason: str) -> str:
    return event(12, cluster, f"Job was held.\n\t{reason}\n\tCode 12 Subcode 0")


def terminated(
    cluster: int, status: int, bytes_sent: str = "3", usage: str = ""
) -> str:
    counts = "".join(
        f"\t{count}  -  {what} By Job\n"
        for count, what in (
            (bytes_sent, "Run Bytes Sent"),
            ("4", "Run Bytes Received"),
            ("3", "Total Bytes Sent"),
            ("4", "Total Bytes Received"),
        )
    )
    ended = f"Job terminated.\n\t(1) Normal termination (return value {status})\n"
    text = ended + USAGE + counts + usage
    return event(5, cluster, text.removesuffix("\n"), at="19:00:30")


# These events follow an unreadable one and must be read nevertheless.
HONEST = submitted(7, "row2") + executing(7) + terminated(7, 9)
ROW_2 = NodeEnd("exited", "9")

UNREADABLE = {
    "invalid UTF-8": held(6, "a file \xff\xfe").encode("latin-1"),
    "an unknown event": event(999, 6, "Job was hacked.").encode(),
    "an invalid time": event(8, 6, "x", at="99:99:99").encode(),
    "half an event": event(5, 6, "Job terminated.").encode(),
    "invalid attributes": event(
        28, 6, "Job ad information event triggered.\nx y"
    ).encode(),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_event_that_cannot_be_read_is_left_out(tmp_path: Path, kind: str):
    log = tmp_path / "log"
    first = submitted(6, "row1") + executing(6)
    log.write_bytes(first.encode() + UNREADABLE[kind] + HONEST.encode())

    ends = eventlog.node_ends(log)
    times = list(eventlog.executions(log))

    assert ends == {"row1": NodeEnd("running", starts=1), "row2": ROW_2}
    assert [time.node for time in times] == ["row2"]


def test_a_run_ends_despite_very_many_unreadable_events(tmp_path: Path):
    log = tmp_path / "log"
    unreadable = UNREADABLE["invalid UTF-8"] * (eventlog._MAX_UNREADABLE + 1)
    log.write_bytes(submitted(6, "row1").encode() + unreadable + HONEST.encode())
    assert eventlog.node_ends(log) == {"row1": NodeEnd("idle")}


def test_an_execution_point_cannot_give_its_job_to_another_row(tmp_path: Path):
    log = tmp_path / "log"
    log.write_text(HONEST + submitted(6, "row1") + submitted(6, "row2"))
    assert eventlog.node_ends(log) == {"row1": NodeEnd("idle"), "row2": ROW_2}
    log.write_text(
        submitted(6, "row1") + submitted(6, "row2") + executing(6) + terminated(6, 9)
    )
    assert [time.node for time in eventlog.executions(log)] == ["row1"]


@pytest.mark.parametrize("sent", ["inf", "nan", "-7", "1e400"])
def test_invalid_numbers_count_as_nothing(tmp_path: Path, sent: str):
    log = tmp_path / "log"
    usage = "\tPartitionable Resources :    Usage  Request Allocated \n"
    busy = usage + '\t   TimeSlotBusy (s)     :        real("NaN")          \n'
    log.write_text(
        submitted(6, "row1") + executing(6) + terminated(6, 9, sent, busy) + HONEST
    )
    times = {time.node: time for time in eventlog.executions(log)}
    assert times["row1"].bytes_moved == 4
    assert times["row1"].slot_seconds == 30
    assert times["row2"].bytes_moved == 7


def test_a_long_reason_is_cut(tmp_path: Path):
    log = tmp_path / "log"
    log.write_text(submitted(6, "row1") + held(6, "x" * 5_000_000))
    reason = eventlog.node_ends(log)["row1"].reason
    assert set(reason) <= {"x", "…"}
    assert len(reason) < 10_000


def test_a_process_reads_a_limited_part_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # The limit is below the shortest event, so each process reads one event.
    monkeypatch.setattr(eventlog, "_CHARACTERS_A_PROCESS", 1)
    log = tmp_path / "log"
    log.write_text(submitted(6, "row1") + HONEST)
    assert eventlog.node_ends(log) == {"row1": NodeEnd("idle"), "row2": ROW_2}


def test_a_history_goes_on_where_it_ended_and_shows_no_control_characters(
    tmp_path: Path,
):
    log = tmp_path / "log"
    log.write_text(submitted(6, "row1") + executing(6))
    history = eventlog.JobHistory(log)
    assert [event.name for event in history.new()] == ["SUBMIT", "EXECUTE"]
    assert list(history.new()) == []
    with log.open("a") as file:
        # The job tells of another node, and then ends; its node tries again.
        file.write(submitted(6, "row2") + held(6, "full\x1b[31m") + terminated(6, 9))
        file.write(submitted(8, "row1"))
    told = [(event.node, event.attempt, event.message) for event in history.new()]
    assert told == [
        ("row1", 1, "is submitted"),
        ("row1", 1, "is held, code 12.0: full\N{REPLACEMENT CHARACTER}[31m"),
        ("row1", 1, "ends with status 9"),
        ("row1", 2, "is submitted"),
    ]
