#include "tests/compare/broken_pair.h"

#include <doctest/doctest.h>

#include <algorithm>

namespace moelora::test {

BrokenPair sound_pair(const std::string& layout, const MadeOptions& made, const Dims& dims,
                      const std::string& family) {
  BrokenPair out;
  out.base = made_base(family, dims);
  out.source = made_experts(out.base.spec, made);
  out.packed = converted(out.source, out.base, layout);
  REQUIRE(checked(out, false).sound());
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

packed::Report checked(const BrokenPair& pair, bool products) {
  return checked(pair.packed, pair.source, &pair.base.spec, products);
}

void check_named(const BrokenPair& c, const std::string& name) {
  CAPTURE(name);
  const packed::Report bits = checked(c, false);
  CHECK(bits.different > 0);
  CHECK(!bits.faults.empty());
  const packed::Report all = checked(c);
  REQUIRE(!all.faults.empty());
  INFO(all.faults.front().text());
  CHECK(fault_names(all) == std::vector<std::string>{name});
}

void reorder_rows(Held& held, const Parts& parts,
                  const std::function<int64_t(int64_t j, int64_t n)>& from) {
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

void reorder_experts(Held& held, const Parts& parts, const std::function<size_t(size_t e)>& from) {
  CHECK(edit(held, parts, [&](Values& values, const Shape& shape) {
          const Values old = values;
          const auto one = static_cast<size_t>(shape[1] * shape[2]);
          for (size_t e = 0; e < static_cast<size_t>(shape[0]); ++e)
            std::copy_n(old.begin() + static_cast<std::ptrdiff_t>(from(e) * one), one,
                        values.begin() + static_cast<std::ptrdiff_t>(e * one));
        }) > 0);
}

void scale_values(Held& held, const Parts& parts, float by) {
  CHECK(edit(held, parts, [&](Values& values, const Shape&) {
          for (float& v : values) v *= by;
        }) > 0);
}

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

void reshape_instead(Held& held, const Parts& parts) {
  CHECK(edit(held, parts, [](Values& values, const Shape& shape) {
          const Values old = values;
          const auto n = static_cast<size_t>(shape[1]), m = static_cast<size_t>(shape[2]);
          for (size_t i = 0; i < values.size(); ++i) {
            const size_t e = i / (n * m), within = i % (n * m);
            values[i] = old[e * n * m + within % n * m + within / n];
          }
        }) > 0);
}

void pad(Held& held, int64_t rank, const std::function<float()>& fill) {
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

}  // namespace moelora::test
