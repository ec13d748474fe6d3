// Mistakes of values: scales, padding, types, what is missing or another's. Each test begins with
// the mistake's id (lib/compare/mistakes.h).

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "lib/base/cast.h"
#include "tests/compare/broken_pair.h"

using namespace moelora;
using namespace moelora::test;

TEST_CASE("scale-missing: the scale is not applied") {
  BrokenPair c = sound_pair("stacked");
  set(c.packed, "lora_alpha", Json(int64_t{3}));
  check_named(c, "scale-missing");
}

TEST_CASE("scale-twice: the scale is applied twice") {
  SUBCASE("folded into lora_B and left in the config") {
    BrokenPair c = sound_pair("stacked");
    scale_values(c.packed, {"lora_B"}, 4);
    check_named(c, "scale-twice");
  }
  SUBCASE("squared in the config") {
    BrokenPair c = sound_pair("peft-linear");
    set(c.packed, "lora_alpha", Json(int64_t{48}));
    check_named(c, "scale-twice");
  }
}

TEST_CASE(
    "scale-rslora, scale-of-padded-rank: alpha/sqrt(r) for alpha/r, the padded rank for the "
    "adapter's") {
  SUBCASE("rsLoRA") {
    BrokenPair c = sound_pair("peft-params");
    set(c.packed, "use_rslora", Json(true));
    check_named(c, "scale-rslora");
  }
  SUBCASE("rsLoRA where alpha/r is sqrt(r), so that it could be the scale's square") {
    MadeOptions made;
    made.rank = 4;
    made.alpha = 8;
    BrokenPair c = sound_pair("stacked", made);
    set(c.packed, "use_rslora", Json(true));
    check_named(c, "scale-rslora");
  }
  SUBCASE("padded") {
    BrokenPair c = sound_pair("stacked");
    pad(c.packed, 8, [] { return 0.0F; });
    REQUIRE(checked(c, false).sound());
    set(c.packed, "lora_alpha", Json(int64_t{12}));
    check_named(c, "scale-of-padded-rank");
  }
}

TEST_CASE("scale-missing: on some projections only") {
  BrokenPair c = sound_pair("stacked");
  scale_values(c.packed, {"gate_proj.lora_B"}, 0.25F);
  check_named(c, "scale-missing");
  const packed::Report report = checked(c);
  CHECK(report.faults[0].projections == std::vector<Projection>{Projection::gate});
}

TEST_CASE("padding: ranks that hold nothing are not zero") {
  BrokenPair c = sound_pair("stacked");
  SUBCASE("random") {
    std::mt19937_64 rng(3);
    pad(c.packed, 8, [&] { return static_cast<float>(rng() % 100) / 100; });
    check_named(c, "padding");
  }
  SUBCASE("NaN in lora_A, whose lora_B is zero") {
    pad(c.packed, 8, [] { return 0.0F; });
    edit(c.packed, {"layers.1.", "up_proj.lora_A"}, [](Values& values, const Shape& shape) {
      values[static_cast<size_t>(7 * shape[2])] = std::numeric_limits<float>::quiet_NaN();
    });
    check_named(c, "padding");
  }
  SUBCASE("minus zero is the same product and no longer the same bits") {
    pad(c.packed, 8, [] { return -0.0F; });
    CHECK(checked(c, false).different > 0);
    CHECK(checked(c).same_product > 0);
  }
}

TEST_CASE("dtype-bits, truncated, overflow, flushed: values cast the wrong way") {
  SUBCASE("F16 bits read as BF16") {
    MadeOptions made;
    made.dtype = DType::F16;
    BrokenPair c = sound_pair("stacked", made);
    for (auto& [name, tensor] : c.packed.tensors) {
      std::vector<uint16_t> bits(static_cast<size_t>(tensor.elements()));
      tensor.read(reinterpret_cast<std::byte*>(bits.data()));
      tensor = bf16_tensor(tensor.shape(), bits);
    }
    check_named(c, "dtype-bits");
  }
  SUBCASE("F32 cut off rather than rounded") {
    BrokenPair c = sound_pair("stacked");
    for (auto& [name, tensor] : c.packed.tensors) {
      std::vector<uint16_t> bits;
      for (const float v : values_of(tensor))
        bits.push_back(static_cast<uint16_t>(std::bit_cast<uint32_t>(v) >> 16U));
      tensor = bf16_tensor(tensor.shape(), bits);
    }
    check_named(c, "truncated");
  }
  SUBCASE("s*B beyond what BF16 holds") {
    BrokenPair c = sound_pair("stacked");
    for (Held* held : {&c.source, &c.packed})
      for (auto& [name, tensor] : held->tensors) {
        Values values = values_of(tensor);
        if (name.find("down_proj.lora_B") != std::string::npos)
          for (float& v : values) v = v < 0 ? v : 1e38F;
        tensor =
            cast_tensors({{name, Tensor::of_f32(tensor.shape(), values)}}, DType::BF16).at(name);
      }
    for (auto& [name, tensor] : c.packed.tensors) {
      if (name.find("lora_B") == std::string::npos) continue;
      std::vector<uint16_t> bits;
      for (const double v : read_double(tensor)) {
        const float product = static_cast<float>(v) * 4;
        const uint32_t word = std::bit_cast<uint32_t>(product);
        bits.push_back(static_cast<uint16_t>(word >> 16U));  // s is a power of two: no rounding
      }
      tensor = bf16_tensor(tensor.shape(), bits);
    }
    set(c.packed, "lora_alpha", Json(int64_t{3}));
    check_named(c, "overflow");
  }
  SUBCASE("subnormals flushed") {
    MadeOptions made;
    BrokenPair c = sound_pair("stacked", made);
    for (Held* held : {&c.source, &c.packed})
      edit(*held, {"up_proj.lora_A"}, [](Values& values, const Shape&) {
        for (size_t i = 0; i < values.size(); i += 5) values[i] = 1e-39F;
      });
    edit(c.source, {"experts.", "up_proj.lora_A"}, [](Values&, const Shape&) {});
    c.packed = converted(c.source, c.base, "stacked");
    REQUIRE(checked(c, false).sound());
    edit(c.packed, {"up_proj.lora_A"}, [](Values& values, const Shape&) {
      for (float& v : values)
        if (std::fabs(v) < 1.2e-38F) v = 0;
    });
    check_named(c, "flushed");
  }
}

