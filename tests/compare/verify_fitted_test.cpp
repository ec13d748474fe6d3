// lora-convert --for ... --verify: every golden adapter fitted for each server is found to mean
// what its source means, by a check that knows nothing of repairs; and a fit that errs is not.

#include <doctest/doctest.h>

#include "lib/base/error.h"
#include "lib/compare/verify_conversion.h"
#include "lib/engine/fit/fit.h"
#include "tests/adapter/goldens.h"
#include "tests/engine/fitted.h"

using namespace moelora;
using namespace moelora::test;

namespace {

std::optional<Conversion> fitted(const Golden& golden, const std::string& engine) {
  FitOptions options{parse_engine(engine), {}, {}, "", {}, 1};
  for (const DropKind kind :
       {DropKind::router, DropKind::bias, DropKind::saved_modules, DropKind::embeddings})
    options.drop.insert(kind);
  PlanOptions convert;
  convert.load.base = golden.base();
  convert.load.read = golden.read;
  try {
    return plan_fitted(load_adapter(golden.folder(), convert.load), options, convert).conversion;
  } catch (const Error&) {
    return std::nullopt;  // what that server cannot serve
  }
}

WrittenConversion write_verified(const Conversion& c, const std::string& in) {
  TempFolder temp;
  WriteFolderOptions write;
  write.output.durable = false;
  write.verify = packed_verifier(in, 1);
  return write_conversion(c, temp.path + "/out", write);
}

}  // namespace

TEST_CASE("every golden adapter fitted for a server is verified against its source") {
  for (const char* engine : {"sglang", "vllm", "peft"}) {
    int verified = 0;
    for (const Golden& golden : goldens()) {
      CAPTURE(engine);
      CAPTURE(golden.family);
      CAPTURE(golden.adapter);
      const auto conversion = fitted(golden, engine);
      if (!conversion) continue;
      CHECK_NOTHROW(write_verified(*conversion, golden.folder()));
      ++verified;
    }
    MESSAGE(verified << " golden adapters fitted for " << engine);
    CHECK(verified > 30);
  }
}

TEST_CASE("pairs of which only the product is the same are accepted and counted") {
  for (const Golden& golden : goldens()) {
    if (golden.family != "gpt_oss" || golden.adapter != "peft_patterns") continue;
    auto conversion = fitted(golden, "sglang");
    REQUIRE(conversion);
    CHECK(write_verified(*conversion, golden.folder()).same_product == 0);
    for (auto& [name, tensor] : conversion->tensors) {  // ranks in another order
      if (name.find("k_proj.lora_") == std::string::npos) continue;
      const int dim = name.find("lora_A") != std::string::npos ? 0 : 1;
      tensor = Tensor::concat(
          dim, std::vector{tensor.slice(dim, 1, tensor.dim(dim) - 1), tensor.slice(dim, 0, 1)});
    }
    CHECK(write_verified(*conversion, golden.folder()).same_product == 2);
  }
}

TEST_CASE("a fit that changes what an adapter means is not published") {
  for (const Golden& golden : goldens()) {
    if (golden.family != "gpt_oss" || golden.adapter != "peft_patterns") continue;
    auto conversion = fitted(golden, "sglang");
    REQUIRE(conversion);
    SUBCASE("rows moved") {
      for (auto& [name, tensor] : conversion->tensors)
        if (name.find("k_proj.lora_B") != std::string::npos)
          tensor = Tensor::concat(
              0, std::vector{tensor.slice(0, 1, tensor.dim(0) - 1), tensor.slice(0, 0, 1)});
    }
    SUBCASE("another scale") { conversion->config.set("lora_alpha", 5); }
    SUBCASE("a module left out that nobody dropped") {
      std::erase_if(conversion->tensors, [](const auto& entry) {
        return entry.first.find("layers.0.self_attn.q_proj") != std::string::npos;
      });
    }
    CHECK_THROWS_WITH_AS(write_verified(*conversion, golden.folder()),
                         doctest::Contains("verification failed"), Error);
  }
}

TEST_CASE("rows of in_proj_qkv in the wrong slice for SGLang are found") {
  const std::string gdn = "model.language_model.layers.0.linear_attn.";
  const ModelSpec spec = catalogue_base("../families/qwen3_5_moe").spec;
  MadeAdapter made;
  for (const char* name : {"in_proj_qkv", "in_proj_z"}) {
    const LinearSpec* linear = spec.find_linear(gdn + name);
    REQUIRE(linear != nullptr);
    made.pair(gdn + name, {2, linear->in}, {linear->out, 2});
  }
  TempFolder source;
  made.write(source.path + "/adapter");
  PlanOptions plan;
  plan.load.base = std::string(MOELORA_TEST_DATA) + "/families/qwen3_5_moe";
  Conversion fit =
      plan_fitted(load_adapter(source.path + "/adapter", plan.load), fit_for("sglang"), plan)
          .conversion;
  CHECK_NOTHROW(write_verified(fit, source.path + "/adapter"));
  const auto b = [&](const char* name) -> Tensor& { return fit.tensors.at(b_name(gdn + name)); };
  const auto exchange = [&](const char* one, const char* other) {
    Tensor &x = b(one), &y = b(other);
    const int64_t rows = std::min(x.dim(0), y.dim(0));
    const auto with = [&](const Tensor& own, const Tensor& first) {
      if (own.dim(0) == rows) return first.slice(0, 0, rows);
      return Tensor::concat(
          0, std::vector{first.slice(0, 0, rows), own.slice(0, rows, own.dim(0) - rows)});
    };
    const Tensor new_x = with(x, y), new_y = with(y, x);
    x = new_x;
    y = new_y;
  };
  SUBCASE("k and v") { exchange("in_proj_k", "in_proj_v"); }
  SUBCASE("q and k") { exchange("in_proj_q", "in_proj_k"); }
  SUBCASE("v and z") { exchange("in_proj_v", "in_proj_z"); }
  CHECK_THROWS_WITH_AS(write_verified(fit, source.path + "/adapter"),
                       doctest::Contains("verification failed"), Error);
}
