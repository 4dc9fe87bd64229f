"""Fails where a target of Package.swift imports a module that it doesn't declare, or declares one that it doesn't import.

SwiftPM builds both without a word, until a clean build on more cores takes the modules in another order.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

TOOLCHAIN = {"Foundation", "Glibc", "Synchronization", "Testing"}
IMPORT = re.compile(r"^(?:@\w+ |package |public )*import (?:\w+ )?(\w+)$", re.MULTILINE)

root = Path(__file__).parent.parent
dump = subprocess.run(
    ["swift", "package", "dump-package"],
    cwd=root, env=os.environ | {"GLORA_FUZZ": "1"}, check=True, capture_output=True, text=True)
wrong = []
for target in json.loads(dump.stdout)["targets"]:
    name = target["name"]
    folder = root / (target.get("path") or f"{'Tests' if target['type'] == 'test' else 'Sources'}/{name}")
    files = list(folder.rglob("*.swift"))
    if not files:
        continue
    imported = {module for file in files for module in IMPORT.findall(file.read_text())} - TOOLCHAIN
    declared = {next(iter(dependency.values()))[0] for dependency in target["dependencies"]}
    wrong += [f"{name} imports {module}, which it doesn't declare" for module in sorted(imported - declared)]
    wrong += [f"{name} declares {module}, which it doesn't import" for module in sorted(declared - imported)]
for line in wrong:
    print(f"Package.swift: {line}", file=sys.stderr)
sys.exit(bool(wrong))
