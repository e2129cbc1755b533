"""Settings of the Django project, read from the environment (`docs/configuration.md` lists them).

Production is the default: a missing secret or database stops the start. `make run` and the tests set what they need.
"""

import json
from pathlib import Path
from urllib.parse import urlsplit

import dj_database_url

from pilothouse import uploads
from pilothouse.env import Env

env = Env()
BASE_DIR = Path(__file__).resolve().parent.parent.parent
STATE_DIR = Path(env.text("PILOTHOUSE_STATE_DIR", str(BASE_DIR / ".pilothouse")))

DEBUG = env.flag("PILOTHOUSE_DEBUG")
SECRET_KEY = env.text("PILOTHOUSE_SECRET_KEY")
# Encrypts secret variables at rest; a key of its own, so that rotating sessions never loses them.
PILOTHOUSE_FIELD_KEY = env.text("PILOTHOUSE_FIELD_KEY", SECRET_KEY)
ALLOWED_HOSTS = env.words("PILOTHOUSE_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env.words("PILOTHOUSE_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "drf_spectacular",
    "accounts",
    "deployments",
    "monitoring",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "pilothouse.security.SecurityHeadersMiddleware",
    "pilothouse.security.RefuseNulMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "pilothouse.urls"
ASGI_APPLICATION = "pilothouse.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": dj_database_url.parse(
        env.text("DATABASE_URL"),
        # Under ASGI every request has a thread of its own: a connection kept longer would only pile up.
        conn_max_age=env.number("PILOTHOUSE_DATABASE_CONN_MAX_AGE", 0),
        conn_health_checks=True,
        ssl_require=False,
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.text("REDIS_URL")
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
CHANNEL_LAYERS = {
    # The core layer breaks with redis-py 8 (5 s socket timeout against a 5 s blocking read); the channel layer
    # carries hints only, so pub/sub's at-most-once is enough.
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL], "prefix": "pilothouse"},
    }
}

AUTH_USER_MODEL = "accounts.User"
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "sign-in"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = STATE_DIR / "static"
WHITENOISE_USE_FINDERS = DEBUG
WHITENOISE_AUTOREFRESH = DEBUG

STORAGES = {
    "default": uploads.storage(env, STATE_DIR / "artifacts"),
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
MEDIA_ROOT = STATE_DIR / "artifacts"
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]
FILE_UPLOAD_TEMP_DIR = env.text("PILOTHOUSE_UPLOAD_DIR", "") or None
DATA_UPLOAD_MAX_MEMORY_SIZE = env.number("PILOTHOUSE_REQUEST_MAX_BYTES", 10 * 2**20)
PILOTHOUSE_PACKAGE_MAX_BYTES = env.number("PILOTHOUSE_PACKAGE_MAX_BYTES", 5 * 2**30)
PILOTHOUSE_UNPACKED_MAX_BYTES = env.number("PILOTHOUSE_UNPACKED_MAX_BYTES", 20 * 2**30)

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "accounts.authentication.TokenAuthentication",
        "accounts.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": [
        "deployments.api.parsers.JsonParser",
        "rest_framework.parsers.FormParser",
        "rest_framework.parsers.MultiPartParser",
    ],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "deployments.api.errors.exception_handler",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Pilothouse API",
    "DESCRIPTION": "Deploy code and models as live, auto-scaling web services. "
    "Authenticate with `Authorization: Token <token>`.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "deployments.api.openapi.tell_refusals",
    ],
    "ENUM_NAME_OVERRIDES": {
        "DataTypeEnum": "deployments.models.DataType",
        "BuildStateEnum": "deployments.models.EnvironmentBuild.State",
        "RolloutStateEnum": "deployments.models.Rollout.State",
        "RequestStatusEnum": "deployments.models.Request.Status",
        "InstanceStatusEnum": "deployments.models.Instance.Status",
        "RoleEnum": "accounts.models.Role",
        "AlertKindEnum": "monitoring.models.AlertRule.Kind",
        "AlertStateEnum": "monitoring.models.Alert.State",
        "DeliveryStateEnum": "monitoring.models.Delivery.State",
        "MetricTypeEnum": "monitoring.models.CustomMetric.Kind",
        "WebhookEventEnum": "monitoring.models.Webhook.Event",
    },
}

CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "deployments.tasks.requests.*": {"queue": "requests"},
    # Waits for servers of others, up to half a minute.
    "monitoring.tasks.deliver": {"queue": "requests"},
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 900}
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"

# The cluster: KUBECONFIG, in-cluster credentials otherwise.
KUBECONFIG = env.text("KUBECONFIG", "")
PILOTHOUSE_URL = env.text("PILOTHOUSE_URL", "http://127.0.0.1:8000").rstrip("/")
# Where pods reach this platform to fetch their package; differs from the public address inside a cluster.
PILOTHOUSE_INTERNAL_URL = env.text("PILOTHOUSE_INTERNAL_URL", PILOTHOUSE_URL).rstrip("/")
if (_internal_host := urlsplit(PILOTHOUSE_INTERNAL_URL).hostname) and _internal_host not in ALLOWED_HOSTS:
    ALLOWED_HOSTS.append(_internal_host)
PILOTHOUSE_NAMESPACE_PREFIX = env.text("PILOTHOUSE_NAMESPACE_PREFIX", "ph-")
PILOTHOUSE_SERVING_PORT = env.number("PILOTHOUSE_SERVING_PORT", 8080, at_least=1)
# "pods": to each pod's own address (in a cluster, embedded cluster); "apiserver": through services/proxy from outside.
PILOTHOUSE_ROUTE = env.text("PILOTHOUSE_ROUTE", "apiserver")
# A folder for the embedded cluster (hostPath at the same path), or the name of a ReadWriteMany claim elsewhere.
PILOTHOUSE_ENVIRONMENTS_DIR = env.text("PILOTHOUSE_ENVIRONMENTS_DIR", "/environments")
PILOTHOUSE_ENVIRONMENTS_CLAIM = env.text("PILOTHOUSE_ENVIRONMENTS_CLAIM", "")
PILOTHOUSE_RUNTIME_IMAGES = {
    **{f"python3.{minor}": f"python:3.{minor}-slim" for minor in range(9, 15)},
    "r4.2": "rocker/r-ver:4.2",
    **json.loads(env.text("PILOTHOUSE_RUNTIME_IMAGES", "{}")),
}
# The user and group that pods run as; on a shared claim, the one that may write environments.
PILOTHOUSE_RUN_AS_USER = env.number("PILOTHOUSE_RUN_AS_USER", 1000, at_least=1)
PILOTHOUSE_ROLLOUT_DEADLINE_SECONDS = env.number("PILOTHOUSE_ROLLOUT_DEADLINE_SECONDS", 600, at_least=10)
PILOTHOUSE_BUILD_DEADLINE_SECONDS = env.number("PILOTHOUSE_BUILD_DEADLINE_SECONDS", 1800, at_least=30)
# Environments that no version has needed for this long leave the volume; 0 keeps them all.
PILOTHOUSE_ENVIRONMENT_RETENTION_DAYS = env.number("PILOTHOUSE_ENVIRONMENT_RETENTION_DAYS", 14)
PILOTHOUSE_REQUEST_RETENTION_SECONDS = env.number("PILOTHOUSE_REQUEST_RETENTION_SECONDS", 7 * 86400)

# Extended resources that are accelerators, with the node labels that tell the product and the MiB of a device. A
# star stands for any ending. Others are added here, as JSON of the same form.
PILOTHOUSE_GPU_RESOURCES = {
    "nvidia.com/gpu": {"product": "nvidia.com/gpu.product", "memory": "nvidia.com/gpu.memory"},
    "nvidia.com/gpu.shared": {"product": "nvidia.com/gpu.product", "memory": "nvidia.com/gpu.memory"},
    "nvidia.com/mig-*": {"product": "nvidia.com/gpu.product", "memory": ""},
    "amd.com/gpu": {"product": "amd.com/gpu.product-name", "memory": "amd.com/gpu.vram"},
    "gpu.intel.com/i915": {"product": "gpu.intel.com/product", "memory": "gpu.intel.com/memory.max"},
    **json.loads(env.text("PILOTHOUSE_GPU_RESOURCES", "{}")),
}
# Tells nodes of several clusters with the same names apart.
PILOTHOUSE_CLUSTER_NAME = env.text("PILOTHOUSE_CLUSTER_NAME", "default")

