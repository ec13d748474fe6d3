// mlx-lm's adapters: its modules' names against the hub's, family by family, what its config means,
// what is written for it, and what is refused.

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/mlx_names.h"
#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"
#include "tests/io/npy_bytes.h"
#include "tests/io/safetensors_bytes.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace moelora::test;

namespace {

namespace fs = std::filesystem;

const std::string kQ = "model.layers.0.self_attn.q_proj";
const std::string kUp = "model.layers.1.mlp.switch_mlp.up_proj";

std::string config_of(const std::string& parameters,
                      const std::string& more = R"("fine_tune_type": "lora", "num_layers": 2)") {
  return "{" + more + (more.empty() ? "" : ", ") + "\"lora_parameters\": {" + parameters + "}}";
}
const std::string kConfig = config_of(R"("rank": 2, "scale": 20.0, "dropout": 0.05)");

// A folder as mlx-lm leaves it; "" writes no config.
class Saved {
 public:
  explicit Saved(const MadeAdapter& made, const std::string& config = kConfig,
                 const std::string& file = "adapters.safetensors") {
    fs::create_directories(path());
    if (!config.empty()) std::ofstream(path() + "/adapter_config.json") << config;
    add(made, file);
  }

  void add(const MadeAdapter& made, const std::string& file) {
    std::ofstream(path() + "/" + file, std::ios::binary) << safetensors_bytes(made.tensors());
  }

  std::string path() const { return temp_.path("a"); }
  // "" for a folder of the catalogue that is not named.
  LoadedAdapter load(const std::string& family = "") const {
    return load_adapter(path(), {"", base_of(family)});
  }
  std::string fault(const std::string& family = "") const {
    return error_text([&] { load(family); }, path());
  }
  std::string hint() const {
    return error_hint([&] { load(); });
  }
  static std::string base_of(const std::string& family) {
    return family.empty() ? "" : std::string(MOELORA_TEST_DATA "/catalogue/") + family;
  }

 private:
  TempFolder temp_;
};

MadeAdapter linear(const std::string& module = kQ) {
  MadeAdapter made;
  made.add(module + ".lora_a", {64, 2}).add(module + ".lora_b", {2, 64});
  return made;
}

MadeAdapter experts() {
  MadeAdapter made;
  made.add(kUp + ".lora_a", {8, 2, 64}).add(kUp + ".lora_b", {8, 24, 2});
  return made;
}

std::string written_fault(const MadeAdapter& made, const std::string& family) {
  return error_text([&] { made.convert("mlx", family); });
}

// Value [i, j] of a row-major matrix.
float at(const Tensor& tensor, int64_t i, int64_t j) {
  return floats(tensor)[static_cast<size_t>(i * tensor.dim(1) + j)];
}

struct Row {
  std::string family, mlx, hub;
};

struct Names {
  std::string family;
  ModelSpec spec;
  std::set<std::string> takes;                 // LoRA, below a layer, in mlx-lm's class
  std::map<std::string, std::string> modules;  // mlx-lm's and the hub's, "experts gate_proj"
};

std::vector<Names> known_names() {
  const Json all = read_json_file(InputPath(MOELORA_TEST_DATA "/dialect_mlx/names.json"));
  std::vector<Names> out;
  for (const auto& [family, entry] : all.members()) {
    Names& names = out.emplace_back();
    names.family = family;
    names.spec = open_base(MOELORA_TEST_DATA "/" + entry.find("base")->as_string()).spec;
    for (const Json& path : entry.find("takes")->items()) names.takes.insert(path.as_string());
    for (const auto& [mlx, hub] : entry.find("modules")->members())
      names.modules[mlx] = hub.as_string();
  }
  return out;
}

Projection projection_of(const std::string& hub) {
  for (const Projection p : {Projection::gate, Projection::up, Projection::down})
    if (hub == "experts " + std::string(projection_name(p))) return p;
  FAIL("no projection: " << hub);
  return Projection::gate;
}

}  // namespace

