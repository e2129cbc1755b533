"""Instance type groups."""

from typing import Any

import pytest

from accounts.errors import Conflict, Invalid
from deployments.models import InstanceType, InstanceTypeGroup, Rollout
from deployments.services import instance_types, quotas
from tests.app import factories
from tests.app.services.conftest import World


def _create(world: World, *types: dict[str, Any], name: str = "sizes") -> InstanceTypeGroup:
    return instance_types.create_group(world.editor, world.project, name=name, instance_types=list(types))


def _told(group: InstanceTypeGroup) -> list[tuple[str, int, int | None]]:
    return list(group.items.values_list("instance_type__name", "priority", "schedule_timeout"))


def test_types_are_kept_in_order_of_priority(world: World):
    small = factories.instance_type("512mb")
    group = _create(
        world, {"id": "1024mb", "priority": 5}, {"id": str(small.pk), "priority": 1, "schedule_timeout": 60}
    )
    assert _told(group) == [("512mb", 1, 60), ("1024mb", 5, None)]
    assert _told(_create(world, {"id": "1024mb"}, {"id": "512mb"}, name="plain")) == [
        ("1024mb", 0, None),
        ("512mb", 1, None),
    ]


@pytest.mark.parametrize(
    ("field", "given", "says"),
    [
        ("instance_types", [], "Give 1 to 20"),
        ("instance_types", "512mb", "Give 1 to 20"),
        ("instance_types", [{"id": "huge"}], "Unknown instance type 'huge'; choose from"),
        ("instance_types", [{"id": "512mb"}, {"id": "512mb"}], "given twice"),
        ("instance_types", [{"id": "512mb", "priority": -1}], "from 0"),
        ("instance_types", [{"id": "512mb", "schedule_timeout": 0}], "from 1"),
        ("colour", [{"id": "512mb", "colour": "red"}], "unknown"),
    ],
)
def test_a_bad_group_is_refused_by_field(world: World, field: str, given: Any, says: str):
    with pytest.raises(Invalid) as refusal:
        instance_types.create_group(world.editor, world.project, name="sizes", instance_types=given)
    assert says in refusal.value.fields[field]
    assert not InstanceTypeGroup.objects.exists()


def test_disabled_types_cannot_be_chosen(world: World):
    InstanceType.objects.filter(name="512mb").update(enabled=False)
    with pytest.raises(Invalid, match="Unknown instance type '512mb'"):
        _create(world, {"id": "512mb"})


def test_names_are_unique_and_valid(world: World):
    _create(world, {"id": "512mb"})
    with pytest.raises(Conflict, match="already a group named 'sizes'"):
        _create(world, {"id": "512mb"})
    with pytest.raises(Invalid) as refusal:
        _create(world, {"id": "512mb"}, name="Bad Name")
    assert list(refusal.value.fields) == ["name"]


def test_other_types_roll_over_what_uses_the_group(world: World):
    group = _create(world, {"id": "512mb"})
    user = factories.revision(factories.version(world.deployment, "v2", instance_type_group=group)).version
    instance_types.update_group(world.editor, group, name="renamed")
    assert not Rollout.objects.exists()
    instance_types.update_group(world.editor, group, instance_types=[{"id": "512mb"}, {"id": "2048mb"}])
    assert Rollout.objects.get().version == user
    assert [name for name, _, _ in _told(group)] == ["512mb", "2048mb"]
    assert quotas.size_of(None, group) == quotas.Size(cpu=1, memory=2048, accelerators=0)


def test_a_group_in_use_is_not_deleted(world: World):
    group = _create(world, {"id": "512mb"})
    version = factories.version(world.deployment, "v2", instance_type_group=group)
    with pytest.raises(Conflict, match=f"used by {world.deployment.name}/v2"):
        instance_types.delete_group(world.editor, group)
    version.delete()
    instance_types.delete_group(world.editor, group)
    assert not InstanceTypeGroup.objects.exists()
