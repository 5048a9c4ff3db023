"""Names in the folders of a cascade and of its export."""

CASCADE_FILE, ROUTER_FILE, README_FILE = "cascade.json", "router.json", "README.md"
LIGHT_FOLDER, HEAVY_FOLDER = "light", "heavy"

EXPORT_FILE = "export.json"
LIGHT_ROLE, HEAVY_ROLE, PREFIX_ROLE = "light", "heavy", "prefix"
ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}
FILES, CLASS_NAMES, MAX_BATCH, COSTS = "files", "class_names", "max_batch", "costs"
