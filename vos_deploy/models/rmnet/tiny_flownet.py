"""TinyFlowNet: the optical flow that moves the regions of RMNet from frame to frame.

A small FlowNetS (Dosovitskiy et al., ICCV 2015): two frames stacked, an encoder, and a decoder that
predicts flow at four scales, without correlation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..padding import crop, pad_to_stride

# Five halvings of a frame that is halved first.
STRIDE = 64
SLOPE = 0.1


def conv(in_channels: int, out_channels: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, stride, size // 2), nn.LeakyReLU(SLOPE)
    )


def deconv(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1), nn.LeakyReLU(SLOPE)
    )


def predict(in_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, 2, 3, padding=1)


def enlarge() -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(2, 2, 4, 2, 1, bias=False)


class TinyFlowNet(nn.Module):
    """`width`: channels of the first convolution; 64 in the published network."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        w = width
        self.conv1 = conv(6, w, 7, 2)
        self.conv2 = conv(w, 2 * w, 5, 2)
        self.conv3 = conv(2 * w, 4 * w, 5, 2)
        self.conv3_1 = conv(4 * w, 4 * w)
        self.conv4 = conv(4 * w, 8 * w, stride=2)
        self.conv4_1 = conv(8 * w, 8 * w)
        self.conv5 = conv(8 * w, 8 * w, stride=2)
        self.conv5_1 = conv(8 * w, 8 * w)
        # Each scale of the decoder sees the encoder's features, the coarser scale's and its flow.
        self.deconv4 = deconv(8 * w, 4 * w)
        self.deconv3 = deconv(12 * w + 2, 2 * w)
        self.deconv2 = deconv(6 * w + 2, w)
        self.predict_flow5 = predict(8 * w)
        self.predict_flow4 = predict(12 * w + 2)
        self.predict_flow3 = predict(6 * w + 2)
        self.predict_flow2 = predict(3 * w + 2)
        self.upsampled_flow5_to_4 = enlarge()
        self.upsampled_flow4_to_3 = enlarge()
        self.upsampled_flow3_to_2 = enlarge()

    def forward(self, frame: Tensor, previous: Tensor) -> Tensor:
        """Backward flow float32 [B, 2, H, W], (dx, dy) in pixels: where each pixel of `frame` lay
        in `previous`. Both are float32 [B, 3, H, W], normalised, of any size."""
        pair, pads = pad_to_stride(torch.cat([frame, previous], 1), STRIDE)
        half = F.interpolate(pair, scale_factor=0.5, mode="bilinear", align_corners=False)
        flow = self.features(half.to(self.predict_flow5.weight.dtype)).float()
        # A full frame is eight times the map: a fixed factor, which TensorRT asks for. The values
        # are not scaled: the network predicts pixels of the full frame at every scale.
        full = F.interpolate(flow, scale_factor=8.0, mode="bilinear", align_corners=False)
        return crop(full, pads, (frame.shape[-2], frame.shape[-1]))

    def features(self, pair: Tensor) -> Tensor:
        """Flow [B, 2, h/4, w/4] of a pair [B, 6, h, w], both sides multiples of 32."""
        conv2 = self.conv2(self.conv1(pair))
        conv3 = self.conv3_1(self.conv3(conv2))
        conv4 = self.conv4_1(self.conv4(conv3))
        conv5 = self.conv5_1(self.conv5(conv4))
        up = self.upsampled_flow5_to_4(self.predict_flow5(conv5))
        x = torch.cat([conv4, self.deconv4(conv5), up], 1)
        up = self.upsampled_flow4_to_3(self.predict_flow4(x))
        x = torch.cat([conv3, self.deconv3(x), up], 1)
        up = self.upsampled_flow3_to_2(self.predict_flow3(x))
        x = torch.cat([conv2, self.deconv2(x), up], 1)
        return self.predict_flow2(x)
