"""A ROS 2 node: images in, label images out.

    python examples/ros2/segmenter_node.py --ros-args -r image:=/camera/image_raw -p model:=stm/

Topics: `image` (sensor_msgs/Image, rgb8 or bgr8) is followed; a `mask` (mono8, object ids, of the
same size) marks objects in the next image; `labels` (mono8) has the object ids of each image, with
its header. While one image is worked on, only the newest of the others is kept.
"""

from array import array

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

import vos_deploy

NEWEST = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
)


class SegmenterNode(Node):
    def __init__(self):
        super().__init__("segmenter")
        model = self.declare_parameter("model", "").value
        self.segmenter = vos_deploy.Segmenter(model or None)
        self.mask = None
        self.labels = self.create_publisher(Image, "labels", NEWEST)
        self.create_subscription(Image, "mask", self.on_mask, 1)
        self.create_subscription(Image, "image", self.on_image, NEWEST)

    def on_mask(self, message):
        if message.encoding not in ("mono8", "8UC1"):
            self.get_logger().error(f"masks must be mono8, got {message.encoding}")
            return
        self.mask = pixels(message, 1)[..., 0]

    def on_image(self, message):
        if self.mask is None and not self.segmenter.objects:
            return  # nothing to follow yet
        if message.encoding not in ("rgb8", "bgr8"):
            self.get_logger().error(f"images must be rgb8 or bgr8, got {message.encoding}")
            return
        frame = pixels(message, 3)
        if message.encoding == "bgr8":
            frame = frame[..., ::-1]
        mask, self.mask = self.mask, None
        try:
            labels = self.segmenter.step(np.ascontiguousarray(frame), mask)
        except vos_deploy.VosDeployError as error:
            self.get_logger().error(str(error))
            return
        height, width = labels.shape
        answer = Image(header=message.header, height=height, width=width, encoding="mono8")
        answer.step = width
        answer.data = array("B", labels.tobytes())  # of bytes ROS would check each
        self.labels.publish(answer)


def pixels(message, channels):
    """uint8 [H, W, channels] of an image whose rows may be padded."""
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    rows = rows[:, : message.width * channels]
    return rows.reshape(message.height, message.width, channels)


def main():
    rclpy.init()
    node = SegmenterNode()
    try:
        rclpy.spin(node)
    finally:
        node.segmenter.close()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
