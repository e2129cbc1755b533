import pytest
from django.db import connection

from deployments.models import Environment, EnvironmentTag, InstanceType
from deployments.services import bootstrap

pytestmark = pytest.mark.django_db


def test_a_migrated_database_has_tagged_base_environments_and_instance_types():
    names = set(Environment.objects.filter(project=None).values_list("name", flat=True))
    assert {"python3-9", "python3-10", "python3-11", "python3-12", "python3-13", "r4-2", "container-image"} <= names
    assert not Environment.objects.filter(project=None, tags=None).exists()
    assert {"256mb", "512mb", "1024mb", "2048mb", "4096mb", "8192mb"} <= set(
        InstanceType.objects.values_list("name", flat=True)
    )


def test_installing_again_keeps_what_the_platform_team_changed():
    InstanceType.objects.filter(name="256mb").delete()
    InstanceType.objects.filter(name="512mb").update(cpu=3)
    Environment.objects.filter(name="python3-9").update(deprecated=True, display_name="Old Python")
    before = (Environment.objects.count(), EnvironmentTag.objects.count(), InstanceType.objects.count())
    bootstrap.install()
    assert (Environment.objects.count(), EnvironmentTag.objects.count(), InstanceType.objects.count()) == before
    assert InstanceType.objects.get(name="512mb").cpu == 3
    assert Environment.objects.get(name="python3-9").display_name == "Old Python"


def test_a_new_runtime_becomes_a_base_environment(settings):
    settings.PILOTHOUSE_RUNTIME_IMAGES = {**settings.PILOTHOUSE_RUNTIME_IMAGES, "r4.4": "rocker/r-ver:4.4"}
    bootstrap.install()
    made = Environment.objects.get(name="r4-4")
    assert (made.project, made.runtime, made.display_name, made.language) == (None, "r4.4", "R 4.4", "r")


@pytest.mark.django_db(transaction=True)
def test_flushing_between_tests_brings_it_back():
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from deployments_instancetype")
        assert cursor.fetchone()[0] > 0
