"""Does what a page says: its files are written, its commands run, and what it shows of their output is looked for.

guides.py ATTACHE PAGE...: each page in a folder of its own. It wants a network of its own, since pages name fixed ports (`unshare --net`).

A block of YAML whose first line is `# NAME` is that file. A block of `sh` is run, all of a page in one shell. Each line of a block of `text`
has to stand in what the commands right above it have printed; `…` stands for what differs from run to run. One that begins with `$ ` shows a command
of its own, and is not looked for.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile

MARK = "=== the block ends here ==="
# What needs more than this machine: a registry, a cluster, the internet, root.
ELSEWHERE = re.compile(r"\b(docker|kubectl|helm|sudo|example\.com|cargo)\b|^deploy/")


def blocks(page):
    """Kind, line and text of each block of a page."""
    found, kind, start, text = [], None, 0, []
    for number, line in enumerate(page.splitlines(), 1):
        fence = re.match(r"```(\w*)", line)
        if fence and kind is None:
            kind, start, text = fence[1], number, []
        elif fence:
            found.append((kind, start, "\n".join(text) + "\n"))
            kind = None
        elif kind is not None:
            text.append(line)
    return found


def script(page):
    """The shell's text, and for each of its blocks the line and what its output must have."""
    lines, wanted, shown = ["set -u", "exec 2>&1"], [], False
    for kind, start, text in blocks(page):
        name = re.match(r"# ([\w.-]+\.(?:yaml|json))\n", text)
        if kind == "yaml" and name:
            lines.append(f"cat > {name[1]} <<'END OF THE FILE'\n{text}END OF THE FILE")
        elif kind == "sh":
            run = "\n".join(line for line in text.splitlines() if not ELSEWHERE.search(line))
            lines.append(f"{run}\necho '{MARK}'")
            wanted.append((start, []))
            shown = bool(run.strip())
        elif kind == "text" and wanted and shown and not text.startswith("$ "):
            wanted[-1][1].extend((start, line) for line in text.splitlines() if line.strip())
    return "\n".join(lines) + "\nkill $(jobs -p) 2>/dev/null\nwait\n", wanted


def stands_in(line, said):
    return re.search(".*".join(re.escape(part) for part in line.strip().split("…")), said)


def walk(path, attache):
    with open(path) as file:
        page = file.read()
    text, wanted = script(page)
    if not wanted:
        return []
    folder = tempfile.mkdtemp(prefix="guide")
    environment = {"PATH": f"{os.path.dirname(attache)}:{os.environ['PATH']}", "HOME": folder, "LC_ALL": "C.UTF-8"}
    shell = subprocess.Popen(["bash", "-c", text], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        printed, _ = shell.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)
        return [f"{path}: it does not end\n{shell.communicate()[0]}"]
    wrong, parts = [], printed.split(MARK + "\n")
    for (start, lines), said in zip(wanted, parts):
        # A command that bash doesn't know, or that attache, curl or openssl did not understand, ends a newcomer's walk.
        for bad in ("command not found", "No such file or directory", "unexpected argument", "error:", "curl: ("):
            if bad in said:
                wrong.append(f"{path}:{start}: a command failed\n{said}")
                break
        wrong += [f"{path}:{at}: `{line}` is not in\n{said}" for at, line in lines if not stands_in(line, said)]
    if len(parts) != len(wanted) + 1:
        wrong.append(f"{path}: {len(parts) - 1} of {len(wanted)} blocks were run\n{printed}")
    print(f"{path}: {len(wanted)} blocks, {sum(len(lines) for _, lines in wanted)} lines of output", flush=True)
    return wrong


subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
wrong = [one for page in sys.argv[2:] for one in walk(page, os.path.abspath(sys.argv[1]))]
print("\n".join(wrong) if wrong else "every command of every page does what it says")
sys.exit(bool(wrong))
