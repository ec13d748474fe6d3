// A sound packed adapter is found sound, whatever the layouts; and what is equal as a product only
// is found by the second layer.

#include <doctest/doctest.h>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/compare/bits/diagnosis.h"
#include "lib/compare/bits/rounding.h"
#include "lib/model/base_model.h"
#include "tests/compare/made_pair.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::vector<std::string> kLayouts = {"peft-linear",   "peft-params",  "stacked",
                                           "stacked-fused", "linear-fused", "shared-outer"};

}  // namespace

TEST_CASE("every layout of one adapter says what the adapter says, by its bits") {
  for (const char* family : {"qwen3_moe", "gpt_oss", "mixtral", "nemotron_h"})
    for (const bool same_a : {false, true})
      for (const bool shared_outer : {false, true}) {
        const BaseModel base = made_base(family);
        MadeOptions made;
        made.same_a = same_a;
        made.shared_outer = shared_outer;
        made.attention = true;
        const Held source = made_experts(base.spec, made);
        for (const std::string& layout : kLayouts) {
          if (layout == "shared-outer" && !shared_outer) continue;
          if (!base.spec.gated && (layout == "stacked-fused" || layout == "linear-fused")) continue;
          CAPTURE(family);
          CAPTURE(layout);
          CAPTURE(same_a);
          CAPTURE(shared_outer);
          const Held packed = converted(source, base, layout);
          const packed::Report report = checked(packed, source, &base.spec, false);
          CHECK(fault_names(report) == std::vector<std::string>{});
          CHECK(report.different == 0);
          CHECK(report.factors > 0);
          CHECK(checked(source, packed, &base.spec).sound());
        }
      }
}

namespace {

// By bits alone, read in windows of an element or two.
bool sound_in_windows(const Held& packed, const Held& source, const ModelSpec& spec) {
  packed::CheckOptions options;
  options.spec = &spec;
  options.threads = 1;
  options.products = false;
  options.window = 8;
  return packed::check_packed({packed.tensors, packed.config, "packed", {}},
                              {source.tensors, source.config, "source", {}}, options)
      .sound();
}

// How many elements of `held` may change by their last bit without being noticed.
int unnoticed(Held held, const Held& source, const ModelSpec& spec, int& elements) {
  REQUIRE(sound_in_windows(held, source, spec));
  int out = 0;
  for (auto& [name, tensor] : held.tensors) {
    const Tensor before = tensor;
    std::vector<std::byte> bytes = before.read();
    const auto step = static_cast<size_t>(dtype_bytes(before.dtype()));
    for (size_t at = 0; at < bytes.size(); at += step, ++elements) {
      bytes[at] ^= std::byte{1};
      tensor = Tensor(std::make_shared<MemorySource>(before.dtype(), bytes), before.shape());
      out += sound_in_windows(held, source, spec) ? 1 : 0;
      bytes[at] ^= std::byte{1};
    }
    tensor = before;
  }
  return out;
}

}  // namespace

TEST_CASE("the last bit of each single element counts, in every layout and type") {
  const Dims small{1, 2, 4, 2};
  int elements = 0;
  for (const bool same_a : {false, true})
    for (const auto& dtype : {std::optional<DType>(), std::optional(DType::BF16)})
      for (const char* layout :
           {"peft-linear", "peft-params", "stacked", "stacked-fused", "linear-fused"}) {
        const BaseModel base = made_base(same_a ? "gpt_oss" : "qwen3_moe", small);
        MadeOptions made;
        made.rank = 2;
        made.same_a = same_a;
        const Held source = made_experts(base.spec, made);
        CAPTURE(layout);
        CHECK(unnoticed(converted(source, base, layout, {}, dtype), source, base.spec, elements) ==
              0);
      }
  CHECK(elements > 1000);
}

TEST_CASE("a scale that changes nothing yet, as B is zero, must be kept where none may be folded") {
  const BaseModel base = made_base("qwen3_moe");
  Held source = made_experts(base.spec);
  for (auto& [name, tensor] : source.tensors)
    if (name.find("lora_B") != std::string::npos)
      tensor = Tensor::of_f32(tensor.shape(), Values(static_cast<size_t>(tensor.elements()), 0.0F));
  Held packed = converted(source, base, "stacked");
  packed.config.set("lora_alpha", Json(int64_t{3}));
  packed::CheckOptions options;
  options.spec = &base.spec;
  options.products = false;
  const auto report = [&] {
    return packed::check_packed({packed.tensors, packed.config, "packed", {}},
                                {source.tensors, source.config, "source", {}}, options);
  };
  CHECK(report().sound());
  options.fitted = false;
  CHECK(fault_names(report()) == std::vector<std::string>{"scale-missing"});
}

