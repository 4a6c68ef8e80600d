"""The GKE manifest is one that JobSet takes, and asks for what a v5e slice of 16x16 chips needs.

`jobset_schema.json` holds those parts of JobSet's own schema that such a manifest may touch, with the same names, types
and required keys: of the CustomResourceDefinition `config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml` of
kubernetes-sigs/jobset (Apache-2.0). The rest is left out, and keys that are not there are refused.
"""

import copy
import json
import re
from math import prod
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mufun_jax.plan.topology import parse_topology

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "launch" / "jobset.yaml").read_text()
MANIFEST = yaml.safe_load(TEXT)
SCHEMA = json.loads((Path(__file__).parent / "jobset_schema.json").read_text())
JOB = ("spec", "replicatedJobs", 0, "template", "spec")
POD = (*JOB, "template", "spec")


def at(*path: Any, manifest: Any = MANIFEST) -> Any:
    for step in path:
        manifest = manifest[step]
    return manifest


def check(manifest: Any) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(manifest)


def test_it_is_a_job_set():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    check(MANIFEST)


def keys_of(value: Any, path: tuple = ()) -> list[tuple]:
    """The paths of all keys that the schema names: not those of annotations, selectors, attributes and limits."""
    if isinstance(value, list):
        return [found for place, each in enumerate(value) for found in keys_of(each, (*path, place))]
    free = ("annotations", "nodeSelector", "volumeAttributes", "limits")
    if not isinstance(value, dict) or (path and path[-1] in free):
        return []
    return [found for key, each in value.items() for found in [(*path, key), *keys_of(each, (*path, key))]]


@pytest.mark.parametrize("path", keys_of(MANIFEST), ids=lambda path: ".".join(map(str, path)))
def test_a_misspelt_key_is_refused(path):
    manifest = copy.deepcopy(MANIFEST)
    parent = at(*path[:-1], manifest=manifest)
    parent[path[-1] + "s"] = parent.pop(path[-1])
    with pytest.raises(jsonschema.ValidationError, match=re.escape(f"{path[-1]}s'")):
        check(manifest)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*JOB, "parallelism"), "64"),
        ((*JOB, "podFailurePolicy", "rules", 0, "onExitCodes", "values"), 2),
        ((*POD, "terminationGracePeriodSeconds"), "120 s"),
        ((*POD, "containers", 0, "command"), "mufun train"),
        ((*POD, "containers", 0, "resources", "limits", "google.com/tpu"), "four"),
        ((*POD, "nodeSelector", "cloud.google.com/gke-spot"), True),
        ((*JOB, "template", "metadata", "annotations", "gke-gcsfuse/volumes"), True),
        (("spec", "failurePolicy", "rules", 0, "action"), "Fail"),
        (("apiVersion",), "jobset.x-k8s.io/v1"),
    ],
)
def test_a_wrong_value_is_refused(path, value):
    manifest = copy.deepcopy(MANIFEST)
    at(*path[:-1], manifest=manifest)[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        check(manifest)


def test_hosts_and_chips_are_those_of_the_slice():
    selector = at(*POD, "nodeSelector")
    assert selector["cloud.google.com/gke-tpu-accelerator"] == "tpu-v5-lite-podslice"
    topology = parse_topology("v5e:" + selector["cloud.google.com/gke-tpu-topology"])
    a_host = at(*POD, "containers", 0, "resources", "limits", "google.com/tpu")
    assert a_host == 4, "of ct5lp-hightpu-4t"
    assert at(*JOB, "parallelism") == at(*JOB, "completions") == topology.chips // a_host
    for line in re.findall(r"^#  +(v\w+, .*)$", TEXT, flags=re.MULTILINE):  # the table of slices in its comment
        name, chips, _, size, hosts, mesh = re.split(r",? +", line)
        assert prod(map(int, size.split("x"))) == int(chips) == 4 * int(hosts)
        assert parse_topology(f"{name}:{size}").chips == int(chips)
        assert mesh == f"fsdp={chips}"


def test_a_mistake_fails_the_set_and_all_else_restarts_it():
    (rule,) = at(*JOB, "podFailurePolicy", "rules")
    assert (rule["action"], rule["onExitCodes"]["operator"], rule["onExitCodes"]["values"]) == ("FailJob", "In", [2])
    assert rule["onExitCodes"]["containerName"] == at(*POD, "containers", 0, "name")
    policy = MANIFEST["spec"]["failurePolicy"]
    (of_set,) = policy["rules"]
    assert (of_set["action"], of_set["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert policy["maxRestarts"] > 0
    assert at(*JOB, "backoffLimit") == 0
    assert at(*POD, "restartPolicy") == "Never"


def test_there_is_time_to_save_on_a_folder_that_all_hosts_see():
    assert at(*POD, "terminationGracePeriodSeconds") == 120
    (container,) = at(*POD, "containers")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in at(*POD, "volumes")}
    assert mounts.keys() == volumes.keys()
    assert volumes["bucket"]["csi"]["driver"] == "gcsfuse.csi.storage.gke.io"
    assert at(*JOB, "template", "metadata", "annotations")["gke-gcsfuse/volumes"] == "true"
    command = container["command"]
    assert command[:2] == ["mufun", "train"]
    assert "--distributed" in command
    (workdir,) = [word for word in command if word.startswith("--workdir=")]
    assert workdir.removeprefix("--workdir=").startswith(mounts["bucket"] + "/")
