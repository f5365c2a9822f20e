#!/usr/bin/env python3
"""Writes what the program consists of (CycloneDX 1.5, JSON): sbom.py [--target TRIPLE] [--output FILE]

- every crate that the release build links, and, marked as `excluded`, those that only run while it builds (build scripts, macros),
  by Cargo's own resolution for that target;
- what such crates bring along in other languages: the C sources of AWS-LC, mimalloc and zstd, each with its own version;
- glibc and Rust's standard library, which are linked into the static program;
- the dashboard's files, which are embedded.

A crate with C sources that is not among those in `IN_C` ends it with an error: a new one must be named.
It needs no program but cargo and rustc. cargo-cyclonedx, which does the same for crates, knows nothing of what is not Rust, and writes a file
beside every member of the workspace.
"""

import argparse
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import tomllib
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = "attache"
# Crates with C (or assembler) sources: the component, where its version stands, how its parts are found there, and its licence.
IN_C = {
    "aws-lc-sys": ("aws-lc", "aws-lc/include/openssl/base.h", r'AWSLC_VERSION_NUMBER_STRING "([0-9.]+)"',
                   "pkg:github/aws/aws-lc@v{}", "ISC AND (Apache-2.0 OR ISC) AND OpenSSL"),
    "libmimalloc-sys": ("mimalloc", "c_src/mimalloc*/v3/include/mimalloc.h|c_src/mimalloc*/include/mimalloc.h", r"#define MI_MALLOC_VERSION +(\d+)",
                        "pkg:github/microsoft/mimalloc@v{}", "MIT"),
    "zstd-sys": ("zstd", "zstd/lib/zstd.h", r"#define ZSTD_VERSION_(?:MAJOR|MINOR|RELEASE) +(\d+)",
                 "pkg:github/facebook/zstd@v{}", "BSD-3-Clause"),
}
# Sources of other languages that no build compiles: benchmarks, fuzzers and examples of the crates' authors, and parts for other systems.
NOT_COMPILED = re.compile(r"/(tests?|benches|fuzz|examples?|third_party|tool|util|doc)/", re.I)


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def tree(target, edges):
    """Names and versions of what `attache` needs by such edges."""
    text = cargo("tree", "--locked", "--package", PACKAGE, "--target", target, "--edges", edges, "--prefix", "none", "--format", "{p}")
    return {(name, version.removeprefix("v")) for name, version, *_ in (line.split() for line in text.splitlines() if line)}


def c_component(package):
    """The component that a crate with C sources brings along."""
    name, files, pattern, purl, licence = IN_C[package["name"]]
    folder = pathlib.Path(package["manifest_path"]).parent
    header = next(file for glob in files.split("|") for file in sorted(folder.glob(glob)))
    parts = re.findall(pattern, header.read_text(errors="replace"))
    if not parts:
        sys.exit(f"{header} does not say the version of {name} as `{pattern}`: mend IN_C of {__file__}")
    version = ".".join(parts)
    if name == "mimalloc":
        # One number: 316 was 3.1.6, 30205 is 3.2.5.
        version = ".".join(version) if len(version) == 3 else f"{int(version[:-4])}.{int(version[-4:-2])}.{int(version[-2:])}"
    return {
        "type": "library", "bom-ref": purl.format(version), "name": name, "version": version, "purl": purl.format(version),
        "scope": "required", "licenses": [{"expression": licence}],
        "description": f"C and assembler sources, compiled by the crate {package['name']} {package['version']}",
    }


def has_c(package):
    """Whether it compiles C: it has sources and what compiles them."""
    folder = pathlib.Path(package["manifest_path"]).parent
    compiles = any(one["name"] in ("cc", "cmake") and one["kind"] == "build" for one in package["dependencies"])
    return compiles and any(not NOT_COMPILED.search(f"/{file.relative_to(folder)}") for file in folder.rglob("*.c"))