# Log lines are kept in PostgreSQL unless a Loki is named.
PILOTHOUSE_LOKI_URL = env.text("PILOTHOUSE_LOKI_URL", "")
PILOTHOUSE_LOKI_TENANT = env.text("PILOTHOUSE_LOKI_TENANT", "")
PILOTHOUSE_LOKI_TOKEN = env.text("PILOTHOUSE_LOKI_TOKEN", "")
PILOTHOUSE_LOG_RETENTION_DAYS = env.number("PILOTHOUSE_LOG_RETENTION_DAYS", 14, at_least=1)
# Lets a Prometheus read /metrics; without one only the loopback may.
PILOTHOUSE_METRICS_TOKEN = env.text("PILOTHOUSE_METRICS_TOKEN", "")
# Numbers over time are the platform's own samples unless a Prometheus is named.
PILOTHOUSE_PROMETHEUS_URL = env.text("PILOTHOUSE_PROMETHEUS_URL", "")
PILOTHOUSE_PROMETHEUS_TENANT = env.text("PILOTHOUSE_PROMETHEUS_TENANT", "")
PILOTHOUSE_PROMETHEUS_TOKEN = env.text("PILOTHOUSE_PROMETHEUS_TOKEN", "")
# Seconds between its readings, and selectors of series that have other names there than usual.
PILOTHOUSE_PROMETHEUS_INTERVAL = env.number("PILOTHOUSE_PROMETHEUS_INTERVAL", 15, at_least=1)
PILOTHOUSE_PROMETHEUS_SERIES = json.loads(env.text("PILOTHOUSE_PROMETHEUS_SERIES", "{}"))
# Where use of GPUs is told: pods of NVIDIA's DCGM exporter, by label.
PILOTHOUSE_GPU_EXPORTER_SELECTOR = env.text("PILOTHOUSE_GPU_EXPORTER_SELECTOR", "app=nvidia-dcgm-exporter")
PILOTHOUSE_GPU_EXPORTER_PORT = env.number("PILOTHOUSE_GPU_EXPORTER_PORT", 9400, at_least=1)
# Webhooks may call private addresses as well; never those that a cloud's metadata service has.
PILOTHOUSE_WEBHOOKS_TO_PRIVATE = env.flag("PILOTHOUSE_WEBHOOKS_TO_PRIVATE")

# Mail of alerts; without a server none is sent, and deliveries say so.
EMAIL_HOST = env.text("PILOTHOUSE_SMTP_HOST", "")
EMAIL_PORT = env.number("PILOTHOUSE_SMTP_PORT", 587, at_least=1)
EMAIL_HOST_USER = env.text("PILOTHOUSE_SMTP_USER", "")
EMAIL_HOST_PASSWORD = env.text("PILOTHOUSE_SMTP_PASSWORD", "")
EMAIL_USE_TLS = env.flag("PILOTHOUSE_SMTP_TLS", True)
EMAIL_TIMEOUT = 20
DEFAULT_FROM_EMAIL = env.text("PILOTHOUSE_SMTP_FROM", "pilothouse@localhost")

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
# Plain http is for the loopback of one machine; anything else sits behind TLS.
_PLAIN_HTTP = env.flag("PILOTHOUSE_PLAIN_HTTP", DEBUG)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = not _PLAIN_HTTP
# Pods fetch by PILOTHOUSE_INTERNAL_URL, which may be the plain address of a Service inside the cluster.
SECURE_REDIRECT_EXEMPT = [r"^internal/artifacts/", r"^metrics$"]
SECURE_HSTS_SECONDS = 0 if _PLAIN_HTTP else 365 * 86400
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = not _PLAIN_HTTP
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.flag("PILOTHOUSE_BEHIND_PROXY") else None

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["stderr"], "level": env.text("PILOTHOUSE_LOG_LEVEL", "INFO")},
    "loggers": {"kubernetes": {"level": "WARNING"}, "httpx": {"level": "WARNING"}},
}
