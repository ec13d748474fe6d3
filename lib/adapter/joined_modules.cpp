#include "lib/adapter/joined_modules.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <tuple>

#include "lib/adapter/gate_up.h"
#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

using Parts = std::vector<JoinedModule::Part>;
using Pairs = std::vector<std::pair<Tensor, Tensor>>;

// By the last component of the whole. All rows of one part, then all of the next, but where they
// come in turn. Other families' modules of these names hold them in other orders (query_key_value
// of GPT-NeoX and Falcon head by head): the families whose order was read are named.
//
// - query_key_value: the classes of sarvam_moe and bailing_moe view the rows as heads, q's first.
// - qkv_proj: Phi3Attention slices it at heads and kv_heads.
// - gate_up_proj: chunk(2) of glm4 and phi3, the halves of minimax_m3_vl.
// - w13_dn: inkling, as its experts' w13_weight.
struct Known {
  std::string_view whole;
  std::array<std::string_view, 3> parts;     // "" for none
  std::array<std::string_view, 3> families;  // as their files in schemas/models; "" for none
  bool in_turn = false;

  bool is_of(const ModelSpec& spec) const {
    return !spec.family.empty() && !spec.derived &&
           std::find(families.begin(), families.end(), spec.family) != families.end();
  }
};
constexpr std::array<Known, 4> kKnown = {
    {{"query_key_value", {"q_proj", "k_proj", "v_proj"}, {"sarvam_moe", "bailing_moe"}},
     {"qkv_proj", {"q_proj", "k_proj", "v_proj"}, {"phi3"}},
     {"gate_up_proj", {"gate_proj", "up_proj", ""}, {"glm4", "phi3", "minimax_m3_vl"}},
     {"w13_dn", {"gate_proj", "up_proj", ""}, {"inkling"}, true}}};

// The other form's modules of the same layer and role.
Parts parts_of_other_form(const LinearSpec& whole, const Known& known, const ModelSpec& spec) {
  Parts out;
  int64_t rows = 0;
  for (std::string_view name : known.parts) {
    if (name.empty()) continue;
    const LinearSpec* found = nullptr;
    for (const LinearSpec& linear : spec.linears)
      if (linear.layer == whole.layer && linear.role == whole.role && linear.in == whole.in &&
          linear.in_hub != whole.in_hub && linear.in_memory != whole.in_memory &&
          leaf_of(linear.memory) == name)
        found = &linear;
    if (found == nullptr) return {};
    out.push_back({found->memory, found->out});
    rows += found->out;
  }
  return rows == whole.out ? out : Parts{};
}

// Halves, or heads of attention.
Parts parts_by_size(const LinearSpec& whole, const Known& known, const ModelSpec& spec) {
  const auto part = [&](size_t i, int64_t rows) {
    return JoinedModule::Part{sibling(whole.memory, known.parts[i]), rows};
  };
  if (known.parts[2].empty() && whole.out % 2 == 0)
    return {part(0, whole.out / 2), part(1, whole.out / 2)};
  const int64_t q = spec.heads * spec.head_dim, kv = spec.kv_heads * spec.head_dim;
  if (whole.role != Role::attention || kv == 0 || q + 2 * kv != whole.out) return {};
  return {part(0, q), part(1, kv), part(2, kv)};
}

std::optional<JoinedModule> whole_of_base(const LinearSpec& linear, const ModelSpec& spec) {
  for (const Known& known : kKnown) {
    if (leaf_of(linear.memory) != known.whole || !known.is_of(spec)) continue;
    Parts parts = linear.in_hub && linear.in_memory ? parts_by_size(linear, known, spec)
                                                    : parts_of_other_form(linear, known, spec);
    if (parts.empty()) return std::nullopt;
    return JoinedModule{linear.memory, linear.hub,       linear.in,        linear.out,
                        linear.in_hub, linear.in_memory, std::move(parts), known.in_turn};
  }
  return std::nullopt;
}

// What SGLang calls modules that it joins, and so do adapters that were made for it: of parts that
// lie beside each other in both forms, of which `first` is the first.
std::optional<JoinedModule> name_for_parts(const LinearSpec& first, const ModelSpec& spec) {
  for (const Known& known : kKnown) {
    const bool servers = known.whole == "qkv_proj" || known.whole == "gate_up_proj";
    if (!servers || leaf_of(first.memory) != known.parts[0] || !first.in_hub || !first.in_memory)
      continue;
    JoinedModule out;
    out.module = sibling(first.memory, known.whole);
    out.hub = sibling(first.hub, known.whole);
    out.in = first.in;
    for (std::string_view name : known.parts) {
      if (name.empty()) continue;
      const LinearSpec* part = spec.find_linear(sibling(first.memory, name));
      if (part == nullptr || part->in != first.in) return std::nullopt;
      out.parts.push_back({part->memory, part->out});
      out.out += part->out;
    }
    return spec.find_linear(out.module) == nullptr ? std::optional(std::move(out)) : std::nullopt;
  }
  return std::nullopt;
}

