"""The folders of a cascade and of its export: names of their files, what export.json may say.

Nothing here imports torch, so that an export is served without.
"""

from agflow._utils.folders import FolderKind
from agflow._utils.json_file import Keys

CASCADE_FILE, ROUTER_FILE, README_FILE = "cascade.json", "router.json", "README.md"
LIGHT_FOLDER, HEAVY_FOLDER = "light", "heavy"

EXPORT_FILE = "export.json"
LIGHT_ROLE, HEAVY_ROLE, PREFIX_ROLE = "light", "heavy", "prefix"
ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}
FILES, CLASS_NAMES, MAX_BATCH, COSTS = "files", "class_names", "max_batch", "costs"

EXPORT_FOLDER = FolderKind(
    "an export of a cascade",
    EXPORT_FILE,
    keys={4: Keys((FILES, "sha256"), (CLASS_NAMES, MAX_BATCH, COSTS)), 1: Keys((FILES,))},
    earlier=(
        *(
            role + ending
            for role in (PREFIX_ROLE, LIGHT_ROLE, HEAVY_ROLE)
            for ending in ENDINGS.values()
        ),
        *(ROUTER_FILE, README_FILE),
    ),
)