TEST_CASE("a frozen weight saved beside factors may be left out of a fitted adapter, resized not") {
  const BaseModel base = made_base("qwen3_moe");
  const Held packed = made_experts(base.spec);
  packed::CheckOptions options;
  options.spec = &base.spec;
  const auto faults = [&](const std::string& module, int64_t more_rows) {
    Held source = packed;
    const LinearSpec* linear = base.spec.find_linear(module);
    REQUIRE(linear != nullptr);
    const bool table = linear->role == Role::embedding;
    source.tensors["base_model.model." + module + ".base_layer.weight"] = Tensor::zeros(
        DType::F32,
        {(table ? linear->in : linear->out) + more_rows, table ? linear->out : linear->in});
    return fault_names(packed::check_packed({packed.tensors, packed.config, "packed", {}},
                                            {source.tensors, source.config, "source", {}},
                                            options));
  };
  const std::vector<std::string> missing = {"missing"};
  for (const char* module : {"lm_head", "model.embed_tokens"}) {
    options.fitted = true;
    CHECK(faults(module, 0).empty());
    CHECK(faults(module, 1) == missing);
    options.fitted = false;
    CHECK(faults(module, 0) == missing);
  }
}

TEST_CASE("a scale folded into lora_B is found, however it was rounded") {
  const BaseModel base = made_base("qwen3_moe");
  MadeOptions made;
  made.dtype = DType::BF16;
  made.alpha = 5;  // a scale of 5/3: rounding happens
  const Held source = made_experts(base.spec, made);
  for (const auto rounding : {packed::FoldRounding::torch, packed::FoldRounding::once}) {
    Held packed = converted(source, base, "stacked");
    for (auto& [name, tensor] : packed.tensors) {
      if (name.find("lora_B") == std::string::npos) continue;
      std::vector<uint16_t> bits(static_cast<size_t>(tensor.elements()));
      tensor.read(reinterpret_cast<std::byte*>(bits.data()));
      for (uint16_t& b : bits)
        b = static_cast<uint16_t>(packed::folded(DType::BF16, b, 5.0 / 3, rounding));
      tensor = bf16_tensor(tensor.shape(), bits);
    }
    packed.config.set("lora_alpha", Json(int64_t{3}));
    const packed::Report report = checked(packed, source, &base.spec, false);
    CHECK(fault_names(report) == std::vector<std::string>{});
    CHECK(report.folded == report.same_bits);
    CHECK(report.folded > 0);
  }
}

TEST_CASE("equal products of other factors are found by the second layer, in both of its ways") {
  const BaseModel base = made_base("qwen3_moe");
  for (const DType dtype : {DType::BF16, DType::F32}) {
    MadeOptions made;
    made.dtype = dtype;
    const Held source = made_experts(base.spec, made);
    Held packed = source;
    SUBCASE("ranks in another order") {
      for (auto& [name, tensor] : packed.tensors) {
        const int dim = name.find("lora_A") != std::string::npos ? 0 : 1;
        std::vector<Tensor> parts;
        for (int64_t k = tensor.dim(dim); k-- > 0;) parts.push_back(tensor.slice(dim, k, 1));
        tensor = Tensor::concat(dim, parts);
      }
    }
    SUBCASE("a rank that is twice there, with half the scale each") {
      for (auto& [name, tensor] : packed.tensors) {
        const int dim = name.find("lora_A") != std::string::npos ? 0 : 1;
        tensor = Tensor::concat(dim, std::vector{tensor, tensor});
      }
      packed.config.set("r", Json(int64_t{6}));
      packed.config.set("lora_alpha", Json(int64_t{12}));  // 12/6 is half of 12/3
    }
    const packed::Report report = checked(packed, source, &base.spec);
    CHECK(fault_names(report) == std::vector<std::string>{});
    CHECK(report.same_product == 3 * 12 * 3);
    CHECK(checked(packed, source, &base.spec, false).different == 3 * 12 * 3);
  }
}

