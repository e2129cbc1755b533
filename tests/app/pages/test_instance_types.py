"""Groups of instance types, the priority level of a version, and deleting a request, as people do it on pages."""

from django.test import Client

from deployments.models import GpuPriority, InstanceTypeGroup, Request
from tests.app import factories
from tests.app.pages.conftest import Site

SIZES = {"big": "2048mb", "little": "256mb"}


def group_form(name: str, **places: tuple[int | str, int | str]) -> dict[str, object]:
    """Form data: size -> (place, seconds to wait)."""
    data: dict[str, object] = {"name": name}
    for kind, (place, wait) in places.items():
        key = factories.instance_type(SIZES[kind]).pk
        data |= {f"place_{key}": place, f"wait_{key}": wait}
    return data


def items(group: InstanceTypeGroup) -> list[tuple[str, int, int | None]]:
    return [(item.instance_type.name, item.priority, item.schedule_timeout) for item in group.items.all()]


def test_a_group_is_made_changed_and_deleted(site: Site, editor: Client):
    chosen = {"big": (1, 60), "little": (2, "")}
    answer = editor.post(site.project_url("instance-type-group-create"), group_form("big-first", **chosen), follow=True)
    made = InstanceTypeGroup.objects.get(project=site.project, name="big-first")
    assert items(made) == [("2048mb", 0, 60), ("256mb", 1, None)]
    assert "Group big-first created" in answer.content.decode()
    assert "2048mb <span" in answer.content.decode()

    page = editor.get(site.project_url("instance-type-group", made.pk)).content.decode()
    assert 'value="60"' in page
    changed = group_form("little-first", big=(2, ""), little=(1, 30))
    assert editor.post(site.project_url("instance-type-group", made.pk), changed).status_code == 302
    made.refresh_from_db()
    assert (made.name, items(made)) == ("little-first", [("256mb", 0, 30), ("2048mb", 1, None)])

    editor.post(site.project_url("instance-type-group-delete", made.pk))
    assert not InstanceTypeGroup.objects.filter(pk=made.pk).exists()


def test_a_group_that_is_wrong_is_refused_with_the_reason(site: Site, editor: Client):
    url = site.project_url("instance-type-group-create")
    for form, words in (
        (group_form("Big First", little=(1, "")), "lower-case"),
        (group_form("none"), "Give 1 to 20 instance types"),
        (group_form("odd", little=(0, "")), "Place of 256mb"),
        (group_form("odd", little=(1, "soon")), "Seconds to wait for 256mb"),
        (group_form("small-first", little=(1, "")), "already a group named"),
    ):
        answer = editor.post(url, form)
        assert answer.status_code == 422
        assert words in answer.content.decode(), words
    assert [group.name for group in site.project.instance_type_groups.all()] == ["small-first"]


def test_a_group_in_use_is_kept_and_its_users_are_named(site: Site, editor: Client):
    site.version.instance_type, site.version.instance_type_group = None, site.group
    site.version.save()
    answer = editor.post(site.project_url("instance-type-group-delete", site.group.pk), follow=True)
    assert f"used by {site.version}" in answer.content.decode()
    assert InstanceTypeGroup.objects.filter(pk=site.group.pk).exists()


def test_the_priority_level_is_in_the_settings_where_there_are_levels(site: Site, editor: Client):
    GpuPriority.objects.all().delete()
    assert "gpu_priority" not in editor.get(site.url("version-settings")).content.decode()
    level = GpuPriority.objects.create(name="production", value=100)
    other = GpuPriority.objects.create(name="theirs", value=200)
    other.projects.add(factories.project("other"))
    page = editor.get(site.url("version-settings")).content.decode()
    assert '<option value="production">' in page
    assert "theirs" not in page

    form = {
        "version": site.version.version,
        "environment": site.version.environment.name,
        "instance_type": site.version.instance_type.name,
        "minimum_instances": 0,
        "maximum_instances": 2,
        "maximum_idle_time": 300,
        "request_retention_mode": "full",
        "request_retention_time": 3600,
        "instance_processes": 1,
    }
    assert editor.post(site.url("version-update"), form | {"gpu_priority": "theirs"}).status_code == 422
    assert editor.post(site.url("version-update"), form | {"gpu_priority": "production"}).status_code == 302
    site.version.refresh_from_db()
    assert site.version.gpu_priority == level
    assert editor.post(site.url("version-update"), form | {"gpu_priority": ""}).status_code == 302
    site.version.refresh_from_db()
    assert site.version.gpu_priority is None


def test_a_request_is_deleted_from_its_page(site: Site, editor: Client):
    page = editor.get(site.url("version-request", site.request.pk)).content.decode()
    assert site.url("version-request-delete", site.request.pk) in page
    answer = editor.post(site.url("version-request-delete", site.request.pk), follow=True)
    assert "Request deleted" in answer.content.decode()
    assert not Request.objects.filter(pk=site.request.pk).exists()
    assert editor.post(site.url("version-request-delete", site.request.pk)).status_code == 404
