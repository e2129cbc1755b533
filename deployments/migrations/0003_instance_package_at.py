from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deployments", "0002_gpu")]

    operations = [
        migrations.AddField(
            model_name="instance",
            name="package_at",
            field=models.DateTimeField(blank=True, help_text="when its package was there", null=True),
        ),
    ]