// ---- names -------------------------------------------------------------------------------------

// Written until mlx-lm saved safetensors.
TEST_CASE("adapters.npz is read where nothing newer lies beside it") {
  const auto array = [](const std::string& shape, std::initializer_list<float> values,
                        const std::string& order = "False") {
    return npy_bytes("{'descr': '<f4', 'fortran_order': " + order + ", 'shape': " + shape + ", }",
                     raw<float>(values));
  };
  const auto archive = [&](const std::string& order) {
    return npz_bytes({{kQ + ".lora_a.npy", array("(3, 2)", {1, 2, 3, 4, 5, 6}, order)},
                      {kQ + ".lora_b.npy", array("(2, 4)", {1, 2, 3, 4, 5, 6, 7, 8}), true}})
        .bytes;
  };
  const TempFolder temp;
  const auto put = [&](const std::string& name, const std::string& bytes) {
    std::ofstream(temp.path(name), std::ios::binary) << bytes;
  };
  put("adapters.npz", archive("False"));
  CHECK(error_text([&] { load_adapter(temp.path(), {}); }).find("has no adapter_config.json") !=
        std::string::npos);
  put("adapter_config.json", kConfig);
  for (const std::string& path : {temp.path(), temp.path("adapters.npz")}) {
    const LoadedAdapter loaded = load_adapter(path, {});
    CHECK(loaded.files.dialect->id == "mlx");
    const DensePair& pair = loaded.adapter.dense.at(kQ);
    CHECK(floats(pair.a) == std::vector<float>{1, 3, 5, 2, 4, 6});
    CHECK(floats(pair.b) == std::vector<float>{1, 5, 2, 6, 3, 7, 4, 8});
    CHECK(pair.scaling.value() == 20);
  }
  put("adapters.npz", archive("True"));
  const std::string fortran = error_text([&] { load_adapter(temp.path(), {}); });
  CAPTURE(fortran);
  CHECK(fortran.find(kQ + ".lora_a: is in Fortran's order") != std::string::npos);
  put("adapters.safetensors", safetensors_bytes(linear().tensors()));
  CHECK(load_adapter(temp.path(), {}).adapter.dense.at(kQ).a.dim(1) == 64);
}

TEST_CASE("each module of mlx-lm's classes is the hub's that its sanitize() makes it of") {
  size_t modules = 0;
  for (const Names& names : known_names()) {
    CAPTURE(names.family);
    for (const auto& entry : names.modules) {
      const std::string &mlx = entry.first, &hub = entry.second;
      CAPTURE(mlx);
      ++modules;
      if (hub.starts_with("experts ")) {
        const int layer = find_layer(mlx)->layer;
        const Projection projection = projection_of(hub);
        CHECK(mlx_module_of_experts(layer, projection, names.spec) == mlx);
        const std::string found = hub_module_of_mlx(mlx, &names.spec, mlx);
        const auto path = parse_expert_path(found);
        REQUIRE(path);
        CHECK(path->layer == layer);
        CHECK(path->projection == projection);
        continue;
      }
      const LinearSpec* linear = names.spec.find_linear(hub);
      REQUIRE(linear != nullptr);
      CHECK(hub_module_of_mlx(mlx, &names.spec, mlx) == linear->hub);
      CHECK(mlx_module_of_hub(hub, names.spec) == mlx);
    }
  }
  CHECK(modules > 900);
}

TEST_CASE("no module of a base is given a name that mlx-lm's class does not have") {
  for (const Names& names : known_names()) {
    CAPTURE(names.family);
    for (const LinearSpec& linear : names.spec.linears) {
      CAPTURE(linear.hub);
      std::string mlx;
      const std::string fault =
          error_text([&] { mlx = mlx_module_of_hub(linear.hub, names.spec); });
      if (fault.empty())
        CHECK(names.takes.count(std::string(below_layer(mlx))) == 1);
      else
        CHECK(fault.find(": takes no LoRA in mlx-lm: ") != std::string::npos);
    }
  }
}

