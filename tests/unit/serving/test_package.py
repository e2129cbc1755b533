"""What is found out about a package without importing it."""

import pytest

from serving.package import inspect

from .packages import DEPLOYMENT, make_zip


def problems(files: dict[str, str | bytes], language: str = "") -> list[str]:
    return [str(problem) for problem in inspect(make_zip(files), language).problems]


@pytest.mark.parametrize("root", ["", "anything/", "deployment_package/"])
def test_the_entry_point_is_at_the_root_or_in_one_folder(root):
    found = inspect(make_zip({root + "deployment.py": DEPLOYMENT, root + "requirements.txt": "numpy\n"}))
    assert found.problems == []
    assert (found.root, found.entry_point, found.language) == (root, "deployment.py", "python")
    assert found.requirements == "numpy\n"
    assert found.files == ["deployment.py", "requirements.txt"]
    assert found.has_request_method
    assert not found.has_requests_method


def test_what_macs_add_does_not_count():
    found = inspect(make_zip({"p/deployment.py": DEPLOYMENT, "__MACOSX/p/._deployment.py": "x", ".DS_Store": "x"}))
    assert found.problems == []
    assert found.root == "p/"


def test_of_several_folders_deployment_package_is_taken():
    files = {"deployment_package/deployment.py": DEPLOYMENT, "other/deployment.py": DEPLOYMENT}
    assert inspect(make_zip(files)).root == "deployment_package/"
    assert "More than one folder" in problems({"a/deployment.py": DEPLOYMENT, "b/deployment.py": DEPLOYMENT})[0]


@pytest.mark.parametrize("files", [{"main.py": ""}, {"a/b/deployment.py": DEPLOYMENT}, {"Deployment.py": DEPLOYMENT}])
def test_a_missing_entry_point_is_told_with_the_remedy(files):
    [message] = problems(files)
    assert "put deployment.py or deployment.R at the root" in message
    assert ("lies too deep" in message) == ("a/b/deployment.py" in files)


def test_the_language_settles_which_entry_point_counts():
    both = {"deployment.py": DEPLOYMENT, "deployment.R": "request <- function(input_data) 1\n"}
    assert inspect(make_zip(both), "r").entry_point == "deployment.R"
    assert inspect(make_zip(both), "python").entry_point == "deployment.py"
    assert "There is no deployment.R" in problems({"deployment.py": DEPLOYMENT}, "r")[0]


@pytest.mark.parametrize(
    ("body", "request_method", "requests_method"),
    [
        ("def request(self, data): ...", True, False),
        ("async def request(self, data): ...", True, False),
        ("def requests(self, data): ...", False, True),
        ("def request(self, data): ...\n    requests = request", True, True),
    ],
)
def test_methods_are_found_in_the_syntax_tree(body, request_method, requests_method):
    found = inspect(make_zip({"deployment.py": f"class Deployment:\n    {body}\n"}))
    assert found.problems == []
    assert (found.has_request_method, found.has_requests_method) == (request_method, requests_method)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("class Model: ...", "no class named 'Deployment'"),
        ("class Deployment:\n    def predict(self): ...", "neither a method 'request' nor 'requests'"),
        ("class Deployment(:", "line 1"),
        ("x = '\0'", "cannot be read: source code string cannot contain null bytes"),
        ("x = " + "-" * 100_000 + "1", "nested too deeply"),
    ],
)
def test_code_that_cannot_work_is_told(code, said):
    assert said in problems({"deployment.py": code})[0]


@pytest.mark.parametrize(
    "code", ["from mine import Deployment", "from mine import *", "class Deployment(Base): ...", "Deployment = make()"]
)
def test_a_class_from_elsewhere_is_given_the_benefit_of_the_doubt(code):
    assert problems({"deployment.py": code}) == []


def test_code_is_never_run():
    found = inspect(make_zip({"deployment.py": "raise SystemExit('ran')\n" + DEPLOYMENT}))
    assert found.problems == []


def test_r_functions_are_found():
    found = inspect(
        make_zip({"deployment.R": "# request <- function()\ninit <- function() 1\nrequest = function(x) x\n"})
    )
    assert (found.problems, found.language, found.has_request_method) == ([], "r", True)
    assert "no function named 'request'" in problems({"deployment.R": "# request <- function(x) x"})[0]


def test_r_requirements_come_from_the_lock_file():
    files = {"deployment.R": "request <- function(x) x", "renv.lock": '{"Packages": {}}', "install_packages.R": "no"}
    assert inspect(make_zip(files)).requirements == '{"Packages": {}}'
    assert "renv.lock" in problems(dict(files, **{"renv.lock": "{"}))[0]


def test_requirements_that_cannot_be_built_are_told():
    assert "requirements.txt line 1" in problems({"deployment.py": DEPLOYMENT, "requirements.txt": "-e ."})[0]
    assert "not UTF-8" in problems({"deployment.py": DEPLOYMENT, "requirements.txt": b"\xff\xfe\x00"})[0]
    assert "NUL" in problems({"deployment.py": DEPLOYMENT, "requirements.txt": "num\0py"})[0]
    assert "NUL" in problems({"deployment.R": "request <- function(x) x", "install_packages.R": "'\0'"})[0]


def test_ubiops_yaml_gives_variables_and_refuses_apt():
    yaml = "environment_variables:\n  - A=1\n  - B=x=y\napt:\n  packages:\n    - git\n"
    found = inspect(make_zip({"deployment.py": DEPLOYMENT, "ubiops.yaml": yaml}))
    assert found.environment_variables == {"A": "1", "B": "x=y"}
    assert ["not possible without an image" in str(problem) for problem in found.problems] == [True]


# Nine lists of nine times the one before: 3 GB when written out.
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))


@pytest.mark.parametrize(
    "yaml",
    [
        "a: [",
        "- x",
        "environment_variables: 3",
        "environment_variables: ['1A=2']",
        "environment_variables: [[A=1]]",
        "environment_variables: {A: {B: 1}}",
        'environment_variables: ["A=\\0"]',
        "environment_variables: " + "[" * 3000 + "]" * 3000,
        BOMB + "environment_variables: [*a8]",
        BOMB + "environment_variables: {A: *a8}",
    ],
    ids=range(10),
)
def test_a_bad_ubiops_yaml_is_told(yaml):
    assert problems({"deployment.py": DEPLOYMENT, "ubiops.yaml": yaml})[0].startswith("ubiops.yaml: ")


def test_a_bad_archive_is_a_problem_and_no_exception(tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(b"nothing")
    assert "not a zip archive" in str(inspect(path).problems[0])
    assert "outside" in problems({"../deployment.py": DEPLOYMENT})[0]
