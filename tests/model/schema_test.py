"""The files of schemas/models, schemas/builtin_models and schemas/engines are what their schemas say,
and the schemas refuse what the C++ readers refuse. Exit 77 (skipped) where jsonschema is not
installed."""
import copy
import json
import pathlib
import re
import sys

try:
    import jsonschema
    import referencing
except ImportError:
    print("skipped: no jsonschema (4.18 or newer)")
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parents[2] / "schemas"


def load(path):
    return json.loads(path.read_text())


def registry():
    """The engines' schemas, which the schema of a family refers to."""
    schemas = [load(path) for path in (ROOT / "engines").glob("*.schema.json")]
    return referencing.Registry().with_resources(
        [(schema["$id"], referencing.Resource.from_contents(schema)) for schema in schemas])


def validator(name):
    schema = load(ROOT / name)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema, registry=registry())


def check_folder(schema, folder):
    checks = validator(schema)
    files = sorted((ROOT / folder).glob("*.json"))
    assert files, folder
    for path in files:
        errors = [f"{path.name}: {e.json_path}: {e.message}" for e in checks.iter_errors(load(path))]
        assert not errors, "\n".join(errors)
    return len(files)


def faults():
    """Mutations of mixtral.json, each of which must be refused."""
    def edit(change):
        family = copy.deepcopy(load(ROOT / "models" / "mixtral.json"))
        change(family)
        return family
    return {
        "no layers": edit(lambda f: f.pop("layers")),
        "no moe": edit(lambda f: f["layers"].pop("moe")),
        "unknown key": edit(lambda f: f.update(hubnames={})),
        "peft fact": edit(lambda f: f["model_types"]["mixtral"].update(peft={"convert": True})),
        "axes": edit(lambda f: f["experts"]["memory"].update(axes="in")),
        "no axes": edit(lambda f: f["experts"]["memory"].pop("axes")),
        "role": edit(lambda f: f["modules"][1].update(role="gate")),
        "linear_in": edit(lambda f: f["modules"][1].update(linear_in="hub")),
        "one dimension": edit(lambda f: f["modules"][0]["linears"].update(q_proj=["heads"])),
        "expression": edit(lambda f: f["modules"][0]["linears"].update(q_proj=["heads ^ 1", "hidden"])),
        "real": edit(lambda f: f["modules"][0]["linears"].update(q_proj=[1.5, "hidden"])),
        "no vocab": edit(lambda f: f["values"].pop("vocab")),
        "value key": edit(lambda f: f["values"].update(head_dim={"key": "head_dim"})),
        "function": edit(lambda f: f["values"].update(head_dim={"function": "half"})),
        "up and gate_up": edit(lambda f: f["experts"]["hub"]["numbered"].update(gate_up="w13")),
        "first without every": edit(lambda f: f["layers"].update(moe={"first": 1})),
        "pattern without values": edit(lambda f: f["layers"].update(moe={"pattern": "p"})),
    }


def stack_faults():
    """Mutations of nllb_moe.json, each of which must be refused."""
    def edit(change):
        family = copy.deepcopy(load(ROOT / "models" / "nllb_moe.json"))
        change(family)
        return family
    return {
        "no stacks": edit(lambda f: f.pop("stacks")),
        "no stack": edit(lambda f: f.update(stacks=[])),
        "no count": edit(lambda f: f["stacks"][1].pop("count")),
        "no path of a stack": edit(lambda f: f["stacks"][1].pop("layer")),
        "no modules of a stack": edit(lambda f: f["stacks"][1].pop("modules")),
        "unknown key of a stack": edit(lambda f: f["stacks"][0].update(experts={})),
        "stacks and a layer": edit(lambda f: f.update(layer="model.layers.{layer}")),
        "stacks and modules": edit(lambda f: f.update(modules=[])),
        "stacks and layers": edit(lambda f: f.update(layers={"moe": "all"})),
        "an expert without a number": edit(lambda f: f["stacks"][0]["modules"][3].update(path="ffn.experts")),
        "a number without an expert": edit(lambda f: f["stacks"][0]["modules"][3].update(role="router")),
    }


def forward_faults():
    """Mutations of the "forward" of qwen3_moe.json, which tests/forward/section_faults_test.cpp shows lib/forward
    to refuse."""
    out = {}
    for fault in load(ROOT.parent / "tests" / "forward" / "section_faults.json"):
        family = load(ROOT / "models" / "qwen3_moe.json")
        for key, value in fault["change"].items():
            family["forward"][key] = value
            if value is None:
                del family["forward"][key]
        out[f"{fault['change']}"] = family
    stacks = load(ROOT / "models" / "nllb_moe.json")
    stacks["forward"] = {"mixers": [{"kind": "softmax"}]}
    return out | {"two stacks of layers": stacks}


