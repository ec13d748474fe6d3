// SGLang's model classes of all families (schemas/engines/sglang.json): which families have one,
// and what the class holds of adapters for each kind of layer, made and fitted to SGLang. The rows
// were not run: they say what follows from the source of 0.5.23. MOELORA_UPDATE=1 writes them.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "lib/adapter/init.h"
#include "lib/base/error.h"
#include "lib/engine/engine.h"
#include "lib/engine/fit/deltas.h"
#include "lib/engine/server_class.h"
#include "lib/engine/sglang/model/model_class.h"
#include "lib/model/base_model.h"
#include "lib/model/family.h"
#include "tests/adapter/goldens.h"
#include "tests/engine/changed_base.h"
#include "tests/engine/fitted.h"
#include "tests/engine/served_from_folder.h"
#include "tests/io/golden_text.h"
#include "tests/model/catalogue.h"
#include "tests/model/loader_bases.h"

using namespace moelora;
using namespace moelora::test;

namespace {

namespace fs = std::filesystem;

using Families = std::set<std::string>;

// Whose class of transformers SGLang falls back to, as 0.5.23 does with transformers 5.19.
const Families kFallback = {"aria",      "axk1",    "axk2",       "dots1",
                            "flex_olmo", "jamba",   "minimax",    "mistral4",
                            "seed_oss",  "smollm3", "solar_open", "openai_privacy_filter",
                            "jetmoe"};

// Whose class transformers 5.19 does not have either, or has in a way that SGLang refuses.
const Families kNotBuilt = {"flint",     "inkling2",           "kolibri1",
                            "lara_mini", "mistral_large4",     "mistral_large4_text",
                            "nllb_moe",  "switch_transformers"};

// Whose class does what its names do not say.
const Families kNotJudged = {
    "bailing_hybrid", "dbrx",          "afmoe",           "deepseek_v4",    "diffusion_gemma",
    "dots3_note",     "gemma4",        "ernie4_5_vl_moe", "gemma4_unified", "inkling",
    "laguna",         "longcat_flash", "muse_spark",      "step3p7",        "unlimited_ocr",
    "zaya",           "grok",          "grok1",           "kimi_k3",        "step3"};

Families families_of_files() {
  Families out;
  for (const auto& entry :
       fs::directory_iterator(std::string(MOELORA_SOURCE_DIR) + "/schemas/models"))
    out.insert(entry.path().stem().string());
  return out;
}

const std::pair<const char*, const char*> kOtherNames[] = {
    {"kimi_k25", "KimiK25ForConditionalGeneration"},
    {"minimax_m3_vl_text", "MiniMaxM3SparseForCausalLM"},
    {"sarvam_mla", "SarvamMLAForCausalLM"},
    {"sarvam_moe", "SarvamMoEForCausalLM"},
};

const char* const kKinds[] = {"attention", "mixer", "mlp", "shared", "experts", "lm_head"};

LoadedAdapter make(const std::string& base, const std::string& kind, const std::string& folder) {
  InitOptions init;
  init.base = base;
  init.rank = 2;
  init.targets = {kind};
  init.to = "stacked";
  init.seed = 3;
  init.random_b = true;
  Conversion fresh = make_adapter(init);
  WriteFolderOptions write;
  write.output.durable = false;
  write_conversion(fresh, folder, write);
  PlanOptions convert;
  convert.load.base = base;
  return load_adapter(folder, convert.load);
}

// Without what differs from run to run.
std::string first_line(std::string text) {
  text = text.substr(0, text.find('\n'));
  constexpr std::string_view kWould = "would refuse the output";
  if (const size_t at = text.find(kWould); at != std::string::npos) text = text.substr(at);
  return text;
}

// "served" where every factor lands unchanged, else what the server says; "" for no such layers.
std::string outcome(const std::string& base, const std::string& kind) {
  const TempFolder temp;
  std::optional<LoadedAdapter> made;
  try {
    made = make(base, kind, temp.path + "/in");
  } catch (const Error& error) {
    const std::string why = error.what();
    if (why.find("this base model has no") != std::string::npos) return "";
    return "no such adapter can be made: " + first_line(why);
  }
  try {
    const FittedConversion out = plan_fitted(*made, fit_for("sglang"), {});
    CHECK(verify_fit(out.meant, out.conversion.adapter, 1) > 0);
    check_served(out.conversion, "out", fit_for("sglang"), 0);
    return "served";
  } catch (const Error& error) {
    return first_line(error.what());
  }
}

// One row for each kind of layer; one for all where all say the same.
std::string rows_of(const std::string& base, const std::string& name) {
  std::string rows;
  std::set<std::string> texts;
  for (const char* kind : kKinds) {
    const std::string text = outcome(base, kind);
    if (text.empty()) continue;
    texts.insert(text);
    rows += fmt::format("  {}: {}\n", kind, text);
  }
  return texts.size() == 1 ? fmt::format("{}: {}\n", name, *texts.begin()) : name + "\n" + rows;
}

ServerPlan plan_of(const std::string& base, const std::string& version,
                   const std::string& kind = "lm_head") {
  const TempFolder temp;
  const LoadedAdapter made = make(base, kind, temp.path + "/in");
  const std::vector<ServedAdapter> adapters{served_from_folder(temp.path + "/in")};
  const BaseModel model = open_base(base);
  return engines::sglang.plan(
      {adapters, model.spec, model.config, {}, *EngineVersion::parse(version)});
}

bool is_described(const std::string& config) {
  try {
    open_base(config);
    return true;
  } catch (const UnknownFamily&) {
    return false;
  }
}

}  // namespace