TEST_CASE("without a base model, names that are the same in all families are read") {
  const Row rows[] = {
      {"", kQ, kQ},
      {"", kUp, "model.layers.1.mlp.experts.up_proj"},  // models/qwen3_moe.py
      {"", "model.layers.1.block_sparse_moe.switch_mlp.down_proj",
       "model.layers.1.block_sparse_moe.experts.down_proj"},  // models/mixtral.py
      {"", "model.layers.1.mlp.experts.gate_proj",
       "model.layers.1.mlp.experts.gate_proj"},  // models/gpt_oss.py
      {"", "model.layers.1.experts.switch_glu.gate_proj",
       "model.layers.1.experts.gate_proj"},  // models/gemma4_text.py
      {"", "backbone.layers.3.mixer.switch_mlp.fc1",
       "backbone.layers.3.mixer.experts.up_proj"},  // models/nemotron_h.py
      {"", "backbone.layers.3.mixer.switch_mlp.fc2", "backbone.layers.3.mixer.experts.down_proj"},
      {"", "model.layers.1.mlp.shared_experts.gate_proj",
       "model.layers.1.mlp.shared_experts.gate_proj"}};
  for (const Row& row : rows) {
    CAPTURE(row.mlx);
    CHECK(hub_module_of_mlx(row.mlx, nullptr, row.mlx) == row.hub);
  }
  const auto fault = [](const std::string& mlx) {
    return error_text([&] { hub_module_of_mlx(mlx, nullptr, mlx); });
  };
  CHECK(fault("language_model.model.layers.0.self_attn.q_proj") ==
        "language_model.model.layers.0.self_attn.q_proj: lies under \"language_model\", which "
        "families place differently on the hub");
  CHECK(fault("model.layers.0.feed_forward.up_proj") ==
        "model.layers.0.feed_forward.up_proj: is w3 on the hub in some families, and up_proj in "
        "others");
}

// ---- reading -----------------------------------------------------------------------------------

TEST_CASE("factors of a linear layer are transposed, those of experts are not") {
  MadeAdapter made = linear();
  made.add(kUp + ".lora_a", {8, 2, 64}).add(kUp + ".lora_b", {8, 24, 2});
  const LoadedAdapter loaded = Saved(made).load("qwen3_moe");
  const DensePair& q = loaded.adapter.dense.at(kQ);
  CHECK(q.a.shape() == Shape{2, 64});
  CHECK(q.b.shape() == Shape{64, 2});
  CHECK(at(q.a, 1, 5) == at(made.tensors().at(kQ + ".lora_a"), 5, 1));
  CHECK(q.scaling.value() == 20);
  CHECK(loaded.layout->id == "stacked");
  const ExpertPair& up = loaded.adapter.experts.at({1, Projection::up});
  CHECK(floats(up.a.at(3)) == floats(made.tensors().at(kUp + ".lora_a").select(0, 3)));
  CHECK(floats(up.b.at(3)) == floats(made.tensors().at(kUp + ".lora_b").select(0, 3)));
  CHECK(loaded.files.config.json.find("lora_dropout")->as_double() == 0.05);
}

// mlx_lm/tuner/lora.py up to 0.27: shape=(r * num_experts, input_dims), reshaped in fuse().
TEST_CASE("until 0.27 A of all experts was one matrix, expert by expert") {
  MadeAdapter made;
  made.add(kUp + ".lora_a", {16, 64}).add(kUp + ".lora_b", {8, 24, 2});
  const LoadedAdapter loaded = Saved(made).load("qwen3_moe");
  const Tensor& a = loaded.adapter.experts.at({1, Projection::up}).a.at(3);
  CHECK(floats(a) == floats(made.tensors().at(kUp + ".lora_a").slice(0, 6, 2)));
}

