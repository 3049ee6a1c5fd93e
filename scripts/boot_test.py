"""Boots the SD card's image in a virtual machine, looks at its screen, and pulls its plug.

    scripts/boot-test target/image/driftglass-0.1.0-arm64.img
    scripts/boot-test --shots ../shots IMAGE start broken      only these; see below
    scripts/boot-test --pulls 3 IMAGE plug

The machine is QEMU's virt with a Cortex-A53, the memory of a Zero 2 W and a virtio screen, but for pi3; the card, a copy
of the image on a larger disk, is its only drive. Kernel, initramfs and command line are those of the card; the boards' firmware is
what stays untried. What must be on the screen is painted by the program of this machine (--program) from the same seed
and the same file of settings; the screen may be two levels of 255 off, since other processors round otherwise.

start    the card as it is: the service gets ready, and its first picture is on the screen; times and memory
bare     the same without driftglass.toml on the card
broken   a file of settings with a mistake: the sentence is on the screen, and pictures after it
model    a model that is not there: the sentence is on the screen
pi3      the card in a Raspberry Pi 3, as far as QEMU knows one: its device tree, its card reader and four cores, but no
         screen and a watchdog that bites when it is fed; the board is told by name, a picture is in its file
plug     ten times (--pulls): a picture, then the plug is pulled while the next one is painted and picture files are
         written; the file systems are clean or get clean by their journal, every picture file is whole, the favourites
         are the same to the bit, and neither the root nor the boot partition has changed

Wants qemu-system-aarch64 (Debian: qemu-system-arm), mtools and e2fsprogs. All is emulated: the machine's clock counts
instructions, 2 ns each, on one core, and knows neither memory nor the card. Half an hour on a core of its own.
"""

import contextlib
import hashlib
import os
import queue
import random
import re
import shutil
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import command_line
from guest import Fault, Monitor, difference, read_png, write_png

SIZE = (640, 480)
DISK_BYTES = 4 << 30
DEADLINE_S = 1800
# Between two questions to the machine: each costs it a tenth of a second of its own.
ASKING_S = 8
# The machine's own clock moves by 2^SHIFT ns an instruction, so that no time of its own runs out where this machine is
# busy: 500 million instructions a second, which is what a Cortex-A53 of 1 GHz does on a bad day.
SHIFT = 1
# What may be off: the same picture on another processor, enlarged.
LEVELS_MAX = 2
SETTINGS = "driftglass.toml"
FAVOURITES = ("favourite-1.png", "favourite-2.png", "favourite-3.png")
STATE = "/var/lib/driftglass"
AS_OWNER = "setpriv --reuid driftglass --regid driftglass --init-groups"
# What a terminal would be told, but for text.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# A panel that is a file, written at every step.
WRITER = f"""name = "Files"
tier = 1
source = "a test"
kind = "headless"
[headless]
path = "{STATE}/pictures/latest.png"
width-px = 512
height-px = 512
steps-every-ms = 1
"""
WRITES = "run --quiet --panel /run/writer.toml --board generic-aarch64 --steps 4 --hold 0"
TOOLS = {
    "qemu-system-aarch64": "qemu-system-arm",
    "mcopy": "mtools",
    "e2fsck": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "unshare": "util-linux",
}


