"""The third-party stack imports together, in any order, in a process of its own."""

import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from flatguard.environment import compat

# All 24 orders would take minutes; in these, each comes first once and after each other once.
ORDERS = [
    ("torchattacks", "autoattack", "robustbench", "foolbox"),
    ("foolbox", "robustbench", "autoattack", "torchattacks"),
    ("autoattack", "foolbox", "torchattacks", "robustbench"),
    ("robustbench", "torchattacks", "foolbox", "autoattack"),
]


def python(code: str, *options: str) -> str:
    result = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("order", ORDERS)
def test_all_four_libraries_import_in_any_order(order: tuple[str, ...]) -> None:
    imports = "\n".join(f"import {name}" for name in order)
    code = f"import flatguard\n{imports}\nimport sys\nprint('pkg_resources' in sys.modules)"
    assert python(code) in ("True", "False")


def test_flatguard_itself_imports_no_torch() -> None:
    code = """
        import sys, flatguard
        heavy = {"torch", "numpy", "pandas", "pydantic", "typer", "rich", "robustbench"}
        print(sorted(heavy & set(sys.modules)))
    """
    assert python(code) == "[]"


def test_public_names_are_loaded_on_first_use() -> None:
    code = """
        import sys, flatguard
        assert flatguard.Recorder.__name__ == "Recorder" and "torch" in sys.modules
        assert set(flatguard.__all__) <= set(dir(flatguard))
        for name in flatguard.__all__:
            getattr(flatguard, name)
        try:
            flatguard.nonsense
        except AttributeError as error:
            print(error)
    """
    assert python(code) == "module 'flatguard' has no attribute 'nonsense'"


def test_autoattack_has_the_originals_signature_and_the_forks_classes() -> None:
    code = """
        import flatguard, torch
        from autoattack import AutoAttack
        from autoattack.state import EvaluationState
        import autoattack.autopgd_base, pyautoattack
        assert issubclass(AutoAttack, pyautoattack.AutoAttack)
        assert EvaluationState is pyautoattack.state.EvaluationState
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4)).eval()
        x, y = torch.rand(6, 3, 2, 2), torch.zeros(6, dtype=torch.long)
        attack = AutoAttack(net, norm="Linf", eps=0.1, version="custom", device="cpu",
                            attacks_to_run=["apgd-ce"], verbose=False, seed=1)
        adv = attack.run_standard_evaluation(x, y, bs=3)
        pair = attack.run_standard_evaluation(x, y, bs=3, return_labels=True)
        print(tuple(adv.shape), len(pair), torch.equal(adv, pair[0]))
    """
    assert python(code) == "(6, 3, 2, 2) 2 True"


def test_robustbenchs_own_benchmark_runs(tmp_path: Path) -> None:
    """robustbench.benchmark calls autoattack with `bs` and expects one tensor back."""
    code = """
        import flatguard, torch
        import robustbench.data
        from robustbench.eval import benchmark
        from robustbench.model_zoo.enums import BenchmarkDataset
        x, y = torch.rand(8, 3, 4, 4), torch.arange(8) % 4
        robustbench.data._clean_dataset_loaders[BenchmarkDataset.cifar_10] = lambda *_: (x, y)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 10)).eval()
        clean, robust = benchmark(net, n_examples=8, eps=8 / 255, batch_size=8)
        print(0 <= robust <= clean <= 1)
    """
    assert python(code).splitlines()[-1] == "True"


