// The families of transformers 5.24, from config.json alone: whatever a spec lists is in the model,
// of that shape, and every Linear of the text model is listed. And what is derived from a
// checkpoint's own names and shapes, with the family's file out of the way, is what that file says.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

#include "lib/base/error.h"
#include "lib/model/derived_family.h"
#include "lib/model/family.h"
#include "lib/model/model_builder.h"
#include "tests/model/catalogue.h"

using namespace moelora;

namespace {

using Named = std::map<std::string, Shape>;
using Names = std::set<std::string_view>;

// What transformers saves of a model that was built afresh is not what the hub's files have, which
// is what these files describe: names of layers (deepseek_v4, kimi_k25, kimi_linear), experts
// batched on the hub (qwen3_5_moe, qwen3_vl_moe, qwen4_exp), the outer tie_word_embeddings
// (mistral3).
const Names kSavedOtherwise = {"deepseek_v4", "kimi_k25",     "kimi_linear", "mistral3",
                               "qwen3_5_moe", "qwen3_vl_moe", "qwen4_exp"};

// Whose weights do not say what is said of the experts: the width between two projections
// (muse_spark), a second set of them in the same numbers (ernie4_5_vl_moe), and those that are
// never run, of which transformers saves gate and up (longcat_flash; the hub has none). Nor how
// many experts have rows in a matrix of two dims (dbrx), or which of two groups of batched experts
// is that of the MLP (jetmoe). An encoder beside the decoder is taken for a tower, and neither's
// embedding is saved.
const Names kDerivedOtherwise = {
    "dbrx",     "ernie4_5_vl_moe",    "jetmoe", "longcat_flash", "muse_spark",
    "nllb_moe", "switch_transformers"};

const Names kEncoderDecoder = {"nllb_moe", "switch_transformers"};

// Towers and what joins them to the text, which no spec describes; a classifier's head; the tied
// copy of diffusion_gemma's layers.
bool is_beside_the_text(std::string_view module) {
  constexpr std::string_view kWords[] = {
      "visual", "vision",    "audio",    "vit.",         "projector",      "image", "score",
      "merger", "resampler", "encoder.", "embed_vision", "thinker.visual", "talker"};
  return std::any_of(std::begin(kWords), std::end(kWords), [&](std::string_view word) {
    return module.find(word) != std::string_view::npos;
  });
}

std::string unlike(const ModelSpec& spec, Form form, const Named& found) {
  std::string out;
  for (const auto& [name, shape] : spec.tensors(form)) {
    const auto at = found.find(name);
    if (at == found.end())
      out += fmt::format("{} is not there\n", name);
    else if (at->second != shape)
      out += fmt::format("{} is {}, not {}\n", name, to_string(at->second), to_string(shape));
  }
  return out;
}

ModelSpec spec_of(const CatalogueEntry& entry) {
  return make_model_spec(read_json_file(entry.config), entry.config);
}

}  // namespace

TEST_CASE("what a family's file lists is in the model, of that shape, in both forms") {
  CHECK(later_families().size() == 87);
  for (const std::string& family : later_families()) {
    CAPTURE(family);
    const CatalogueEntry entry = later_entry(family);
    const ModelSpec spec = spec_of(entry);
    CHECK(unlike(spec, Form::memory, entry.memory) == "");
    if (kSavedOtherwise.count(family) == 0) CHECK(unlike(spec, Form::hub, entry.saved) == "");
  }
}

TEST_CASE("every Linear of the text model is listed, and nothing else is said to be one") {
  for (const std::string& family : later_families()) {
    CAPTURE(family);
    const CatalogueEntry entry = later_entry(family);
    const ModelSpec spec = spec_of(entry);
    const std::set<std::string> linears(entry.linear_names.begin(), entry.linear_names.end());
    for (const auto& entry_class : entry.classes) {
      const std::string& module = entry_class.first;
      if (is_beside_the_text(module) && kEncoderDecoder.count(family) == 0) continue;
      CAPTURE(module);
      CHECK(spec.find_linear(module) != nullptr);
    }
    for (const LinearSpec& linear : spec.linears) {
      CAPTURE(linear.memory);
      if (linear.in_memory)
        CHECK(linear.memory_linear ==
              (linears.count(linear.memory.substr(linear.memory.rfind('.') + 1)) != 0));
      CHECK((linear.in_hub || linear.in_memory));
      CHECK((linear.hub == linear.memory || (linear.in_hub && linear.in_memory)));
      CHECK(spec.normalised(linear.hub) == linear.memory);
      CHECK(spec.normalised(linear.memory) == linear.memory);
    }
  }
}

TEST_CASE("every matrix of an encoder and a decoder is listed, in the files and in memory") {
  for (const std::string_view family : kEncoderDecoder) {
    CAPTURE(family);
    const CatalogueEntry entry = later_entry(std::string(family));
    const ModelSpec spec = spec_of(entry);
    for (const Form form : {Form::hub, Form::memory}) {
      Named listed;
      for (const auto& [name, shape] : spec.tensors(form))
        CHECK(listed.emplace(name, shape).second);
      for (const auto& tensor : form == Form::hub ? entry.saved : entry.memory) {
        const std::string& name = tensor.first;
        const Shape& shape = tensor.second;
        CAPTURE(name);
        if (shape.size() == 2) CHECK(listed[name] == shape);
        if (name.ends_with(".bias") && name.find("norm") == std::string::npos)
          CHECK(listed[name] == shape);
      }
    }
    CHECK(spec.has_encoder);
    CHECK(spec.has_linear_experts());
    CHECK(spec.experts == 0);
  }
}