def quietly(*command, accepts=(0,), **settings):
    """Runs a command, and tells what it said only if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **settings)
    if done.returncode not in accepts:
        raise Fault(f"{' '.join(map(str, command))}: code {done.returncode}: {done.stdout.strip()}")
    return done.stdout


class Card:
    """A copy of the image, as a card that is larger than it."""

    def __init__(self, image, folder):
        self.path = folder / "card"
        self.folder = folder
        quietly("cp", "--sparse=always", "--reflink=auto", image, self.path)
        os.truncate(self.path, max(DISK_BYTES, self.path.stat().st_size))
        self.boot = self.partitions()[0]

    def partitions(self):
        """Offset and length of the boot, root and data partitions, in bytes."""
        with open(self.path, "rb") as disk:
            table = disk.read(512)[446:510]
        found = [struct.unpack_from("<8xII", table, 16 * number) for number in range(4)]
        found = [(512 * start, 512 * length) for start, length in found if length]
        if len(found) != 3:
            raise Fault(f"{self.path}: expected three partitions, found {len(found)}")
        return found

    def mtools(self, program, *arguments):
        """One of mtools' programs, on the boot partition."""
        return quietly(program, "-i", f"{self.path}@@{self.boot[0]}", *arguments)

    def boot_file(self, name):
        """A file of the boot partition, copied out of it."""
        path = self.folder / name
        self.mtools("mcopy", "-n", "-o", f"::{name}", path)
        return path

    def settle(self, text):
        """Puts the owner's file on the boot partition, or takes it away."""
        if text is None:
            return self.mtools("mdel", f"::{SETTINGS}")
        (self.folder / SETTINGS).write_text(text)
        return self.mtools("mcopy", "-o", self.folder / SETTINGS, f"::{SETTINGS}")

    def partition(self, number):
        """A copy of a partition, with its holes."""
        offset, length = self.partitions()[number]
        path = self.folder / f"partition-{number}"
        with open(self.path, "rb") as disk, open(path, "wb") as copy:
            disk.seek(offset)
            for at in range(0, length, 1 << 20):
                block = disk.read(min(1 << 20, length - at))
                if block.count(0) == len(block):
                    copy.seek(len(block), os.SEEK_CUR)
                else:
                    copy.write(block)
            copy.truncate(length)
        return path

    def digest(self, number):
        """The SHA-256 of a partition."""
        path = self.partition(number)
        with open(path, "rb") as copy:
            return hashlib.file_digest(copy, "sha256").hexdigest()

    def state(self):
        """The files of the data partition, after its journal was replayed as a start would do it, by their paths."""
        path = self.partition(2)
        # 1: there was something to do, and it is done.
        quietly("e2fsck", "-p", path, accepts=(0, 1))
        quietly("e2fsck", "-f", "-n", path)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            quietly("debugfs", "-R", f"rdump / {folder}", path)
            files = (file for file in Path(folder).rglob("*") if file.is_file())
            return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def virtual(card, cpu):
    """A machine that no board is, with a screen: QEMU's arguments, and the kernel's for a shell on its serial port."""
    arguments = ["-machine", "virt", "-cpu", cpu, "-m", "512", "-serial", "stdio"]
    arguments += ["-device", f"virtio-gpu-pci,id=screen,xres={SIZE[0]},yres={SIZE[1]}"]
    arguments += ["-drive", f"file={card.path},if=none,id=card,format=raw", "-device", "virtio-blk-pci,drive=card"]
    return arguments, "systemd.debug_shell=ttyAMA0"


def pi_3(card, _cpu):
    """A Raspberry Pi 3, whose first serial port is Bluetooth's, and whose watchdog QEMU takes for a reset: as `virtual`."""
    arguments = ["-machine", "raspi3b", "-dtb", card.boot_file("bcm2837-rpi-3-b.dtb"), "-serial", "null", "-serial", "stdio"]
    return [*arguments, "-drive", f"file={card.path},if=sd,format=raw"], "systemd.debug_shell=ttyS1 systemd.watchdog_sec=0"


