// The packed check reads a source whose names hold wrappers of training, or a second spelling.

#include "lib/compare/bits/plain_names.h"

#include <doctest/doctest.h>

#include "lib/base/error.h"
#include "tests/compare/made_pair.h"

using namespace moelora;
using namespace moelora::test;

namespace {

Held renamed(const Held& from, const std::string& part, const std::string& to) {
  Held out{{}, from.config};
  for (const auto& [name, tensor] : from.tensors) {
    std::string changed = name;
    if (const size_t at = changed.find(part); at != std::string::npos)
      changed.replace(at, part.size(), to);
    out.tensors[changed] = tensor;
  }
  return out;
}

MadeOptions with_attention() {
  MadeOptions out;
  out.attention = true;
  return out;
}

}  // namespace

TEST_CASE("wrappers anywhere in the source's names are no fault, and hide none") {
  const BaseModel base = made_base("qwen3_moe");
  const Held source = made_experts(base.spec, with_attention());
  const Held packed = converted(source, base, "stacked");
  for (const auto& [part, to] :
       {std::pair<std::string, std::string>{"base_model.", "module.base_model."},
        {"base_model.model.", "base_model.model._orig_mod."},
        {".self_attn.", "._fsdp_wrapped_module._checkpoint_wrapped_module.self_attn."},
        {".lora_A.weight", "._orig_mod.lora_A.weight"}}) {
    Held wrapped = renamed(source, part, to);
    CHECK(checked(packed, wrapped, &base.spec).sound());
    wrapped.tensors.erase(wrapped.tensors.begin());
    CHECK_FALSE(checked(packed, wrapped, &base.spec).sound());
  }
}

TEST_CASE("a text module's second spelling is taken for one only with the same bytes") {
  const BaseModel base = made_base("qwen3_moe");
  const Held source = made_experts(base.spec, with_attention());
  const Held packed = converted(source, base, "peft-linear");
  Held doubled = source;
  for (const auto& [name, tensor] :
       renamed(source, "model.layers", "model.language_model.layers").tensors)
    doubled.tensors[name] = tensor;
  CHECK(doubled.tensors.size() == 2 * source.tensors.size());
  CHECK(checked(packed, doubled, &base.spec).sound());
  edit(doubled, {"language_model", "self_attn", "lora_B"},
       [](Values& values, const Shape&) { values[0] += 1; });
  CHECK_FALSE(checked(packed, doubled, &base.spec).sound());
}

TEST_CASE("a name that is there twice with other values is refused") {
  const Tensor zeros = Tensor::zeros(DType::F32, {2, 3}), other = Tensor::zeros(DType::F32, {3, 3});
  CHECK_THROWS_AS(
      packed::with_plain_names({{"a.lora_A.weight", zeros}, {"module.a.lora_A.weight", other}}),
      Error);
  CHECK(packed::with_plain_names({{"a.lora_A.weight", zeros}, {"module.a.lora_A.weight", zeros}})
            .size() == 1);
}