TEST_CASE("values that were rounded once more are off by rounding, and said to be") {
  const BaseModel base = made_base("qwen3_moe");
  const Held source = made_experts(base.spec);
  Held packed = source;
  // To BF16 and back: nobody stated that.
  for (auto& [name, tensor] : packed.tensors)
    tensor = cast_tensors(cast_tensors({{name, tensor}}, DType::BF16), DType::F32).at(name);
  const packed::Report report = checked(packed, source, &base.spec);
  REQUIRE(report.faults.size() == 1);
  CHECK(report.faults[0].mistake == Mistake::rounding);
  CHECK(report.faults[0].delta_error < 1e-2);
  CHECK(report.faults[0].delta_error > 1e-4);
}

TEST_CASE("what only one of them has is a fault unless it is zero") {
  const BaseModel base = made_base("qwen3_moe");
  const Held source = made_experts(base.spec);
  Held packed = source;
  std::erase_if(packed.tensors, [](const auto& entry) {
    return entry.first.find("layers.1.mlp.experts.4.up_proj") != std::string::npos;
  });
  CHECK(fault_names(checked(packed, source, &base.spec)) == std::vector<std::string>{"missing"});
  CHECK(fault_names(checked(source, packed, &base.spec)) ==
        std::vector<std::string>{"not-in-source"});
  Held zero = source;
  edit(zero, {"layers.1.mlp.experts.4.up_proj.lora_B"},
       [](Values& values, const Shape&) { std::fill(values.begin(), values.end(), 0.0F); });
  CHECK(checked(packed, zero, &base.spec).sound());
}

TEST_CASE("extras must be there with their values") {
  const BaseModel base = made_base("qwen3_moe");
  Held source = made_experts(base.spec);
  const std::string name = "base_model.model.lm_head.weight";
  source.tensors[name] = Tensor::of_f32({2, 3}, Values{1, 2, 3, 4, 5, 6});
  Held packed = source;
  CHECK(checked(packed, source, &base.spec).sound());
  packed.tensors[name] = Tensor::of_f32({2, 3}, Values{1, 2, 3, 4, 5, 7});
  CHECK(fault_names(checked(packed, source, &base.spec)) == std::vector<std::string>{"unknown"});
  packed.tensors.erase(name);
  CHECK(fault_names(checked(packed, source, &base.spec)) == std::vector<std::string>{"missing"});
  CHECK(fault_names(checked(source, packed, &base.spec)) ==
        std::vector<std::string>{"not-in-source"});
}

TEST_CASE("a factor without its other side is compared all the same") {
  const BaseModel base = made_base("qwen3_moe");
  for (const std::string side : {"lora_A", "lora_B"}) {
    Held source = made_experts(base.spec);
    std::erase_if(source.tensors, [&](const auto& entry) {
      return entry.first.find("layers.0.mlp.experts.0.up_proj." + side) != std::string::npos;
    });
    CHECK(checked(source, source, &base.spec, false).sound());
    Held packed = source;
    CHECK(edit(packed, {"layers.0.mlp.experts.0.up_proj.lora"},
               [](Values& values, const Shape&) { values[0] += 1; }) == 1);
    CHECK_FALSE(checked(packed, source, &base.spec, false).sound());
  }
}

TEST_CASE("names that make no sense are refused with the tensor's name") {
  const BaseModel base = made_base("qwen3_moe");
  const Held source = made_experts(base.spec);
  Held packed = source;
  const std::string stem = "base_model.model.model.layers.0.mlp.experts.";
  SUBCASE("no layout") {
    packed.tensors[stem + "0.side_proj.lora_A.weight"] = Tensor::of_f32({3, 20}, Values(60, 1));
  }
  SUBCASE("twice") {
    packed.tensors[stem + "0.w1.lora_A.weight"] = Tensor::of_f32({3, 20}, Values(60, 1));
  }
  SUBCASE("two stems") {
    packed.tensors["model.layers.0.other.experts.0.w1.lora_A.weight"] =
        Tensor::of_f32({3, 20}, Values(60, 1));
  }
  SUBCASE("unequal ranks") {
    packed.tensors[stem + "0.up_proj.lora_A.weight"] = Tensor::of_f32({2, 20}, Values(40, 1));
  }
  SUBCASE("an expert that no model has") {
    packed.tensors[stem + "99999999.up_proj.lora_A.weight"] =
        Tensor::of_f32({3, 20}, Values(60, 1));
  }
  CHECK_THROWS_WITH_AS(checked(packed, source, &base.spec), doctest::Contains("layers.0"), Error);
}
