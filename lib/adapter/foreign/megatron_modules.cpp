#include "lib/adapter/foreign/megatron_modules.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

using Leaves = std::initializer_list<std::string_view>;

constexpr std::string_view kLayers = "decoder.layers.";
constexpr std::string_view kOutput = "output_layer";

// The module in the hub that one of Megatron is as it is: the same rows in the same order.
struct Whole {
  std::string_view megatron;  // below the layer
  Role role;
  Leaves hub;
};

// The last words of canonical LoRA of Megatron-Bridge (linear_q ...) are made by its dialect.
const Whole kWhole[] = {
    {"self_attention.linear_proj", Role::attention, {"o_proj", "dense", "out_proj", "wo"}},
    {"self_attention.linear_q_proj", Role::attention, {"q_proj"}},
    {"self_attention.linear_q_down_proj", Role::attention, {"q_a_proj"}},
    {"self_attention.linear_q_up_proj", Role::attention, {"q_b_proj"}},
    {"self_attention.linear_kv_down_proj", Role::attention, {"kv_a_proj_with_mqa"}},
    {"self_attention.linear_kv_up_proj", Role::attention, {"kv_b_proj"}},
    {"self_attention.linear_q", Role::attention, {"q_proj"}},
    {"self_attention.linear_k", Role::attention, {"k_proj"}},
    {"self_attention.linear_v", Role::attention, {"v_proj"}},
    {"self_attention.in_proj_qkvz", Role::mixer, {"in_proj_qkvz"}},
    {"self_attention.in_proj_ba", Role::mixer, {"in_proj_ba"}},
    {"self_attention.out_proj", Role::mixer, {"out_proj", "o_proj"}},
    {"mlp.linear_fc2", Role::dense_mlp, {"down_proj", "w2"}},
    {"mlp.linear_fc1_gate", Role::dense_mlp, {"gate_proj", "w1"}},
    {"mlp.linear_fc1_up", Role::dense_mlp, {"up_proj", "w3"}},
    {"mlp.shared_experts.linear_fc2", Role::shared_expert, {"down_proj", "w2"}},
    {"mlp.shared_experts.linear_fc1_gate", Role::shared_expert, {"gate_proj", "w1"}},
    {"mlp.shared_experts.linear_fc1_up", Role::shared_expert, {"up_proj", "w3"}},
};

// Places where a component begins.
size_t find_component(std::string_view text, std::string_view what) {
  for (size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, at + 1))
    if (at == 0 || text[at - 1] == '.' || text[at - 1] == ':') return at;
  return std::string_view::npos;
}

// [.., rows, r] as [.., groups, rows / groups, r].
Shape grouped(const Tensor& b, int64_t groups) {
  Shape shape = b.shape();
  const int64_t rows = shape[shape.size() - 2];
  shape.insert(shape.end() - 2, groups);
  shape[shape.size() - 2] = rows / groups;
  return shape;
}

// Back again, of so many rows.
Tensor ungrouped(const Tensor& b, int64_t rows) {
  Shape shape = b.shape();
  shape.erase(shape.end() - 3);
  shape[shape.size() - 2] = rows;
  return b.reshape(shape);
}

// q [.., groups, 2 heads head, r], all q of a group before all gates, as q and gate of each head.
Tensor by_head(const Tensor& q, int64_t head) {
  Shape split = q.shape();
  const int64_t heads = split[split.size() - 2] / (2 * head);
  split[split.size() - 2] = head;
  split.insert(split.end() - 2, heads);
  split.insert(split.end() - 3, 2);
  std::vector<int> order(split.size());
  std::iota(order.begin(), order.end(), 0);
  const auto gate = static_cast<size_t>(q.rank()) - 2;  // the axis that tells q from gate
  std::swap(order[gate], order[gate + 1]);
  return q.reshape(split).permute(order).reshape(q.shape());
}