// ---- derived from names and shapes ----

namespace {

ModelSpec derived_from(const CatalogueEntry& entry) {
  const Json config = read_json_file(entry.config);
  const std::vector<Family> family = {
      parse_family(derive_family(entry.saved, config, entry.config), "derived")};
  return make_model_spec(config, entry.config, family);
}

std::string storage_text(const ExpertStorage& s) {
  constexpr std::array<std::string_view, 3> kAxes = {"in_out", "out_in", "rows"};
  return fmt::format("{} {} {} {} {} {} {}", s.stem, s.numbered ? "numbered" : "batched", s.gate,
                     s.up, s.gate_up, s.down, kAxes[static_cast<size_t>(s.axes)]);
}

// Names whose role names and shapes do not tell: attention, a mixer or an MLP of another kind.
bool is_text_module(const LinearSpec& linear) {
  return linear.layer >= 0 && linear.hub.find("norm") == std::string::npos;
}

void check_derived(const std::string& family, const CatalogueEntry& entry) {
  CAPTURE(family);
  const ModelSpec known = spec_of(entry), found = derived_from(entry);
  CHECK(found.hidden == known.hidden);
  CHECK(found.vocab == known.vocab);
  CHECK(found.layers == known.layers);
  if (known.linears.back().role == Role::lm_head)
    CHECK(found.tied_embeddings == (entry.saved.count(known.linears.back().hub + ".weight") == 0));
  CHECK(found.experts == known.experts);
  CHECK(found.moe_layers == known.moe_layers);
  if (known.experts > 0) {
    CHECK(found.intermediate == known.intermediate);
    CHECK(found.gated == known.gated);
    CHECK(storage_text(found.hub) == storage_text(known.hub));
    CHECK(found.gate_up_order.has_value() == !found.gated);
  }
  size_t listed = 0;
  for (const LinearSpec& linear : known.linears) {
    if (!is_text_module(linear) || !linear.in_hub) continue;
    CAPTURE(linear.hub);
    const LinearSpec* mine = found.find_linear(linear.hub);
    REQUIRE(mine != nullptr);
    CHECK(mine->in == linear.in);
    CHECK(mine->out == linear.out);
    // Inkling's files call the correction of the router's scores its bias.
    const bool is_corrected = linear.role == Role::router && family.starts_with("inkling");
    if (!is_corrected) CHECK(mine->bias == linear.bias);
    CHECK((mine->role == Role::shared_expert) == (linear.role == Role::shared_expert));
    ++listed;
  }
  for (const LinearSpec& linear : found.linears) {
    CAPTURE(linear.hub);
    if (is_text_module(linear)) CHECK(known.find_linear(linear.hub) != nullptr);
  }
  CHECK(listed > 0);
}

}  // namespace

TEST_CASE("every known family, derived from its checkpoint, is what its file says") {
  for (const std::string& family : catalogue_families())
    check_derived(family, catalogue_entry(family));
  for (const std::string& family : later_families())
    if (kSavedOtherwise.count(family) == 0 && kDerivedOtherwise.count(family) == 0)
      check_derived(family, later_entry(family));
}

TEST_CASE("what names and shapes do not decide stops and says what is missing") {
  const Json config = parse_json(R"({"model_type": "new"})", "config");
  const auto error = [&](const Named& tensors) -> std::string {
    try {
      derive_family(tensors, config, "model");
      return "";
    } catch (const Error& e) {
      return e.what();
    }
  };
  Named tensors = {{"model.embed_tokens.weight", {100, 16}},
                   {"model.layers.0.self_attn.q_proj.weight", {16, 16}}};
  CHECK(error(tensors) == "");
  CHECK(error({{"model.layers.0.self_attn.q_proj.weight", {16, 16}}}).find("embedding") !=
        std::string::npos);
  CHECK(error({{"model.embed_tokens.weight", {100, 16}}}).find("numbered layer") !=
        std::string::npos);
  tensors["model.layers.0.mlp.experts.gate_up_proj"] = {4, 16, 32};
  tensors["model.layers.0.mlp.experts.down_proj"] = {4, 16, 16};
  CHECK(error(tensors).find("[E, in, out] from [E, out, in]") != std::string::npos);
  tensors["model.layers.0.mlp.experts.down_proj"] = {4, 12, 20};
  CHECK(error(tensors).find("expected one of the last two dims to be 16") != std::string::npos);
  tensors["model.layers.0.mlp.experts.down_proj"] = {4, 16, 12};
  tensors["model.layers.0.mlp.experts.other"] = {4, 16, 12};
  CHECK(error(tensors).find("none of the names of gate, up and down") != std::string::npos);
}
