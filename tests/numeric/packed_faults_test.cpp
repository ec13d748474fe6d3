// The 25 faults that a numeric check must catch, each as a change of a sound packed adapter: the
// first layer, bits alone, catches every one, and the diagnosis calls it by its name.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>

#include "lib/base/cast.h"
#include "lib/numeric/packed/fault.h"
#include "tests/numeric/made_pair.h"

using namespace moelora;
using namespace moelora::test;

namespace {

using packed::Report;

// A sound pair to break.
struct Case {
  BaseModel base;
  Held source, packed;
};

Case sound(const std::string& layout, const MadeOptions& made = {}, const Dims& dims = {},
           const std::string& family = "qwen3_moe") {
  Case out;
  out.base = made_base(family, dims);
  out.source = made_experts(out.base.spec, made);
  out.packed = converted(out.source, out.base, layout);
  REQUIRE(judged(out.packed, out.source, &out.base.spec, false).sound());
  return out;
}

MadeOptions one_a() {
  MadeOptions out;
  out.same_a = true;
  return out;
}

Dims square() {
  Dims out;
  out.hidden = out.intermediate = 16;
  return out;
}

// Caught by bits alone, caught with products too, and named. The first name is the one that most
// pairs have.
void check_named(const Case& c, const std::string& name) {
  CAPTURE(name);
  const Report bits = judged(c.packed, c.source, &c.base.spec, false);
  CHECK(bits.different > 0);
  CHECK(!bits.faults.empty());
  const Report all = judged(c.packed, c.source, &c.base.spec);
  REQUIRE(!all.faults.empty());
  CHECK(fault_names(all) == std::vector<std::string>{name});
}

// values[i, j, k] of a 3-D tensor.
struct View {
  Values& values;
  const Shape& shape;
  float& at(int64_t i, int64_t j, int64_t k) const {
    return values[static_cast<size_t>((i * shape[1] + j) * shape[2] + k)];
  }
};

// Rows [out] of [out, r] or [E, out, r] in another order: new row j is old row from(j).
template <class F>
void reorder_rows(Held& held, const std::vector<std::string>& parts, F&& from) {
  CHECK(edit(held, parts, [&](Values& values, const Shape& given) {
          const Shape shape = given.size() == 2 ? Shape{1, given[0], given[1]} : given;
          Values old = values;
          const View before{old, shape}, after{values, shape};
          for (int64_t e = 0; e < shape[0]; ++e)
            for (int64_t j = 0; j < shape[1]; ++j)
              for (int64_t k = 0; k < shape[2]; ++k)
                after.at(e, j, k) = before.at(e, from(j, shape[1]), k);
        }) > 0);
}

// Experts of 3-D tensors in another order: expert e holds from(e).
template <class F>
void reorder_experts(Held& held, const std::vector<std::string>& parts, F&& from) {
  CHECK(edit(held, parts, [&](Values& values, const Shape& shape) {
          const Values old = values;
          const auto one = static_cast<size_t>(shape[1] * shape[2]);
          for (size_t e = 0; e < static_cast<size_t>(shape[0]); ++e)
            std::copy_n(old.begin() + static_cast<std::ptrdiff_t>(from(e) * one), one,
                        values.begin() + static_cast<std::ptrdiff_t>(e * one));
        }) > 0);
}

void scale_values(Held& held, const std::vector<std::string>& parts, float by) {
  CHECK(edit(held, parts, [&](Values& values, const Shape&) {
          for (float& v : values) v *= by;
        }) > 0);
}

// Exchanges the tensors whose names differ in `a` and `b` only.
void exchange(Held& held, const std::string& a, const std::string& b) {
  TensorMap out;
  for (const auto& [name, tensor] : held.tensors) {
    std::string to = name;
    if (const size_t at = name.find(a); at != std::string::npos)
      to = name.substr(0, at) + b + name.substr(at + a.size());
    else if (const size_t other = name.find(b); other != std::string::npos)
      to = name.substr(0, other) + a + name.substr(other + b.size());
    out[to] = tensor;
  }
  held.tensors = std::move(out);
}

void set(Held& held, const std::string& key, Json value) { held.config.set(key, std::move(value)); }

// Data of the other orientation's order in every matrix [.., m, n].
void reshape_instead(Held& held, const std::vector<std::string>& parts) {
  CHECK(edit(held, parts, [](Values& values, const Shape& shape) {
          const Values old = values;
          const auto n = static_cast<size_t>(shape[1]), m = static_cast<size_t>(shape[2]);
          for (size_t i = 0; i < values.size(); ++i) {
            const size_t e = i / (n * m), within = i % (n * m);
            values[i] = old[e * n * m + within % n * m + within / n];
          }
        }) > 0);
}

// Stacked tensors padded to `rank` with what `fill` gives.
template <class F>
void pad(Held& held, int64_t rank, F&& fill) {
  for (auto& [name, tensor] : held.tensors) {
    const bool a = name.find("lora_A") != std::string::npos;
    Shape shape = tensor.shape();
    const Shape old_shape = shape;
    shape[a ? 1 : 2] = rank;
    Values old = values_of(tensor),
           values(static_cast<size_t>(Tensor::zeros(DType::F32, shape).elements()));
    const View before{old, old_shape}, after{values, shape};
    for (int64_t e = 0; e < shape[0]; ++e)
      for (int64_t j = 0; j < shape[1]; ++j)
        for (int64_t k = 0; k < shape[2]; ++k) {
          const bool inside = a ? j < old_shape[1] : k < old_shape[2];
          after.at(e, j, k) = inside ? before.at(e, j, k) : fill();
        }
    tensor = Tensor::of_f32(shape, values);
  }
  const double alpha = held.config.find("lora_alpha")->as_double();
  const double r = held.config.find("r")->as_double();
  set(held, "r", Json(rank));
  set(held, "lora_alpha", Json(alpha * static_cast<double>(rank) / r));
}

}  // namespace