// The rows of each part of a joined module.
std::vector<Tensor> split_rows(const MegatronModule& module, const Tensor& b, int64_t ranks) {
  const int64_t groups = module.cut_by_rank ? module.groups * ranks : module.groups;
  if (module.parts.size() == 1) return {b};
  const Tensor turns = b.reshape(grouped(b, groups));
  const int axis = turns.rank() - 2;
  std::vector<Tensor> out;
  int64_t at = 0;
  for (const MegatronModule::Part& part : module.parts) {
    const int64_t rows = part.rows / groups;
    Tensor own = turns.slice(axis, at, rows);
    if (module.gated_head > 0 && out.empty()) own = by_head(own, module.gated_head);
    out.push_back(ungrouped(own, part.rows));
    at += rows;
  }
  return out;
}

void check_shape(const std::string& name, const MegatronModule& module, Side side,
                 const Tensor& tensor) {
  const int rank = tensor.rank();
  const bool stacked = module.experts > 0 && rank == 3 && tensor.dim(0) == module.experts;
  if (rank != 2 && !stacked)
    throw Error(name,
                fmt::format("is {}, expected {}", to_string(tensor.shape()),
                            module.experts > 0
                                ? fmt::format("two dims, or {} experts and two", module.experts)
                                : "two dims"),
                check_base());
  const int64_t found = side == Side::A ? tensor.dim(rank - 1) : tensor.dim(rank - 2);
  const int64_t expected = side == Side::A ? module.in : module.rows();
  if (found != expected)
    throw Error(name,
                fmt::format("is {}, and {} of this base model has {} {}", to_string(tensor.shape()),
                            module.path, expected, side == Side::A ? "inputs" : "outputs"),
                check_base());
}

}  // namespace

const std::string_view kMegatronExport =
    "Export it to Hugging Face names with the trainer (ms-swift: swift export --to_hf true; "
    "Megatron-Bridge: export_adapter_ckpt).";

int64_t MegatronModule::rows() const {
  return std::accumulate(parts.begin(), parts.end(), int64_t{0},
                         [](int64_t sum, const Part& part) { return sum + part.rows; });
}

MegatronModules::MegatronModules(const ModelSpec& spec, GateRows gate) : spec_(spec), gate_(gate) {
  for (const LinearSpec& linear : spec.linears)
    linears_.emplace(Key{linear.layer, linear.role, std::string(leaf_of(linear.hub))}, &linear);
}

const MegatronModule& MegatronModules::find(const std::string& name, std::string_view path) {
  const auto known = known_.find(path);
  if (known != known_.end()) return known->second;
  return known_.emplace(std::string(path), make(name, path)).first->second;
}

const LinearSpec* MegatronModules::linear(int layer, Role role, Leaves leaves) const {
  for (const std::string_view leaf : leaves)
    if (const auto found = linears_.find(Key{layer, role, std::string(leaf)});
        found != linears_.end())
      return found->second;
  return nullptr;
}

MegatronModule MegatronModules::make(const std::string& name, std::string_view path) const {
  MegatronModule out;
  out.path = path;
  if (path == kOutput) {
    const auto head = std::find_if(spec_.linears.begin(), spec_.linears.end(),
                                   [](const LinearSpec& l) { return l.role == Role::lm_head; });
    if (head != spec_.linears.end()) {
      out.parts = {{head->hub, head->out}};
      out.in = head->in;
      return out;
    }
  }
  const auto place = find_layer(path);
  const std::string_view below = place ? path.substr(place->end + 1) : std::string_view();
  if (place && place->layer >= spec_.layers)
    throw Error(
        name, fmt::format("is of layer {}, and this base model has {}", place->layer, spec_.layers),
        check_base());
  const bool found =
      place && (add_whole(place->layer, below, out) || add_fc1(place->layer, below, out) ||
                add_experts(name, place->layer, below, out) ||
                (below == "mlp.router" && add_router(place->layer, out)));
  if (found) return out;
  if (place && below == "self_attention.linear_qkv") {
    add_qkv(name, place->layer, out);
    return out;
  }
  throw Error(name,
              fmt::format("adapts {}, whose counterpart in this base model is not known", path),
              std::string(kMegatronExport));
}

