"""Masks of faces, drawn from dlib's 68 landmarks."""

import os
from pathlib import Path

import numpy as np

from mvae_fast.data.optional import needed

MODEL = "shape_predictor_68_face_landmarks.dat"
SYSTEM_FOLDER = Path("/usr/share/dlib")

#: Landmarks of the parts whose convex hulls are filled, in the numbering of iBUG 300-W from 0.
PARTS = {
    "mouth": slice(48, 68),
    "right_eyebrow": slice(17, 22),
    "left_eyebrow": slice(22, 27),
    "right_eye": slice(36, 42),
    "left_eye": slice(42, 48),
    "nose": slice(27, 36),
}
JAW = slice(0, 17)
JAW_THICKNESS = 2


def draw_face(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Draw the parts of a face: filled hulls of mouth, brows, eyes and nose, and the line of the
    jaw, 2 pixels thick.

    Args:
        landmarks: (68, 2) x and y in pixels, in the order of iBUG 300-W.

    Returns:
        uint8 (height, width), 255 on the parts and 0 elsewhere.

    References:
        Sagonas et al., 300 faces in-the-wild challenge, ICCV workshops 2013.
    """
    if np.shape(landmarks) != (68, 2):
        raise ValueError(f"landmarks must be (68, 2), got {np.shape(landmarks)}")
    cv2 = needed("cv2", "face masks", "masks")
    points = np.round(landmarks).astype(np.int32)
    mask = np.zeros((height, width), np.uint8)
    for part in PARTS.values():
        cv2.fillConvexPoly(mask, cv2.convexHull(points[part]), 255)
    cv2.polylines(mask, [points[JAW]], isClosed=False, color=255, thickness=JAW_THICKNESS)
    return mask


class FaceMasks:
    """Finds the face of an image and draws its parts: dlib's frontal face detector, on the image at
    twice its size, and its 68 landmarks for the first face found.

    Args:
        model: Path of ``shape_predictor_68_face_landmarks.dat``. It comes with Debian's package
            ``libdlib-data`` and from http://dlib.net/files/. It was trained on iBUG 300-W, whose
            licence excludes commercial use.

    Raises:
        FileNotFoundError: If it is not there.
        ImportError: If dlib is missing.
    """

    def __init__(self, model: str | os.PathLike[str]) -> None:
        self.model = Path(model)
        if not self.model.exists():
            raise FileNotFoundError(f"the landmark model {self.model} does not exist; {_SOURCE}")
        dlib = needed("dlib", "face masks", "masks")
        self.detector = dlib.get_frontal_face_detector()
        self.predictor = dlib.shape_predictor(str(self.model))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The mask of an image.

        Args:
            image: uint8 (H, W, 3), RGB.

        Returns:
            uint8 (H, W), 255 on the parts of the face and 0 elsewhere; 0 everywhere where no face
            is found.
        """
        height, width = image.shape[:2]
        image = np.ascontiguousarray(image)
        faces = self.detector(image, 1)
        if not faces:
            return np.zeros((height, width), np.uint8)
        parts = self.predictor(image, faces[0]).parts()
        return draw_face(np.array([(p.x, p.y) for p in parts]), height, width)


_SOURCE = (
    f"{MODEL} comes with Debian's package libdlib-data (in /usr/share/dlib) and, packed, from "
    f"http://dlib.net/files/{MODEL}.bz2"
)


def find_model(folders: list[Path]) -> Path:
    """The landmark model in one of the folders, or where Debian puts it."""
    folders = [*folders, SYSTEM_FOLDER]
    for folder in folders:
        if (folder / MODEL).exists():
            return folder / MODEL
    raise FileNotFoundError(f"missing {MODEL}; looked in {', '.join(map(str, folders))}; {_SOURCE}")
