#include "lib/check/subject/adapter_parts.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <unordered_map>

#include "lib/base/dotted_path.h"

namespace moelora {
namespace {

int find_linear(const ModelSpec& spec, const std::string& module) {
  const LinearSpec* linear = spec.find_linear(module);
  if (linear == nullptr) linear = spec.find_linear(spec.normalised(module));
  return linear == nullptr ? -1 : static_cast<int>(linear - spec.linears.data());
}

// Pairs factors of one module. The two mostly follow each other; only where some do not are modules
// looked up. Factors of an embedding are pairs of their own.
class Pairing {
 public:
  explicit Pairing(AdapterParts& parts) : parts_(parts) {}

  void run() {
    bool all_whole = true;
    for (size_t i = 0; i < parts_.tensors.size(); ++i) {
      if (!parts_.tensors[i].is_factor()) continue;
      const bool joined =
          !parts_.pairs.empty() && belongs(parts_.pairs.back(), i) && join(parts_.pairs.back(), i);
      if (joined) continue;
      all_whole = all_whole && (parts_.pairs.empty() || is_whole(parts_.pairs.back()));
      join(parts_.pairs.emplace_back(), i);
    }
    if (!all_whole || (!parts_.pairs.empty() && !is_whole(parts_.pairs.back()))) merge_apart();
  }

 private:
  static bool is_whole(const FactorPair& pair) { return pair.a >= 0 && pair.b >= 0; }

  bool is_embedding(size_t i) const { return parts_.tensors[i].part >= TensorPart::embedding_a; }

  bool belongs(const FactorPair& pair, size_t i) const {
    const auto other = static_cast<size_t>(pair.any());
    return parts_.tensors[other].module == parts_.tensors[i].module &&
           is_embedding(other) == is_embedding(i);
  }

  // False where the pair has this side already.
  bool join(FactorPair& pair, size_t i) {
    int& slot = parts_.tensors[i].is_a() ? pair.a : pair.b;
    if (slot >= 0) return false;
    slot = static_cast<int>(i);
    return true;
  }

  // Halves of one module that other names stand between. A second spelling of a factor that is
  // there already is left out: the reader refuses it.
  void merge_apart() {
    std::unordered_map<std::string, size_t> first;  // the pair of each module
    std::vector<FactorPair> merged;
    for (const FactorPair& pair : parts_.pairs) {
      const auto any = static_cast<size_t>(pair.any());
      const std::string key = parts_.tensors[any].module + (is_embedding(any) ? "\n" : "");
      const auto [at, added] = first.emplace(key, merged.size());
      if (added) {
        merged.push_back(pair);
        continue;
      }
      for (const int half : {pair.a, pair.b})
        if (half >= 0) join(merged[at->second], static_cast<size_t>(half));
    }
    parts_.pairs = std::move(merged);
  }

  AdapterParts& parts_;
};

}  // namespace

int64_t NamedTensor::elements() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::string NamedTensor::experts_path() const { return with_layer(expert->stem, expert->layer); }

const NamedTensor* AdapterParts::a(const FactorPair& pair) const {
  return pair.a < 0 ? nullptr : &tensors[static_cast<size_t>(pair.a)];
}

const NamedTensor* AdapterParts::b(const FactorPair& pair) const {
  return pair.b < 0 ? nullptr : &tensors[static_cast<size_t>(pair.b)];
}

const NamedTensor* AdapterParts::find(std::string_view name) const {
  const auto at = std::lower_bound(
      tensors.begin(), tensors.end(), name,
      [](const NamedTensor& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return at != tensors.end() && at->name == name ? &*at : nullptr;
}

bool AdapterParts::has_numbered_experts() const {
  return std::any_of(tensors.begin(), tensors.end(), std::mem_fn(&NamedTensor::is_numbered_expert));
}

AdapterParts take_apart(const TensorMap& tensors, std::span<const ExpertTensor> experts,
                        const ModelSpec* spec) {
  AdapterParts out;
  out.tensors.reserve(tensors.size());
  size_t next_expert = 0;  // `experts` is in the order of names too
  for (const auto& [name, tensor] : tensors) {
    TensorName parsed = parse_tensor_name(name);
    NamedTensor& row = out.tensors.emplace_back();
    row.name = name;
    row.module = std::move(parsed.module);
    row.part = parsed.part;
    row.dtype = tensor.dtype();
    row.shape = tensor.shape();
    if (const auto at = find_layer(name)) row.layer = at->layer;
    if (next_expert < experts.size() && experts[next_expert].name == name) {
      row.expert = experts[next_expert++].path;
    } else if (spec != nullptr) {
      row.linear = find_linear(*spec, row.module);
    }
  }
  out.pairs.reserve(tensors.size() / 2);
  Pairing(out).run();
  return out;
}

std::string without_numbers(std::string_view name) {
  std::string out;
  while (true) {
    const size_t dot = name.find('.');
    const std::string_view component = name.substr(0, dot);
    if (parse_index(component))
      out += "{n}";
    else
      out += component;
    if (dot == std::string_view::npos) return out;
    out += '.';
    name.remove_prefix(dot + 1);
  }
}

}  // namespace moelora