def test_a_real_autoattack_wins(tmp_path: Path) -> None:
    (tmp_path / "autoattack.py").write_text("REAL = True\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport flatguard, autoattack\n"
    code += "from flatguard.environment import compat\n"
    assert (
        python(code + "print(autoattack.REAL, compat.was_needed(compat.AUTOATTACK))")
        == "True False"
    )


def test_without_the_fork_autoattack_stays_missing() -> None:
    code = """
        import sys
        sys.modules["pyautoattack"] = None
        import importlib.util
        import flatguard
        try:
            import autoattack
        except ImportError as error:
            print(error.name)
    """
    assert python(code) == "autoattack"


def test_what_works_is_left_alone() -> None:
    """Only the broken packages' loaders are touched, and the hook comes in once."""
    code = """
        import sys, flatguard, importlib, json.decoder
        from flatguard.environment import compat
        compat.install_hook()
        print(sum(type(f).__name__ == "_WorkaroundFinder" for f in sys.meta_path),
              [w for w in compat.WORKAROUNDS if compat.was_needed(w)],
              type(json.decoder.__loader__).__name__)
    """
    assert python(code) == "1 [] SourceFileLoader"


def test_a_setuptools_that_still_has_pkg_resources_is_used(tmp_path: Path) -> None:
    (tmp_path / "pkg_resources.py").write_text(
        "def resource_filename(package, name):\n    return 'the real one'\n"
    )
    code = f"""
        import sys; sys.path.insert(0, {str(tmp_path)!r})
        import flatguard, robustbench.loaders
        from flatguard.environment import compat
        print(robustbench.loaders.pkg_resources.resource_filename("a", "b"),
              compat.was_needed(compat.PKG_RESOURCES))
    """
    assert python(code) == "the real one False"


def test_the_stand_in_finds_robustbenchs_files() -> None:
    code = """
        import flatguard, robustbench.loaders as loaders
        from pathlib import Path
        name = "helper_files/imagenet_test_image_ids.txt"
        print(Path(loaders.pkg_resources.resource_filename(loaders.__name__, name)).is_file())
    """
    assert python(code) == "True"


def distribution(site: Path, name: str, files: dict[str, str]) -> None:
    """An installed wheel's RECORD, and its files written over whatever is there."""
    import base64
    import hashlib

    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    rows = []
    for file, text in files.items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        rows.append(f"{file},sha256={digest.decode()},{len(text)}")
    (info / "RECORD").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("last", ["robustbench", "torchattacks"])
def test_whose_robustbench_it_is_is_known_by_hash(
    last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {
        "robustbench": {"robustbench/__init__.py": "new", "robustbench/same.py": "same"},
        "torchattacks": {"robustbench/__init__.py": "old", "robustbench/same.py": "same"},
    }
    for name in sorted(contents, key=lambda n: n == last):
        distribution(tmp_path, name, contents[name])
    monkeypatch.syspath_prepend(str(tmp_path))
    expected = ["robustbench/__init__.py"] if last == "torchattacks" else []
    assert compat.robustbench_overwritten() == expected
    if expected:
        import flatguard
        from flatguard.errors import EnvironmentProblem

        with pytest.raises(EnvironmentProblem, match=r"flatguard doctor --fix, which runs .*pip"):
            flatguard.load_target("Carmon2019")


def test_uninstalling_torchattacks_takes_files_of_robustbench_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(
        tmp_path, "robustbench", {"robustbench/__init__.py": "", "robustbench/data.py": ""}
    )
    (tmp_path / "robustbench/data.py").unlink()
    distribution(tmp_path, "torchattacks", {"torchattacks/__init__.py": ""})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert compat.robustbench_overwritten() == ["robustbench/data.py"]


def test_a_file_that_its_user_changed_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "robustbench", {"robustbench/__init__.py": "new"})
    distribution(tmp_path, "torchattacks", {"robustbench/__init__.py": "old"})
    (tmp_path / "robustbench/__init__.py").write_text("mine")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert compat.robustbench_overwritten() == []


# --- torchvision, with its operators and without them -------------------------------------------

CALL = "print(torchvision.ops.nms(torch.ones(1, 4), torch.ones(1), .5).tolist())"
HAS_OPERATORS = python(
    "import flatguard, torchvision\n"
    "from flatguard.environment import compat\n"
    "print(compat.torchvision_has_operators())"
)


@pytest.mark.parametrize("others", ["torchvision", "timm", "robustbench.utils", "torchattacks"])
@pytest.mark.parametrize("first", ["flatguard", "the other"])
def test_operators_work_in_both_orders_wherever_they_load(others: str, first: str) -> None:
    if HAS_OPERATORS == "False":
        pytest.skip("torchvision's compiled operators do not load beside this torch")
    alone = f"""
        try:
            import torchvision, {others}
        except ImportError as error:  # robustbench's own, without pkg_resources
            print(error)
    """
    code = "" if first == "flatguard" else textwrap.dedent(alone)
    code += f"import flatguard, torch, torchvision, {others}\n{CALL}"
    assert python(code).splitlines()[-1] == "[0]"


def test_operators_that_do_not_load_raise_when_they_are_used_and_not_before() -> None:
    """An interpreter without them: torchvision's loader finds no library, as beside a CPU build."""
    code = f"""
        import flatguard, torch
        torch.ops.load_library = lambda path: (_ for _ in ()).throw(OSError("undefined symbol"))
        import torchvision, timm
        from flatguard.environment import compat
        assert compat.was_needed(compat.OPERATORS) and not compat.torchvision_has_operators()
        print(torchvision.models.resnet18().eval()(torch.rand(1, 3, 32, 32)).shape[1])
        try:
            {CALL}
        except RuntimeError as error:
            print("Couldn't load custom C++ ops" in str(error))
    """
    assert python(code).splitlines() == ["1000", "True"]


def test_an_import_that_failed_before_flatguard_came_works_after_it() -> None:
    code = """
        import torch
        torch.ops.load_library = lambda path: (_ for _ in ()).throw(OSError("undefined symbol"))
        try:
            import torchvision
        except RuntimeError as error:
            print(error)
        import flatguard, torchvision
        print(torchvision.models.resnet18.__name__)
    """
    assert python(code).splitlines() == ["operator torchvision::nms does not exist", "resnet18"]


def test_another_failure_of_that_module_is_passed_on() -> None:
    failure = RuntimeError("something else")

    def retry() -> None:
        pytest.fail("nothing is to be run again")

    module = ModuleType("torchvision._meta_registrations")
    swallowed = compat._without_operators(module, failure, retry)
    assert swallowed is not compat.torchvision_has_operators()
    assert not compat._without_operators(module, KeyError("nms"), retry)
    assert not compat._with_resource_filename(module, ModuleNotFoundError(name="torch"), retry)


def test_timm_finds_the_hub_whatever_else_huggingface_hub_has_lost() -> None:
    code = """
        import flatguard, huggingface_hub, timm
        from timm.models._hub import has_hf_hub
        print(has_hf_hub(), hasattr(huggingface_hub, "repo_type_and_id_from_hf_id")
              and flatguard.environment.compat.was_needed(flatguard.environment.compat.HUB))
    """
    assert python(code).splitlines()[-1] == "True False"


def test_nothing_is_registered_with_torch() -> None:
    code = """
        import flatguard, torch, torchvision
        source = open(flatguard.environment.compat.__file__).read()
        print("library" in source.lower().replace("libraries", ""), "_C" in source)
    """
    assert python(code) in ("False False",)


@pytest.mark.parametrize("other", ["transformers", "open_clip", "mlflow"])
@pytest.mark.parametrize("first", ["flatguard", "the other"])
def test_what_people_have_beside_imports_in_both_orders(other: str, first: str) -> None:
    """In the environment of `make test-beside`."""
    if importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is not installed here; `make test-beside` has it")
    alone = subprocess.run(
        [sys.executable, "-c", f"import {other}"], capture_output=True, text=True
    )
    if alone.returncode and first != "flatguard":
        pytest.skip(f"{other} alone cannot be imported here: {alone.stderr.splitlines()[-1]}")
    order = ["flatguard", other] if first == "flatguard" else [other, "flatguard"]
    code = (
        f"import {', '.join(order)}\nimport torchattacks, robustbench.utils, timm, torch\nprint(1)"
    )
    assert python(code).splitlines()[-1] == "1"
