"""inference.onnx, made of Paddle's inference model by paddle2onnx.

Called by export. The conversion is a process of its own with a time limit: its memory goes with it, and a
converter that crashes doesn't take a finished training along. It prints on stdout, and of its two
optimisers one installs packages with pip while it runs: both are off.

    python -m rectrain_trainer.onnx_export FOLDER   # that process; never started by a user
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from rectrain_api.errors import ExportMismatch

ONNX: Final = "inference.onnx"
OPSET: Final = 14
"""Read by onnxruntime since 1.8."""
LIMIT_S: Final = 300.0
_LEAVE_OUT: Final = "The checkpoints are kept: apply the run again with export.onnx: false to leave it out."


def convert(folder: Path) -> Path:
    """Write inference.onnx beside Paddle's files in `folder`; nothing else is left or touched.

    Raises ExportMismatch saying what failed.
    """
    with tempfile.TemporaryDirectory(prefix=".onnx-", dir=folder) as scratch:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "rectrain_trainer.onnx_export", str(folder)],
                env=os.environ | {"TMPDIR": scratch, "CUDA_VISIBLE_DEVICES": "", "GLOG_minloglevel": "2"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _failed(f"took longer than {LIMIT_S:.0f} s") from None
    if done.returncode < 0:
        raise _failed(f"was ended by signal {-done.returncode}")
    if done.returncode:
        raise _failed(f"said: {_sentence(done.stdout)}")
    if not (folder / ONNX).is_file():
        raise _failed("left no file")
    return folder / ONNX


def load_onnx(folder: Path) -> Any:
    """Images N x 3 x H x W -> probabilities N x T x classes, by onnxruntime on the CPU."""
    import onnxruntime

    from rectrain_trainer.device import usable_cores

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.log_severity_level = 3  # it warns of constants that paddle2onnx leaves behind
    session = onnxruntime.InferenceSession(folder / ONNX, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _failed(why: str) -> ExportMismatch:
    return ExportMismatch(f"The ONNX model couldn't be made: paddle2onnx {why}. {_LEAVE_OUT}")


def _sentence(output: str) -> str:
    """The line that says what went wrong: paddle2onnx's own, else the last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    own = [line.partition("model: ")[2] for line in lines if "Failed to convert PaddlePaddle model: " in line]
    return (own or lines or ["nothing"])[-1].rstrip(".")


def _main(folder: Path) -> None:
    import paddle2onnx

    paddle2onnx.export(
        str(folder / "inference.json"),
        str(folder / "inference.pdiparams"),
        str(folder / ONNX),
        opset_version=OPSET,
        enable_optimize=False,
        optimize_tool="None",
    )


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
