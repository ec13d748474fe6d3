// Every family of the catalogue x every engine x {per expert, shared outer} x dtypes: a fresh
// adapter with ranks and scales of its own for some modules is fitted, written, decoded by
// tests/adapter/decode.cpp with the server's rules, and compared with the factors it was made of.

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "lib/adapter/init.h"
#include "lib/base/error.h"
#include "tests/adapter/goldens.h"
#include "tests/engine/fitted.h"

using namespace moelora;
using namespace moelora::test;

namespace {

namespace fs = std::filesystem;

std::vector<std::string> families() {
  std::set<std::string> out;
  for (const auto& entry : fs::directory_iterator(std::string(MOELORA_TEST_DATA) + "/catalogue"))
    out.insert(entry.path().filename().string());
  return {out.begin(), out.end()};
}

struct Made {
  std::string family;
  bool shared_outer;
  DType dtype;
  bool uneven;  // q_proj and down_proj have a scale of their own; rsLoRA
};

LoadedAdapter make(const Made& made, const std::string& folder) {
  InitOptions init;
  init.base = std::string(MOELORA_TEST_DATA) + "/catalogue/" + made.family;
  init.rank = 2;
  init.alpha = 6;
  init.targets = {"attention", "experts"};
  init.to = made.shared_outer ? "shared-outer" : "stacked";
  init.seed = 11;
  init.random_b = true;
  init.dtype = made.dtype;
  Conversion fresh = make_adapter(init);
  if (made.uneven) {
    fresh.config.set("use_rslora", Json(true));
    fresh.config.set("alpha_pattern", Json::object({{"q_proj", Json(10)}, {"down_proj", Json(3)}}));
  }
  WriteFolderOptions write;
  write.output.durable = false;
  write_conversion(fresh, folder, write);
  PlanOptions convert;
  convert.load.base = init.base;
  return load_adapter(folder, convert.load);
}

void put(std::map<std::string, Matrix>& out, const std::string& name, const Tensor& a,
         const Tensor& b, const Scaling& scaling) {
  out[name] = {b.dim(0), a.dim(1), delta_of(a, b, scaling)};
}

std::map<std::string, Matrix> deltas(const Adapter& adapter) {
  std::map<std::string, Matrix> out;
  for (const auto& entry : adapter.dense)
    put(out, entry.first, entry.second.a, entry.second.b, entry.second.scaling);
  for (const auto& [key, pair] : adapter.experts)
    for (int64_t e = 0; e < adapter.expert_count; ++e) {
      const std::string name(projection_name(key.projection));
      put(out,
          "layer " + std::to_string(key.layer) + " expert " + std::to_string(e) + " " +
              name.substr(0, name.size() - 5),
          pair.a.at(e), pair.b.at(e), pair.scaling_of(e));
    }
  return out;
}

// Half a unit in the last place of what rounding of lora_B can cost.
double rounding(const Made& made) {
  return !made.uneven ? 1e-12 : made.dtype == DType::BF16 ? 4e-3 : 1e-7;
}

double worst_error(const std::string& folder, const ModelSpec& spec, const Conversion& c,
                   const std::map<std::string, Matrix>& expected, bool server) {
  DecodeOptions decode = decode_options(spec, std::string(c.to->id), false);
  decode.server_scale = server;
  const Json* roles = c.config.find("auto_mapping")->find("moelora")->find("roles");
  decode.swapped = roles != nullptr && roles->as_string() == "swapped";
  double worst = 0;
  size_t compared = 0;
  for (const auto& entry : decode_deltas(folder, decode)) {
    const LinearSpec* linear = spec.find_linear(entry.first);
    std::string name = linear != nullptr ? linear->memory : entry.first;
    if (!spec.gated && name.ends_with(" gate")) name.replace(name.size() - 4, 4, "up");  // SGLang
    const auto found = expected.find(name);
    if (found == expected.end()) continue;  // zeros beside
    ++compared;
    worst = std::max(worst, relative_error(entry.second, found->second));
  }
  CHECK(compared == expected.size());
  return worst;
}

// What the engine's plan says of a whole class of models, whatever the adapter: dense layers
// without shared experts have no buffers in SGLang (facts: sglang.md 2.2), ...
constexpr std::string_view kNoDenseBuffer = "KeyError: 'gate_up_proj'";
const std::map<std::string, std::string_view> kRefused = {
    {"vllm dots1", "was supported in vLLM until v0.23.0"},
    {"vllm flex_olmo", "AssertionError"},  // its map of experts names each twice
    {"vllm hunyuan_v1_moe", "AssertionError"},
    {"sglang qwen3_5_moe_text", "LoRA buffer shape torch.Size([128, 2]) does not match"},
    {"sglang qwen3_next", "LoRA buffer shape torch.Size([128, 2]) does not match"},  // q's gate
    {"sglang lfm2_moe", "get_hidden_dim not implemented for out_proj"},
    {"sglang ernie4_5_moe", kNoDenseBuffer},
    {"sglang exaone_moe", kNoDenseBuffer},
    {"sglang hunyuan_v1_moe", kNoDenseBuffer},
    {"sglang jamba", "SGLang has no class JambaForCausalLM"},
    {"sglang dots1", "has no class Dots1ForCausalLM"},
    {"sglang phimoe", "SGLang has no class PhimoeForCausalLM"},
    {"sglang flex_olmo", "has no class FlexOlmoForCausalLM"},
    {"sglang llama4_text", kNoDenseBuffer}};

// A fresh adapter, read back from its file, and what its factors multiply to.
struct Input {
  Made made;
  TempFolder temp;
  LoadedAdapter adapter;
  std::map<std::string, Matrix> expected;

  explicit Input(Made how)
      : made(std::move(how)),
        adapter(make(made, temp.path + "/in")),
        expected(deltas(adapter.adapter)) {}
};

void check_one(const Input& input, const std::string& engine) {
  CAPTURE(input.made.family);
  CAPTURE(engine);
  CAPTURE(input.made.shared_outer);
  CAPTURE(input.made.uneven);
  const ModelSpec& spec = input.adapter.base->spec;
  const FitOptions options = fit_for(engine);
  const Conversion c = plan_fitted(input.adapter, options, {}).conversion;
  const auto refused = kRefused.find(engine + " " + input.made.family);
  if (refused != kRefused.end()) {
    CHECK_THROWS_WITH_AS(check_served(c, "out", options, 0),
                         doctest::Contains(std::string(refused->second).c_str()), Error);
    return;
  }
  CHECK_NOTHROW(check_served(c, "out", options, 0));
  const std::string out = input.temp.path + "/" + engine;
  WriteFolderOptions write;
  write.output.durable = false;
  write_conversion(c, out, write);
  if (!spec.gated && c.to->fused) return;  // decode.cpp knows no parameter of up alone
  CHECK(worst_error(out, spec, c, input.expected, engine != "peft") <= rounding(input.made));
}

}  // namespace

TEST_CASE("fitted to any engine, an adapter of any family keeps its deltas") {
  for (const std::string& family : families())
    for (const bool shared_outer : {false, true})
      for (const bool uneven : {false, true}) {
        const Input input({family, shared_outer, DType::F32, uneven});
        for (const char* engine : {"sglang", "vllm", "peft"}) check_one(input, engine);
      }
}

TEST_CASE("fitted in BF16, an adapter keeps its deltas within one rounding of lora_B") {
  for (const char* family : {"gpt_oss", "qwen3_moe", "nemotron_h"})
    for (const bool uneven : {false, true}) {
      const Input input({family, false, DType::BF16, uneven});
      for (const char* engine : {"sglang", "vllm"}) check_one(input, engine);
    }
}
