// What config keys do that the goldens leave at one value, against transformers in fp64 throughout
// (tests/data/README.md, archive `forward_switches`), and what of them is refused.

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>

#include "lib/base/cast.h"
#include "lib/io/json.h"
#include "lib/io/safetensors.h"
#include "tests/forward/cases.h"
#include "tests/io/golden_text.h"
#include "tests/io/temp_folder.h"

namespace moelora::test {
namespace {

const std::string kCases = std::string(MOELORA_TEST_DATA) + "/forward_switches/";

Tokens tokens_of(const Tensor& ids) {
  const std::vector<std::byte> bytes = ids.read();
  Tokens out(static_cast<size_t>(ids.dim(0)),
             std::vector<int64_t>(static_cast<size_t>(ids.dim(1))));
  const size_t each = bytes.size() / out.size();
  for (size_t s = 0; s < out.size(); ++s) std::memcpy(out[s].data(), bytes.data() + s * each, each);
  return out;
}

// What is said of a case whose config has this value for the key; its weights are not there.
std::string refusal(const std::string& name, const std::string& key, const Json& value) {
  Json config = read_json_file(kCases + name + "/config.json");
  config.set(key, value);
  const TempFolder folder;
  write_text(folder.path("config.json"), config.dump());
  try {
    score_tokens(open_base(folder.path()), nullptr, {{1, 2}});
  } catch (const Error& error) {
    return error.text();
  }
  return "";
}

}  // namespace

TEST_CASE("switches of families with other mixers than attention") {
  int cases = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kCases)) {
    const std::string folder = entry.path();
    CAPTURE(folder);
    const TensorMap answers = open_safetensors(folder + "/answers.safetensors").tensors;
    const std::vector<double> answer = read_double(answers.at("token_logprobs"));
    const Tokens tokens = tokens_of(answers.at("input_ids"));
    const BaseModel base = open_base(folder);
    CHECK(apart(scores_of(base, nullptr, tokens), answer) < 1e-12);
    CHECK(apart(scores_of(base, nullptr, tokens, Precision::f32), answer) < 1e-4);
    ++cases;
  }
  CHECK(cases == 8);
}

TEST_CASE("what the mixers do not know is refused before weights are looked for") {
  CHECK(refusal("qwen3_next_dense_layers", "hidden_act", Json("gelu")) ==
        "\"hidden_act\" is gelu, and layers of its kind are known with silu alone");
  CHECK(refusal("qwen3_5_text", "linear_num_key_heads", Json(3)) ==
        "/forward/mixers/1/key_heads: does not divide the value heads");
  CHECK(refusal("qwen3_5_text", "linear_conv_kernel_dim", Json(0)) ==
        "/forward/mixers/1/taps: a convolution needs one at least");
  CHECK(refusal("granitemoehybrid_dense", "mamba_n_groups", Json(4)) ==
        "/forward/mixers/0/groups: does not divide the heads");
  const Json reversed = Json::array({Json(1.0), Json(0.5)});
  CHECK(refusal("granitemoehybrid_dense", "time_step_limit", reversed) ==
        "/time_step_limit: expected two numbers, the least and the most");
}

TEST_CASE("a step without an upper bound, as transformers writes it") {
  const std::string folder = kCases + "granitemoehybrid_dense";
  BaseModel base = open_base(folder);
  const std::vector<double> unsaid = scores_of(base, nullptr, {{1, 2, 3}});
  base.config.set("time_step_limit", parse_json(R"([0.0, {"__float__": "Infinity"}])", "test"));
  CHECK(scores_of(base, nullptr, {{1, 2, 3}}) == unsaid);
}

}  // namespace moelora::test