def closed_objects(schema):
    """The key sets of all objects below this schema that allow no others."""
    if isinstance(schema, list):
        return set().union(*map(closed_objects, schema))
    if not isinstance(schema, dict):
        return set()
    own = {frozenset(schema["properties"])} if schema.get("additionalProperties") is False else set()
    return own.union(*map(closed_objects, schema.values()))


def check_forward_keys():
    """The keys that the schema knows below "forward" are those that lib/forward allows, object by object, and its kinds
    of mixers are the files of mixers/."""
    defs = load(ROOT / "model_spec.schema.json")["$defs"]
    forward, rule = defs["forward"], defs["number_rule"]
    one_of = forward["properties"]["mixers"]["items"]["oneOf"]
    kinds = {one["$ref"].removeprefix("#/$defs/mixer_") for one in one_of}
    parts = [forward["properties"], defs["router"], defs["rope"], rule, *(defs[f"mixer_{kind}"] for kind in kinds)]
    described = closed_objects(parts)
    for layer in "then", "else":
        described.add(frozenset(forward["properties"]) - frozenset(forward[layer]["properties"]))
    described.add(frozenset(rule["properties"]) - {"keys"} - frozenset(rule["dependentSchemas"]["value"]["properties"]))
    files = sorted((ROOT.parent / "lib" / "forward").rglob("*.cpp"))
    read = {frozenset(re.findall(r'"(\w+)"', keys)) for path in files
            for keys in re.findall(r"(?:allow_only\(|kKeys = )\{(.*?)\}", path.read_text(), re.DOTALL)}
    assert described == read, [sorted(keys) for keys in described ^ read]
    assert kinds == {path.stem for path in files if path.parent.name == "mixers"}, kinds


def check_engines():
    """ENGINE.json against ENGINE.schema.json; its classes' families are there, each once."""
    known = {path.stem for path in (ROOT / "models").glob("*.json")}
    schemas = sorted((ROOT / "engines").glob("*.schema.json"))
    for path in schemas:
        engine = path.name.removesuffix(".schema.json")
        facts = load(ROOT / "engines" / f"{engine}.json")
        errors = [f"{engine}: {e.json_path}: {e.message}" for e in validator(f"engines/{path.name}").iter_errors(facts)]
        assert not errors, "\n".join(errors)
        served = [family for one in facts["classes"] for family in one.get("families", [])]
        names = [one["name"] for one in facts["classes"]]
        assert facts["engine"] == engine
        assert set(served) <= known, set(served) - known
        assert len(set(served)) == len(served) and len(set(names)) == len(names), engine
    return len(schemas)


def taught(change):
    """mixtral.json with the servers' classes of it, changed."""
    family = copy.deepcopy(load(ROOT / "models" / "mixtral.json"))
    family["engines"] = {
        engine: [one for one in load(ROOT / "engines" / f"{engine}.json")["classes"]
                 if "mixtral" in one.get("families", [])]
        for engine in ("vllm", "sglang")
    }
    change(family["engines"])
    return family


def class_faults():
    return {
        "unknown engine": taught(lambda e: e.update(vlm=e.pop("vllm"))),
        "no class": taught(lambda e: e.update(vllm=[])),
        "no list": taught(lambda e: e.update(vllm=e["vllm"][0])),
        "no name": taught(lambda e: e["vllm"][0].pop("name")),
        "unknown key": taught(lambda e: e["vllm"][0].update(embedding=True)),
        "no modules": taught(lambda e: e["vllm"][0].pop("modules")),
        "no path": taught(lambda e: e["vllm"][0]["experts"].pop("path")),
        "error without a type": taught(lambda e: e["vllm"][0].update(no_lora=[{"error": "fails"}])),
        "slices": taught(lambda e: e["vllm"][0].update(slices={"in_proj": ["a - b", "b"]})),
        "module": taught(lambda e: e["vllm"][0]["modules"].append({"name": "mlp.gate"})),
        "unknown key of SGLang's": taught(lambda e: e["sglang"][0].update(stacked=True)),
    }


families = check_folder("model_spec.schema.json", "models")
builtins = check_folder("builtin_model.schema.json", "builtin_models")
family_schema = validator("model_spec.schema.json")
for name, family in faults().items():
    assert not family_schema.is_valid(family), f"the schema accepts: {name}"
for name, family in stack_faults().items():
    assert not family_schema.is_valid(family), f"the schema accepts: {name}"
for name, family in forward_faults().items():
    assert not family_schema.is_valid(family), f"the schema accepts: {name}"
check_forward_keys()
engines = check_engines()
assert family_schema.is_valid(taught(lambda e: None))
for name, family in class_faults().items():
    assert not family_schema.is_valid(family), f"the schema accepts: {name}"
refused = len(faults()) + len(stack_faults()) + len(forward_faults()) + len(class_faults())
print(f"{families} families, {builtins} built-in models, {engines} engines, {refused} faults refused")
