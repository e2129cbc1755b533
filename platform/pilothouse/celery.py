"""The Celery application. Beat's schedule is here so that one place tells what runs periodically."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pilothouse.settings")

app = Celery("pilothouse")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(related_name="tasks")
app.conf.beat_schedule = {
    # Whatever message was lost, this finds what it was about. A run that is late is dropped, not piled up.
    "sweep": {"task": "deployments.tasks.sweep", "schedule": 10.0, "options": {"expires": 10}},
    "autoscale": {"task": "deployments.tasks.autoscale", "schedule": 2.0, "options": {"expires": 2}},
    "schedule-gpus": {"task": "deployments.tasks.schedule_gpus", "schedule": 5.0, "options": {"expires": 5}},
    "collect-garbage": {"task": "deployments.tasks.collect_garbage", "schedule": 60.0, "options": {"expires": 60}},
    "collect-metrics": {"task": "monitoring.tasks.collect_metrics", "schedule": 10.0, "options": {"expires": 10}},
    "roll-up-metrics": {"task": "monitoring.tasks.roll_up_metrics", "schedule": 60.0, "options": {"expires": 60}},
    "evaluate-alerts": {"task": "monitoring.tasks.evaluate_alerts", "schedule": 15.0, "options": {"expires": 15}},
    "announce-requests": {"task": "monitoring.tasks.announce_requests", "schedule": 5.0, "options": {"expires": 5}},
    "send-due": {"task": "monitoring.tasks.send_due", "schedule": 10.0, "options": {"expires": 10}},
    "expire": {"task": "monitoring.tasks.expire", "schedule": 600.0, "options": {"expires": 600}},
    "remove-environments": {"task": "deployments.tasks.remove_environments", "schedule": 600.0},
    "remove-unreferenced-files": {"task": "deployments.tasks.remove_unreferenced_files", "schedule": 6 * 3600.0},
}
