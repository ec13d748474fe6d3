// Dense modules that one form of a base has whole and the other in parts: which they are, and that
// cutting and joining them leaves every delta what it was.

#include "lib/adapter/joined_modules.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "lib/base/dotted_path.h"
#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kSarvam = "model.layers.0.self_attn.";
const std::string kSarvamHub = "model.layers.0.attention.query_key_value";
const std::string kExpert = "model.layers.1.mlp.experts.0.down_proj";

const LinearSpec& linear(const ModelSpec& spec, const std::string& module) {
  const LinearSpec* found = spec.find_linear(module);
  REQUIRE_MESSAGE(found != nullptr, module);
  return *found;
}

// A pair of the base's own sizes.
MadeAdapter& add(MadeAdapter& made, const ModelSpec& spec, const std::string& module,
                 int64_t rank = 2) {
  const LinearSpec& l = linear(spec, module);
  return made.pair(module, {rank, l.in}, {l.out, rank});
}

// "qkv_proj of q_proj 64 k_proj 32 v_proj 32" of layer 0 and 1, each once.
std::vector<std::string> known(const std::string& base) {
  const BaseModel model = catalogue_base(base);
  std::vector<std::string> out;
  for (const JoinedModule& module : joined_modules(model.spec)) {
    if (!module.in_hub && !module.in_memory) continue;
    std::string text = std::string(leaf_of(module.module)) + (module.in_turn ? " in turn" : "");
    for (const auto& part : module.parts) text += " " + std::string(leaf_of(part.module));
    if (std::find(out.begin(), out.end(), text) == out.end()) out.push_back(text);
  }
  return out;
}

// Deltas in double, row-major, alpha / r of each pair's own scaling.
std::vector<double> delta(const Tensor& a, const Tensor& b, double scale) {
  const std::vector<float> av = floats(a), bv = floats(b);
  const auto r = static_cast<size_t>(a.dim(0)), in = static_cast<size_t>(a.dim(1)),
             rows = static_cast<size_t>(b.dim(0));
  std::vector<double> out(rows * in);
  for (size_t i = 0; i < rows; ++i)
    for (size_t k = 0; k < r; ++k)
      for (size_t x = 0; x < in; ++x)
        out[i * in + x] +=
            scale * static_cast<double>(bv[i * r + k]) * static_cast<double>(av[k * in + x]);
  return out;
}

std::vector<double> delta(const Adapter& adapter, const std::string& module) {
  const auto at = adapter.dense.find(module);
  REQUIRE_MESSAGE(at != adapter.dense.end(), module);
  return delta(at->second.a, at->second.b, at->second.scaling.value());
}

std::vector<double> below(std::vector<double> upper, const std::vector<double>& lower) {
  upper.insert(upper.end(), lower.begin(), lower.end());
  return upper;
}

// Rows of both in turn.
std::vector<double> in_turn(const std::vector<double>& even, const std::vector<double>& odd,
                            size_t width) {
  std::vector<double> out;
  for (size_t at = 0; at < even.size(); at += width) {
    out.insert(out.end(), even.begin() + static_cast<ptrdiff_t>(at),
               even.begin() + static_cast<ptrdiff_t>(at + width));
    out.insert(out.end(), odd.begin() + static_cast<ptrdiff_t>(at),
               odd.begin() + static_cast<ptrdiff_t>(at + width));
  }
  return out;
}

bool says(const std::vector<std::string>& notes, const std::string& text) {
  return std::any_of(notes.begin(), notes.end(),
                     [&](const std::string& note) { return note.find(text) != std::string::npos; });
}

const ModelSpec& sarvam() {
  static const BaseModel base = catalogue_base("sarvam_moe");
  return base.spec;
}

}  // namespace

TEST_CASE("which modules of a base are joined, and of what") {
  using Names = std::vector<std::string>;
  CHECK(known("sarvam_moe") == Names{"query_key_value q_proj k_proj v_proj"});
  CHECK(known("minimax_m3_vl") == Names{"gate_up_proj gate_proj up_proj"});
  CHECK(known("inkling") == Names{"w13_dn in turn gate_proj up_proj"});
  CHECK(known("glm4") == Names{"gate_up_proj gate_proj up_proj"});
  CHECK(known("phi3") == Names{"qkv_proj q_proj k_proj v_proj", "gate_up_proj gate_proj up_proj"});
  CHECK(known("lara_mini").empty());  // in_proj: nothing says in which order
  CHECK(known("minimax").empty());    // qkv_proj of its lightning attention lies by heads
  CHECK(known("qwen3_moe").empty());
}