TEST_CASE("1 gate and up halves of the packed lora_B exchanged") {
  for (const MadeOptions& made : {one_a(), MadeOptions{}}) {
    Case c = sound("stacked-fused", made);
    reorder_rows(c.packed, {"gate_up_proj.lora_B"},
                 [](int64_t j, int64_t n) { return (j + n / 2) % n; });
    check_named(c, "gate-up-halves");
  }
}

TEST_CASE("2 gate and up rank blocks of lora_A exchanged") {
  Case c = sound("stacked-fused");
  reorder_rows(c.packed, {"gate_up_proj.lora_A"},
               [](int64_t j, int64_t n) { return (j + n / 2) % n; });
  check_named(c, "gate-up-a-blocks");
}

TEST_CASE("3 w1 and w3 named the wrong way round") {
  Case c = sound("stacked");
  exchange(c.packed, "gate_proj", "up_proj");
  check_named(c, "gate-up-names");
}

TEST_CASE("4 up uses gate's A") {
  Case c = sound("stacked");
  for (auto& [name, tensor] : c.packed.tensors)
    if (const size_t at = name.find("up_proj.lora_A"); at != std::string::npos)
      tensor = c.packed.tensors.at(name.substr(0, at) + "gate_proj.lora_A.weight");
  check_named(c, "up-uses-gate-a");
}

TEST_CASE("5 interleaved rows left, or taken apart twice") {
  SUBCASE("left") {
    Case c = sound("stacked-fused", one_a());
    reorder_rows(c.packed, {"gate_up_proj.lora_B"},
                 [](int64_t j, int64_t n) { return j / 2 + j % 2 * (n / 2); });
    check_named(c, "interleaving");
  }
  SUBCASE("twice") {
    Case c = sound("stacked-fused", one_a());
    reorder_rows(c.packed, {"gate_up_proj.lora_B"},
                 [](int64_t j, int64_t n) { return j < n / 2 ? 2 * j : 2 * (j - n / 2) + 1; });
    check_named(c, "interleaving");
  }
  SUBCASE("gpt-oss halves read as interleaved") {
    Case c = sound("linear-fused", one_a(), {}, "gpt_oss");
    reorder_rows(c.packed, {"gate_up_proj.lora_B"},
                 [](int64_t j, int64_t n) { return j / 2 + j % 2 * (n / 2); });
    check_named(c, "interleaving");
  }
}

