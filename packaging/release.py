#!/usr/bin/env python3
"""What belongs to a release, made from the tree; none of it is committed.

usage: release.py archive FOLDER   runnel-VERSION.tar.gz of HEAD, the same to the byte wherever it is made, and runnel.wrap
                                   for it, by which meson takes it from subprojects/packagefiles, or from the URL in
                                   RUNNEL_URL
       release.py sbom FOLDER      runnel-VERSION.spdx.json (SPDX 2.3): the headers with their hashes, what they need
       release.py check            says which file has another version than include/runnel/version.hpp
"""

import datetime
import gzip
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Where the version is written again, because its reader can read nothing else.
ELSEWHERE = {
    "meson.build": r"  version: '(.+)',",
    "CITATION.cff": r"version: (.+)",
    "packaging/debian/changelog": r"runnel \((.+)-\d+\) ",
    "packaging/vcpkg/vcpkg.json": r'  "version": "(.+)",',
}
# What the headers need: name, least version, license, package URL, what for.
NEEDED = [
    ("asio", "1.22.1", "BSL-1.0", "pkg:github/chriskohlhoff/asio", None),
    ("openssl", "3.0.0", "Apache-2.0", "pkg:generic/openssl", "runnel/tls.hpp"),
    ("sqlite", None, "blessing", "pkg:generic/sqlite", "runnel/mqtt/store/sqlite_store.hpp"),
    ("zlib", None, "Zlib", "pkg:generic/zlib", "runnel/websocket/deflate.hpp"),
    ("nlohmann-json", "3.9.0", "MIT", "pkg:github/nlohmann/json", "runnel/aliyun/alink/alink.hpp"),
]


def version():
    text = (ROOT / "include/runnel/version.hpp").read_text()
    return ".".join(re.search(rf"define RUNNEL_VERSION_{part} (\d+)", text)[1] for part in ("MAJOR", "MINOR", "PATCH"))


def git(*arguments):
    return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, check=True).stdout


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    print(f"{hashlib.sha256(content).hexdigest()}  {path}")


def archive(folder):
    name = f"runnel-{version()}"
    tar = git("-c", "tar.umask=0022", "-c", "core.autocrlf=false", "archive", "--format=tar", f"--prefix={name}/", "HEAD")
    packed = gzip.compress(tar, mtime=0)
    write(folder / f"{name}.tar.gz", packed)
    lines = ["[wrap-file]", f"directory = {name}", f"source_filename = {name}.tar.gz"]
    if url := os.environ.get("RUNNEL_URL"):
        lines.append(f"source_url = {url}")
    lines += [f"source_hash = {hashlib.sha256(packed).hexdigest()}", "", "[provide]"]
    lines.append("dependency_names = runnel, runnel-tls, runnel-sqlite, runnel-deflate, runnel-alink")
    write(folder / "runnel.wrap", "".join(f"{line}\n" for line in lines).encode())


def sbom(folder):
    runnel = "SPDXRef-Package-runnel"
    files, relations = [], [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": runnel}]
    for number, path in enumerate(sorted((ROOT / "include").rglob("*.hpp"))):
        content = path.read_bytes()
        files.append({
            "SPDXID": f"SPDXRef-File-{number}",
            "fileName": f"./{path.relative_to(ROOT).as_posix()}",
            "fileTypes": ["SOURCE"],
            "checksums": [
                {"algorithm": "SHA1", "checksumValue": hashlib.sha1(content).hexdigest()},
                {"algorithm": "SHA256", "checksumValue": hashlib.sha256(content).hexdigest()},
            ],
            "licenseConcluded": "MIT",
            "licenseInfoInFiles": ["MIT"],
            "copyrightText": "2026 the runnel authors",
        })
    # SPDX 2.3, 7.9: the hash of the sorted hashes.
    sha1 = hashlib.sha1("".join(sorted(file["checksums"][0]["checksumValue"] for file in files)).encode()).hexdigest()
    packages = [{
        "SPDXID": runnel,
        "name": "runnel",
        "versionInfo": version(),
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": True,
        "packageVerificationCode": {"packageVerificationCodeValue": sha1},
        "hasFiles": [file["SPDXID"] for file in files],
        "licenseConcluded": "MIT",
        "licenseDeclared": "MIT",
        "licenseInfoFromFiles": ["MIT"],
        "copyrightText": "2026 the runnel authors",
    }]
    for name, least, license_, url, header in NEEDED:
        identifier = f"SPDXRef-Package-{name}"
        package = {
            "SPDXID": identifier,
            "name": name,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": False,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": license_,
            "copyrightText": "NOASSERTION",
            "comment": f"{least} or newer" if least else "any version",
            "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url}],
        }
        packages.append(package)
        if header:
            package["comment"] += f"; for {header} only"
            relation = {"spdxElementId": identifier, "relationshipType": "OPTIONAL_DEPENDENCY_OF", "relatedSpdxElement": runnel}
        else:
            relation = {"spdxElementId": runnel, "relationshipType": "DEPENDS_ON", "relatedSpdxElement": identifier}
        relations.append(relation)
    time = int(os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct"))
    name = f"runnel-{version()}"
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://spdx.org/spdxdocs/{name}-{uuid.uuid5(uuid.NAMESPACE_URL, sha1)}",
        "creationInfo": {
            "created": datetime.datetime.fromtimestamp(time, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: runnel packaging/release.py"],
        },
        "packages": packages,
        "files": files,
        "relationships": relations,
    }
    write(folder / f"{name}.spdx.json", (json.dumps(document, indent=1) + "\n").encode())


def check():
    faults = []
    for file, pattern in ELSEWHERE.items():
        found = re.search(f"^{pattern}$" if not pattern.endswith(" ") else f"^{pattern}", (ROOT / file).read_text(), re.MULTILINE)
        if not found or found[1] != version():
            faults.append(f"{file}: the version is {found[1] if found else 'missing'}, in version.hpp it is {version()}")
    print("\n".join(faults) or f"{version()} everywhere")
    sys.exit(1 if faults else 0)


def main():
    match sys.argv[1:]:
        case ["archive", folder]:
            archive(pathlib.Path(folder))
        case ["sbom", folder]:
            sbom(pathlib.Path(folder))
        case ["check"]:
            check()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
