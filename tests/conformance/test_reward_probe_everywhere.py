"""What degenerate agents earn in every registered environment: what is known is written down, new ones fail."""

import pytest

from collm_envs import list_envs, probe_rewards

IDS = [spec.id for spec in list_envs() if "-sparse-" not in spec.id]
# Known and kept: the reward of writing is the paper's, which looks at the form of the texts and never at the post;
# in echo the last word of the prompt is the task.
KNOWN = {
    "debug/echo-v0": {"one token"},
    "writing/arxiv-v0": {"copies the prompt", "copies the partner", "another task's oracle"},
    "writing/tldr-v0": {"another task's oracle"},
    "writing/tldr-mini-v0": {"another task's oracle"},
}


@pytest.mark.parametrize("id", IDS)
def test_no_degenerate_agent_beats_the_novice_but_those_that_are_known(id):
    report = probe_rewards(id)
    assert report.ok, str(report)
    assert {one.name for one in report.warnings} == KNOWN.get(id, set()), str(report)