TEST_CASE("6 experts rotated") {
  Case c = sound("stacked");
  reorder_experts(c.packed, {"experts"}, [](size_t e) { return (e + 1) % 12; });
  check_named(c, "experts-rotated");
}

TEST_CASE("7 experts in the order of their names") {
  Case c = sound("stacked-fused");
  std::vector<size_t> order(12);
  for (size_t e = 0; e < order.size(); ++e) order[e] = e;
  std::sort(order.begin(), order.end(),
            [](size_t a, size_t b) { return std::to_string(a) < std::to_string(b); });
  reorder_experts(c.packed, {"experts"}, [&](size_t e) { return order[e]; });
  check_named(c, "experts-as-strings");
}

TEST_CASE("8 two experts exchanged") {
  Case c = sound("peft-linear");
  exchange(c.packed, ".3.", ".7.");
  check_named(c, "experts-exchanged");
}

TEST_CASE("9 the scale is not applied") {
  Case c = sound("stacked");
  set(c.packed, "lora_alpha", Json(int64_t{3}));
  check_named(c, "scale-missing");
}

TEST_CASE("10 the scale is applied twice") {
  SUBCASE("folded into lora_B and left in the config") {
    Case c = sound("stacked");
    scale_values(c.packed, {"lora_B"}, 4);
    check_named(c, "scale-twice");
  }
  SUBCASE("squared in the config") {
    Case c = sound("peft-linear");
    set(c.packed, "lora_alpha", Json(int64_t{48}));
    check_named(c, "scale-twice");
  }
}

TEST_CASE("11 alpha/sqrt(r) for alpha/r, and the padded rank for the adapter's") {
  SUBCASE("rsLoRA") {
    Case c = sound("peft-params");
    set(c.packed, "use_rslora", Json(true));
    check_named(c, "scale-rslora");
  }
  SUBCASE("rsLoRA where alpha/r is sqrt(r), so that it could be the scale's square") {
    MadeOptions made;
    made.rank = 4;
    made.alpha = 8;
    Case c = sound("stacked", made);
    set(c.packed, "use_rslora", Json(true));
    check_named(c, "scale-rslora");
  }
  SUBCASE("padded") {
    Case c = sound("stacked");
    pad(c.packed, 8, [] { return 0.0F; });
    REQUIRE(judged(c.packed, c.source, &c.base.spec, false).sound());
    set(c.packed, "lora_alpha", Json(int64_t{12}));
    check_named(c, "scale-of-padded-rank");
  }
}

TEST_CASE("12 the scale on some projections only") {
  Case c = sound("stacked");
  scale_values(c.packed, {"gate_proj.lora_B"}, 0.25F);
  check_named(c, "scale-missing");
  const Report report = judged(c.packed, c.source, &c.base.spec);
  CHECK(report.faults[0].projections == std::vector<Projection>{Projection::gate});
}

TEST_CASE("13 down A reshaped where it must be transposed") {
  Case c = sound("stacked");
  reshape_instead(c.packed, {"down_proj.lora_A"});
  check_named(c, "a-reshaped");
}

TEST_CASE("14 lora_B reshaped where it must be transposed") {
  Case c = sound("stacked");
  reshape_instead(c.packed, {"gate_proj.lora_B"});
  check_named(c, "b-reshaped");
}

TEST_CASE("15 columns of a stacked lora_B in the other order") {
  Case c = sound("peft-params");
  SUBCASE("the values") {
    edit(c.packed, {"lora_B"}, [](Values& values, const Shape& shape) {
      const Values old = values;
      const auto n = static_cast<size_t>(shape[1]), experts = size_t{12}, rank = n / experts;
      for (size_t o = 0; o < static_cast<size_t>(shape[0]); ++o)
        for (size_t e = 0; e < experts; ++e)
          for (size_t k = 0; k < rank; ++k)
            values[o * n + e * rank + k] = old[o * n + k * experts + e];
    });
    check_named(c, "b-order");
  }
  SUBCASE("the marker") {
    c.packed.config.erase("moelora");
    set(c.packed, "lora_B_layout", Json("grouped_by_expert"));
    check_named(c, "b-order");
  }
}

