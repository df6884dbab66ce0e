"""What .github asks of a machine that is not ours: as far as it can be checked here."""

from __future__ import annotations

import re

import pytest
import yaml

from build_backend.target_torch import MINIMUM, ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def jobs():
    for path in WORKFLOWS:
        for name, job in yaml.safe_load(path.read_text())["jobs"].items():
            yield pytest.param(path, job, id=f"{path.stem}-{name}")


def test_there_are_workflows():
    assert {path.name for path in WORKFLOWS} == {"ci.yml", "wheels.yml"}


@pytest.mark.parametrize(("path", "job"), list(jobs()))
def test_a_job_has_what_it_needs_and_no_more(path, job):
    assert yaml.safe_load(path.read_text())["permissions"] == {}
    assert job["timeout-minutes"] <= 60
    publishes = any("pypi-publish" in step.get("uses", "") for step in job["steps"])
    fetches = any("actions/checkout@" in step.get("uses", "") for step in job["steps"])
    allowed = {"id-token": "write"} if publishes else {"contents": "read"} if fetches else {}
    assert job["permissions"] == allowed
    for step in job["steps"]:
        # Somebody else's code: by the commit, which nobody can move.
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
        if "actions/checkout@" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False
        # What somebody else may have written is no part of a command.
        assert not re.search(r"\$\{\{\s*(github\.event|github\.head_ref)", step.get("run", ""))


def test_publishing_waits_for_every_check():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "wheels.yml").read_text())
    publish = workflow["jobs"]["publish"]
    assert publish["if"] == "github.ref_type == 'tag'"
    before, found = ["publish"], set()
    while before:
        needs = workflow["jobs"][before.pop()].get("needs", [])
        needs = [needs] if isinstance(needs, str) else needs
        before += needs
        found |= set(needs)
    assert found == set(workflow["jobs"]) - {"publish"}


def test_the_oldest_torch_is_tried():
    oldest = "==" + ".".join(map(str, MINIMUM)) + ".*"
    for path in WORKFLOWS:
        assert oldest in path.read_text(), path


def test_the_forms_and_dependabot_are_yaml():
    for path in (ROOT / ".github").rglob("*.yml"):
        assert isinstance(yaml.safe_load(path.read_text()), dict), path
    for name in ("bug", "feature"):
        form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())
        assert {"name", "description", "body"} <= form.keys()
        assert any(field.get("validations", {}).get("required") for field in form["body"])