TEST_CASE("missing, left-zero: an expert left out or left zero") {
  SUBCASE("out") {
    BrokenPair c = sound_pair("peft-linear");
    std::erase_if(c.packed.tensors, [](const auto& entry) {
      return entry.first.find("layers.1.mlp.experts.11.") != std::string::npos;
    });
    check_named(c, "missing");
  }
  SUBCASE("a projection out") {
    BrokenPair c = sound_pair("stacked");
    std::erase_if(c.packed.tensors, [](const auto& entry) {
      return entry.first.find("down_proj") != std::string::npos;
    });
    check_named(c, "missing");
  }
  SUBCASE("zero") {
    BrokenPair c = sound_pair("stacked");
    edit(c.packed, {"layers.2.", "up_proj"}, [](Values& values, const Shape& shape) {
      const auto one = static_cast<size_t>(shape[1] * shape[2]);
      std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(11 * one), one, 0.0F);
    });
    check_named(c, "left-zero");
  }
}

TEST_CASE(
    "other-layer, shifted-data, unknown: another layer's factors, data some elements off, another "
    "adapter's") {
  SUBCASE("layers rotated") {
    BrokenPair c = sound_pair("stacked");
    TensorMap out;
    for (const auto& [name, tensor] : c.packed.tensors) {
      const size_t at = name.find("layers.") + 7;
      std::string to = name;
      to[at] = static_cast<char>('0' + (name[at] - '0' + 1) % 3);
      out[to] = tensor;
    }
    c.packed.tensors = std::move(out);
    check_named(c, "other-layer");
  }
  SUBCASE("eight elements off") {
    BrokenPair c = sound_pair("peft-linear");
    edit(c.packed, {"layers.0."}, [](Values& values, const Shape&) {
      std::rotate(values.begin(), values.begin() + 8, values.end());
    });
    check_named(c, "shifted-data");
  }
  SUBCASE("stale") {
    BrokenPair c = sound_pair("stacked");
    MadeOptions other;
    other.seed = 99;
    const Held stale = converted(made_experts(c.base.spec, other), c.base, "stacked");
    for (auto& [name, tensor] : c.packed.tensors)
      if (name.find("layers.1.") != std::string::npos) tensor = stale.tensors.at(name);
    check_named(c, "unknown");
  }
}

TEST_CASE("the sign of one element is seen, and said where it is") {
  BrokenPair c = sound_pair("peft-params");
  edit(c.packed, {"layers.2.", "experts.lora_B"},
       [](Values& values, const Shape&) { values[100] = -values[100]; });
  check_named(c, "few-elements");
  const packed::Report report = checked(c);
  CHECK(report.different == 1);
  CHECK(report.faults[0].layers == std::vector<int>{2});
  CHECK(report.faults[0].projections == std::vector<Projection>{Projection::down});
  CHECK(report.faults[0].sides == std::vector<packed::Side>{packed::Side::B});
}

TEST_CASE("a rank cut off is named, unless it held nothing") {
  const auto cut = [](Held held) {
    for (auto& [name, tensor] : held.tensors) {
      const Tensor less = tensor.slice(name.find("lora_A") != std::string::npos ? 1 : 2, 0, 2);
      tensor = Tensor::of_f32(less.shape(), values_of(less));
    }
    set(held, "r", Json(int64_t{2}));
    set(held, "lora_alpha", Json(int64_t{8}));
    return held;
  };
  BrokenPair c = sound_pair("stacked");
  c.packed = cut(c.packed);
  check_named(c, "rank");
  edit(c.source, {"lora_B"}, [](Values& values, const Shape& shape) {
    for (size_t i = 2; i < values.size(); i += static_cast<size_t>(shape[1])) values[i] = 0;
  });
  c.packed = cut(converted(c.source, c.base, "stacked"));
  CHECK(checked(c, false).different > 0);
  CHECK(checked(c).sound());
}

TEST_CASE("outputs cut off are named") {
  BrokenPair c = sound_pair("stacked");
  for (auto& [name, tensor] : c.packed.tensors)
    if (name.find("layers.1.mlp.experts.down_proj.lora_B") != std::string::npos) {
      const Tensor less = tensor.slice(1, 0, tensor.dim(1) - 1);
      tensor = Tensor::of_f32(less.shape(), values_of(less));
    }
  check_named(c, "width");
  CHECK(checked(c).faults[0].layers == std::vector<int>{1});
}