class Board:
    """A machine with the card in it, from power on until its plug is pulled; its shell is on its serial port."""

    def __init__(self, card, cpu, machine):
        self.folder = Path(tempfile.mkdtemp(prefix="boot-", dir=card.folder))
        monitor = self.folder / "monitor"
        arguments, added = machine(card, cpu)
        options = f"{card.boot_file('cmdline.txt').read_text().strip()} {added}"
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            ["qemu-system-aarch64", "-accel", "tcg", "-icount", f"shift={SHIFT}", *arguments]
            + ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
            + ["-kernel", card.boot_file("vmlinuz"), "-initrd", card.boot_file("initrd.img"), "-append", options]
            + ["-qmp", f"unix:{monitor},server=on,wait=off"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.lines = queue.Queue()
        self.heard = threading.Event()
        threading.Thread(target=self.listen, daemon=True).start()
        self.until("a monitor", monitor.exists)
        self.monitor = Monitor(monitor)

    def tell(self, what):
        """Prints how far it is, with this machine's seconds since power on."""
        print(f"   {time.monotonic() - self.start:4.0f} s {what}", flush=True)

    def listen(self):
        """Puts aside what comes over the serial port, so that nobody waits for it longer than they want."""
        line = b""
        for chunk in iter(lambda: self.process.stdout.read1(4096), b""):
            self.heard.set()
            *lines, line = (line + chunk).split(b"\n")
            for whole_line in lines:
                self.lines.put(CONTROL.sub("", whole_line.decode(errors="replace")).strip("\r"))

    def until(self, what, holds, pause_s=0.2):
        """Waits until `holds` says something, and returns it."""
        while True:
            found = holds()
            if found:
                return found
            if self.process.poll() is not None:
                raise Fault(f"{what}: the machine ended with {self.process.returncode}: {self.said()}")
            if time.monotonic() - self.start > DEADLINE_S:
                raise Fault(f"{what}: not within {DEADLINE_S} s: {self.said()}")
            time.sleep(pause_s)

    def said(self):
        """The last lines of the serial port."""
        lines = []
        while not self.lines.empty():
            lines.append(self.lines.get())
        return " | ".join(lines[-8:])

    def log_in(self):
        """Waits for the shell. It repeats what it is told until it is told not to.

        Nothing is typed before its prompt: a port that is full when it is opened never hears another letter.
        """
        self.until("a prompt", self.heard.is_set)

        def answers():
            self.type("stty -echo; PS1=; PS2=; echo ::he''llo")
            with contextlib.suppress(queue.Empty):
                while True:
                    if self.lines.get(timeout=ASKING_S).endswith("::hello"):
                        return True

        self.until("a shell", answers)
        self.run("true")
        self.tell("a shell")

    def type(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def run(self, command, seconds=DEADLINE_S):
        """What a command of the shell printed."""
        self.type(f"{{ {command}\n}} 2>&1; echo ::done $?")
        lines, end = [], time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise Fault(f"in the guest, {command}: no answer in {seconds} s: {' | '.join(lines[-5:])}") from None
            before, mark, code = line.partition("::done ")
            if mark:
                lines += [before] if before else []
                if code != "0":
                    raise Fault(f"in the guest, {command}: code {code}: {' | '.join(lines[-5:])}")
                return lines
            # The shell's own line editing leaves empty ones.
            lines += [line] if line else []

    def unit(self, *properties):
        """Properties of the service."""
        lines = self.run(f"systemctl show driftglass --property={','.join(properties)}")
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def status(self):
        """What the service says that it does."""
        return self.unit("StatusText").get("StatusText", "")

    def ready(self):
        """Waits until the service is ready, and returns when it was, by the machine's own clock."""

        def active():
            found = self.unit("ActiveState", "NRestarts")
            if found.get("ActiveState") == "failed" or found.get("NRestarts") not in (None, "0"):
                raise Fault("the service failed: " + " | ".join(self.journal()[-8:]))
            return found.get("ActiveState") == "active"

        self.until("the service, ready", active, ASKING_S)
        self.tell("the service is ready")
        return int(self.unit("ActiveEnterTimestampMonotonic")["ActiveEnterTimestampMonotonic"]) / 1e6

    def journal(self):
        """What the service said, with the seconds of the machine's own clock."""
        return self.run("journalctl --unit driftglass --output short-monotonic --no-hostname --no-pager; true")

    def painted(self):
        """Waits for the first picture: its seed, and when it was there by the machine's own clock."""

        self.until("a picture", lambda: "painted" in self.status(), ASKING_S)
        found = re.search(r"\[ *([0-9.]+)\].*seed (\d+) painted", "\n".join(self.journal()))
        self.tell("a picture is painted")
        return found.group(2), float(found.group(1))

    def shows(self, name, expected, shots):
        """Waits until the screen shows a picture; its screenshot is kept."""
        seen = []

        def right():
            seen[:] = [self.monitor.screen()]
            off = difference(seen[0], expected)
            return None if off is None or off > LEVELS_MAX else (off,)

        try:
            (off,) = self.until(name, right)
        except Fault:
            write_png(shots / f"{name}-wrong.png", seen[0])
            write_png(shots / f"{name}-expected.png", expected)
            raise
        write_png(shots / f"{name}.png", seen[0])
        self.tell(f"the screen shows {name}, off by {off} of 255 levels")

    def pull(self):
        """Pulls the plug."""
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)


@contextlib.contextmanager
def powered(card, cpu, machine=virtual):
    """A board, whose plug is pulled at the end."""
    board = Board(card, cpu, machine)
    try:
        yield board
    finally:
        board.pull()


class Painter:
    """What must be on the screen: the same program on this machine, with a file as its panel."""

    def __init__(self, program, folder):
        self.program = Path(program).resolve()
        self.folder = folder
        root = Path(__file__).resolve().parent.parent
        hdmi = (root / "boards/panels/hdmi.toml").read_text()
        kept = "".join(re.findall(r"^\[(?:mount|correction)\]\n(?:[^\[].*\n?)*", hdmi, flags=re.MULTILINE))
        self.panel = folder / "panel.toml"
        self.panel.write_text(
            'name = "The screen"\ntier = 1\nsource = "a test"\nkind = "headless"\n'
            f'[headless]\npath = "shown.png"\nwidth-px = {SIZE[0]}\nheight-px = {SIZE[1]}\n{kept}'
        )

    def first(self, settings, seed="0"):
        """The first thing that is shown with these settings, a picture or a card; without any where there are none."""
        shown = self.folder / "shown.png"
        shown.unlink(missing_ok=True)
        # The file has the same path as on the card, in a place that only this program sees.
        (self.folder / "settings").write_text(settings or "")
        place = "mount -t tmpfs boot /boot && mkdir /boot/firmware"
        if settings is not None:
            place += f" && cp settings /boot/firmware/{SETTINGS}"
        private = ["unshare", "--mount"] + (["--user", "--map-root-user"] if os.geteuid() else [])
        arguments = ["run", "--panel", self.panel, "--board", "generic-aarch64", "--seed", seed, "--pictures", "1"]
        program = subprocess.Popen(
            [*private, "sh", "-c", f'{place} && exec "$@"', "sh", self.program, *arguments],
            cwd=self.folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        end = time.monotonic() + DEADLINE_S
        while not shown.exists() and program.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        program.terminate()
        said = program.communicate()[1]
        if not shown.exists():
            raise Fault(f"{self.program}: expected a picture, found: {said.strip()}")
        return read_png(shown)


# Scenarios: each has its own card.


def start(card, painter, args):
    """The card as it is."""
    measured("start", card, painter, args, card.boot_file(SETTINGS).read_text())


def bare(card, painter, args):
    """Without a file of settings."""
    card.settle(None)
    measured("bare", card, painter, args, None)


def measured(name, card, painter, args, settings):
    """The service gets ready, its first picture is on the screen; how long that took, how much memory it took."""
    with powered(card, args.cpu) as board:
        board.log_in()
        ready = board.ready()
        seed, painted = board.painted()
        board.shows(name, painter.first(settings, seed), args.shots)
        memory = board.unit("MemoryPeak", "MemoryCurrent", "MainPID")
        peak = board.run(f"grep VmHWM /proc/{memory['MainPID']}/status")[0].split()[1]
        splash = board.run("dmesg | grep -m 1 'initialized virtio_gpu\\|Initialized virtio_gpu'")[0]
        splash = float(re.search(r"\[ *([0-9.]+)\]", splash).group(1))
        print(f"   seconds of the machine's clock from the kernel's start: screen and splash {splash:.1f}, ready with the first step")
        print(f"   of a picture {ready:.1f}, first picture {painted:.1f}")
        of_unit = " and ".join(f"{int(memory[name]) / 2**20:.0f} MiB ({name})" for name in ("MemoryPeak", "MemoryCurrent"))
        print(f"   memory of the unit: {of_unit}; its process alone at most {int(peak) / 1024:.0f} MiB")
        print("   " + ", ".join(" ".join(line.split()) for line in board.run("head -n 3 /proc/meminfo")))


def broken(card, painter, args):
    """A file of settings with a mistake."""
    settings = 'panel = "hdmi"\nhold-s = "for ever"\n'
    card.settle(settings)
    with powered(card, args.cpu) as board:
        board.log_in()
        board.shows("broken", painter.first(settings), args.shots)
        ready = board.ready()
        seed, painted = board.painted()
        board.shows("broken-after", painter.first(None, seed), args.shots)
        print(f"   the card is there after {ready:.1f} s of the machine's clock, the first picture after {painted:.1f} s")


def model(card, painter, args):
    """A model that is not there."""
    settings = 'model = "no-such-model"\n'
    card.settle(settings)
    with powered(card, args.cpu) as board:
        board.log_in()
        board.shows("model", painter.first(settings), args.shots)
        board.ready()


def pi3(card, painter, args):
    """The card in a Raspberry Pi 3."""
    with powered(card, args.cpu, pi_3) as board:
        board.log_in()
        board.ready()
        seed, _ = board.painted()
        board.run(f"{AS_OWNER} test -s {STATE}/latest.png")
        detected = board.run("driftglass boards detect")
        if not detected[0].startswith("board: Raspberry Pi 3 Model B"):
            raise Fault(f"driftglass boards detect: expected a Raspberry Pi 3, found {' | '.join(detected)}")
        print(f"   {detected[0]}; seed {seed} is painted")


def whole(files, favourites):
    """Every picture file is whole, and the favourites are what they were."""
    for name, data in files.items():
        # Half a file has a name of its own until it is whole.
        if name.endswith(".png"):
            with tempfile.NamedTemporaryFile() as file:
                file.write(data)
                file.flush()
                try:
                    read_png(file.name)
                except Exception as fault:
                    raise Fault(f"{name}: expected a whole picture, found {len(data)} bytes: {fault}") from fault
    for name, data in favourites.items():
        if files.get(name) != data:
            raise Fault(f"{name}: expected the same bytes as before the plug was pulled")


def plug(card, painter, args):
    """The plug is pulled, again and again."""
    chance = random.Random(args.chance)
    favourites = {}
    for pull in range(args.pulls):
        seed = 10 * pull
        settings = f"steps = 10\nhold-s = 20\nfirst-seed = {seed}\n"
        card.settle(settings)
        unwritten = [card.digest(number) for number in (0, 1)]
        with powered(card, args.cpu) as board:
            board.log_in()
            board.ready()
            board.shows(f"plug-{pull}", painter.first(settings, str(seed)), args.shots)
            if board.run(f"findmnt --noheadings --output FSTYPE {STATE}") != ["ext4"]:
                raise Fault(f"{STATE}: expected the data partition, found {board.run('findmnt')}")
            if not favourites:
                for number, name in enumerate(FAVOURITES):
                    board.run(f"{AS_OWNER} driftglass --seed {number} --steps 2 --out {STATE}/{name} && sync")
                board.run(f"mkdir {STATE}/pictures && chown driftglass: {STATE}/pictures")
            # Beside the frame, somebody writes picture after picture; its first one is waited for.
            board.run(f"rm -f {STATE}/pictures/latest.png; cat > /run/writer.toml <<'END'\n{WRITER}END")
            board.run(f"{AS_OWNER} driftglass {WRITES} >/dev/null 2>&1 </dev/null &")
            board.until("a file", lambda: board.run(f"ls {STATE}/pictures"), ASKING_S)
            painting = re.compile(r"seed \d+, step")
            board.until("another picture", lambda: painting.match(board.status()), ASKING_S)
            time.sleep(chance.uniform(0, 6))
            status = board.status()
        if [card.digest(number) for number in (0, 1)] != unwritten:
            raise Fault("the boot or the root partition was written")
        files = card.state()
        favourites = favourites or {name: files.get(name) for name in FAVOURITES}
        whole(files, favourites)
        halves = sum(name.endswith(".tmp") for name in files)
        print(f"   pull {pull + 1}, at {status}: {len(files)} files, {halves} of them halves without a name", flush=True)
        # One that a power cut left is cleared at the next start.
        if halves > 1:
            raise Fault(f"expected at most one half of a picture, found {halves}")


SCENARIOS = (start, bare, broken, model, pi3, plug)


def main(arguments=None):
    p = command_line.parser(__doc__)
    p.add_argument("--program", default="target/release/driftglass", type=Path, help="driftglass for this machine (%(default)s)")
    p.add_argument("--shots", type=Path, help="where screenshots go, as PNG; a temporary folder by default")
    p.add_argument("--cpu", default="cortex-a53", help="the board's core (default %(default)s)")
    p.add_argument("--pulls", default=10, type=command_line.count, help="how often the plug is pulled (default %(default)s)")
    p.add_argument("--chance", default=0, type=command_line.seed, help="decides when the plug is pulled (default %(default)s)")
    p.add_argument("image", type=Path, help="what scripts/image made, not compressed")
    p.add_argument("scenarios", nargs="*", help="which of " + ", ".join(each.__name__ for each in SCENARIOS))
    args = p.parse_args(arguments)
    names = [each.__name__ for each in SCENARIOS]
    for name in args.scenarios:
        if name not in names:
            p.error(f"{name}: expected one of {', '.join(names)}")
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool}: there is no such program (Debian: {package})")
    for file in (args.image, args.program):
        file.stat()
    args.shots = args.shots or Path(tempfile.mkdtemp(prefix="shots-"))
    args.shots.mkdir(parents=True, exist_ok=True)
    for scenario in SCENARIOS:
        if args.scenarios and scenario.__name__ not in args.scenarios:
            continue
        begin = time.monotonic()
        print(f"== {scenario.__name__}", flush=True)
        with tempfile.TemporaryDirectory(prefix="boot-test-", dir=args.image.parent) as folder:
            folder = Path(folder)
            try:
                scenario(Card(args.image, folder), Painter(args.program, folder), args)
            except Fault as fault:
                raise SystemExit(f"{scenario.__name__}: {fault} (screenshots: {args.shots})") from None
        print(f"   {time.monotonic() - begin:.0f} s", flush=True)
    print(f"passed; screenshots: {args.shots}")


if __name__ == "__main__":
    main()
