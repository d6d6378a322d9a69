"""PP-OCRv5 server's backbone for PaddleOCR 2.10, whose PPHGNetV2_B4 is for formulas alone.

Called by `upstream.load`, and nothing where the code is newer. The network is 2.10's own PPHGNetV2, with the
strides that 3.x gives it for lines of text, and its pooling: so weights have the names and shapes of 3.x's.
"""

import inspect
from typing import Any, Final

_STAGES: Final = {
    # channels in, within, out; blocks; has a downsampling; light; kernel; layers
    "stage1": [48, 48, 128, 1, True, False, 3, 6],
    "stage2": [128, 96, 512, 1, True, False, 3, 6],
    "stage3": [512, 192, 1024, 3, True, True, 5, 6],
    "stage4": [1024, 384, 2048, 1, True, True, 5, 6],
}
_STRIDES: Final = ([2, 1], [1, 2], [2, 1], [2, 1])
"""Of each stage's downsampling: down, across."""
_STEPS: Final = 40
"""Across, in training, whatever the width."""


def teach(module: Any) -> None:
    """`module`, which is ppocr.modeling.backbones.rec_pphgnetv2, gets a PPHGNetV2_B4 that knows text_rec."""
    if "text_rec" in inspect.signature(module.PPHGNetV2_B4).parameters:
        return
    formulas = module.PPHGNetV2_B4

    def build(*args: Any, text_rec: bool = False, **kwargs: Any) -> Any:
        return _of_lines(module.PPHGNetV2) if text_rec else formulas(*args, **kwargs)

    module.PPHGNetV2_B4 = build


def _of_lines(base: Any) -> Any:
    from paddle.nn import functional

    class Lines(base):  # type: ignore[misc]
        """N x 3 x 48 x W to N x 2048 x 1 x W/8."""

        def __init__(self) -> None:
            super().__init__(stem_channels=[3, 32, 48], stage_config=_STAGES, use_lab=False)
            self.out_channels = _STAGES["stage4"][2]
            self.stem.stem3.conv._stride = [1, 1]
            for stage, stride in zip(self.stages, _STRIDES, strict=True):
                stage.downsample.conv._stride = stride

        def forward(self, images: Any) -> Any:
            features = super().forward(images)
            if self.training:
                return functional.adaptive_avg_pool2d(features, [1, _STEPS])
            return functional.avg_pool2d(features, [3, 2])

    return Lines()
