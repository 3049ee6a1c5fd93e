"""Shows pictures on a screen of a virtual machine and reads them back: HDMI, DSI and /dev/fb0 against a real kernel.

    cargo build --example screen
    python scripts/guest.py --cache ../guest target/debug/examples/screen
    python scripts/guest.py --cache ../guest --shots ../shots target/debug/examples/screen hotplug console
    python scripts/guest.py --cache ../guest --card card.png --program target/debug/driftglass test-card --panel hdmi

The first form runs every scenario, each in some seconds of one boot, with the program of tests/guest/screen.rs, which
does what it is told line by line; names of scenarios after it choose some. The last form runs any program with its
arguments instead, waits for the picture of a PNG file on the screen, and ends the program with SIGTERM. A screen must
equal its picture in every pixel. Exit code 1 and a sentence where one does not.

Wants qemu-system-x86_64 (Debian: qemu-system-x86), apt-get and dpkg; unpacks the Debian packages linux-image-amd64 and
busybox-static into --cache once (70 MB, 3 s) and installs nothing. The processor is emulated, since a CI machine may
offer a /dev/kvm that hangs.
"""

import functools
import json
import re
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

import command_line

SIZE = (1280, 720)
# Far more than anything takes on an idle machine; a busy one gets a tenth of the time.
DEADLINE_S = 240
PATIENCE_S = 60
# On a busy machine the emulated timer can come too late for the kernel's check of it, which ends in a panic.
OPTIONS = "console=ttyS0 quiet panic=-1 no_timer_check tsc=unstable"
MODULES = ("virtio_pci", "virtio_gpu", "cirrus", "vfb")
INIT = """#!/bin/sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /bin
/bin/busybox --install -s /bin
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
dmesg -n 1
exec < /dev/ttyS0 > /dev/ttyS0 2>&1
stty raw -echo
echo ::ready
while read -r line; do eval "$line"; echo "::done $?"; done
poweroff -f
"""


class Fault(Exception):
    """A screen or a program is not what it should be."""


# What the guest is made of.


def fetch(cache):
    """The kernel and the folder of unpacked packages, after unpacking them if they are not there yet."""
    root = cache / "root"
    if not root.exists():
        cache.mkdir(parents=True, exist_ok=True)
        depends = subprocess.run(
            ["apt-cache", "depends", "linux-image-amd64"], check=True, capture_output=True, text=True
        ).stdout
        kernel = re.search(r"Depends: (linux-image-\S+)", depends).group(1)
        subprocess.run(["apt-get", "download", "-q", kernel, "busybox-static"], check=True, cwd=cache)
        unpacked = cache / "unpacking"
        for package in cache.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, unpacked], check=True)
        unpacked.rename(root)
    return next((root / "boot").glob("vmlinuz-*")), root


def modules(root, names):
    """The files of these kernel modules and of what they depend on, in the order of loading."""
    by_name = {path.stem.replace("-", "_"): path for path in root.glob("lib/modules/*/kernel/**/*.ko")}
    order = []

    def add(name):
        path = by_name.get(name)
        # What has no file is built into the kernel.
        if path is None or path in order:
            return
        depends = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes()).group(1).decode()
        for other in filter(None, depends.split(",")):
            add(other.replace("-", "_"))
        order.append(path)

    for name in names:
        add(name)
    return order


