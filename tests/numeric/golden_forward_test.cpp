// The forward with an adapter as a real peer saved it, against plain loops over the base weights
// plus the delta that peer merged (fp32 of an fp64 result, tests/data/README.md).

#include <doctest/doctest.h>

#include "lib/adapter/adapter_file.h"
#include "lib/adapter/gate_up.h"
#include "lib/base/cast.h"
#include "lib/io/safetensors.h"
#include "lib/io/weights.h"
#include "lib/numeric/moe_forward.h"
#include "tests/numeric/made_layer.h"
#include "tests/numeric/merged_forward.h"

namespace moelora::test {
namespace {

const std::string kData = MOELORA_TEST_DATA;

struct Golden {
  const char *family, *adapter, *answer;
  int layer;
};

// "delta.NAME" of one expert, [out, in] of the wanted projection, by plain indexing.
std::vector<double> delta(const TensorMap& answer, const ModelSpec& spec, int layer, Projection p,
                          int64_t expert) {
  const bool down = p == Projection::down;
  const auto found = answer.find("delta." + spec.expert_stem(Form::memory, layer) + "." +
                                 (down ? spec.memory.down : spec.memory.gate_up));
  const int64_t rows = spec.out_dim(p), columns = spec.in_dim(p), all = down ? rows : 2 * rows;
  std::vector<double> out(static_cast<size_t>(rows * columns));
  if (found == answer.end()) return out;
  const std::vector<double> data = read_double(found->second.select(0, expert));
  const int64_t second = p == Projection::up ? 1 : 0;
  for (int64_t r = 0; r < rows; ++r) {
    const bool interleaved = spec.gate_up_order == GateUpOrder::interleaved;
    const int64_t row = down ? r : interleaved ? 2 * r + second : second * rows + r;
    for (int64_t c = 0; c < columns; ++c) {
      const bool in_out = spec.memory.axes == ExpertAxes::in_out;
      const int64_t at = in_out ? c * all + row : row * columns + c;
      out[static_cast<size_t>(r * columns + c)] = data[static_cast<size_t>(at)];
    }
  }
  return out;
}

void add(std::vector<double>& to, const std::vector<double>& what) {
  REQUIRE(to.size() == what.size());
  for (size_t i = 0; i < to.size(); ++i) to[i] += what[i];
}

BaseWeights base_of(const Golden& golden, const ModelSpec& spec) {
  const std::string folder = kData + "/" + golden.family + "/base";
  if (std::string(golden.family) == "gpt_oss")
    return read_base_weights(open_weights(folder, {"model"}).tensors, spec, golden.layer, folder);
  return synthetic_base({spec.experts, spec.expert_in, spec.intermediate, true, false, 5, 0});
}

}  // namespace

TEST_CASE("The forward of peers' adapters equals that of the weights those peers merged") {
  const Golden goldens[] = {{"gpt_oss", "peft_params", "peft_params", 0},
                            {"gpt_oss", "peft_params", "peft_params", 1},
                            {"gpt_oss", "peft_params_rslora", "peft_params_rslora", 1},
                            {"gpt_oss", "peft_params_down_only", "peft_params_down_only", 0},
                            {"gpt_oss", "peft_params_bf16", "peft_params_bf16", 1},
                            {"gpt_oss", "peft_patterns", "peft_patterns", 1},
                            {"gpt_oss", "peft_params_grouped_b", "peft_params", 0},
                            {"qwen3_moe", "peft_params", "peft_params", 1},
                            {"mixtral", "peft_params", "peft_params", 0}};
  for (const Golden& golden : goldens) {
    const std::string family = kData + "/" + golden.family, name = golden.adapter;
    CAPTURE(family);
    CAPTURE(name);
    LoadOptions options;
    options.base = family + "/base";
    LoadedAdapter loaded = load_adapter(family + "/" + golden.adapter, options);
    split_gate_up(loaded.adapter);
    const ModelSpec& spec = loaded.base->spec;
    const MoeLayer layer = moe_layer(spec, loaded.base->config);
    const MoeWeights weights{base_of(golden, spec), layer_lora(loaded.adapter, golden.layer)};
    REQUIRE(!weights.lora.empty());

    const TensorMap answer =
        open_safetensors(family + "/" + golden.answer + ".expect.safetensors").tensors;
    LayerCase c;
    c.experts = spec.experts, c.top_k = 2, c.width = spec.expert_in;
    const Routing routing = made_routing(c, 16);
    const std::vector<double> x = made_tokens(c, 16);
    const MoeWeights bare{weights.base, {}};
    const auto merged = merged_forward(layer, routing, x, [&](int64_t e) {
      MergedExpert expert = merged_expert(layer, bare, e);
      add(expert.gate, delta(answer, spec, golden.layer, Projection::gate, e));
      add(expert.up, delta(answer, spec, golden.layer, Projection::up, e));
      add(expert.down, delta(answer, spec, golden.layer, Projection::down, e));
      return expert;
    });
    const std::vector<double> y = forward_cpu<double>(layer, weights, routing, x).out;
    CHECK(relative_error(y, merged) <= 1e-6);
    CHECK(relative_error(forward_cpu<double>(layer, bare, routing, x).out, merged) > 1e-2);
  }
}

TEST_CASE("The forward of a Tinker adapter is that of the model tinker-cookbook merges it into") {
  const std::string family = kData + "/gpt_oss";
  LoadOptions options;
  options.base = family + "/base";
  LoadedAdapter loaded = load_adapter(family + "/tinker", options);
  split_gate_up(loaded.adapter);
  const ModelSpec& spec = loaded.base->spec;
  const MoeLayer layer = moe_layer(spec, loaded.base->config);
  LayerCase c;
  c.experts = spec.experts, c.top_k = 2, c.width = spec.expert_in;
  const Routing routing = made_routing(c, 16);
  const std::vector<double> x = made_tokens(c, 16);
  const auto base_in = [&](const std::string& folder) {
    return read_base_weights(open_weights(folder, {"model"}).tensors, spec, 1, folder);
  };
  const MoeWeights weights{base_in(options.base), layer_lora(loaded.adapter, 1)};
  const MoeWeights merged{base_in(family + "/tinker.build_hf_model"), {}};
  const auto expected =
      merged_forward(layer, routing, x, [&](int64_t e) { return merged_expert(layer, merged, e); });
  CHECK(weights.lora.at(Projection::up).a.shared);
  CHECK(relative_error(forward_cpu<double>(layer, weights, routing, x).out, expected) <=
        1e-2);  // BF16
  const MoeWeights bare{weights.base, {}};
  CHECK(relative_error(forward_cpu<double>(layer, bare, routing, x).out, expected) > 0.1);
}

}  // namespace moelora::test
