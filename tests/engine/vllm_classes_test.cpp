// vLLM's classes that no oracle ran: which families have one, and what reaches its buffers of an
// adapter that lora-convert --for vllm writes, against the factors that it was made of.

#include <doctest/doctest.h>

#include <algorithm>
#include <map>

#include "lib/adapter/init.h"
#include "lib/adapter/joined_modules.h"
#include "lib/base/error.h"
#include "lib/engine/buffers.h"
#include "lib/engine/server_class.h"
#include "lib/engine/vllm/server/model_class.h"
#include "lib/model/base_model.h"
#include "lib/model/family.h"
#include "tests/adapter/goldens.h"
#include "tests/engine/changed_base.h"
#include "tests/engine/fitted.h"
#include "tests/engine/served_block.h"
#include "tests/engine/served_from_folder.h"
#include "tests/model/loader_bases.h"

using namespace moelora;
using namespace moelora::test;

namespace {

// "sarvam_moe SarvamMoEForCausalLM": a base under another architecture than transformers writes.
std::string base_path(const std::string& base, const TempFolder& temp) {
  if (is_loader_base(base)) return write_loader_base(temp.path, base);
  const size_t space = base.find(' ');
  return space == std::string::npos
             ? std::string(MOELORA_TEST_DATA) + "/families/" + base
             : changed_base(temp, base.substr(0, space), architecture(base.substr(space + 1)));
}

// ---- which families have a class ----------------------------------------------------------------

std::map<std::string, int> listed_families() {
  std::map<std::string, int> out;
  for (const char* list : {"classes", "classes_without_lora", "not_judged", "out_of_registry"})
    for (const JsonView& entry : engine_facts("vllm").at(list).items())
      for (const std::string& family : entry.strings_or_none("families")) ++out[family];
  return out;
}

}  // namespace

TEST_CASE("every family has a class of vLLM, one without LoRA, or none in any release") {
  std::map<std::string, int> listed = listed_families();
  for (const Family& family : embedded_families()) {
    CAPTURE(family.name);
    CHECK(listed[family.name] == 1);
    listed.erase(family.name);
  }
  CHECK(listed.empty());  // and no list names a family that is none
}

