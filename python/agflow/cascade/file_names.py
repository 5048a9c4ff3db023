"""Names in the folder of a cascade; without torch, for those who only look into one."""

CASCADE_FILE, ROUTER_FILE, README_FILE = "cascade.json", "router.json", "README.md"
LIGHT_FOLDER, HEAVY_FOLDER = "light", "heavy"
