// The proof of --for: whatever adapter of a real peer is fitted to a server, what is written means,
// read with the server's rules (lora_alpha / r of the config for all, no patterns, no rsLoRA), the
// fp64 answers of that peer; and the server's own plan takes it whole.

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <string>

#include "lib/base/error.h"
#include "lib/engine/fit/deltas.h"
#include "lib/engine/fit/fit.h"
#include "lib/model/base_model.h"
#include "tests/adapter/goldens.h"
#include "tests/adapter/round_trip.h"

using namespace moelora;
using namespace moelora::test;

namespace {

struct Refused {
  std::string_view adapter;  // "family/adapter"
  std::string_view text;     // in the refusal
  std::string_view drop;     // with which it is written; "" where nothing helps
};

FitOptions fit_options(const std::string& engine, std::string_view drop = "") {
  FitOptions out{parse_engine(engine), {}, {}, "", {}, 2};
  if (!drop.empty()) out.drop.insert(parse_drop(drop));
  return out;
}

Conversion fitted(const Golden& g, const FitOptions& options) {
  PlanOptions convert;
  convert.load.base = g.base();
  convert.load.read = g.read;
  FittedConversion out = plan_fitted(load_adapter(g.folder(), convert.load), options, convert);
  CHECK(verify_fit(out.meant, out.conversion.adapter, 2) > 0);
  check_served(out.conversion, "out", options, 0);
  return std::move(out.conversion);
}

// Without the deltas of what was dropped.
std::map<std::string, Matrix> kept(std::map<std::string, Matrix> answer, const Conversion& c) {
  for (const LeftOut& part : c.changes->left_out)
    for (const std::string& module : part.modules)
      std::erase_if(answer, [&](const auto& entry) {
        return module == entry.first || module == entry.first + ".weight";
      });
  return answer;
}

void check_written(const Golden& g, const Conversion& c) {
  const ModelSpec spec = open_base(g.base()).spec;
  TempFolder temp;
  WriteFolderOptions write;
  write.output.durable = false;
  write.verify = [](const Conversion& done, const AdapterFiles& written) {
    return Verified{read_back(done, written, "out")};
  };
  write_conversion(c, temp.path + "/out", write);
  const std::string layout(c.to != nullptr ? c.to->id : "peft-linear");
  DecodeOptions decode = decode_options(spec, layout, false);
  decode.server_scale = true;
  check_deltas(temp.path + "/out", spec, decode, kept(golden_answer(g, spec), c));
}

// Fits every golden; what is refused must be in `refused`, and nothing else may be in it.
void check_all(const std::string& engine, const std::vector<Refused>& refused) {
  size_t written = 0, found = 0;
  for (const Golden& g : goldens()) {
    CAPTURE(g.family);
    CAPTURE(g.adapter);
    const std::string name = g.family + "/" + g.adapter;
    const auto known = std::find_if(refused.begin(), refused.end(),
                                    [&](const Refused& r) { return r.adapter == name; });
    if (known == refused.end()) {
      CHECK_NOTHROW(check_written(g, fitted(g, fit_options(engine))));
      ++written;
      continue;
    }
    ++found;
    CHECK_THROWS_WITH_AS(fitted(g, fit_options(engine)),
                         doctest::Contains(std::string(known->text).c_str()), Error);
    if (!known->drop.empty())
      CHECK_NOTHROW(check_written(g, fitted(g, fit_options(engine, known->drop))));
  }
  CHECK(found == refused.size());
  MESSAGE(written << " golden adapters written for " << engine << ", " << found << " refused");
}

}  // namespace

TEST_CASE("what is written for vLLM means the fp64 answers when read as vLLM reads it") {
  check_all("vllm",
            {{"gpt_oss/embed_lm_head", "lm_head: vLLM has no place for it", "embeddings"},
             {"gpt_oss/lm_head_saved", "lm_head.weight: vLLM has no place", "saved-modules"},
             {"gpt_oss/lora_bias", "k_proj.lora_B.bias: vLLM has no place", "bias"},
             {"gpt_oss/tinker", "lm_head: vLLM has no place for it", "embeddings"},
             {"gpt_oss/tinker.build_lora_adapter", "lm_head: vLLM has no place", "embeddings"}});
}

TEST_CASE("what is written for SGLang means the fp64 answers when read as SGLang reads it") {
  check_all("sglang",
            {{"gpt_oss/lm_head_saved", "lm_head.weight: SGLang has no place", "saved-modules"},
             {"gpt_oss/lora_bias", "k_proj.lora_B.bias: SGLang has no place", "bias"},
             {"gpt_oss/router", "mlp.router: SGLang has no place for it", "router"},
             {"qwen3_moe/all_linear", "mlp.gate: SGLang has no place for it", "router"},
             {"mixtral/all_linear", "mlp.gate: SGLang has no place for it", "router"},
             {"deepseek_v3/all_linear", "mlp.gate: SGLang has no place for it", "router"},
             {"glm4_moe/all_linear", "mlp.gate: SGLang has no place for it", "router"},
             {"qwen2_moe/all_linear", "shared_expert_gate: SGLang has no place", "router"}});
}
