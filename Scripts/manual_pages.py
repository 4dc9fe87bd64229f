"""Writes the manual pages of a program that swift-argument-parser parses.

    PROGRAM --experimental-dump-help | manual_pages.py FOLDER VERSION

A page for the program and one for each command, as git has them: `man glora-train`. The parser's own plugin would build the
program again, in another configuration, and runs the lines of an example together.
"""

import json
import os
import pathlib
import sys
import time


def escaped(text):
    """Text as roff prints it: plain minuses, and no line that begins like a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in text.split("\n"))


def paragraphs(text):
    """A discussion: indented lines are examples and stay lines of their own."""
    lines, is_example = [], False
    for line in text.split("\n"):
        if line.startswith("  ") != is_example:
            is_example = not is_example
            lines += [".PP", ".RS 4", ".nf"] if is_example else [".fi", ".RE", ".PP"]
        lines.append(escaped(line[2:] if is_example else line) if line else ".PP")
    return lines + ([".fi", ".RE"] if is_example else [])


def spelled(argument):
    """`-h, --help` or `--run RUN`, the names in bold and the value in italics."""
    names = ["-" * (2 if name["kind"] == "long" else 1) + name["name"] for name in argument.get("names", [])]
    value = f"\\fI{escaped(argument.get('valueName', ''))}\\fR"
    if argument["kind"] == "positional":
        return value
    bold = ", ".join(f"\\fB{escaped(name)}\\fR" for name in names)
    return bold if argument["kind"] == "flag" else f"{bold} {value}"


def name_of(argument):
    return argument["names"][-1]["name"] if argument.get("names") else ""


def options(arguments):
    lines, index = [], 0
    while index < len(arguments):
        argument = arguments[index]
        text, name = argument.get("abstract", ""), spelled(argument)
        # `--tune` and `--no-tune` are one setting.
        if arguments[index + 1 :] and name_of(arguments[index + 1]) == "no-" + name_of(argument):
            index += 1
            name += ", " + spelled(arguments[index])
        if "defaultValue" in argument:
            text += f" (default: {argument['defaultValue']})"
        if "allValues" in argument:
            text += f" (values: {', '.join(argument['allValues'])})"
        lines += [".TP", name, escaped(text)]
        index += 1
    return lines


def shown(entries):
    return [entry for entry in entries or [] if entry["shouldDisplay"]]


def write_pages(command, parents, version, folder):
    words = parents + [command["commandName"]]
    page, arguments = "-".join(words), shown(command.get("arguments"))
    commands = [each for each in shown(command.get("subcommands")) if each["commandName"] != "help"]
    required = [spelled(argument) for argument in arguments if not argument["isOptional"]]
    usage = required + (["\\fIcommand\\fR"] if commands else []) + ["[\\fIoptions\\fR]"]
    date = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    lines = [
        f'.TH "{page.upper()}" 1 {date} "{words[0]} {version}"', ".nh", ".ad l",
        ".SH NAME", f"{escaped(page)} \\- {escaped(command['abstract'])}",
        ".SH SYNOPSIS", f"\\fB{' '.join(words)}\\fR " + " ".join(usage)]
    if command.get("discussion"):
        lines += [".SH DESCRIPTION"] + paragraphs(command["discussion"])
    if commands:
        lines += [".SH COMMANDS"]
        for each in commands:
            lines += [".TP", f".BR {escaped(page + '-' + each['commandName'])} (1)", escaped(each["abstract"])]
            write_pages(each, words, version, folder)
    lines += [".SH OPTIONS"] + options(arguments)
    if parents:
        lines += [".SH SEE ALSO", f".BR {escaped('-'.join(parents))} (1)"]
    (folder / f"{page}.1").write_text("\n".join(lines) + "\n", encoding="utf-8")


root = json.load(sys.stdin)
if root["serializationVersion"] != 0:
    sys.exit("manual_pages.py: the parser's dump of help has another version than 0; see what changed in it")
write_pages(root["command"], [], sys.argv[2], pathlib.Path(sys.argv[1]))