TEST_CASE("factors of the embedding are PEFT's lora_embedding_A and B") {
  MadeAdapter made = linear();
  made.add("model.embed_tokens.lora_a", {160, 2}).add("model.embed_tokens.lora_b", {2, 64});
  for (const char* family : {"", "qwen3_moe"}) {
    const LoadedAdapter loaded = Saved(made).load(family);
    const Tensor& a = loaded.adapter.extras.at("model.embed_tokens.lora_embedding_A").tensor;
    CHECK(a.shape() == Shape{2, 160});
    CHECK(at(a, 1, 7) == at(made.tensors().at("model.embed_tokens.lora_a"), 7, 1));
  }
}

TEST_CASE("DoRA's m is lora_magnitude_vector, by fine_tune_type or by the older use_dora") {
  MadeAdapter made = linear();
  made.add(kQ + ".m", {64});
  for (const std::string& config :
       {config_of(R"("rank": 2, "scale": 20.0)", R"("fine_tune_type": "dora")"),
        config_of(R"("rank": 2, "scale": 20.0)", R"("use_dora": true)")}) {
    const LoadedAdapter loaded = Saved(made, config).load("qwen3_moe");
    CHECK(loaded.adapter.config.use_dora);
    const Extra& m = loaded.adapter.extras.at(kQ + ".lora_magnitude_vector");
    CHECK(m.kind == ExtraKind::magnitude);
    CHECK(floats(m.tensor) == floats(made.tensors().at(kQ + ".m")));
  }
}

// Of 0.1 at rank 3 no alpha gives the double itself.
TEST_CASE("the scale comes out as it is said, whatever the rank") {
  MadeAdapter made;
  made.add(kQ + ".lora_a", {64, 3}).add(kQ + ".lora_b", {3, 64});
  for (const char* scale : {"0.1", "20.0", "0.7", "1e-05"}) {
    const Saved saved(made, config_of(std::string(R"("rank": 3, "scale": )") + scale));
    CHECK(saved.load().adapter.dense.at(kQ).scaling.value() ==
          doctest::Approx(std::stod(scale)).epsilon(1e-15));
  }
}

TEST_CASE("alpha counts by the release, which the config's other keys tell") {
  const std::string both = R"("rank": 2, "alpha": 16, "scale": 10.0)";
  const auto scale = [&](const std::string& parameters, const std::string& more) {
    return Saved(linear(), config_of(parameters, more)).load().adapter.dense.at(kQ).scaling.value();
  };
  CHECK(scale(both, R"("num_layers": 4)") == 10);           // 0.19 and later
  CHECK(scale(both, R"("fine_tune_type": "lora")") == 10);  // 0.19 and later
  CHECK(scale(R"("rank": 2, "alpha": 2, "scale": 10.0)", R"("lora_layers": 4)") == 10);
  const Saved unknown(linear(), config_of(both, R"("lora_layers": 4)"));
  CHECK(unknown.fault() ==
        "adapter_config.json:1:60: \"alpha\" is 16: mlx-lm multiplied scale by alpha / rank up to "
        "0.14 and ignores it since 0.15, and this config tells neither from the other");
  CHECK(unknown.hint() ==
        "trained with 0.15 or later: remove \"alpha\"; with an earlier one: set \"scale\" to 80 "
        "and remove it");
}

TEST_CASE("adapters.safetensors is the file, checkpoints beside it are not") {
  Saved saved(linear());
  saved.add(experts(), "0000100_adapters.safetensors");
  CHECK(saved.load().adapter.dense.count(kQ) == 1);
  const std::string one = saved.path() + "/0000100_adapters.safetensors";
  CHECK(load_adapter(one, {"", Saved::base_of("qwen3_moe")}).adapter.experts.size() == 1);
}

TEST_CASE("PEFT's name comes before MLX's") {
  Saved saved(linear());
  MadeAdapter peft;
  peft.pair("model.layers.0.self_attn.v_proj", {2, 64}, {32, 2});
  saved.add(peft, "adapter_model.safetensors");
  std::ofstream(saved.path() + "/adapter_config.json") << R"({"r": 2, "lora_alpha": 4})";
  CHECK(saved.load().adapter.dense.count(kQ) == 0);
}