def libraries(program):
    """The shared libraries that a program loads, by their paths; none for a static one."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True)
    return sorted(set(re.findall(r"(/\S+\.so\S*)", listed.stdout)))


def archive(files):
    """A cpio archive (newc) of {path: (mode, bytes)}, with the folders above them."""
    entries = {}
    for path, entry in sorted(files.items()):
        parts = Path(path).parts
        for depth in range(1, len(parts)):
            entries.setdefault("/".join(parts[:depth]), (0o040755, b""))
        entries[path] = entry
    entries["TRAILER!!!"] = (0, b"")
    chunks = []
    for number, (path, (mode, data)) in enumerate(entries.items()):
        device = (5, 1) if path == "dev/console" else (0, 0)
        name = path.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        for part in (header + name, data):
            chunks.append(part + b"\0" * (-len(part) % 4))
    return b"".join(chunks)


def initramfs(root, program):
    """The guest's whole file system: busybox, modules, the program as /bin/program, and its libraries."""
    loaded = modules(root, MODULES)
    files = {
        "init": (0o100755, INIT.encode()),
        "bin/busybox": (0o100755, next(root.glob("*/bin/busybox"), root / "bin/busybox").read_bytes()),
        "bin/sh": (0o120777, b"busybox"),
        "bin/program": (0o100755, Path(program).read_bytes()),
        "dev/console": (0o020600, b""),
    }
    for path in loaded:
        files[f"modules/{path.name}"] = (0o100644, path.read_bytes())
    for path in libraries(program):
        files[path.lstrip("/")] = (0o100755, Path(path).read_bytes())
    order = [path.name for path in loaded]
    return archive(files), order


# Pictures: (width, height, RGB bytes).


def read_ppm(path):
    """A picture as QEMU's screendump writes it."""
    kind, size, most, rgb = path.read_bytes().split(b"\n", 3)
    assert (kind, most) == (b"P6", b"255"), (kind, most)
    width, height = map(int, size.split())
    return width, height, rgb


