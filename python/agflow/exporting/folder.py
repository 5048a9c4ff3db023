"""The folder of an exported cascade: names of its files, and what export.json says of them.

Nothing here imports torch, so that the cascade is served without.
"""

from __future__ import annotations

from agflow._utils.folders import FolderKind
from agflow._utils.json_file import Keys
from agflow.cascade.file_names import README_FILE, ROUTER_FILE

ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}
LIGHT_ROLE, HEAVY_ROLE, PREFIX_ROLE = "light", "heavy", "prefix"
FILES, CLASS_NAMES, MAX_BATCH, COSTS = "files", "class_names", "max_batch", "costs"

EXPORT_FOLDER = FolderKind(
    "an export of a cascade",
    "export.json",
    keys={
        4: Keys((FILES, "sha256"), (CLASS_NAMES, MAX_BATCH, COSTS)),
        1: Keys((FILES,)),
    },
    earlier=(
        *(
            role + ending
            for role in (PREFIX_ROLE, LIGHT_ROLE, HEAVY_ROLE)
            for ending in ENDINGS.values()
        ),
        *(ROUTER_FILE, README_FILE),
    ),
)