TEST_CASE("a base whose output layer is the embedding is told apart") {
  MadeAdapter made;
  made.add("model.embed_tokens.lora_a", {160, 2}).add("model.embed_tokens.lora_b", {2, 64});
  const auto notes = Saved(made).load("lfm2_moe").notes;
  CHECK(std::any_of(notes.begin(), notes.end(), [](const std::string& note) {
    return note.starts_with("model.embed_tokens is the output layer too: mlx-lm adapts both");
  }));
}

// ---- what is refused ---------------------------------------------------------------------------

TEST_CASE("a full fine-tune is refused by name") {
  MadeAdapter made;
  made.add("model.layers.0.self_attn.q_proj.weight", {64, 64});
  const Saved saved(made,
                    R"({"fine_tune_type": "full", "num_layers": 2, "lora_parameters": null})");
  CHECK(saved.fault() ==
        "adapter_config.json:1:20: \"fine_tune_type\" is \"full\": the file holds whole weights of "
        "the last layers, no low-rank factors");
  CHECK(saved.hint() == "write the whole model with mlx_lm.fuse and serve that");
}

TEST_CASE("another fine_tune_type is refused") {
  CHECK(Saved(linear(), config_of(R"("rank": 2, "scale": 1.0)", R"("fine_tune_type": "ia3")"))
            .fault() ==
        "adapter_config.json:1:20: \"fine_tune_type\" is \"ia3\", expected \"lora\" or \"dora\"");
}

TEST_CASE("weights without their config are refused, as a folder and as a file") {
  const Saved folder(linear(), "");
  CHECK(error_text([&] { folder.load(); }) ==
        folder.path() +
            ": has no adapter_config.json; it holds an adapter of MLX: adapters.safetensors");
  CHECK(folder.hint().starts_with("mlx-lm writes adapter_config.json beside it"));
  const std::string file = folder.path() + "/adapters.safetensors";
  CHECK(error_text([&] { load_adapter(file, {}); }, folder.path()) ==
        "adapter_config.json: is missing, and MLX's factors mean nothing without its rank and "
        "scale");
}

TEST_CASE("a config without rank or scale is refused") {
  CHECK(Saved(linear(), R"({"num_layers": 2})").fault() ==
        "adapter_config.json: \"lora_parameters\" is missing");
  CHECK(Saved(linear(), config_of(R"("scale": 20.0)")).fault() ==
        "adapter_config.json: \"rank\" is missing");
  CHECK(Saved(linear(), config_of(R"("rank": 2, "alpha": 16)")).fault() ==
        "adapter_config.json: \"scale\" is missing");
}

TEST_CASE("a config of another training is refused") {
  CHECK(Saved(linear(), config_of(R"("rank": 8, "scale": 20.0)")).fault() ==
        kQ + ".lora_a: has rank 2, and \"lora_parameters\" says 8");
}

TEST_CASE("PEFT's keys that were added by hand must mean the same") {
  const auto with = [](const std::string& keys) {
    return Saved(linear(), config_of(R"("rank": 2, "scale": 20.0)", keys));
  };
  CHECK(with(R"("r": 2, "lora_alpha": 40)").fault().empty());
  CHECK(with(R"("r": 2, "lora_alpha": 20)").fault() ==
        "adapter_config.json:1:24: \"r\" 2 and \"lora_alpha\" 20 make the scale 10, and "
        "\"lora_parameters\" says rank 2 and scale 20");
}

TEST_CASE("a factor without its partner is refused") {
  CHECK(Saved(linear().remove(kQ + ".lora_b")).fault() ==
        kQ + ".lora_a: has no " + kQ + ".lora_b beside it");
  CHECK(Saved(linear().remove(kQ + ".lora_a")).fault() ==
        kQ + ".lora_b: has no " + kQ + ".lora_a beside it");
}

