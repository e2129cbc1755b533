"""Log lines that outlive their pods."""

from django.db import models

from accounts.models import Project


class LogSource(models.Model):
    """One instance whose log is kept: what it was, in names that outlive it, and how far its log was stored.

    The position moves in the transaction that stores the lines, so that a collector that dies neither loses nor repeats
    any: the time of the last line and how many lines of that very time were stored.
    """

    id = models.BigAutoField(primary_key=True)
    project = models.ForeignKey(Project, models.CASCADE, related_name="log_sources")
    instance_id = models.UUIDField(unique=True, help_text="uid of the pod")
    pod_name = models.CharField(max_length=253)
    deployment_id = models.UUIDField()
    deployment_name = models.CharField(max_length=63)
    version_id = models.UUIDField(db_index=True)
    version_name = models.CharField(max_length=40)
    revision_id = models.UUIDField(null=True)
    revision_number = models.PositiveIntegerField(default=0)
    environment_name = models.CharField(max_length=63, blank=True)
    environment_tag = models.CharField(max_length=63, blank=True)
    position_time = models.BigIntegerField(default=0, help_text="nanoseconds since 1970")
    position_count = models.PositiveIntegerField(default=0)
    # Of the container whose log was read last: with a higher one there, the previous container may have more to say.
    restarts = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["project", "ended_at"], name="log_source_project_ended")]

    def __str__(self) -> str:
        return self.pod_name


class LogLine(models.Model):
    """One line. The table is partitioned by day of ``time``; `monitoring.logstore` writes it with COPY.

    Without a constraint to its source: lines of a deleted project are out of reach at once and removed by and by.
    """

    pk = models.CompositePrimaryKey("source_id", "time", "ordinal")
    source = models.ForeignKey(LogSource, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    time = models.BigIntegerField(help_text="nanoseconds since 1970")
    ordinal = models.IntegerField(help_text="place among the source's lines of the same time")
    level = models.CharField(max_length=16, blank=True)
    request_id = models.CharField(max_length=128, blank=True)
    text = models.TextField(blank=True)

    def __str__(self) -> str:
        return self.text


class LogRetention(models.Model):
    """How long a project keeps its lines; without a row as long as the installation does."""

    project = models.OneToOneField(Project, models.CASCADE, primary_key=True, related_name="log_retention")
    days = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.project}: {self.days} days"