TEST_CASE("every family is in exactly one of: a class, a fallback, not built, not judged") {
  std::map<std::string, std::vector<JsonView>> classes;
  for (const JsonView& one : engine_facts("sglang").at("classes").items())
    for (const std::string& family : one.strings_or_none("families"))
      classes[family].push_back(one);
  const Families files = families_of_files();
  for (const auto& entry : classes) CHECK_MESSAGE(files.count(entry.first) == 1, entry.first);
  for (const std::string& family : files) {
    CAPTURE(family);
    REQUIRE(classes[family].size() == 1);
    const JsonView& one = classes[family].front();
    CHECK((one.find("transformers_fallback").has_value()) == (kFallback.count(family) == 1));
    CHECK((one.find("not_built").has_value()) == (kNotBuilt.count(family) == 1));
    CHECK((one.find("not_judged").has_value()) == (kNotJudged.count(family) == 1));
  }
}

TEST_CASE("a class is not judged for a release that did not have it") {
  const std::string base = MOELORA_TEST_DATA "/families/granitemoeshared";
  CHECK(plan_of(base, "0.5.18").not_known ==
        "SGLang has the class GraniteMoeSharedForCausalLM since 0.5.19 only");
  CHECK(plan_of(base, "0.5.19").not_known == "");
  CHECK(plan_of(base, "2026-09-03").not_known != "");
  CHECK(plan_of(base, "2026-09-05").not_known == "");
}

TEST_CASE("a base with experts under a class that is known without them is not judged") {
  const TempFolder temp;
  CHECK(plan_of(MOELORA_TEST_DATA "/families/mistral3", "0.5.23").not_known == "");
  const std::string base =
      changed_base(temp, "qwen3_5_moe", architecture("Mistral3ForConditionalGeneration"));
  CHECK(plan_of(base, "0.5.23").not_known ==
        "SGLang's class Mistral3ForConditionalGeneration is known here for bases without experts "
        "only");
}