TEST_CASE("16 rank padding is not zero") {
  Case c = sound("stacked");
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
    CHECK(judged(c.packed, c.source, &c.base.spec, false).different > 0);
    CHECK(judged(c.packed, c.source, &c.base.spec).same_product > 0);
  }
}

TEST_CASE("17 the second slice lies at r rather than at the padded rank") {
  Case c = sound("stacked-fused");
  // Slots of 8: up's columns of lora_B begin at 8, its rows of lora_A wrongly at 3.
  for (auto& [name, tensor] : c.packed.tensors) {
    if (name.find("gate_up_proj") == std::string::npos) continue;
    const bool a = name.find("lora_A") != std::string::npos;
    Shape shape = tensor.shape();
    const Shape old_shape = shape;
    shape[a ? 1 : 2] = 16;
    Values old = values_of(tensor),
           values(static_cast<size_t>(Tensor::zeros(DType::F32, shape).elements()));
    const View before{old, old_shape}, after{values, shape};
    for (int64_t e = 0; e < old_shape[0]; ++e)
      for (int64_t j = 0; j < old_shape[1]; ++j)
        for (int64_t k = 0; k < old_shape[2]; ++k)
          after.at(e, j, a || k < 3 ? k : k + 5) = before.at(e, j, k);
    tensor = Tensor::of_f32(shape, values);
  }
  set(c.packed, "rank_pattern", parse_json(R"({"gate_up_proj": 16})", "t"));
  set(c.packed, "alpha_pattern", parse_json(R"({"gate_up_proj": 64})", "t"));
  check_named(c, "rank-slot");
}

TEST_CASE("18 a per-expert A collapsed to one") {
  Case c = sound("stacked");
  reorder_experts(c.packed, {"gate_proj.lora_A"}, [](size_t) { return size_t{0}; });
  check_named(c, "one-for-all");
}

TEST_CASE("19 the wrong side shared, or averaged") {
  Case c = sound("stacked");
  SUBCASE("down A") {
    reorder_experts(c.packed, {"down_proj.lora_A"}, [](size_t) { return size_t{0}; });
    check_named(c, "wrong-side-shared");
  }
  SUBCASE("an average") {
    edit(c.packed, {"down_proj.lora_B"}, [](Values& values, const Shape& shape) {
      const auto one = static_cast<size_t>(shape[1] * shape[2]);
      const auto experts = static_cast<size_t>(shape[0]);
      for (size_t i = 0; i < one; ++i) {
        float sum = 0;
        for (size_t e = 0; e < experts; ++e) sum += values[e * one + i];
        for (size_t e = 0; e < experts; ++e)
          values[e * one + i] = sum / static_cast<float>(experts);
      }
    });
    check_named(c, "averaged");
  }
}

TEST_CASE("20 w2 taken for w1") {
  Case c = sound("stacked", {}, square());
  exchange(c.packed, "gate_proj", "down_proj");
  check_named(c, "other-projection");
}

TEST_CASE("21 A and B exchanged and transposed") {
  Case c = sound("stacked", {}, square());
  const TensorMap before = c.packed.tensors;
  for (auto& [name, tensor] : c.packed.tensors) {
    std::string other = name;
    char& side = other[other.rfind("lora_") + 5];
    side = side == 'A' ? 'B' : 'A';
    tensor = Tensor::of_f32(tensor.shape(), values_of(before.at(other).transpose(1, 2)));
  }
  check_named(c, "sides-exchanged");
}

TEST_CASE("22 rows cut from the joint axis by tensor parallelism") {
  for (const int64_t tp : {2, 4}) {
    Case c = sound("stacked-fused", one_a());
    reorder_rows(c.packed, {"gate_up_proj.lora_B"}, [&](int64_t j, int64_t n) {
      const int64_t half = n / 2, part = half / tp;  // [gate part; up part] shard by shard
      return j % (2 * part) / part * half + j / (2 * part) * part + j % part;
    });
    check_named(c, "tp-slice");
  }
}

