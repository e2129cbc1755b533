from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deployments", "0008_names_in_the_admin_panel")]

    operations = [
        migrations.AlterField("environmentbuild", "directory", models.CharField(max_length=140, unique=True)),
        migrations.AlterField("discardedenvironment", "directory", models.CharField(max_length=140, unique=True)),
    ]
