"""CelebA in its official layout, with a few images that are noise."""

import io

import numpy as np
from PIL import Image

N = {"0": 12, "1": 20, "2": 5}
EIGHTEEN = (
    "bald bangs black_hair blond_hair brown_hair bushy_eyebrows eyeglasses gray_hair heavy_makeup "
    "male mouth_slightly_open mustache pale_skin receding_hairline smiling straight_hair wavy_hair "
    "wearing_hat"
).split()
FORTY = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose "
    "Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee "
    "Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard "
    "Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair "
    "Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young"
).split()
PARTS = [part for part, n in N.items() for _ in range(n)]
NAMES = [f"{i + 1:06d}.jpg" for i in range(len(PARTS))]
ATTRIBUTES = np.random.default_rng(1).integers(0, 2, (len(PARTS), 40))


def jpeg(number):
    generator = np.random.default_rng(number)
    coarse = Image.fromarray(generator.integers(0, 256, (7, 6, 3), dtype=np.uint8))
    packed = io.BytesIO()
    coarse.resize((178, 218), Image.Resampling.BICUBIC).save(packed, "jpeg")
    return packed.getvalue()


def write_celeba(root, jpegs=None):
    """Write the images and the lists under ``root/celeba``."""
    images = root / "celeba" / "img_align_celeba"
    images.mkdir(parents=True)
    for name, content in zip(NAMES, jpegs or map(jpeg, range(len(NAMES))), strict=True):
        (images / name).write_bytes(content)
    rows = [
        f"{n}  {' '.join(f'{2 * a - 1:2d}' for a in r)} "
        for n, r in zip(NAMES, ATTRIBUTES, strict=True)
    ]
    lines(root, "list_attr_celeba.txt", [str(len(NAMES)), " ".join(FORTY) + " ", *rows])
    partition = [f"{n} {p}" for n, p in zip(NAMES, PARTS, strict=True)]
    lines(root, "list_eval_partition.txt", partition)


def lines(root, name, content, end="\r\n"):
    """Write a list; the official ones end their lines as Windows does."""
    (root / "celeba" / name).write_bytes("".join(f"{line}{end}" for line in content).encode())