namespace {

// ---- what an adapter of a base becomes ----------------------------------------------------------

struct Made {
  std::string base, target;
};

std::string key_of(const Made& made) { return made.base + " " + made.target; }

using Deltas = std::map<std::string, Matrix>;

void put(Deltas& out, const std::string& name, const Tensor& a, const Tensor& b,
         const Scaling& scaling) {
  out[name] = {b.dim(0), a.dim(1), delta_of(a, b, scaling)};
}

Deltas deltas(const Adapter& adapter) {
  Deltas out;
  for (const auto& entry : adapter.dense)
    put(out, entry.first, entry.second.a, entry.second.b, entry.second.scaling);
  for (const auto& [key, pair] : adapter.experts)
    for (int64_t e = 0; e < adapter.expert_count; ++e)
      put(out,
          std::to_string(key.layer) + " " + std::to_string(e) + " " +
              std::string(projection_name(key.projection)),
          pair.a.at(e), pair.b.at(e), pair.scaling_of(e));
  return out;
}

// A fresh adapter; nullopt where the base has nothing of the target.
std::optional<LoadedAdapter> fresh(const Made& made, const TempFolder& temp) {
  const std::string folder = temp.path + "/in";
  InitOptions init;
  init.base = base_path(made.base, temp);
  init.rank = 2;
  init.alpha = 6;
  init.targets = {made.target};
  init.to = "stacked";
  init.seed = 3;
  init.random_b = true;
  init.dtype = DType::BF16;  // as the server holds it: the scale alone rounds
  std::optional<Conversion> out;
  try {
    out = make_adapter(init);
  } catch (const Error&) {
    return std::nullopt;
  }
  WriteFolderOptions write;
  write.output.durable = false;
  write_conversion(*out, folder, write);
  PlanOptions convert;
  convert.load.base = init.base;
  return load_adapter(folder, convert.load);
}

std::string name_of(const ServedBlock& block) {
  if (block.expert < 0) return block.module;
  return std::to_string(block.layer) + " " + std::to_string(block.expert) + " " + block.module;
}

// What all ranks of a server hold of a folder; nullopt where the base does not split over them.
std::optional<Deltas> held(const std::string& folder, const BaseModel& base, const Deltas& meant,
                           int64_t tp) {
  const Engine& vllm = *find_engine("vllm");
  const ServedAdapter adapter = served_from_folder(folder);
  const std::vector<TensorMap> values = values_from_folder(folder);
  const EngineVersion version = *EngineVersion::parse(vllm.newest);
  ServerOptions options;
  options.tp = tp;
  Deltas out = meant;
  for (auto& entry : out) std::fill(entry.second.data.begin(), entry.second.data.end(), 0.0);
  for (int64_t rank = 0; rank < tp; ++rank) {
    const BufferRequest request{adapter, values, base.spec, base.config, options, version, rank};
    const RankBuffers buffers = vllm.fill(request);
    if (buffers.refused && tp > 1) return std::nullopt;
    const std::string refusal = buffers.refused ? refusal_text(*buffers.refused) : "";
    CHECK(refusal == "");
    for (const ServedBlock& block : vllm.blocks(request, buffers)) {
      CAPTURE(name_of(block));
      REQUIRE(out.contains(name_of(block)));
      CHECK(put_block(block, out[name_of(block)]) == 0);
    }
  }
  return out;
}

// Modules that one form has whole and the other in parts are the hub's in vLLM.
Adapter as_served(Adapter adapter, const ModelSpec& spec) {
  join_or_part(spec, adapter, 1, [](const JoinedModule& module) {
    return module.in_hub == module.in_memory ? Joining::either : joining_of(module, Form::hub);
  });
  return adapter;
}

// One rounding of the scaled lora_B.
constexpr double kRounding = 1.0 / 256;

void check_held(const Deltas& found, const Deltas& meant) {
  for (const auto& entry : meant) {
    CAPTURE(entry.first);
    CHECK(relative_error(found.at(entry.first), entry.second) < kRounding);
  }
}

// What the class refuses or loses whatever the adapter holds; the text's beginning is the engine's.
const std::map<std::string, const char*> kRefused = {
    {"glm_moe_dsa attention", "expected target modules in"},   // the indexer's wk, weights_proj
    {"deepseek_v32 attention", "expected target modules in"},  // likewise
    {"granitemoeshared shared", "has no such module; model.layers.0.shared_mlp.output_linear"},
    {"granitemoe_swa shared", "has no such module; model.layers.0.shared_mlp.output_linear"},
    {"granitemoehybrid experts", "{'block_sparse_moe.experts.0.down_proj'"},
    {"longcat_flash attention", "expected target modules in"},  // q_a_proj, kv_a_proj_with_mqa
    {"mellum experts", "AssertionError"},
    {"kolibri1 experts", "AssertionError"}};

const std::vector<std::string> kBases = {"llama",
                                         "mistral",
                                         "ministral3",
                                         "mistral3",
                                         "qwen2",
                                         "qwen3",
                                         "qwen3_5",
                                         "qwen3_5_text",
                                         "gemma3",
                                         "gemma3_text",
                                         "gemma4",
                                         "gemma4_text",
                                         "gemma4_moe",
                                         "gemma4_moe_text",
                                         "gemma4_text_per_layer",
                                         "granite",
                                         "phi3",
                                         "glm4",
                                         "exaone4",
                                         "smollm3",
                                         "seed_oss",
                                         "olmo3",
                                         "hunyuan_v1_dense",
                                         "glm_moe_dsa",
                                         "deepseek_v32",
                                         "glm4_moe_lite",
                                         "glm4v_moe",
                                         "qwen3_omni_moe",
                                         "llama4",
                                         "granitemoeshared",
                                         "granitemoe_swa",
                                         "granitemoehybrid",
                                         "afmoe",
                                         "axk1",
                                         "hy_v3",
                                         "sarvam_mla",
                                         "sarvam_moe SarvamMoEForCausalLM",
                                         "bailing_moe",
                                         "bailing_moe_v2",
                                         "laguna",
                                         "longcat_flash",
                                         "inkling",
                                         "mellum",
                                         "kolibri1",
                                         "qwen4_exp",
                                         "qwen4_exp_text"};

struct Counts {
  size_t served = 0, refused = 0, split = 0;
};

void check_one(const Made& made, Counts& counts) {
  const TempFolder temp;
  const auto adapter = fresh(made, temp);
  if (!adapter) return;
  CAPTURE(key_of(made));
  const FitOptions options = fit_for("vllm");
  const Conversion c = plan_fitted(*adapter, options, {}).conversion;
  if (const auto refused = kRefused.find(key_of(made)); refused != kRefused.end()) {
    CHECK_THROWS_WITH_AS(check_served(c, "out", options, 0), doctest::Contains(refused->second),
                         Error);
    ++counts.refused;
    return;
  }
  CHECK_NOTHROW(check_served(c, "out", options, 0));
  const std::string out = temp.path + "/out";
  WriteFolderOptions write;
  write.output.durable = false;
  write_conversion(c, out, write);
  const Deltas meant = deltas(as_served(adapter->adapter, adapter->base->spec));
  check_held(*held(out, *adapter->base, meant, 1), meant);
  ++counts.served;
  if (const auto split = held(out, *adapter->base, meant, 2)) {
    check_held(*split, meant);
    ++counts.split;
  }
}

}  // namespace

TEST_CASE("what is written for a class that was only read reaches the server's buffers") {
  Counts counts;
  for (const std::string& base : kBases)
    for (const char* target : {"attention", "mixer", "mlp", "shared", "experts"})
      check_one({base, target}, counts);
  CHECK(counts.refused == kRefused.size());
  CHECK(counts.served == 125);
  CHECK(counts.split == 125);
}
