"""The README's quick start and recovery kit, word for word, on an empty ``/srv`` of their own."""

import contextlib
import os
import re
import subprocess
from pathlib import Path

import psutil

from tests.agents import OSTLER, on_a_small_disk

ROOT = Path(__file__).resolve().parents[2]
SRV = Path("/srv")
BEFORE = 'trap "ostler service stop >/dev/null 2>&1; kill %1; wait" EXIT\n'
WAIT = "for i in $(seq 600); do grep -q ready /srv/ready && break; sleep 0.1; done"
BACKUP = 'ID=$(ostler backup list -f value -c id); DIGEST=$(ostler backup show "$ID" -f value -c digest)'


def script() -> str:
    """Return what somebody would do who reads the page; only what a person looks up is filled in."""
    text = (ROOT / "README.md").read_text().partition("## Quick start")[2].partition("## More")[0]
    done = [BEFORE]
    for kind, body in re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL):
        if kind:
            path = body.partition("\n")[0].removeprefix("# ")
            done.append(f"cat > {path} <<'EOF'\n{body}EOF")
        elif body.startswith("make venv"):
            assert body == "make venv\ntools/servers\n"
        elif "agent start" in body:
            done.append(f"{body.strip().replace('.venv/bin/ostler', str(OSTLER))} > /srv/ready & {WAIT}")
        else:
            done.append(re.sub(r"^(ostler backup list)$", rf"\1\n{BACKUP}", body, flags=re.MULTILINE))
    whole = "\n".join(done)
    whole = re.sub(r"^(ostler backup \w+) ID\b", r"\1 $ID", whole, flags=re.MULTILINE)
    whole = whole.replace("--digest DIGEST", "--digest $DIGEST")
    return whole.replace("\nprefix =\n", f"\nprefix = {os.environ.get('OSTLER_TEST_PREFIX', '')}\n")


def test_the_commands_do_as_they_are_written() -> None:
    command = [*on_a_small_disk(SRV, 2 << 30), "bash", "-e", "-c", script() + "\nls -d /srv/ostler/rescued/ibdata1\n"]
    environment = {**os.environ, "PATH": f"{OSTLER.parent}:{os.environ['PATH']}"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    finally:
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                ours = Path(f"/proc/{each.pid}/ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()
                if ours and any("/srv/ostler/g1" in word for word in each.cmdline()):
                    each.kill()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "COMPLETED" in done.stdout
