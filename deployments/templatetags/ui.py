"""Template tags of the design: icons, status, form fields, sizes and links that keep the query."""

import datetime as dt
import json
from typing import Any

from django import template
from django.forms import BoundField
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts import access
from accounts.models import AuditEvent, Project, User
from deployments.models import Request
from deployments.services.validation import DATA_TYPES
from deployments.views import status as statuses
from deployments.views.icons import ICONS

register = template.Library()
# Enough to tell artifacts apart; the page of the revision has all of it.
DIGEST_SHOWN = 12


@register.simple_tag
def icon(name: str, size: int = 16) -> SafeString:
    """An icon, hidden from assistive technology: the word beside it says the same."""
    return format_html(
        '<svg class="icon icon-{}" width="{}" height="{}" viewBox="0 0 16 16" fill="none" stroke="currentColor" '
        'stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">'
        '<path d="{}"/></svg>',
        name,
        size,
        size,
        ICONS[name],
    )


@register.simple_tag
def status(obj: Any) -> SafeString:
    """The state of a row: icon and word, never colour alone."""
    state = statuses.of(obj)
    return format_html(
        '<span class="status tone-{}">{}<span>{}</span></span>', state.tone, icon(state.icon, 14), state.label
    )


@register.inclusion_tag("ui/field.html")
def field(bound: BoundField, label: str = "", optional: bool = False) -> dict[str, Any]:
    """Label, control, help and errors of one form field."""
    return {"field": bound, "label": label or bound.label, "optional": optional}


@register.simple_tag
def moment(value: Any, empty: str = "never") -> SafeString | str:
    """A time as "5 min ago" with the exact one in its title; without scripts the exact one."""
    if value is None:
        return empty
    return format_html(
        '<relative-time><time datetime="{}">{} UTC</time></relative-time>',
        value.isoformat(),
        value.strftime("%Y-%m-%d %H:%M"),
    )


@register.filter
def log_address(moment: dt.datetime) -> str:
    """A time as an address of the log viewer has it; compared as text with the cluster's own."""
    return f"{moment.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


@register.simple_tag
def elapsed(start: Any, end: Any = None) -> SafeString | str:
    """A duration that ticks while it has no end."""
    if start is None:
        return ""
    seconds = int((end - start).total_seconds()) if end else None
    return format_html(
        '<time-elapsed data-from="{}" data-to="{}">{}</time-elapsed>',
        start.isoformat(),
        end.isoformat() if end else "",
        duration(seconds) if seconds is not None else "",
    )


@register.filter
def duration(seconds: float | None) -> str:
    """Seconds as "45 s", "3 min 5 s", "2 h 10 min", "5 days"."""
    if seconds is None:
        return ""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    if whole < 172800:
        return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")
    return f"{whole // 86400} days"


@register.filter
def short_duration(seconds: float) -> str:
    """As `duration`, with a decimal below ten seconds."""
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


@register.filter
def asks_for_action(next_step: str) -> bool:
    """Whether a reason's next step wants something of the reader; where waiting cures it, it says "Nothing to do"."""
    return bool(next_step) and "Nothing to do" not in next_step


@register.filter
def pod_short(name: str) -> str:
    """The last part of a pod's name, by which the log tells instances apart too."""
    return name.rpartition("-")[2]


@register.filter
def unlocalized(number: float) -> str:
    """For attributes of SVG, which know only a point."""
    return f"{number:.1f}"


@register.filter
def percent(share: float) -> str:
    """A share of 1 as "2.5 %"."""
    return f"{share * 100:.3g} %"


@register.filter
def milliseconds(seconds: float) -> str:
    """Short times as "12 ms", longer ones as "1.2 s"."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


@register.filter
def mebibytes(value: float) -> str:
    """MiB as "512 MB" or "2 GB"."""
    return f"{value / 1024:g} GB" if value >= 1024 else f"{value:g} MB"


@register.filter
def mebibytes_short(value: float) -> str:
    """As `mebibytes`, rounded for what is measured and not chosen."""
    return f"{value / 1024:.1f} GB" if value >= 1024 else f"{value:.0f} MB"


@register.filter
def cores(value: float) -> str:
    return f"{value:g} CPU"


@register.filter
def initials(user: User) -> str:
    """One or two letters for the round badge of a person."""
    letters = (user.name[:1] + user.surname[:1]) or user.email[:1]
    return letters.upper()


@register.simple_tag(takes_context=True)
def query(context: dict[str, Any], **changes: Any) -> str:
    """The current query string with some parameters changed; None removes one."""
    params = context["request"].GET.copy()
    for name, value in changes.items():
        if value in (None, ""):
            params.pop(name, None)
        else:
            params[name] = value
    return f"?{params.urlencode()}"


@register.simple_tag(takes_context=True)
def my_projects(context: dict[str, Any], limit: int = 30) -> list[Project]:
    """For the project switcher; one query."""
    return list(access.projects_of(context["request"].user).only("name")[:limit])


@register.filter
def words(text: str) -> list[str]:
    return text.split()


@register.filter
def took(call: Request) -> str:
    """How long a request ran, from start to end."""
    if call.time_started is None or call.time_completed is None:
        return ""
    seconds = (call.time_completed - call.time_started).total_seconds()
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else duration(seconds)


@register.filter
def diff_lines(text: str) -> list[tuple[str, str]]:
    """A unified diff's lines with their kind: added, removed, hunk or same; the two header lines are left out."""
    kinds = {"+": "added", "-": "removed", "@": "hunk"}
    return [(kinds.get(line[:1], "same"), line) for line in text.splitlines()[2:]]


@register.filter
def audit_changes(event: AuditEvent) -> list[tuple[str, str, str]]:
    """(field, old, new) of an audit event in words, shortened; fields that were and stay empty are left out."""
    names = list(dict.fromkeys([*event.old, *event.new]))
    rows = [(name, _short(name, event.old.get(name)), _short(name, event.new.get(name))) for name in names]
    return [(name.replace("_", " "), old, new) for name, old, new in rows if old or new]


def _short(name: str, value: Any) -> str:
    if value in (None, "", [], {}):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "digest":
        return str(value)[:DIGEST_SHOWN]
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = ", ".join(value)
    elif isinstance(value, list) and all(isinstance(one, dict) and "name" in one for one in value):
        value = ", ".join(str(one["name"]) for one in value)  # fields, instance types of a group
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"


@register.simple_tag
def data_types() -> tuple[str, ...]:
    """The types an input or output field may have."""
    return DATA_TYPES


@register.filter
def object_word(object_type: str) -> str:
    """The word that people use for a kind of row in the audit trail."""
    words = {
        "alertrule": "alert rule",
        "deploymentversion": "version",
        "environmentvariable": "variable",
        "instancetypegroup": "instance type group",
        "membership": "member",
        "modelversion": "model version",
    }
    return words.get(object_type, object_type)