// The adapter's pair of a module, by either of its names; end() for none.
auto find_pair(Adapter& adapter, const std::string& module, const std::string& hub) {
  const auto at = adapter.dense.find(module);
  return at != adapter.dense.end() ? at : adapter.dense.find(hub);
}

auto find_part(Adapter& adapter, const std::string& module, const ModelSpec& spec) {
  const LinearSpec* linear = spec.find_linear(module);
  return find_pair(adapter, module, linear == nullptr ? module : linear->hub);
}

void refuse_more_than_factors(const Adapter& adapter, const std::string& module,
                              std::string_view what) {
  for (const auto& [name, extra] : adapter.extras)
    if (name.starts_with(module + "."))
      throw Error(
          name,
          fmt::format("belongs to {}, of which only low-rank factors can be {}", module, what),
          {"use a layout with the same modules (", Option::to, ")"});
}

// The parts' pairs that the adapter has, null for the others.
struct Found {
  std::vector<const DensePair*> pairs;
  std::vector<std::string> modules;  // of those that are there

  const DensePair& any() const {
    return **std::find_if(pairs.begin(), pairs.end(), [](const auto* pair) { return pair; });
  }
};

Found find_parts(const JoinedModule& module, const ModelSpec& spec, Adapter& adapter) {
  Found out;
  for (const JoinedModule::Part& part : module.parts) {
    const auto at = find_part(adapter, part.module, spec);
    out.pairs.push_back(at == adapter.dense.end() ? nullptr : &at->second);
    if (at != adapter.dense.end()) out.modules.push_back(at->first);
  }
  return out;
}

void check_parts(const JoinedModule& module, const Found& found) {
  const DensePair& first = found.any();
  for (size_t i = 0; i < found.pairs.size(); ++i) {
    const DensePair* pair = found.pairs[i];
    if (pair == nullptr) continue;
    const std::string& name = module.parts[i].module;
    if (pair->b.dim(0) != module.parts[i].rows || pair->a.dim(1) != module.in)
      throw Error(
          name,
          fmt::format("adapts {} -> {}, expected {} -> {}: it is a part of {}", pair->a.dim(1),
                      pair->b.dim(0), module.in, module.parts[i].rows, module.module),
          check_base());
    if (pair->scaling.value() != first.scaling.value())
      throw Error(name,
                  fmt::format("has the scale {} and {} has {}: one pair of {} has one scale",
                              pair->scaling.value(), found.modules.front(), first.scaling.value(),
                              leaf_of(module.module)),
                  {"use a layout that has them apart (", Option::to, ")"});
    if (pair->a.dtype() != first.a.dtype() || pair->b.dtype() != first.b.dtype())
      throw Error(
          name,
          fmt::format("is of another type than {}, and {} holds them in one tensor",
                      found.modules.front(), leaf_of(module.module)),
          {"make them one type with ", Option::dtype, " f32, which changes no value of 16 bits"});
  }
}

bool has_same_a(const Found& found, int threads) {
  Pairs both;
  for (const DensePair* pair : found.pairs)
    if (pair != nullptr) both.emplace_back(found.any().a, pair->a);
  return all_identical(both, threads);
}

// B of the whole from those of parts, each [rows, columns].
Tensor joined_rows(const JoinedModule& module, const std::vector<Tensor>& parts) {
  if (module.in_turn) return join_gate_up(parts[0], parts[1], GateUpOrder::interleaved);
  return Tensor::concat(0, parts);
}

// The rows and columns of zeros that the whole needs more, so that there is an alpha with which it
// has exactly the parts' scale. 4 times a rank is one: there it is 4 times the alpha, twice with
// rsLoRA.
void settle_scale(DensePair& whole) {
  const Scaling parts = whole.scaling;
  const int64_t least = whole.a.dim(0);
  for (int64_t rank = least;; ++rank) try {
      whole.scaling = parts.with_rank(rank);
      break;
    } catch (const Error&) {
      if (rank >= 4 * std::max(least, parts.rank)) throw;
    }
  whole.a = pad_rank(whole.a, Side::A, whole.scaling.rank);
  whole.b = pad_rank(whole.b, Side::B, whole.scaling.rank);
}

std::string names_of(const JoinedModule& module) {
  std::vector<std::string_view> names;
  for (const JoinedModule::Part& part : module.parts) names.push_back(leaf_of(part.module));
  std::string out = fmt::format(
      "{}", fmt::join(std::vector<std::string_view>(names.begin(), names.end() - 1), ", "));
  return fmt::format("{} and {}", out, names.back());
}

using Modules = std::vector<const JoinedModule*>;

std::string modules_text(const Modules& modules) {
  std::vector<std::string> names;
  for (const JoinedModule* module : modules) names.push_back(module->module);
  return list_some(names, 2);
}

}  // namespace