def read_png(path):
    """A PNG of 8-bit RGB, not interlaced."""
    data, at, packed = Path(path).read_bytes(), 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, *rest = struct.unpack(">IIBBBBB", body)
            assert rest == [8, 2, 0, 0, 0], f"{path}: expected 8-bit RGB, found {rest}"
        if kind == b"IDAT":
            packed += body
        at += 12 + length
    raw, pitch = zlib.decompress(packed), 3 * width
    rows, above = [], bytearray(pitch)
    for y in range(height):
        kind, row = raw[y * (pitch + 1)], bytearray(raw[y * (pitch + 1) + 1 : (y + 1) * (pitch + 1)])
        for x in range(pitch) if kind else ():
            left, up = row[x - 3] if x > 2 else 0, above[x]
            corner = above[x - 3] if x > 2 else 0
            if kind == 4:
                guess = left + up - corner
                near = min((abs(guess - value), at) for at, value in enumerate((left, up, corner)))
                row[x] = (row[x] + (left, up, corner)[near[1]]) & 255
            else:
                row[x] = (row[x] + (0, left, up, (left + up) // 2)[kind]) & 255
        rows.append(bytes(row))
        above = row
    return width, height, b"".join(rows)


def write_png(path, picture):
    """The same the other way round, for people to look at."""
    width, height, rgb = picture
    rows = b"".join(b"\0" + rgb[3 * width * y :][: 3 * width] for y in range(height))

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    Path(path).write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    )


def mirrored(picture):
    """Left and right swapped."""
    width, height, rgb = picture
    pixels = [rgb[at : at + 3] for at in range(0, len(rgb), 3)]
    return width, height, b"".join(b"".join(pixels[y * width : (y + 1) * width][::-1]) for y in range(height))


def turned(picture):
    """A quarter clockwise."""
    width, height, rgb = picture
    pixels = [rgb[at : at + 3] for at in range(0, len(rgb), 3)]
    columns = (pixels[x::width][::-1] for x in range(width))
    return height, width, b"".join(b"".join(column) for column in columns)


def difference(found, expected):
    """The largest difference of a colour; None if the sizes differ."""
    if found[:2] != expected[:2]:
        return None
    if found[2] == expected[2]:
        return 0
    return max(abs(a - b) for a, b in zip(found[2], expected[2]))


class Monitor:
    """QEMU's monitor: what a person at the machine could see and do."""

    def __init__(self, path):
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(DEADLINE_S)
        self.connection.connect(str(path))
        self.answers = self.connection.makefile()
        self.answers.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        """Gives a command and waits for its answer."""
        self.connection.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = json.loads(self.answers.readline())
            if "error" in answer:
                raise Fault(f"QEMU: {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def screen(self, device="screen"):
        """What a person in front of it sees."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "screen.ppm"
            self.ask("screendump", filename=str(path), device=device)
            return read_ppm(path)


# The guest.


class Guest:
    """A virtual machine with one screen, a shell on its serial port, and a monitor."""

    def __init__(self, cache, program, shots):
        self.shots = shots
        self.folder = Path(tempfile.mkdtemp(prefix="guest-"))
        kernel, root = fetch(cache)
        data, order = initramfs(root, program)
        (self.folder / "initramfs").write_bytes(data)
        self.monitor_path = self.folder / "monitor"
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg", "-m", "512", "-nodefaults", "-no-user-config"]
            + ["-display", "none", "-no-reboot", "-vga", "none"]
            + ["-device", f"virtio-gpu-pci,id=screen,xres={SIZE[0]},yres={SIZE[1]}"]
            + ["-device", "cirrus-vga,id=second"]
            + ["-kernel", kernel, "-initrd", self.folder / "initramfs", "-append", OPTIONS]
            + ["-serial", "stdio", "-qmp", f"unix:{self.monitor_path},server=on,wait=off"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.order = order

    def boot(self):
        """Waits for the shell and the monitor, and loads the screen's driver."""
        self.read_until("::ready")
        self.load("virtio_gpu")
        self.monitor = Monitor(self.monitor_path)

    def load(self, name):
        """Loads a kernel module and those before it; what is loaded already stays."""
        wanted = [file for file in self.order if Path(file).stem.replace("-", "_") == name][0]
        for file in self.order[: self.order.index(wanted) + 1]:
            module = Path(file).stem.replace("-", "_")
            if module in MODULES and module not in (name, "virtio_pci"):
                continue
            self.run(f"insmod /modules/{file} 2>/dev/null; true")

    def read_until(self, mark):
        """The lines of the serial port before the one that begins with `mark`, and the rest of that one."""
        lines = []
        overdue = threading.Timer(DEADLINE_S, self.process.kill)
        overdue.start()
        try:
            for line in self.process.stdout:
                line = line.decode(errors="replace").rstrip("\r\n")
                if line.startswith(mark):
                    return lines, line[len(mark) :].strip()
                lines.append(line)
        finally:
            overdue.cancel()
        raise Fault("the virtual machine ended, or gave no answer in time: " + " | ".join(lines[-5:]))

    def run(self, command):
        """What a line of shell printed."""
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        lines, code = self.read_until("::done")
        if code != "0":
            raise Fault(f"in the guest, {command}: code {code}: " + " | ".join(lines))
        return lines

    def screen(self, device="screen"):
        """What a person in front of it sees."""
        return self.monitor.screen(device)

    def shows(self, name, expected, most=0, seconds=PATIENCE_S, device="screen"):
        """Waits until the screen shows a picture, `most` levels off at worst."""
        end = time.monotonic() + seconds
        while True:
            found = self.screen(device)
            off = difference(found, expected)
            if off is not None and off <= most:
                break
            if time.monotonic() > end:
                write_png(self.shots / f"{name}-wrong.png", found)
                size = f"{found[0]}x{found[1]}"
                raise Fault(f"{name}: the screen shows {size}, off by {off}: {self.shots}/{name}-wrong.png")
            time.sleep(0.1)
        write_png(self.shots / f"{name}.png", found)

    def end(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)


class Program:
    """tests/guest/screen.rs, running in the guest."""

    def __init__(self, guest, kind, *facts, name="one"):
        self.guest, self.name = guest, name
        guest.run(f"rm -f /tmp/{name}.in /tmp/{name}.out; mkfifo /tmp/{name}.in; : > /tmp/{name}.out")
        # The shell holds the pipe open, so that the program does not see its end between two lines.
        self.descriptor = {"one": 5, "two": 6}[name]
        guest.run(
            f"/bin/program {kind} {' '.join(map(shlex.quote, facts))} < /tmp/{name}.in >> /tmp/{name}.out 2>&1 & "
            f"{name}=$!; exec {self.descriptor}> /tmp/{name}.in"
        )

    def output(self):
        return self.guest.run(f"cat /tmp/{self.name}.out")

    def says(self, pattern, after=0, seconds=PATIENCE_S):
        """Waits for a line of output; the number of lines up to it."""
        end = time.monotonic() + seconds
        while True:
            lines = self.output()
            for at, line in enumerate(lines[after:]):
                if re.search(pattern, line):
                    return after + at + 1
            if time.monotonic() > end:
                raise Fault(f"the program did not say {pattern!r}, but: " + " | ".join(lines[after:]))
            time.sleep(0.1)

    def tell(self, line):
        """The number of lines that the program had said before."""
        before = len(self.output())
        self.guest.run(f"echo {line} >&{self.descriptor}")
        return before

    def kill(self, signal):
        self.guest.run(f"kill -{signal} ${self.name}")
        self.wait()

    def quit(self):
        self.tell("quit")
        self.wait()

    def wait(self):
        self.guest.run(f"wait ${self.name}; exec {self.descriptor}>&-")


# Scenarios: each begins and ends with nothing running.


def card(guest, picture):
    """A picture appears as it is, and another one after it."""
    program = Program(guest, "drm")
    program.says(r"shown card on Virtual-1 1280x720@\d+ \(card0\)")
    guest.shows("card", picture(*SIZE))
    program.tell("other")
    guest.shows("card-other", picture(*SIZE, "other"))
    program.tell("card")
    guest.shows("card-again", picture(*SIZE))
    program.quit()


def orientation(guest, picture):
    """Turned and mirrored as the facts say."""
    program = Program(guest, "drm", "rotation-deg = 90", "mirror = 'left-right'")
    program.says("shown card")
    guest.shows("orientation", turned(mirrored(picture(SIZE[1], SIZE[0]))))
    program.quit()


def mode(guest, picture):
    """A mode that is asked for is set; one that there is not ends in a sentence."""
    program = Program(guest, "drm", "mode = '800x600'", "connector = 'Virtual'")
    program.says("shown card on Virtual-1 800x600@")
    guest.shows("mode", picture(800, 600))
    program.quit()
    program = Program(guest, "drm", "mode = '801x600'")
    program.says(r"error mode of Virtual-1: expected 1280x720@\d+, .*, found 801x600")
    program.kill("KILL")


def depth(guest, picture):
    """16 bits: dithered, so at most one level of five bits off; a sentence where a card has only 32."""
    guest.load("cirrus")
    program = Program(guest, "drm", "card = 'card1'", "mode = '800x600'", "depth-bits = 16")
    program.says("shown card")
    guest.shows("depth", picture(800, 600), most=9, device="second")
    program.quit()
    program = Program(guest, "drm", "card = 'card0'", "depth-bits = 16")
    program.says("error depth-bits: expected 32, which is all that card0 has, found 16")
    program.kill("KILL")


def hotplug(guest, picture):
    """Started before the screen is on; off and on again, with another picture meanwhile."""
    status = "/sys/class/drm/card0-Virtual-1/status"
    guest.run(f"echo off > {status}")
    program = Program(guest, "drm")
    said = program.says("shown card on no screen")
    guest.run(f"echo detect > {status}")
    said = program.says("shown card on Virtual-1 1280x720", said)
    guest.shows("hotplug-late", picture(*SIZE))
    guest.run(f"echo off > {status}")
    said = program.says("shown card on no screen", said)
    if difference(guest.screen(), picture(*SIZE)) == 0:
        raise Fault("hotplug: the picture is still there")
    program.tell("other")
    said = program.says("shown other on no screen", said)
    program.tell("card")
    guest.run(f"echo detect > {status}")
    program.says("shown card on Virtual-1", said)
    guest.shows("hotplug-again", picture(*SIZE))
    if any(line.startswith("error") for line in program.output()):
        raise Fault("hotplug: " + " | ".join(program.output()))
    program.quit()


def power(guest, picture):
    """The screen goes dark and comes back with its picture."""
    program = Program(guest, "drm")
    program.says("shown card")
    guest.shows("power-before", picture(*SIZE))
    program.says(r"switched Ok", program.tell("off"))
    dark = guest.screen()
    if difference(dark, picture(*SIZE)) == 0:
        raise Fault("power: the picture is still there")
    program.tell("other")
    program.tell("card")
    program.says(r"switched Ok", program.tell("on"))
    guest.shows("power-after", picture(*SIZE))
    program.quit()


def master(guest, picture):
    """A second program is told who holds the card, and gets it when it is free."""
    first = Program(guest, "drm")
    first.says("shown card")
    second = Program(guest, "drm", name="two")
    second.says(r"error /dev/dri/card0: expected no other program drawing .*, found program \(process \d+\)")
    first.tell("other")
    first.says("shown other")
    first.quit()
    second.says("shown card")
    guest.shows("master", picture(*SIZE))
    second.quit()


def text_is_seen(guest):
    """Whether what is written to the console changes the screen."""
    before = guest.screen()
    for _ in range(8):
        guest.run("echo frame frame frame frame > /dev/tty1")
        time.sleep(0.1)
        if difference(guest.screen(), before) != 0:
            return True
    return False


def console(guest, picture):
    """No text on the picture; text again after the end, a panic, SIGTERM, and the start that follows SIGKILL."""
    # The frame buffer device shows whether text is drawn: DRM's master would keep it out anyway.
    for kind in ("fbdev", "drm"):
        program = Program(guest, kind)
        program.says("shown card")
        guest.shows(f"console-{kind}", picture(*SIZE))
        if text_is_seen(guest):
            raise Fault(f"console: text on the picture of {kind}")
        program.quit()
        if not text_is_seen(guest):
            raise Fault(f"console: no text after {kind}")
        for end in ("echo panic >&5", "kill -TERM $one"):
            program = Program(guest, kind)
            program.says("shown card")
            guest.run(f"{end}; wait $one; true")
            if not text_is_seen(guest):
                raise Fault(f"console: no text after {end} with {kind}")
        program = Program(guest, kind)
        program.says("shown card")
        guest.run("kill -KILL $one; wait $one; true")
        if text_is_seen(guest):
            raise Fault("console: SIGKILL leaves text, which the documentation denies")
        program = Program(guest, kind)
        program.says("shown card")
        program.quit()
        if not text_is_seen(guest):
            raise Fault(f"console: no text after the start that follows SIGKILL with {kind}")


def framebuffer(guest, picture):
    """/dev/fb0 with 32 bits, and one with 16 bits, which is read back from its memory."""
    program = Program(guest, "fbdev")
    program.says(r"shown card on virtio_gpudrmfb 1280x720, 32 bits \(/dev/fb0\)")
    guest.shows("framebuffer", picture(*SIZE))
    program.says("switched Ok", program.tell("off"))
    program.says("switched Ok", program.tell("on"))
    guest.shows("framebuffer-again", picture(*SIZE))
    program.quit()
    guest.run("insmod /modules/vfb.ko vfb_enable=1 mode_option=320x240-16 videomemorysize=1048576")
    program = Program(guest, "fbdev", "device = '/dev/fb1'")
    program.says(r"shown card on Virtual FB 320x240, 16 bits \(/dev/fb1\)")
    memory = bytes.fromhex("".join(guest.run("dd if=/dev/fb1 bs=153600 count=1 2>/dev/null | od -v -An -tx1")))
    program.quit()
    rgb = bytearray()
    for (pixel,) in struct.iter_unpack("<H", memory):
        # The virtual device has red in the lowest bits.
        red, green, blue = pixel & 31, pixel >> 5 & 63, pixel >> 11
        rgb += bytes((red * 255 // 31, green * 255 // 63, blue * 255 // 31))
    if difference((320, 240, bytes(rgb)), picture(320, 240)) > 9:
        write_png(guest.shots / "framebuffer-16-wrong.png", (320, 240, bytes(rgb)))
        raise Fault("framebuffer: 16 bits are wrong")
    write_png(guest.shots / "framebuffer-16.png", (320, 240, bytes(rgb)))


def second(guest, picture):
    """Two cards with screens: the named one is drawn on, the other left alone."""
    guest.load("cirrus")
    program = Program(guest, "drm", "card = 'card1'", "mode = '800x600'")
    program.says(r"shown card on VGA-1 800x600@\d+ \(card1\)")
    guest.shows("second", picture(800, 600), device="second")
    other = Program(guest, "drm", "card = 'card0'", name="two")
    other.says(r"shown card on Virtual-1 1280x720@\d+ \(card0\)")
    guest.shows("second-first", picture(*SIZE))
    other.quit()
    program.quit()


def vanish(guest, picture):
    """The device goes while a picture is shown: a sentence; it comes back: the picture."""
    driver = "/sys/bus/virtio/drivers/virtio_gpu"
    for kind, told in (("drm", r"error /dev/dri"), ("fbdev", r"error /dev/fb0: ")):
        program = Program(guest, kind)
        said = program.says("shown card")
        guest.run(f"device=$(basename {driver}/virtio*); echo $device > {driver}/unbind")
        program.tell("other")
        said = program.says(told, said)
        program.tell("card")
        guest.run(f"echo $device > {driver}/bind")
        program.says("shown card", said)
        guest.shows(f"vanish-{kind}", picture(*SIZE))
        program.quit()


# Those with the second card come last: a screen there is a screen.
SCENARIOS = (card, orientation, mode, hotplug, power, master, console, framebuffer, vanish, depth, second)


def any_program(guest, arguments, png):
    """Runs a program until its picture is on the screen, then ends it as systemd does; text is back on the console."""
    command = " ".join(map(shlex.quote, arguments))
    # A program that reads its standard input waits there, as it would at a terminal.
    guest.run("mkfifo /tmp/in; : > /tmp/out")
    guest.run(f"/bin/program {command} < /tmp/in > /tmp/out 2>&1 & program=$!; exec 5> /tmp/in")
    try:
        guest.shows("program", read_png(png))
        if text_is_seen(guest):
            raise Fault("there is text on the picture")
        guest.run("kill -TERM $program; wait $program; echo its exit code was $? >> /tmp/out")
        if not text_is_seen(guest):
            raise Fault("the text console is not back after SIGTERM")
    finally:
        print("\n".join(guest.run("cat /tmp/out")))


def main():
    parser = command_line.parser(__doc__)
    parser.add_argument("--cache", required=True, type=Path, help="where the unpacked packages are kept")
    parser.add_argument("--shots", type=Path, help="where screenshots go, as PNG; a temporary folder by default")
    parser.add_argument("--card", type=Path, help="the picture that --program shows")
    parser.add_argument("--program", nargs="...", metavar="PROGRAM", help="any program and its arguments")
    parser.add_argument("screen", nargs="?", help="the example named screen, built")
    parser.add_argument("scenarios", nargs="*", help=", ".join(scenario.__name__ for scenario in SCENARIOS))
    arguments = parser.parse_args()
    if bool(arguments.program) == bool(arguments.screen):
        parser.error("expected either the example named screen or --program")
    wanted = arguments.scenarios or [scenario.__name__ for scenario in SCENARIOS]
    unknown = set(wanted) - {scenario.__name__ for scenario in SCENARIOS}
    if unknown:
        parser.error(f"no scenario is called {sorted(unknown)[0]}")
    shots = arguments.shots or Path(tempfile.mkdtemp(prefix="shots-"))
    shots.mkdir(parents=True, exist_ok=True)
    binary = arguments.program[0] if arguments.program else arguments.screen

    @functools.cache
    def picture(width, height, name="card"):
        path = shots / f"expected-{name}-{width}x{height}.png"
        subprocess.run([Path(binary).resolve(), "png", path, name, str(width), str(height)], check=True)
        return read_png(path)

    start = time.monotonic()
    guest = Guest(arguments.cache, binary, shots)
    try:
        guest.boot()
        print(f"{time.monotonic() - start:5.1f} s boot")
        if arguments.program:
            any_program(guest, arguments.program[1:], arguments.card)
        for scenario in SCENARIOS:
            if arguments.screen and scenario.__name__ in wanted:
                begin = time.monotonic()
                scenario(guest, picture)
                print(f"{time.monotonic() - begin:5.1f} s {scenario.__name__}", flush=True)
    except Fault as fault:
        sys.exit(str(fault))
    finally:
        guest.end()
    print(f"{time.monotonic() - start:5.1f} s in all")


if __name__ == "__main__":
    main()