TEST_CASE("axes that are not mlx-lm's are refused") {
  MadeAdapter turned;
  turned.add(kQ + ".lora_a", {64, 2}).add(kQ + ".lora_b", {64, 2});
  CHECK(Saved(turned).fault() ==
        kQ + ".lora_a: is [64, 2] and lora_b is [64, 2], expected [in, r], [r, out]");
  MadeAdapter mixed;
  mixed.add(kUp + ".lora_a", {8, 64, 2}).add(kUp + ".lora_b", {8, 24, 2});
  CHECK(Saved(mixed).fault() ==
        kUp + ".lora_a: is [8, 64, 2] and lora_b is [8, 24, 2], expected [E, r, in], [E, out, r]");
}

TEST_CASE("a module that the base does not have is refused") {
  CHECK(Saved(linear("model.layers.0.self_attn.embed_q")).fault("deepseek_v3") ==
        "model.layers.0.self_attn.embed_q.lora_a: adapts model.layers.0.self_attn.embed_q, which "
        "this deepseek_v3 does not have");
  MadeAdapter made;
  const std::string dense = "model.layers.0.mlp.switch_mlp.up_proj";
  made.add(dense + ".lora_a", {8, 2, 64}).add(dense + ".lora_b", {8, 24, 2});
  CHECK(Saved(made).fault("deepseek_v3") ==
        dense + ".lora_a: is of routed experts, and this deepseek_v3 has none there");
}

TEST_CASE("two names of one module are refused") {
  MadeAdapter made = linear("model.layers.0.self_attn.q_proj");
  made.add("language_model.model.layers.0.self_attn.q_proj.lora_a", {64, 2})
      .add("language_model.model.layers.0.self_attn.q_proj.lora_b", {2, 64});
  CHECK(Saved(made).fault("qwen3_moe").find("is a second") != std::string::npos);
}

TEST_CASE("DoRA of an embedding is refused") {
  MadeAdapter made;
  made.add("model.embed_tokens.lora_a", {160, 2})
      .add("model.embed_tokens.lora_b", {2, 64})
      .add("model.embed_tokens.m", {160});
  CHECK(Saved(made, config_of(R"("rank": 2, "scale": 20.0)", R"("fine_tune_type": "dora")"))
            .fault() ==
        "model.embed_tokens.m: is DoRA's of an embedding, which PEFT computes otherwise");
}

// ---- writing -----------------------------------------------------------------------------------

namespace {

MadeAdapter regular() {
  MadeAdapter made;
  const std::string mlp = "model.layers.";
  for (const char* layer : {"1", "2"}) {
    made.pair(mlp + layer + ".self_attn.q_proj", {2, 64}, {64, 2});
    for (const char* e : {"0", "1", "2", "3", "4", "5", "6", "7"})
      made.pair(mlp + layer + ".mlp.experts." + e + ".up_proj", {2, 64}, {24, 2});
  }
  return made;
}

}  // namespace

TEST_CASE("an adapter is written in mlx-lm's names, axes and config") {
  const MadeAdapter made = regular();
  const Conversion c = made.convert("mlx", "qwen3_moe");
  CHECK(c.dialect->id == "mlx");
  CHECK(c.tensors.size() == 8);
  CHECK(at(c.tensors.at("model.layers.1.self_attn.q_proj.lora_a"), 5, 1) ==
        at(made.tensors().at(a_name("model.layers.1.self_attn.q_proj")), 1, 5));
  const Tensor& up = c.tensors.at("model.layers.2.mlp.switch_mlp.up_proj.lora_b");
  CHECK(up.shape() == Shape{8, 24, 2});
  CHECK(floats(up.select(0, 6)) ==
        floats(made.tensors().at(b_name("model.layers.2.mlp.experts.6.up_proj"))));
  CHECK(c.config.dump(-1) ==
        R"({"fine_tune_type": "lora", "lora_parameters": {"dropout": 0.0, "keys": )"
        R"(["mlp.switch_mlp.up_proj", "self_attn.q_proj"], "rank": 2, "scale": 2.0}, )"
        R"("num_layers": 2})");
}

