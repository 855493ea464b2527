"""Makes the README's picture: what TensorBoard shows of step 0 of the lecture's first network.

python scripts/readme_picture.py [--output docs/saturation.png]
"""

import argparse
import io
import tempfile
from pathlib import Path

from hydra import compose, initialize_config_dir
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bnlm.config import CONF
from bnlm.run import train

FIGURES = ["figures/activations", "figures/saturation_map/model.blocks.0.activation"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/saturation.png"))
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        overrides = ["experiment=lecture_1_original", "data=names", "trainer.max_steps=1", f"logger.save_dir={folder}"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            train(compose("train", overrides), Path(folder))
        events = EventAccumulator(f"{folder}/tensorboard", size_guidance={"images": 0})
        events.Reload()
        pictures = [Image.open(io.BytesIO(events.Images(tag)[0].encoded_image_string)) for tag in FIGURES]
    joined = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        joined.paste(picture, (0, top))
        top += picture.height
    joined.save(output, optimize=True)
    print(f"{output}: {joined.width} x {joined.height}")


if __name__ == "__main__":
    main()
