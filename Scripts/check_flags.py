"""Fails where a string below the command line holds a flag: who uses the library has none.

Sentences there name a setting between backquotes, `batch-size` or `checkpoint last`, and the command line spells it as its flag
(`spelledAsFlags`).
"""

import re
import sys
from pathlib import Path

# Strings are kept, and comments are not: Swift has no operator that begins with two dashes, so what is left of a flag is in a string.
TOKEN = re.compile(r'"""(?:\\.|.)*?"""|"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
FLAG = re.compile(r'(?<![\w-])--(?:\w|\\\()')

root = Path(__file__).parent.parent
wrong = []
for file in sorted((root / "Sources").rglob("*.swift")):
    if file.is_relative_to(root / "Sources" / "glora"):
        continue
    # A comment's newlines stay, for the numbers of the lines.
    code = TOKEN.sub(
        lambda token: token[0] if token[0].startswith('"') else "\n" * token[0].count("\n"), file.read_text())
    wrong += [
        f"{file.relative_to(root)}:{number}: {line.strip()}"
        for number, line in enumerate(code.split("\n"), 1) if FLAG.search(line)]
for line in wrong:
    print(f"{line}\n  name the setting between backquotes; the command line spells it as its flag", file=sys.stderr)
sys.exit(bool(wrong))