TEST_CASE("an adapter of some layers names its modules in full") {
  MadeAdapter made;
  made.pair("model.layers.0.self_attn.q_proj", {2, 64}, {64, 2});
  const Conversion c = made.convert("mlx", "qwen3_moe");
  CHECK(c.config.find("lora_parameters")->find("keys")->dump(-1) ==
        R"(["model.layers.0.self_attn.q_proj"])");
  made.pair("lm_head", {2, 64}, {160, 2});
  CHECK(made.convert("mlx", "qwen3_moe").tensors.count("lm_head.lora_a") == 1);
}

TEST_CASE("what is written is read again, and is the same") {
  const TempFolder temp;
  WriteFolderOptions options;
  options.output.durable = false;
  MadeAdapter made = regular();
  made.add("base_model.model.model.embed_tokens.lora_embedding_A", {2, 160})
      .add("base_model.model.model.embed_tokens.lora_embedding_B", {64, 2});
  const Conversion c = made.convert("mlx", "qwen3_moe");
  made.write(temp.path("in"));  // write_conversion looks for files to carry along
  PlanOptions plan;
  plan.to = "mlx";
  plan.load.base = Saved::base_of("qwen3_moe");
  write_conversion(plan_conversion(temp.path("in"), plan), temp.path("out"), options);
  CHECK(fs::exists(temp.path("out/adapters.safetensors")));
  CHECK(!fs::exists(temp.path("out/adapter_model.safetensors")));
  const Json report = read_json_file(InputPath(temp.path("out/conversion.json")));
  CHECK(report.find("to")->as_string() == "mlx");
  const LoadedAdapter back = load_adapter(temp.path("out"), {"", Saved::base_of("qwen3_moe")});
  CHECK(back.files.dialect->id == "mlx");
  CHECK(floats(back.adapter.experts.at({2, Projection::up}).b.at(6)) ==
        floats(made.tensors().at(b_name("model.layers.2.mlp.experts.6.up_proj"))));
  CHECK(back.adapter.extras.count("model.embed_tokens.lora_embedding_B") == 1);
  CHECK(back.adapter.dense.at("model.layers.1.self_attn.q_proj").scaling.value() == 2);
  plan.load.base = Saved::base_of("qwen3_moe");
  CHECK(plan_conversion(temp.path("out"), plan).tensors.size() == c.tensors.size());
}

TEST_CASE("DoRA of linear layers is written as m, of experts it is refused") {
  MadeAdapter made(R"({"r": 2, "lora_alpha": 4, "use_dora": true})");
  made.pair(kQ, {2, 64}, {64, 2}).add("base_model.model." + kQ + ".lora_magnitude_vector", {64});
  const Conversion c = made.convert("mlx", "qwen3_moe");
  CHECK(c.tensors.count(kQ + ".m") == 1);
  CHECK(c.config.find("fine_tune_type")->as_string() == "dora");
  MadeAdapter experts(R"({"r": 2, "lora_alpha": 4, "use_dora": true})");
  experts.pair("model.layers.1.mlp.experts.0.up_proj", {2, 64}, {24, 2});
  CHECK(written_fault(experts, "qwen3_moe") ==
        "base_model.model.model.layers.1.mlp.experts.up_proj.lora_A.weight: is of routed experts, "
        "whose DoRA in mlx-lm differs from PEFT's");
}