TEST_CASE("LoRA on a fused indexer ends the start: interleaved since 0.5.23, any before") {
  const TempFolder temp;
  const std::string plain = MOELORA_TEST_DATA "/families/glm_moe_dsa";
  const std::string interleaved =
      changed_base(temp, "glm_moe_dsa", R"({"indexer_rope_interleave": true})");
  const auto refusal = [](const std::string& base, const std::string& version) {
    const ServerPlan plan = plan_of(base, version, "attention");
    const PlanEvent* first = plan.adapters.at(0).first_refusal();
    return first == nullptr ? std::string() : refusal_text(*first->refusal);
  };
  const std::string fused =
      "ValueError: LoRA targets the DSA indexer (['indexer.weights_proj', 'indexer.wk', "
      "'indexer.wq_b']), which is incompatible with DSA indexer Q/K fusion. Set "
      "SGLANG_DISABLE_DSA_INDEXER_FUSION=1 to disable fusion and use indexer LoRA.";
  CHECK(refusal(plain, "0.5.23") == "");
  CHECK(refusal(interleaved, "0.5.23") == fused);
  CHECK(refusal(plain, "0.5.22") == fused);
  CHECK(refusal(plain, "0.5.13").find("NotImplementedError: get_hidden_dim not implemented for") ==
        0);
}

TEST_CASE("a linear that the hub packs is split as SGLang splits it") {
  const ServerPlan plan = plan_of(MOELORA_TEST_DATA "/families/phi3", "0.5.23", "mlp");
  REQUIRE(plan.adapters.at(0).first_refusal() == nullptr);
  for (const TensorFate& fate : plan.adapters[0].fates) CHECK(fate.fate == Fate::used);
  const BaseModel base = open_base(MOELORA_TEST_DATA "/families/phi3");
  const sglang::ModelClass model = sglang::make_model_class(base.spec, base.config);
  using Rows = std::vector<int64_t>;
  for (const sglang::ClassModule& module : model.modules) {
    if (module.leaf() == "qkv_proj") {
      CHECK(module.kind == sglang::LayerKind::qkv);
      CHECK(module.out == Rows{60, 20, 20});
    } else if (module.leaf() == "gate_up_proj") {
      CHECK(module.kind == sglang::LayerKind::merged);
      CHECK(module.out == Rows{84, 84});
    }
  }
}

TEST_CASE("a class packs what it says, and leaves apart what it says") {
  const auto leaves = [](const std::string& base) {
    std::set<std::string, std::less<>> out;
    const BaseModel model = open_base(base);
    for (const auto& module : sglang::make_model_class(model.spec, model.config).modules)
      out.emplace(module.leaf());
    return out;
  };
  const TempFolder temp;
  const std::string sarvam = changed_base(
      temp, "sarvam_mla",
      R"({"architectures": ["SarvamMLAForCausalLM"], "q_lora_rank": 32, "model_type": "deepseek_v3"})");
  const auto apart = leaves(sarvam);
  CHECK(apart.count("fused_qkv_a_proj_with_mqa") == 0);
  CHECK(apart.count("q_a_proj") == 1);
  const auto fused = leaves(changed_base(temp, "sarvam_mla", R"({"architectures":
      ["DeepseekV3ForCausalLM"], "q_lora_rank": 32, "model_type": "deepseek_v3"})"));
  CHECK(fused.count("fused_qkv_a_proj_with_mqa") == 1);
  CHECK(fused.count("q_a_proj") == 0);
  const auto beam = leaves(MOELORA_TEST_DATA "/families/beam");
  CHECK(beam.count("qkv_gate_proj") == 1);
  CHECK(beam.count("qkv_proj") == 0);
  CHECK(leaves(MOELORA_TEST_DATA "/families/kimi_linear").count("fused_qkvbfg_a_proj") == 1);
}

TEST_CASE("what SGLang's class of a family holds of each kind of layer") {
  std::string text;
  for (const std::string& name : later_families()) {
    const std::string base = MOELORA_TEST_DATA "/families/" + name;
    if (is_described(base)) text += rows_of(base, name);
  }
  for (const std::string& name : loader_bases()) {
    const TempFolder temp;
    text += rows_of(write_loader_base(temp.path, name), name);
  }
  // Classes that transformers spells otherwise, or not at all.
  for (const auto& [family, name] : kOtherNames) {
    const TempFolder temp;
    text +=
        rows_of(changed_base(temp, family, architecture(name)), fmt::format("{} {}", family, name));
  }
  CHECK(text == golden_text("../engine/sglang_classes.txt", text));
}
