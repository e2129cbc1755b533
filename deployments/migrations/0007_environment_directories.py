from django.db import migrations, models
from django.utils import timezone


def fill(apps, schema_editor):
    builds = apps.get_model("deployments", "EnvironmentBuild").objects
    builds.update(directory=models.F("hash"))
    builds.filter(last_used_at=None).update(last_used_at=timezone.now())


class Migration(migrations.Migration):
    dependencies = [("deployments", "0006_gpu_moves_and_fair_sharing")]

    operations = [
        migrations.CreateModel(
            name="DiscardedEnvironment",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("directory", models.CharField(max_length=80, unique=True)),
                ("discarded_at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.AddField("environmentbuild", "directory", models.CharField(max_length=80, null=True)),
        migrations.RunPython(fill, migrations.RunPython.noop),
        migrations.AlterField("environmentbuild", "directory", models.CharField(max_length=80, unique=True)),
        migrations.AlterField("environmentbuild", "last_used_at", models.DateTimeField(default=timezone.now)),
    ]