TEST_CASE("several ranks or scales are refused") {
  const std::string v = "model.layers.0.self_attn.v_proj";
  MadeAdapter scales(R"({"r": 2, "lora_alpha": 4, "alpha_pattern": {"v_proj": 8}})");
  scales.pair(kQ, {2, 64}, {64, 2}).pair(v, {2, 64}, {32, 2});
  CHECK(written_fault(scales, "qwen3_moe") ==
        a_name(v) + ": has rank 2 and scale 4, " + a_name(kQ) +
            " has rank 2 and scale 2: MLX has one of each for all modules");
  MadeAdapter ranks(R"({"r": 2, "lora_alpha": 4, "rank_pattern": {"v_proj": 4},
                        "alpha_pattern": {"v_proj": 8}})");
  ranks.pair(kQ, {2, 64}, {64, 2}).pair(v, {4, 64}, {32, 4});
  CHECK(written_fault(ranks, "qwen3_moe") ==
        a_name(v) + ": has rank 4 and scale 2, " + a_name(kQ) +
            " has rank 2 and scale 2: MLX has one of each for all modules");
}

TEST_CASE("without a base model nothing is written for MLX") {
  CHECK(written_fault(regular(), "") ==
        "mlx: mlx-lm's names follow from its model class, and the base is not known");
}

TEST_CASE("modules that mlx-lm holds otherwise are refused") {
  const auto fault = [](const std::string& module, const std::string& family) {
    MadeAdapter made;
    const BaseModel base = catalogue_base(family);
    const LinearSpec* linear = base.spec.find_linear(module);
    REQUIRE(linear != nullptr);
    made.pair(module, {2, linear->in}, {linear->out, 2});
    return written_fault(made, family);
  };
  CHECK(fault("model.layers.0.self_attn.kv_b_proj", "deepseek_v3") ==
        "model.layers.0.self_attn.kv_b_proj: takes no LoRA in mlx-lm: it is split into embed_q and "
        "unembed_out");
  CHECK(fault("model.layers.1.mlp.gate", "glm4_moe") ==
        "model.layers.1.mlp.gate: takes no LoRA in mlx-lm: the router is of a class of its own");
  CHECK(fault(kQ, "flex_olmo") ==
        "mlx: mlx-lm 0.32.2 has no model class for \"flex_olmo\" whose names are known here");
}

TEST_CASE("what is no factor is refused, since load_adapters refuses it") {
  MadeAdapter saved(R"({"r": 2, "lora_alpha": 4, "modules_to_save": ["norm"]})");
  saved.pair(kQ, {2, 64}, {64, 2}).add("base_model.model.model.norm.weight", {64});
  CHECK(written_fault(saved, "qwen3_moe") ==
        "base_model.model.model.norm.weight: is no low-rank factor, and mlx-lm loads nothing else "
        "from an adapter");
  MadeAdapter copied;
  copied.pair("lm_head", {2, 64}, {160, 2})
      .add("base_model.model.lm_head.base_layer.weight", {160, 64});
  CHECK(written_fault(copied, "qwen3_moe") ==
        "base_model.model.lm_head.base_layer.weight: is the base's own weight, and mlx-lm loads "
        "factors alone");
  MadeAdapter magnitude;
  magnitude.pair(kQ, {2, 64}, {64, 2})
      .add("base_model.model." + kQ + ".lora_magnitude_vector", {64});
  CHECK(written_fault(magnitude, "qwen3_moe") ==
        "base_model.model." + kQ +
            ".lora_magnitude_vector: is DoRA's, and the config does not say use_dora");
}

TEST_CASE("MLX reads one file") {
  const TempFolder temp;
  regular().write(temp.path("in"));
  PlanOptions plan;
  plan.to = "mlx";
  plan.load.base = Saved::base_of("qwen3_moe");
  WriteFolderOptions options;
  options.output.durable = false;
  options.weights.max_shard_size = 1024;
  CHECK(error_text([&] {
          write_conversion(plan_conversion(temp.path("in"), plan), temp.path("out"), options);
        }).starts_with("--max-shard-size: cuts the weights into "));
  CHECK(!fs::exists(temp.path("out")));
}

TEST_CASE("a dialect that is only read is no target") {
  CHECK(error_text([] { regular().convert("kohya", "qwen3_moe"); }) ==
        "--to kohya: is the dialect of kohya, which is read and not written");
}