bool MegatronModules::add_whole(int layer, std::string_view below, MegatronModule& out) const {
  for (const Whole& whole : kWhole) {
    if (whole.megatron != below) continue;
    const LinearSpec* known = linear(layer, whole.role, whole.hub);
    if (known == nullptr) return false;
    out.parts = {{known->hub, known->out}};
    out.in = known->in;
    return true;
  }
  return false;
}

bool MegatronModules::add_fc1(int layer, std::string_view below, MegatronModule& out) const {
  const bool shared = below == "mlp.shared_experts.linear_fc1";
  if (!shared && below != "mlp.linear_fc1") return false;
  const Role role = shared ? Role::shared_expert : Role::dense_mlp;
  const LinearSpec* gate = linear(layer, role, {"gate_proj", "w1"});
  const LinearSpec* up = linear(layer, role, {"up_proj", "w3"});
  const LinearSpec* joined = shared ? nullptr : linear(layer, role, {"gate_up_proj"});
  out.cut_by_rank = true;
  if (gate != nullptr) out.parts.push_back({gate->hub, gate->out});
  if (up != nullptr) out.parts.push_back({up->hub, up->out});
  if (up != nullptr) {
    out.in = up->in;
  } else if (joined != nullptr) {  // phi3, glm4: [gate; up] too
    out.parts = {{joined->hub, joined->out / 2}, {joined->hub, joined->out / 2}};
    out.in = joined->in;
  }
  return out.in > 0;
}

bool MegatronModules::add_experts(const std::string& name, int layer, std::string_view below,
                                  MegatronModule& out) const {
  const bool first = below == "mlp.experts.linear_fc1";
  if (!first && below != "mlp.experts.linear_fc2") return false;
  if (!spec_.is_moe(layer))
    throw Error(name, fmt::format("layer {} of this base model has no routed experts", layer),
                check_base());
  out.experts = spec_.experts;
  out.stem = spec_.expert_stem(Form::hub, layer);
  const Projection own = first ? Projection::up : Projection::down;
  if (first && spec_.gated) out.parts.push_back({"gate_proj", spec_.out_dim(Projection::gate)});
  out.parts.push_back({std::string(projection_name(own)), spec_.out_dim(own)});
  out.in = spec_.in_dim(own);
  out.cut_by_rank = first;
  return true;
}

// Not where a router has several modules.
bool MegatronModules::add_router(int layer, MegatronModule& out) const {
  const auto begin = linears_.lower_bound(Key{layer, Role::router, ""});
  if (begin == linears_.end() || std::get<0>(begin->first) != layer ||
      std::get<1>(begin->first) != Role::router)
    return false;
  const auto next = std::next(begin);
  if (next != linears_.end() && std::get<0>(next->first) == layer &&
      std::get<1>(next->first) == Role::router)
    return false;
  out.parts = {{begin->second->hub, begin->second->out}};
  out.in = begin->second->in;
  return true;
}

void MegatronModules::add_qkv(const std::string& name, int layer, MegatronModule& out) const {
  const LinearSpec* q = linear(layer, Role::attention, {"q_proj"});
  const LinearSpec* k = linear(layer, Role::attention, {"k_proj"});
  const LinearSpec* v = linear(layer, Role::attention, {"v_proj"});
  const LinearSpec* joined = linear(layer, Role::attention, {"qkv_proj"});
  const LinearSpec* o = linear(layer, Role::attention, {"o_proj"});
  if (q != nullptr && k != nullptr && v != nullptr) {
    out.parts = {{q->hub, q->out}, {k->hub, k->out}, {v->hub, v->out}};
    out.in = q->in;
  } else if (joined != nullptr && o != nullptr && joined->out > o->in) {  // phi3: [q; k; v]
    const int64_t kv = (joined->out - o->in) / 2;
    out.parts = {{joined->hub, o->in}, {joined->hub, kv}, {joined->hub, kv}};
    out.in = joined->in;
  } else {
    throw Error(name,
                fmt::format("layer {} of this base model has no q_proj, k_proj and v_proj", layer),
                check_base());
  }
  out.groups = spec_.kv_heads;
  // Layers with heads of their own (Gemma 4, MiMo-V2) are not told apart.
  const bool uniform =
      std::all_of(spec_.linears.begin(), spec_.linears.end(), [&](const LinearSpec& other) {
        return k == nullptr || other.layer < 0 || other.role != Role::attention ||
               leaf_of(other.hub) != "k_proj" || other.out == k->out;
      });
  const bool divides =
      out.groups > 0 && std::all_of(out.parts.begin(), out.parts.end(),
                                    [&](const auto& part) { return part.rows % out.groups == 0; });
  if (!uniform || !divides)
    throw Error(name,
                "joins q, k and v by key-value heads, and how many this layer of the base "
                "model has is not known",
                std::string(kMegatronExport));
  if (k != nullptr && o != nullptr) set_gate(*q, *k, layer, out);
}