TEST_CASE("a module of the hub's files is cut into what memory has, with the same deltas") {
  MadeAdapter made;
  made.pair(kExpert, {2, 22}, {60, 2});
  add(made, sarvam(), kSarvamHub);
  const Conversion c = made.convert("peft-params", "sarvam_moe");
  for (const char* part : {"q_proj", "k_proj", "v_proj"})
    CHECK(c.tensors.at(a_name(kSarvam + part)).read() ==
          made.tensors().at(a_name(kSarvamHub)).read());
  CHECK(c.tensors.at(b_name(kSarvam + "k_proj")).shape() ==
        Shape{linear(sarvam(), kSarvam + "k_proj").out, 2});
  CHECK(below(below(delta(c.adapter, kSarvam + "q_proj"), delta(c.adapter, kSarvam + "k_proj")),
              delta(c.adapter, kSarvam + "v_proj")) == delta(c.input.adapter, kSarvamHub));
  CHECK(says(c.notes, "cut into q_proj, k_proj and v_proj"));
}

TEST_CASE("parts become the module of the hub's files, of the sum of their ranks") {
  MadeAdapter made;
  made.pair(kExpert, {2, 22}, {60, 2});
  for (const char* part : {"q_proj", "k_proj", "v_proj"}) add(made, sarvam(), kSarvam + part);
  const Conversion c = made.convert("peft-linear", "sarvam_moe");
  CHECK(c.tensors.at(a_name(kSarvamHub)).dim(0) == 6);
  CHECK(delta(c.adapter, kSarvamHub) == below(below(delta(c.input.adapter, kSarvam + "q_proj"),
                                                    delta(c.input.adapter, kSarvam + "k_proj")),
                                              delta(c.input.adapter, kSarvam + "v_proj")));
  CHECK(says(c.notes, "joined q_proj, k_proj and v_proj"));
  CHECK(c.config.find("rank_pattern")->members().size() == 1);
}

// GPT-NeoX and Falcon have a query_key_value whose rows lie head by head, gpt-oss gate and up in
// turn: a family of --model-spec may be like these.
TEST_CASE("of a family whose order of rows was not read no module is cut by its name") {
  for (const char* known_family : {"phi3", "glm4", "sarvam_moe", "minimax_m3_vl", "inkling"}) {
    ModelSpec spec = catalogue_base(known_family).spec;
    const auto wholes = [&] {
      const auto all = joined_modules(spec);
      return std::count_if(all.begin(), all.end(),
                           [](const JoinedModule& m) { return m.in_hub || m.in_memory; });
    };
    CHECK(wholes() > 0);
    spec.family = "one_of_ones_own";
    CHECK(wholes() == 0);
    spec.family = "";
    CHECK(wholes() == 0);
  }
}

// alpha / sqrt(6) is no double that 5 / sqrt(2) is, whatever alpha.
TEST_CASE("where no alpha gives the parts' scale at the joined rank, some zeros more do") {
  MadeAdapter made(R"({"r": 2, "lora_alpha": 5, "use_rslora": true})");
  made.pair(kExpert, {2, 22}, {60, 2});
  for (const char* part : {"q_proj", "k_proj", "v_proj"}) add(made, sarvam(), kSarvam + part);
  const Conversion c = made.convert("peft-linear", "sarvam_moe");
  const DensePair& whole = c.adapter.dense.at(kSarvamHub);
  CHECK(whole.scaling.value() == c.input.adapter.dense.at(kSarvam + "q_proj").scaling.value());
  CHECK(whole.a.dim(0) == whole.scaling.rank);
  CHECK(whole.b.dim(1) == whole.scaling.rank);
  CHECK(whole.scaling.rank > 6);
  CHECK(whole.scaling.rank <= 8);
  std::vector<double> meant;
  for (const char* part : {"q_proj", "k_proj", "v_proj"})
    meant = below(meant, delta(c.input.adapter, kSarvam + part));
  CHECK(delta(c.adapter, kSarvamHub) == meant);
}

TEST_CASE("parts with one lora_A keep their rank, and come back as they were") {
  MadeAdapter made;
  made.pair(kExpert, {2, 22}, {60, 2});
  add(made, sarvam(), kSarvamHub);
  const Conversion there = made.convert("peft-params", "sarvam_moe");
  MadeAdapter parts(there.config.dump());
  for (const auto& [name, tensor] : there.tensors) {
    parts.add(name, tensor.shape());
    parts.set(name, tensor);
  }
  const Conversion back = parts.convert("peft-linear", "sarvam_moe");
  for (const std::string& name : {a_name(kSarvamHub), b_name(kSarvamHub)})
    CHECK(back.tensors.at(name).read() == made.tensors().at(name).read());
}

TEST_CASE("parts that are not adapted are zero in the whole") {
  for (const std::string& only : {kSarvam + "q_proj", kSarvam + "k_proj", kSarvam + "v_proj"}) {
    CAPTURE(only);
    MadeAdapter made;
    made.pair(kExpert, {2, 22}, {60, 2});
    add(made, sarvam(), only);
    const Conversion c = made.convert("peft-linear", "sarvam_moe");
    std::vector<double> meant;
    for (const char* part : {"q_proj", "k_proj", "v_proj"}) {
      const LinearSpec& l = linear(sarvam(), kSarvam + part);
      meant = below(meant, kSarvam + part == only
                               ? delta(c.input.adapter, only)
                               : std::vector<double>(static_cast<size_t>(l.out * l.in)));
    }
    CHECK(delta(c.adapter, kSarvamHub) == meant);
  }
}

