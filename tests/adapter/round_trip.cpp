#include "tests/adapter/round_trip.h"

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/io/evaluate.h"

namespace moelora::test {
namespace {

// Every factor by a name that does not depend on the layout, and every scale.
struct Factors {
  TensorMap tensors;
  std::map<std::string, double> scales;
};

// A stacked layout stores every expert at one rank: absent experts and missing ranks are zeros
// there.
void add_experts(const ExpertKey& key, const ExpertPair& pair, int64_t experts, bool stacked,
                 Factors& out) {
  for (Side side : {Side::A, Side::B}) {
    const Factor& factor = side == Side::A ? pair.a : pair.b;
    const Tensor all = stacked ? stack_experts(factor, side, experts, max_rank(pair)) : Tensor();
    for (int64_t e = 0; e < experts; ++e) {
      if (!stacked && !factor.has(e)) continue;
      const std::string name =
          fmt::format("layer {} expert {} {}", key.layer, e, projection_name(key.projection));
      out.tensors[fmt::format("{} lora_{}", name, side_letter(side))] =
          stacked ? all.select(0, e) : factor.at(e);
      out.scales[name] = pair.scaling_of(e).value();
    }
  }
}

Factors factors(const Adapter& adapter, bool stacked) {
  Factors out;
  for (const auto& [module, pair] : adapter.dense) {
    out.tensors[module + " lora_A"] = pair.a;
    out.tensors[module + " lora_B"] = pair.b;
    out.scales[module] = pair.scaling.value();
  }
  for (const auto& [name, extra] : adapter.extras) out.tensors[name] = extra.tensor;
  for (const auto& [key, pair] : adapter.experts)
    add_experts(key, pair, adapter.expert_count, stacked, out);
  return out;
}

template <class T>
void compare(const std::string& out, const std::map<std::string, T>& expected,
             const std::map<std::string, T>& found, std::string_view what) {
  for (const auto& [name, value] : expected) {
    const auto it = found.find(name);
    if (it == found.end())
      throw Error(out, fmt::format("verification failed: {} is missing", name));
    if (it->second != value)
      throw Error(out, fmt::format("verification failed: the {} of {} is {}, expected {}", what,
                                   name, it->second, value));
  }
  for (const auto& entry : found)
    if (expected.count(entry.first) == 0)
      throw Error(out,
                  fmt::format("verification failed: {} is there and should not be", entry.first));
}

}  // namespace

int64_t read_back(const Conversion& c, AdapterFiles files, const std::string& where) {
  const bool numbered =
      c.to != nullptr && (c.to->id == "peft-linear" || c.to->id == "linear-fused");
  const LoadedAdapter back = interpret_adapter(std::move(files), c.input.base,
                                               c.to != nullptr ? std::string(c.to->id) : "", {});
  const Factors expected = factors(c.adapter, !numbered), found = factors(back.adapter, !numbered);
  compare(where, expected.scales, found.scales, "scale");
  compare(where, digest_tensors(expected.tensors, 1), digest_tensors(found.tensors, 1), "digest");
  return static_cast<int64_t>(expected.tensors.size());
}

}  // namespace moelora::test