TEST_CASE("23 wrong bits of another type, truncation, overflow, lost subnormals") {
  SUBCASE("F16 bits read as BF16") {
    MadeOptions made;
    made.dtype = DType::F16;
    Case c = sound("stacked", made);
    for (auto& [name, tensor] : c.packed.tensors) {
      std::vector<uint16_t> bits(static_cast<size_t>(tensor.elements()));
      tensor.read(reinterpret_cast<std::byte*>(bits.data()));
      tensor = bf16_tensor(tensor.shape(), bits);
    }
    check_named(c, "dtype-bits");
  }
  SUBCASE("F32 cut off rather than rounded") {
    Case c = sound("stacked");
    for (auto& [name, tensor] : c.packed.tensors) {
      std::vector<uint16_t> bits;
      for (const float v : values_of(tensor))
        bits.push_back(static_cast<uint16_t>(std::bit_cast<uint32_t>(v) >> 16U));
      tensor = bf16_tensor(tensor.shape(), bits);
    }
    check_named(c, "truncated");
  }
  SUBCASE("s*B beyond what BF16 holds") {
    Case c = sound("stacked");
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
    Case c = sound("stacked", made);
    for (Held* held : {&c.source, &c.packed})
      edit(*held, {"up_proj.lora_A"}, [](Values& values, const Shape&) {
        for (size_t i = 0; i < values.size(); i += 5) values[i] = 1e-39F;
      });
    edit(c.source, {"experts.", "up_proj.lora_A"}, [](Values&, const Shape&) {});
    c.packed = converted(c.source, c.base, "stacked");
    REQUIRE(judged(c.packed, c.source, &c.base.spec, false).sound());
    edit(c.packed, {"up_proj.lora_A"}, [](Values& values, const Shape&) {
      for (float& v : values)
        if (std::fabs(v) < 1.2e-38F) v = 0;
    });
    check_named(c, "flushed");
  }
}

TEST_CASE("24 an expert left out or left zero") {
  SUBCASE("out") {
    Case c = sound("peft-linear");
    std::erase_if(c.packed.tensors, [](const auto& entry) {
      return entry.first.find("layers.1.mlp.experts.11.") != std::string::npos;
    });
    check_named(c, "missing");
  }
  SUBCASE("a projection out") {
    Case c = sound("stacked");
    std::erase_if(c.packed.tensors, [](const auto& entry) {
      return entry.first.find("down_proj") != std::string::npos;
    });
    check_named(c, "missing");
  }
  SUBCASE("zero") {
    Case c = sound("stacked");
    edit(c.packed, {"layers.2.", "up_proj"}, [](Values& values, const Shape& shape) {
      const auto one = static_cast<size_t>(shape[1] * shape[2]);
      std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(11 * one), one, 0.0F);
    });
    check_named(c, "left-zero");
  }
}

TEST_CASE("25 another layer's factors, data some elements off, another adapter's") {
  SUBCASE("layers rotated") {
    Case c = sound("stacked");
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
    Case c = sound("peft-linear");
    edit(c.packed, {"layers.0."}, [](Values& values, const Shape&) {
      std::rotate(values.begin(), values.begin() + 8, values.end());
    });
    check_named(c, "shifted-data");
  }
  SUBCASE("stale") {
    Case c = sound("stacked");
    MadeOptions other;
    other.seed = 99;
    const Held stale = converted(made_experts(c.base.spec, other), c.base, "stacked");
    for (auto& [name, tensor] : c.packed.tensors)
      if (name.find("layers.1.") != std::string::npos) tensor = stale.tensors.at(name);
    check_named(c, "unknown");
  }
}

TEST_CASE("the sign of one element is seen, and said where it is") {
  Case c = sound("peft-params");
  edit(c.packed, {"layers.2.", "experts.lora_B"},
       [](Values& values, const Shape&) { values[100] = -values[100]; });
  check_named(c, "few-elements");
  const Report report = judged(c.packed, c.source, &c.base.spec);
  CHECK(report.different == 1);
  CHECK(report.faults[0].layers == std::vector<int>{2});
  CHECK(report.faults[0].projections == std::vector<Projection>{Projection::down});
  CHECK(report.faults[0].sides == std::vector<packed::Side>{packed::Side::B});
}