std::vector<JoinedModule> joined_modules(const ModelSpec& spec) {
  std::vector<JoinedModule> out;
  for (const LinearSpec& linear : spec.linears) {
    auto found = whole_of_base(linear, spec);
    if (!found) found = name_for_parts(linear, spec);
    if (found) out.push_back(std::move(*found));
  }
  return out;
}

std::vector<Tensor> parted_rows(const JoinedModule& module, const Tensor& b) {
  if (module.in_turn)
    return {gate_up_half(b, GateUpOrder::interleaved, 0),
            gate_up_half(b, GateUpOrder::interleaved, 1)};
  std::vector<Tensor> out;
  int64_t first = 0;
  for (const JoinedModule::Part& part : module.parts) {
    out.push_back(b.slice(0, first, part.rows));
    first += part.rows;
  }
  return out;
}

std::pair<Tensor, Tensor> joined_pair(const JoinedModule& module,
                                      std::span<const std::pair<Tensor, Tensor>> parts,
                                      bool same_a) {
  std::vector<Tensor> a, b;
  DType dtype{};
  int64_t rank = 0;
  for (const auto& [own_a, own_b] : parts) {
    if (own_a.rank() == 0) continue;
    dtype = own_b.dtype();
    rank = same_a ? own_a.dim(0) : rank + own_a.dim(0);
    if (a.empty() || !same_a) a.push_back(own_a);
  }
  int64_t column = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto& [own_a, own_b] = parts[i];
    std::vector<PlacedTensor> placed;
    if (own_a.rank() != 0) placed.push_back({own_b, {0, column}});
    b.push_back(Tensor::assemble(dtype, {module.parts[i].rows, rank}, placed));
    if (own_a.rank() != 0 && !same_a) column += own_a.dim(0);
  }
  return {a.size() == 1 ? a.front() : Tensor::concat(0, a), joined_rows(module, b)};
}

bool part_module(const JoinedModule& module, Adapter& adapter) {
  const auto at = find_pair(adapter, module.module, module.hub);
  if (at == adapter.dense.end() || at->second.parameter) return false;
  refuse_more_than_factors(adapter, at->first, "parted");
  const DensePair whole = at->second;
  if (whole.b.dim(0) != module.out || whole.a.dim(1) != module.in)
    throw Error(at->first,
                fmt::format("adapts {} -> {}, expected {} -> {} of this base model", whole.a.dim(1),
                            whole.b.dim(0), module.in, module.out),
                check_base());
  adapter.dense.erase(at);
  const std::vector<Tensor> rows = parted_rows(module, whole.b);
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::string& name = module.parts[i].module;
    if (!adapter.dense.emplace(name, DensePair{whole.a, rows[i], whole.scaling, false}).second)
      throw Error(name, fmt::format("is adapted alone and as a part of {}", module.module),
                  "keep one of them");
  }
  return true;
}

bool join_module(const JoinedModule& module, const ModelSpec& spec, Adapter& adapter, int threads) {
  const Found found = find_parts(module, spec, adapter);
  if (found.modules.empty()) return false;
  if (find_pair(adapter, module.module, module.hub) != adapter.dense.end())
    throw Error(found.modules.front(),
                fmt::format("is adapted alone and as a part of {}", module.module),
                "keep one of them");
  for (const std::string& name : found.modules) refuse_more_than_factors(adapter, name, "joined");
  check_parts(module, found);
  const bool same_a = has_same_a(found, threads);
  Pairs parts;
  for (const DensePair* pair : found.pairs)
    parts.push_back(pair == nullptr ? std::pair<Tensor, Tensor>() : std::pair(pair->a, pair->b));
  DensePair whole;
  std::tie(whole.a, whole.b) = joined_pair(module, parts, same_a);
  whole.scaling = found.any().scaling;
  settle_scale(whole);
  for (const std::string& name : found.modules) adapter.dense.erase(name);
  adapter.dense.emplace(module.module, std::move(whole));
  return true;
}

std::vector<std::string> join_or_part(const ModelSpec& spec, Adapter& adapter, int threads,
                                      const std::function<Joining(const JoinedModule&)>& wanted) {
  const std::vector<JoinedModule> all = joined_modules(spec);
  std::map<std::string, Modules> parted, joined;  // by what they are joined of
  for (const JoinedModule& module : all) {
    const Joining how = wanted(module);
    if (how == Joining::parted && part_module(module, adapter))
      parted[names_of(module)].push_back(&module);
    if (how == Joining::whole && join_module(module, spec, adapter, threads))
      joined[names_of(module)].push_back(&module);
  }
  std::vector<std::string> out;
  for (const auto& [names, modules] : parted)
    out.push_back(fmt::format("cut into {}, rows of lora_B beside the same lora_A (exact): {}",
                              names, modules_text(modules)));
  for (const auto& [names, modules] : joined)
    out.push_back(
        fmt::format("joined {} (exact; where they have a lora_A of their own each, these "
                    "lie one below another): {}",
                    names, modules_text(modules)));
  return out;
}

}  // namespace moelora