// q has an output gate where it has twice what o takes.
void MegatronModules::set_gate(const LinearSpec& q, const LinearSpec& k, int layer,
                               MegatronModule& out) const {
  const LinearSpec* o = linear(layer, Role::attention, {"o_proj"});
  if (gate_ == GateRows::by_group && q.out == 2 * o->in) out.gated_head = k.out / spec_.kv_heads;
}

std::string_view megatron_path(std::string_view module) {
  if (const size_t at = find_component(module, kLayers); at != std::string_view::npos)
    return module.substr(at);
  return leaf_of(module) == kOutput ? leaf_of(module) : std::string_view();
}

std::optional<int64_t> take_local_expert(std::string& path) {
  constexpr std::string_view kLocal = ".local_experts.";
  const size_t at = path.find(kLocal);
  if (at == std::string::npos) return std::nullopt;
  const size_t begin = at + kLocal.size(), end = path.find('.', begin);
  if (end == std::string::npos) return std::nullopt;
  const auto number = parse_index(std::string_view(path).substr(begin, end - begin));
  if (number) path.erase(at, end - at);
  return number;
}

void put_megatron(Translation& out, const std::string& name, const MegatronModule& module,
                  std::optional<int64_t> expert, Side side, const Tensor& tensor, int64_t ranks) {
  check_shape(name, module, side, tensor);
  std::vector<Tensor> rows;
  if (side == Side::B) rows = split_rows(module, tensor, ranks);
  for (size_t i = 0; i < module.parts.size(); ++i) {
    const std::string& hub = module.parts[i].hub;
    size_t end = i + 1;  // what the hub joins as well
    while (end < module.parts.size() && module.parts[end].hub == hub) ++end;
    Tensor own = tensor;
    if (side == Side::B)
      own = end == i + 1 ? rows[i]
                         : Tensor::concat(rows[i].rank() - 2, std::span(rows).subspan(i, end - i));
    const std::string path = module.experts == 0 ? hub
                             : expert ? fmt::format("{}.{}.{}", module.stem, *expert, hub)
                                      : fmt::format("{}.{}", module.stem, hub);
    put(out, name, lora_name(path, side), own);
    i = end - 1;
  }
}

void MegatronExperts::add(const MegatronModule& module, const std::string& name, int64_t expert) {
  if (expert >= module.experts)
    throw Error(name,
                fmt::format("is of expert {}, and this base model has {}", expert, module.experts),
                check_base());
  Seen& seen = seen_[module.path];
  seen.of = module.experts;
  seen.experts.insert(expert);
}

void MegatronExperts::check() const {
  for (const auto& [path, seen] : seen_)
    if (static_cast<int64_t>(seen.experts.size()) != seen.of)
      throw Error(path,
                  fmt::format("has factors of {} experts, and this base model has {}: they are "
                              "those of one rank of an expert-parallel training",
                              seen.experts.size(), seen.of),
                  std::string(kMegatronExport));
}

bool names_megatron(std::string_view name) {
  if (find_component(name, kLayers) == std::string_view::npos &&
      find_component(name, "mtp.layers.") == std::string_view::npos)
    return false;
  return has_any(name, {".self_attention.", ".mlp.linear_fc", ".mlp.router.", ".mlp.experts.",
                        ".mlp.shared_experts.", ".transformer_layer."});
}

}  // namespace moelora
