"""The conditions that `compare` measures in: its own network namespace, and the peers that Debian's users run."""

import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys

import bench

# What Debian 13 is called; from it on the system's own packages are measured.
SUITE, SUITE_NUMBER = "trixie", 13
SYSTEM = "system"
MIRROR = "http://deb.debian.org/debian"
CONGESTION_CONTROL = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control")
# Without loss, as on loopback, they act alike; BBR does not.
CONGESTION_CONTROLS = ["cubic", "reno"]
# Holds what was found before the namespace was entered, which has no way out.
INSIDE = "CORELANE_COMPARE_INSIDE"


def install(packages):
    """Installs the packages, by program, whose programs are missing."""
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = sorted({package for program, package in packages.items() if not shutil.which(program)})
    if not missing:
        return
    if os.getuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"install first: {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True,
                   env=environment)


def suite_wanted():
    """The suite that this system is too old for, or "system"."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return SYSTEM
    number = release.get("VERSION_ID", "")
    is_old = release.get("ID") == "debian" and number.isdigit() and int(number) < SUITE_NUMBER
    return SUITE if is_old else SYSTEM


def peers(packages, suite, directory):
    """How each peer, by program, is started, and a line about where it came from.

    A suite's programs are in a directory that debootstrap made, now or earlier; their own loader starts them there.
    """
    suite = suite or suite_wanted()
    if suite == SYSTEM:
        install(packages)
        return {program: [program] for program in packages}, "the system's packages"
    places = [pathlib.Path(directory)] if directory else [bench.CACHE / suite, pathlib.Path("/opt/peers")]
    place = next((place for place in places if holds(place, suite, packages)), None)
    try:
        place = place or bootstrap(places[0], suite, packages)
        loader = next(iter(sorted(place.glob("usr/lib/*-linux-gnu/ld-linux-*.so.*"))))
        found = {program: [str(loader), "--library-path", str(loader.parent), str(place / "usr/sbin" / program)]
                 for program in packages}
        for command in found.values():
            subprocess.run([*command, "-v"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError, StopIteration) as error:
        print(f"{suite}'s peers cannot be had ({error!r}): the SYSTEM'S OLDER ONES are measured", flush=True)
        install(packages)
        return ({program: [program] for program in packages},
                f"NOT {suite}'s, which could not be had, but the system's packages")
    return found, f"Debian's {suite}, in {place}"


def holds(place, suite, packages):
    try:
        release = (place / "etc/os-release").read_text()
    except OSError:
        return False
    return f"VERSION_CODENAME={suite}\n" in release and all((place / "usr/sbin" / name).exists() for name in packages)


def bootstrap(place, suite, packages):
    """Half a minute and 200 MB."""
    install({"debootstrap": "debootstrap"})
    print(f"fetching {suite}'s {' and '.join(packages)} into {place}", flush=True)
    part = place.with_name(f"{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(packages.values())}", suite, str(part), MIRROR]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(part / "var/cache/apt", ignore_errors=True)
    part.rename(place)
    return place


def found_before():
    """What was handed into the namespace, inside of it; else nothing."""
    text = os.environ.pop(INSIDE, None)
    return json.loads(text) if text else None


def enter_namespace(found):
    """Starts this script again in a namespace of its own, where it finds what was `found`; else returns why not."""
    trial = subprocess.run(["unshare", "--net", "ip", "link", "set", "lo", "up"], capture_output=True, text=True)
    if trial.returncode != 0:
        return trial.stderr.strip()
    sys.stdout.flush()
    os.environ[INSIDE] = json.dumps(found)
    os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])


def settle_namespace():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name in CONGESTION_CONTROLS:
        try:
            CONGESTION_CONTROL.write_text(name)
            break
        except OSError:
            # The first namespace's list says what others may use.
            continue


def congestion_control():
    return CONGESTION_CONTROL.read_text().strip()
