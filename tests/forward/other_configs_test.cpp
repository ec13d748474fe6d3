// What the goldens' configs leave out, on their weights with another config. Expected are the sums
// of all log-probabilities and some of them, of transformers 5.24 made to compute all in fp64
// (torch.float32 set to torch.float64): eager attention, eager experts.

#include <doctest/doctest.h>

#include <numeric>

#include "lib/io/json.h"
#include "lib/io/output.h"
#include "lib/io/safetensors.h"
#include "lib/io/tensor_writer.h"
#include "tests/adapter/goldens.h"
#include "tests/forward/cases.h"

namespace moelora::test {
namespace {

constexpr double kSame = 1e-11;
const std::vector<size_t> kShown = {0, 12, 22, 45};

struct OtherConfig {
  std::string family;
  std::string changes = "{}";              // of config.json
  std::map<int, int> copied_layers = {};   // new to old
  std::map<std::string, Shape> made = {};  // tensors that the golden has not
};

// The same numbers in Python: ((i * 7919 + seed * 104729) % 257 - 128) / 512.
Tensor made_tensor(const Shape& shape, int64_t seed) {
  const int64_t count = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies());
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    values[static_cast<size_t>(i)] =
        static_cast<float>((i * 7919 + seed * 104729) % 257 - 128) / 512.0F;
  return Tensor::of_f32(shape, values);
}

TensorMap weights_of(const OtherConfig& other, const std::string& base) {
  TensorMap out = open_safetensors(base + "/model.safetensors").tensors;
  const TensorMap golden = out;
  const auto prefix = [](int layer) { return "model.layers." + std::to_string(layer) + "."; };
  for (const auto& [to, from] : other.copied_layers)
    for (const auto& [name, tensor] : golden)
      if (name.starts_with(prefix(from)))
        out[prefix(to) + name.substr(prefix(from).size())] = tensor;
  int64_t seed = 0;
  for (const auto& [name, shape] : other.made) out[name] = made_tensor(shape, seed++);
  return out;
}

std::vector<double> scores_with(const OtherConfig& other) {
  const ForwardCase golden = forward_case(other.family, "base");
  const TempFolder folder;
  const std::string path = folder.path + "/base";
  Json config = read_json_file(golden.base + "/config.json");
  const Json changes = parse_json(other.changes, "changes");
  for (const auto& [key, value] : changes.members()) config.set(key, value);
  OutputFolder out(path, {}, {false, false});
  write_weights(out, "model", weights_of(other, golden.base), {});
  out.commit("config.json", config.dump());
  return scores_of(open_base(path), nullptr, golden.tokens());
}

void check(const OtherConfig& other, double sum, const std::vector<double>& shown) {
  const std::vector<double> scores = scores_with(other);
  CHECK(std::abs(std::accumulate(scores.begin(), scores.end(), 0.0) - sum) < 46 * kSame);
  std::vector<double> found;
  for (const size_t i : kShown) found.push_back(scores.at(i));
  CHECK(apart(found, shown) < kSame);
}

std::map<std::string, Shape> in_layers(int count, const std::map<std::string, Shape>& names) {
  std::map<std::string, Shape> out;
  for (int layer = 0; layer < count; ++layer)
    for (const auto& [name, shape] : names)
      out["model.layers." + std::to_string(layer) + "." + name] = shape;
  return out;
}

}  // namespace

TEST_CASE("latent attention: YaRN's mscale_all_dim is in the scores' scale, pairs may be halves") {
  check({"deepseek_v3", R"({"rope_interleave": false, "rope_parameters": {"rope_type": "yarn",
         "rope_theta": 10000.0, "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.7,
         "original_max_position_embeddings": 64}})"},
        -262.226701525399, {-5.323420244165, -7.161771259362, -4.618820163894, -3.966679037541});
}

TEST_CASE("latent attention: without q_lora_rank queries come straight out of q_proj") {
  check({"deepseek_v3",
         R"({"q_lora_rank": null})",
         {},
         in_layers(2, {{"self_attn.q_proj.weight", {96, 64}}})},
        -257.592313142424, {-5.323420244165, -6.049601451059, -7.332611711895, -5.726294623385});
}

TEST_CASE("a sparse indexer that may choose all keys is none") {
  CHECK(apart(scores_with({"deepseek_v32", R"({"index_topk": 24})"}),
              scores_with({"deepseek_v32", R"({"model_type": "deepseek_v3"})"})) == 0);
  CHECK(apart(scores_with({"deepseek_v32", R"({"index_topk": 20})"}),
              scores_with({"deepseek_v32", R"({"model_type": "deepseek_v3"})"})) > 1e-6);
}

TEST_CASE("a layer without an indexer looks where the last one with one did") {
  check({"glm_moe_dsa", R"({"indexer_types": ["full", "shared"]})"}, -234.211168902566,
        {-3.223840473490, -6.025853600016, -4.654464832136, -5.719367522872});
  CHECK_THROWS_AS(scores_with({"glm_moe_dsa", R"({"indexer_types": ["shared", "full"]})"}), Error);
}

TEST_CASE("DeepSeek-V2's router keeps to groups where topk_method says so") {
  const std::string same = R"({"model_type": "deepseek_v2", "n_group": 2, "topk_group": 1, )";
  check({"deepseek_v3", same + R"("topk_method": "greedy"})"}, -262.111542393442,
        {-5.310894130065, -5.507467242169, -4.593550670992, -3.981804866127});
  check({"deepseek_v3", same + R"("topk_method": "group_limited_greedy"})"}, -265.527459290658,
        {-5.314661783056, -6.181996093945, -4.513316025313, -4.633339639822});
  CHECK_THROWS_AS(scores_with({"deepseek_v3", same + R"("topk_method": "noaux_tc"})"}), Error);
}

TEST_CASE("Gemma 4: keys, before their norm, are values under attention_k_eq_v") {
  check({"gemma4_moe_text", R"({"attention_k_eq_v": true})"}, -232.530199332982,
        {-7.533193799362, -5.696812884901, -5.631729162621, -5.743132931272});
}

TEST_CASE("Gemma 4: layers with inputs of their own, and with others' keys and values") {
  std::map<std::string, Shape> made = in_layers(4, {{"per_layer_input_gate.weight", {10, 60}},
                                                    {"per_layer_projection.weight", {60, 10}},
                                                    {"post_per_layer_input_norm.weight", {60}}});
  made["model.embed_tokens_per_layer.weight"] = {104, 40};
  made["model.per_layer_model_projection.weight"] = {40, 60};
  made["model.per_layer_projection_norm.weight"] = {10};
  check({"gemma4_moe_text",
         R"({"num_hidden_layers": 4, "num_kv_shared_layers": 2,
         "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
         "per_layer_config": {"1": {"head_dim": 16}, "3": {"head_dim": 16}},
         "hidden_size_per_layer_input": 10})",
         {{2, 0}, {3, 1}},
         made},
        -234.585578027592, {-6.088829942715, -5.004018114194, -5.528776778770, -6.318375230861});
}

TEST_CASE("Gemma 4: tokens that see later ones have no log-probabilities") {
  CHECK_THROWS_AS(scores_with({"gemma4_moe_text", R"({"use_bidirectional_attention": "all"})"}),
                  Error);
}

}  // namespace moelora::test
