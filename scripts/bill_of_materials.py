"""Writes what is inside the aarch64 program: a CycloneDX bill of materials, and the licence texts of every crate.

    python scripts/bill_of_materials.py target/deb

leaves `sbom.cdx.json` and `licences.txt` in the folder, the same bytes for the same Cargo.lock and models. Inside are
the crates that are linked for aarch64-unknown-linux-gnu, found by cargo itself, without those that only build or test,
and the model packages. Hashes of crates are Cargo.lock's, those of models the manifests'. The time in the bill is
SOURCE_DATE_EPOCH, or else that of the last commit.
"""

import datetime
import hashlib
import json
import os
import re
import subprocess
import tomllib
import uuid
from pathlib import Path

import command_line

ROOT = Path(__file__).resolve().parent.parent
TARGET = "aarch64-unknown-linux-gnu"
LICENCE_FILE = re.compile(r"(?i)^(licen[cs]e|copying|copyright|notice|unlicense)")


def metadata():
    """What cargo knows of our crate and all on which it depends, for the target."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise SystemExit("cargo metadata: it failed")
    return json.loads(done.stdout)


def linked(found):
    """The packages that end up in the program, by id, each with the ids on which it depends."""
    packages = {package["id"]: package for package in found["packages"]}
    nodes = {node["id"]: node for node in found["resolve"]["nodes"]}

    def is_macro(name):
        return any("proc-macro" in target["kind"] for target in packages[name]["targets"])

    inside, todo = {}, [found["resolve"]["root"]]
    while todo:
        name = todo.pop()
        if name in inside:
            continue
        # A kind of none is neither "build" nor "dev".
        inside[name] = sorted(
            dependency["pkg"]
            for dependency in nodes[name]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]) and not is_macro(dependency["pkg"])
        )
        todo += inside[name]
    order = sorted(inside, key=lambda name: (packages[name]["name"], packages[name]["version"]))
    return [(packages[name], inside[name]) for name in order]


def checksums(lock):
    """The SHA-256 of each crate's archive, by name and version."""
    return {(p["name"], p["version"]): p["checksum"] for p in lock["package"] if "checksum" in p}


def reference(package):
    """A package URL: how a bill of materials names a crate."""
    return f"pkg:cargo/{package['name']}@{package['version']}"


def models():
    """The model packages as components, each file with its manifest's hash."""
    for path in sorted(ROOT.glob("models/*/model.toml")):
        manifest = tomllib.loads(path.read_text())
        name = path.parent.name
        files = [
            {
                "type": "file",
                "bom-ref": f"models/{name}/{entry['file']}",
                "name": entry["file"],
                "hashes": [{"alg": "SHA-256", "content": entry["sha256"]}],
            }
            for entry in manifest["files"].values()
        ]
        yield {
            "type": "machine-learning-model",
            "bom-ref": f"models/{name}",
            "name": name,
            "licenses": [{"expression": manifest["licence"]["weights"]}],
            "components": files,
        }


def bill(crates, lock, seconds):
    """The bill of materials, CycloneDX 1.5."""
    hashes = checksums(lock)
    components = []
    for package, _ in crates:
        component = {
            "type": "library",
            "bom-ref": reference(package),
            "name": package["name"],
            "version": package["version"],
            "purl": reference(package),
            # Old manifests write a slash where SPDX says OR.
            "licenses": [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}],
        }
        if (package["name"], package["version"]) in hashes:
            content = hashes[package["name"], package["version"]]
            component["hashes"] = [{"alg": "SHA-256", "content": content}]
        if package["repository"]:
            component["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        components.append(component)
    references = {package["id"]: reference(package) for package, _ in crates}
    own = next(c for c in components if c["name"] == "driftglass")
    components.remove(own)
    whole = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(),
            "component": {**own, "type": "application"},
        },
        "components": components + list(models()),
        "dependencies": [
            {"ref": reference(package), "dependsOn": sorted(references[name] for name in names)}
            for package, names in crates
        ],
    }
    # A serial number that is the content's own, so that the same content has the same bytes.
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).digest()
    return {**whole, "serialNumber": uuid.UUID(bytes=digest[:16], version=4).urn}


def texts(crates):
    """Licence text → the crates that carry it; what has no file of its own has what its manifest says."""
    found = {}
    for package, _ in crates:
        folder = Path(package["manifest_path"]).parent
        files = sorted(f for f in folder.iterdir() if f.is_file() and LICENCE_FILE.match(f.name))
        named = [f.read_text(errors="replace") for f in files]
        if not named:
            authors = ", ".join(package["authors"]) or f"the authors of {package['name']}"
            named = [f"{package['license']}\n\nCopyright: {authors}\n{package['repository'] or ''}\n"]
        for text in named:
            # Many carry the same text with other line ends.
            lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
            found.setdefault(lines, []).append(f"{package['name']} {package['version']} ({package['license']})")
    return found


def main(arguments=None):
    p = command_line.parser(__doc__)
    p.add_argument("folder", type=Path, help="where both files go")
    args = p.parse_args(arguments)
    crates = linked(metadata())
    unlicensed = [package["name"] for package, _ in crates if not package["license"]]
    if unlicensed:
        raise SystemExit(f"{unlicensed[0]}: expected a licence in its manifest, got none")
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    if seconds is None:
        seconds = subprocess.run(
            ["git", "log", "-1", "--format=%ct"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
        ).stdout
    args.folder.mkdir(parents=True, exist_ok=True)
    written = json.dumps(bill(crates, lock, int(seconds)), indent=1, ensure_ascii=False)
    (args.folder / "sbom.cdx.json").write_text(written + "\n")
    rule = "-" * 80
    sections = [
        "\n".join(sorted(set(carriers))) + f"\n{rule}\n{text}\n" for text, carriers in sorted(texts(crates).items())
    ]
    (args.folder / "licences.txt").write_text(f"\n{'=' * 80}\n\n".join(sections))
    print(f"{args.folder}: {len(crates)} crates, {len(sections)} licence texts")


if __name__ == "__main__":
    main()