def crate(package, checksums, scope):
    name, version = package["name"], package["version"]
    own = package["source"] is None
    component = {
        "type": "library", "bom-ref": package["id"], "name": name, "version": version, "scope": scope,
        "purl": f"pkg:cargo/{name}@{version}",
    }
    if package["license"]:
        component["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if checksum := checksums.get((name, version)):
        component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        component["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    if own:
        component["description"] = "a part of attache itself"
    return component


def files():
    """What is embedded into the program that is no Rust."""
    for file in sorted((ROOT / "crates/admin/src/dashboard").iterdir()):
        if file.suffix != ".rs":
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            yield {
                "type": "file", "bom-ref": f"file:{file.name}", "name": file.name, "scope": "required",
                "hashes": [{"alg": "SHA-256", "content": content}], "description": "embedded: the dashboard, a part of attache itself",
            }


def runtime(target):
    """What a static program holds of the machine that built it."""
    rust = re.search(r"^release: (.+)$", subprocess.run(["rustc", "-vV"], check=True, stdout=subprocess.PIPE, text=True).stdout, re.M)[1]
    yield {
        "type": "library", "bom-ref": f"pkg:generic/rust-std@{rust}", "name": "rust-std", "version": rust, "scope": "required",
        "purl": f"pkg:generic/rust-std@{rust}", "licenses": [{"expression": "MIT OR Apache-2.0"}], "description": f"Rust's standard library for {target}",
    }
    if "gnu" in target:
        said = subprocess.run(["ldd", "--version"], stdout=subprocess.PIPE, text=True).stdout
        if found := re.search(r"(\d+\.\d+)$", said.partition("\n")[0]):
            yield {
                "type": "library", "bom-ref": f"pkg:generic/glibc@{found[1]}", "name": "glibc", "version": found[1], "scope": "required",
                "purl": f"pkg:generic/glibc@{found[1]}", "licenses": [{"expression": "LGPL-2.1-or-later"}], "description": "linked statically",
            }


def host():
    return re.search(r"^host: (.+)$", subprocess.run(["rustc", "-vV"], check=True, stdout=subprocess.PIPE, text=True).stdout, re.M)[1]


def bill(target):
    metadata = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(one["name"], one["version"]): one.get("checksum") for one in lock["package"]}
    linked = tree(target, "normal,no-proc-macro")
    every = tree(target, "normal,build")
    packages = {(one["name"], one["version"]): one for one in metadata["packages"]}
    components, more = [], []
    for key in sorted(every):
        components.append(crate(packages[key], checksums, "required" if key in linked else "excluded"))
        if key[0] in IN_C:
            more.append(c_component(packages[key]))
        elif has_c(packages[key]):
            sys.exit(f"{key[0]} compiles C sources: name them in IN_C of {__file__}")
    own = packages[PACKAGE, next(version for name, version in every if name == PACKAGE)]
    identity = {packages[key]["id"] for key in every}
    dependencies = [
        {"ref": node["id"], "dependsOn": sorted(one for one in node["dependencies"] if one in identity)}
        for node in metadata["resolve"]["nodes"] if node["id"] in identity
    ]
    components += [*more, *runtime(target), *files()]
    text = json.dumps(components, sort_keys=True)
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        # Of the content: the same program has the same bill.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}",
        "metadata": {"component": {
            "type": "application", "bom-ref": own["id"] + "#program", "name": PACKAGE, "version": own["version"],
            "licenses": [{"expression": own["license"]}], "description": f"{own['description']}; for {target}",
        }},
        "components": components, "dependencies": dependencies,
    }


def main():
    parser = argparse.ArgumentParser(description="Writes what the program consists of (CycloneDX 1.5).")
    parser.add_argument("--target", default=host(), help="of the program (this machine's)")
    parser.add_argument("--output", help="the file (standard output)")
    given = parser.parse_args()
    text = json.dumps(bill(given.target), indent=1) + "\n"
    if given.output:
        pathlib.Path(given.output).write_text(text)
    else:
        sys.stdout.write(text)


main()
