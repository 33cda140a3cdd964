"""The names that `import graphscale` offers: all there, in any order, and light."""

import subprocess
import sys
from pathlib import Path

import pytest

import graphscale


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.parametrize("first", ["shrink", "Plan", "load", "plan"])
def test_plan_is_a_function_whatever_is_used_before(first: str) -> None:
    code = f"import graphscale; graphscale.{first}; print(callable(graphscale.plan))"
    assert run_python(code) == "True"


@pytest.mark.parametrize("name", graphscale.__all__)
def test_public_names_exist(name: str) -> None:
    assert getattr(graphscale, name) is not None
    assert name in dir(graphscale)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="calibrate"):
        _ = graphscale.calibrate


def test_import_loads_neither_torch_nor_onnxruntime() -> None:
    code = (
        "import graphscale, sys; print([m for m in ('torch', 'onnxruntime') if m in sys.modules])"
    )
    assert run_python(code) == "[]"


def test_shrinking_loads_no_torch() -> None:
    code = "import graphscale.cli.command_line, graphscale.api, sys; print('torch' in sys.modules)"
    assert run_python(code) == "False"


def test_accelerating_loads_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = """
import sys, onnx, onnx_ir as ir, graphscale
from graphscale.acceleration.choose_layers import rewrite_model

made = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[1,1,9,9] x)'
    '=> (float[1,1,7,7] y) { w = ConstantOfShape (s) y = Conv (x, w) }'.replace(
    '{ w', '<int64[4] s = {1, 1, 3, 3}> { w'))
graphscale.accelerate(made)
rewritten = rewrite_model(ir.from_proto(made), {0: "dense 16x16"})
print('torch' in sys.modules, [each.name for each in rewritten.functions.values()])
"""
    assert run_python(code) == "False ['FFTConv']"
