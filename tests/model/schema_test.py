"""The files of schemas/models and schemas/builtin_models are what their schemas say, and the
schema refuses what the C++ reader refuses. Exit 77 (skipped) where jsonschema is not installed."""
import copy
import json
import pathlib
import sys

try:
    import jsonschema
except ImportError:
    print("skipped: no jsonschema")
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parents[2] / "schemas"


def load(path):
    return json.loads(path.read_text())


def validator(name):
    schema = load(ROOT / name)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


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
        "axes": edit(lambda f: f["experts"]["memory"].update(axes="in")),
        "no axes": edit(lambda f: f["experts"]["memory"].pop("axes")),
        "role": edit(lambda f: f["modules"][1].update(role="gate")),
        "linear_in": edit(lambda f: f["modules"][1].update(linear_in="hub")),
        "one dimension": edit(lambda f: f["modules"][0]["linears"].update(q_proj=["heads"])),
        "expression": edit(lambda f: f["modules"][0]["linears"].update(q_proj=["heads - 1", "hidden"])),
        "real": edit(lambda f: f["modules"][0]["linears"].update(q_proj=[1.5, "hidden"])),
        "no vocab": edit(lambda f: f["values"].pop("vocab")),
        "value key": edit(lambda f: f["values"].update(head_dim={"key": "head_dim"})),
        "function": edit(lambda f: f["values"].update(head_dim={"function": "half"})),
        "up and gate_up": edit(lambda f: f["experts"]["hub"]["numbered"].update(gate_up="w13")),
        "first without every": edit(lambda f: f["layers"].update(moe={"first": 1})),
        "pattern without values": edit(lambda f: f["layers"].update(moe={"pattern": "p"})),
    }


families = check_folder("model_spec.schema.json", "models")
builtins = check_folder("builtin_model.schema.json", "builtin_models")
family_schema = validator("model_spec.schema.json")
for name, family in faults().items():
    assert not family_schema.is_valid(family), f"the schema accepts: {name}"
print(f"{families} families, {builtins} built-in models, {len(faults())} faults refused")
