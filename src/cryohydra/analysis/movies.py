"""Moving pictures: MP4 where ffmpeg is installed, GIF otherwise."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cryohydra.errors import UserError
from cryohydra.io.atomic import write_atomically

FRAMES_PER_SECOND = 10


def movie_suffix() -> str:
    """The kind of movie that this machine can write."""
    return ".mp4" if shutil.which("ffmpeg") else ".gif"


def write_movie(path: Path, frames: UInt8[np.ndarray, "v h w 3"], frames_per_second: int = FRAMES_PER_SECOND) -> None:
    """Write frames of red, green and blue from 0 to 255, there and back again, to be looped.

    Args:
        path: Its suffix says of what kind, see `movie_suffix`.

    Raises:
        UserError: If ffmpeg is there but fails.
    """
    cycle = np.concatenate([frames, frames[-2:0:-1]])
    with write_atomically(path) as temporary:
        if path.suffix == ".mp4":
            _encode(temporary, cycle, frames_per_second)
        else:
            first, *others = [Image.fromarray(frame).quantize(128, dither=Image.Dither.NONE) for frame in cycle]
            duration = round(1000 / frames_per_second)
            first.save(temporary, "gif", save_all=True, append_images=others, duration=duration, loop=0)


def _encode(path: Path, frames: UInt8[np.ndarray, "v h w 3"], frames_per_second: int) -> None:
    # yuv420p and faststart: what presentations and browsers play; the former wants even sides.
    height, width = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(frames_per_second), "-i", "-"]
    result = ["-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4", "-y", str(path)]
    pixels = np.ascontiguousarray(frames[:, :height, :width]).tobytes()
    done = subprocess.run(["ffmpeg", "-loglevel", "error", *source, *result], input=pixels, capture_output=True)
    if done.returncode:
        raise UserError(
            f"ffmpeg could not write {path.name} ({done.stderr.decode(errors='replace').strip()}); "
            "repair it, or take it off PATH to have GIF files instead."
        )
