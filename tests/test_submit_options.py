"""Users may add certain lines to the submit description of nodes."""

import re
from pathlib import Path

import pytest

from dag.submit_options import check, executable, of_all_jobs, with_current_names
from tests.support.command_line import BUCKETS, assert_wrong, invoke


@pytest.mark.parametrize(
    "line",
    [
        *("My.WantIOProxy = true", "+WantIOProxy = true", "MY.WANTIOPROXY=True"),
        *("want_io_proxy = true", "stream_output = true", "My.StreamOut = true"),
        *("Stream_Error=true", 'My.LimitDirectoryAccess = "/"', "getenv = true"),
        *("initialdir = /home", 'My.Iwd = "/home"', "output = run.json"),
        *('transfer_output_remaps = "a=b"', '+TransferOutputRemaps = "a=b"'),
        *("universe = local", "My.JobUniverse = 12", "should_transfer_files = NO"),
        *("starter_log = /home/x", 'My.ToolDaemonOutput = "x"'),
        *("remote_initialdir = /", 'My.DelayedUpdatePrefix = "*"', "log = x"),
    ],
)
def test_lines_that_open_the_access_point_to_jobs_are_refused_by_name(line: str):
    name = line.partition("=")[0].strip()
    with pytest.raises(ValueError, match="^" + re.escape(f"{name} is refused: ")):
        check(line)


@pytest.mark.parametrize(
    "line",
    [
        *("request_memory = 4096", "+ProjectName = 'maps'", 'My.Site = "x"'),
        *("requirements = TARGET.HasSingularity", "max_holds = 3"),
        *("accounting_group = maps", "use_oauth_services = scitokens"),
        *("executable = /opt/node.sh", "max_transfer_output_mb = 100"),
    ],
)
def test_lines_that_pools_need_are_accepted(line: str):
    check(line)


@pytest.mark.parametrize(
    "line", ["queue 5", "a = b\nqueue", "a b = c", "= x", "a = \\"]
)
def test_a_malformed_line_is_refused(line: str):
    with pytest.raises(ValueError, match=r"NAME = VALUE|backslash"):
        check(line)


def test_a_program_of_the_operator_is_found():
    lines = ("request_memory = 1", "Executable = /opt/a.sh", 'My.Cmd = "/opt/b.sh"')
    assert executable(lines) == Path("/opt/b.sh")
    assert executable(lines[:2]) == Path("/opt/a.sh")
    assert executable(()) is None


def test_former_names_of_macros_are_replaced():
    assert with_current_names("periodic_remove = NumHolds > $(most_holds)") == (
        "periodic_remove = NumHolds > $(max_holds)"
    )
    assert with_current_names("Most_Idle_Seconds = 1") == "max_idle_seconds = 1"
    assert with_current_names("almost_holds = 1") == "almost_holds = 1"


def test_a_launch_refuses_a_dangerous_line():
    result = invoke(*BUCKETS, "--submit-option", "My.WantIOProxy = true")
    assert_wrong(result, "My.WantIOProxy is refused: it lets jobs read")


def test_attributes_and_accounting_groups_are_for_all_jobs():
    lines = (
        *('+ProjectName = "maps"', 'MY.Site= "x = y"', "accounting_group = maps"),
        *("Accounting_Group_User = ann", "request_memory = 1", "max_holds = 3"),
        *("+RequestMemory = 4096", "My.PeriodicRemove = true", "+WantGlidein = true"),
        *("+Try = $(RETRY)", "requirements = TARGET.HasX", "+JobPrio = 5"),
    )
    assert of_all_jobs(lines) == {
        "My.ProjectName": '"maps"',
        "My.Site": '"x = y"',
        "accounting_group": "maps",
        "accounting_group_user": "ann",
    }


@pytest.mark.parametrize("name", ["+CogPipeline", "My.cogpipelineRun"])
def test_the_attributes_of_the_pipeline_are_its_own(name: str):
    with pytest.raises(ValueError, match="the pipeline finds its jobs"):
        check(f'{name} = "x"')