TEST_CASE("gate and up of one module in memory are apart in the hub's files, shared experts' too") {
  const BaseModel base = catalogue_base("minimax_m3_vl");
  MadeAdapter made;
  std::vector<std::string> modules;
  for (const LinearSpec& l : base.spec.linears)
    if (l.memory.ends_with("gate_up_proj")) modules.push_back(l.memory);
  REQUIRE(modules.size() > 1);
  for (const std::string& module : modules) add(made, base.spec, module);
  const std::string layer = "model.language_model.layers.1.mlp.";
  made.pair(layer + "experts.0.down_proj", {2, base.spec.intermediate}, {base.spec.hidden, 2});
  const Conversion c = made.convert("peft-linear", "minimax_m3_vl");
  for (const JoinedModule& module : joined_modules(base.spec)) {
    if (module.in_hub == module.in_memory) continue;
    CHECK(below(delta(c.adapter, module.parts[0].module),
                delta(c.adapter, module.parts[1].module)) == delta(c.input.adapter, module.module));
  }
}

TEST_CASE("rows that lie in turn are told apart") {
  const BaseModel base = catalogue_base("inkling");
  const auto all = joined_modules(base.spec);
  const auto found =
      std::find_if(all.begin(), all.end(), [](const JoinedModule& m) { return m.in_turn; });
  REQUIRE(found != all.end());
  MadeAdapter made;
  made.pair(found->module, {2, found->in}, {found->out, 2});
  Adapter adapter = made.read("inkling").adapter;
  const std::vector<double> whole = delta(adapter, found->module);
  CHECK(part_module(*found, adapter));
  const std::vector<double> gate = delta(adapter, found->parts[0].module),
                            up = delta(adapter, found->parts[1].module);
  CHECK(in_turn(gate, up, static_cast<size_t>(found->in)) == whole);
  CHECK(join_module(*found, base.spec, adapter, 1));
  CHECK(delta(adapter, found->module) == whole);
}

TEST_CASE("a trainer's fused name of what the base has apart is cut where modules are named") {
  const BaseModel base = catalogue_base("qwen3_moe");
  const std::string attention = "model.layers.1.self_attn.";
  MadeAdapter made;
  made.pair("model.layers.1.mlp.experts.0.down_proj", {2, base.spec.intermediate},
            {base.spec.hidden, 2});
  int64_t rows = 0;
  for (const char* part : {"q_proj", "k_proj", "v_proj"})
    rows += linear(base.spec, attention + part).out;
  made.pair(attention + "qkv_proj", {2, base.spec.hidden}, {rows, 2});
  const Conversion c = made.convert("peft-params", "qwen3_moe");
  CHECK(below(below(delta(c.adapter, attention + "q_proj"), delta(c.adapter, attention + "k_proj")),
              delta(c.adapter, attention + "v_proj")) ==
        delta(c.input.adapter, attention + "qkv_proj"));

  MadeAdapter other;  // of another size: another model
  other.pair("model.layers.1.mlp.experts.0.down_proj", {2, base.spec.intermediate},
             {base.spec.hidden, 2});
  other.pair(attention + "qkv_proj", {2, base.spec.hidden}, {rows + 2, 2});
  CHECK(error_text([&] { other.convert("peft-params", "qwen3_moe"); }).find("of this base model") !=
        std::string::npos);
}

TEST_CASE("what cannot be joined is refused by name") {
  const auto refusal = [](MadeAdapter& made) {
    made.pair(kExpert, {2, 22}, {60, 2});
    return error_text([&] { made.convert("peft-linear", "sarvam_moe"); });
  };
  MadeAdapter scales(R"({"r": 2, "lora_alpha": 4, "alpha_pattern": {"q_proj": 8}})");
  for (const char* part : {"q_proj", "k_proj"}) add(scales, sarvam(), kSarvam + part);
  CHECK(refusal(scales) == kSarvam +
                               "k_proj: has the scale 2 and model.layers.0.self_attn.q_proj has 4: "
                               "one pair of query_key_value has one scale");

  MadeAdapter twice;
  add(twice, sarvam(), kSarvam + "q_proj");
  add(twice, sarvam(), kSarvamHub);
  CHECK(refusal(twice) == kSarvam + "q_proj: is adapted alone and as a part of " + kSarvamHub);

  MadeAdapter biased;
  add(biased, sarvam(), kSarvam + "q_proj");
  biased.add("base_model.model." + kSarvam + "q_proj.lora_B.bias", {72});
  CHECK(refusal(biased) == kSarvam + "q_proj.lora_B.bias: belongs to " + kSarvam +
                               "q_proj, of which only low-rank factors can be joined");
}

TEST_CASE("without experts no layout is meant, and modules stay as they are") {
  MadeAdapter alone;
  add(alone, sarvam(), kSarvam + "q_proj");
  CHECK(alone.convert("peft-linear", "sarvam_moe").tensors.count(a_name(kSarvam + "q_proj")) == 1);
}
