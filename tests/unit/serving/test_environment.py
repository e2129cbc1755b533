"""Keys of environments and the files of a build."""

import hashlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import environment
from serving.environment import RequirementsError, environment_hash, normalise, normalise_requirements


def key(requirements: str, runtime: str = "python3.11", digest: str = "d", tag: str = "linux-x86_64") -> str:
    return environment_hash(runtime, requirements, digest, tag)


def test_spelling_order_and_comments_make_no_difference():
    assert key("Scikit_Learn==1.2.2\nnumpy<2") == key("# pins\nnumpy<2   # old\n\n  scikit-learn==1.2.2\n")


@pytest.mark.parametrize(
    "other",
    [
        key("numpy<3"),
        key("numpy<2", runtime="python3.12"),
        key("numpy<2", digest="e"),
        key("numpy<2", tag="linux-aarch64"),
        key("numpy<2\nscipy"),
    ],
)
def test_everything_that_changes_what_is_installed_changes_the_key(other):
    assert key("numpy<2") != other
    assert len(other) == 64


def test_options_stay_in_front_and_in_order():
    text = "numpy\n--extra-index-url https://b.example\n--extra-index-url https://a.example\nabc"
    assert normalise_requirements(text) == (
        "--extra-index-url https://b.example\n--extra-index-url https://a.example\nabc\nnumpy\n"
    )


def test_continuation_lines_and_hashes_are_one_requirement():
    text = "numpy==1.26.4 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
    assert normalise_requirements(text) == "numpy==1.26.4 --hash=sha256:aa --hash=sha256:bb\n"


def test_direct_references_keep_their_address():
    text = "Thing @ https://example.org/Thing-1.0.zip#sha256=ABC"
    assert normalise_requirements(text) == "thing@ https://example.org/Thing-1.0.zip#sha256=ABC\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-r base.txt", "reads another file"),
        ("--constraint=c.txt", "reads another file"),
        ("-e .", "for development"),
        ("./wheels/a.whl", "local path"),
        ("../lib", "local path"),
        ("a @ file:///tmp/a", "local path"),
        ("==1.0", "not a requirement"),
    ],
)
def test_lines_that_cannot_be_built_are_named(line, said):
    with pytest.raises(RequirementsError, match="line 2") as caught:
        normalise_requirements(f"numpy\n{line}\n")
    assert said in str(caught.value)


def test_requirements_have_a_size_limit():
    with pytest.raises(RequirementsError, match="256 KiB"):
        normalise_requirements("a\n" * 200_000)


@given(st.lists(st.from_regex(r"[a-zA-Z][a-zA-Z0-9_.-]{0,8}[a-z0-9](==[0-9]\.[0-9])?", fullmatch=True), max_size=8))
def test_normalising_twice_changes_nothing(lines):
    once = normalise_requirements("\n".join(lines))
    assert normalise_requirements(once) == once
    assert normalise_requirements("\n".join(reversed(lines))) == once


def test_r_takes_a_lock_file_or_code():
    assert normalise("r4.2", '{"b": 1,\n "a": 2}') == '{\n "a": 2,\n "b": 1\n}\n'
    assert normalise("r4.2", "install.packages('zoo')") == "install.packages('zoo')\n"
    with pytest.raises(RequirementsError, match=r"renv\.lock is not JSON"):
        normalise("r4.2", "{nonsense")


def test_the_archive_is_the_same_each_time_and_holds_the_server():
    content, digest = environment.serving_archive()
    environment.serving_archive.cache_clear()
    assert environment.serving_archive() == (content, digest)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        names = archive.getnames()
    assert "pilothouse_serving/__main__.py" in names
    assert "pilothouse_serving/requirements.txt" in names
    assert "pilothouse_serving/r/bridge.R" in names
    assert not [name for name in names if "pycache" in name]
    # A ConfigMap takes 1 MiB, base64 makes four bytes of three.
    assert len(content) < 300_000
    assert len(digest) == hashlib.sha256().digest_size * 2


def test_build_files_are_named_for_the_language():
    python = environment.build_files("python3.11", "numpy\n")
    assert sorted(python) == ["build.py", "requirements.txt", "serving.tar.gz"]
    assert python["requirements.txt"] == b"numpy\n"
    assert sorted(environment.build_files("r4.2", "")) == ["build.py", "serving.tar.gz"]
    assert "renv.lock" in environment.build_files("r4.2", "{}")
    assert "install_packages.R" in environment.build_files("r4.2", "install.packages('zoo')")
