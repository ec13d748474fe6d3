#include "lib/compare/bits/table.h"

#include <fmt/core.h>

#include <algorithm>
#include <memory>

#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace moelora::packed {
namespace {

// The bytes of a tensor where they lie in one piece of a file; what is computed is evaluated, once
// and in memory.
Stored stored_tensor(const std::string& name, const Tensor& tensor) {
  Stored out{name, tensor.dtype(), tensor.shape(), nullptr, 0};
  if (tensor.elements() == 0) return out;
  bool plain = tensor.pieces().size() == 1;
  int64_t step = 1;
  for (size_t a = tensor.axes().size(); plain && a-- > 0; step *= tensor.axes()[a]) {
    const Piece& piece = tensor.pieces()[0];
    plain = piece.count[a] == tensor.axes()[a] && (piece.stride[a] == step || piece.count[a] == 1);
  }
  if (plain) {
    out.source = tensor.pieces()[0].source;
    out.offset = tensor.pieces()[0].offset;
  } else {
    out.source = std::make_shared<MemorySource>(tensor.dtype(), tensor.read(), name);
  }
  return out;
}

// Bounds on hostile indices and dims.
constexpr int64_t kMostExperts = 1 << 16;

// A block of all experts, before their number is known.
constexpr int64_t kAllExperts = -1;

// What a tensor says of one side of one projection.
struct FactorPlace {
  int layer;  // -1: dense
  Projection projection;
  std::string module;  // of a dense one
  Side side;
  int64_t width;
  StridedBlock block;
  Scale scale;
  // Of fused gate and up rows; nullopt where it is not known.
  std::optional<GateUpOrder> order = {};
};

// Error at "TENSOR SHAPE".
[[noreturn]] void refuse(const Stored& tensor, const std::string& what) {
  throw Error(printable(tensor.name) + " " + moelora::to_string(tensor.shape), what);
}

constexpr int64_t kMostFactors = 1 << 23;

// The rows of one half of a fused gate_up factor.
StridedBlock half_of(StridedBlock block, int64_t width, GateUpOrder order, int half) {
  if (order == GateUpOrder::halves) {
    block.offset += half * (width / 2) * block.x_step;
  } else {
    block.offset += half * block.x_step;
    block.x_step *= 2;
  }
  return block;
}

// Fills the projections of a table, tensor by tensor, and checks them together. Throws Error.
class TableBuilder {
 public:
  explicit TableBuilder(Table& table) : table_(table) {}

  // A fused factor becomes one of gate and one of up: both have its A, and each its rows of B.
  void add(const FactorPlace& p) {
    const bool fused = p.projection == Projection::gate_up;
    if (fused && !p.order) table_.gate_up_apart = false;
    if (!fused || !p.order) return add_unit({p.layer, p.projection, p.module}, p, p.width, p.block);
    if (p.side == Side::B && p.width % 2 != 0)
      refuse(table_.tensors[p.block.tensor], "has an odd number of gate and up rows");
    for (int half = 0; half < 2; ++half) {
      const ProjectionKey key{p.layer, half == 0 ? Projection::gate : Projection::up, {}};
      if (p.side == Side::A)
        add_unit(key, p, p.width, p.block);
      else
        add_unit(key, p, p.width / 2, half_of(p.block, p.width, *p.order, half));
    }
  }

  // To be called once, when the number of experts is known.
  void finish(int64_t experts, const std::string& where) {
    table_.experts = experts;
    if (static_cast<int64_t>(table_.projections.size()) * experts > kMostFactors)
      throw Error(where, "has more factors of experts than any model");
    for (auto& [key, unit] : table_.projections) {
      unit.experts = key.layer < 0 ? 1 : experts;
      for (Factor& factor : unit.sides) finish(factor, unit.experts);
      if (unit.scales.size() > 1)
        unit.scales.resize(static_cast<size_t>(unit.experts), Scale(unit.scales[0]));
      check_ranks(unit);
    }
  }

 private:
  void add_unit(const ProjectionKey& key, const FactorPlace& placed, int64_t width,
                const StridedBlock& block) {
    ProjectionFactors& unit = table_.projections[key];
    Factor& factor = unit.side(placed.side);
    if (!factor.blocks.empty() && factor.width != width)
      refuse(table_.tensors[block.tensor],
             fmt::format("has the width {}, other experts have {}", width, factor.width));
    factor.width = width;
    factor.blocks.push_back(block);
    add_scale(unit, block, placed.scale);
  }

  // One scale while all are equal; then one per expert, those not yet seen being as the first.
  static void add_scale(ProjectionFactors& unit, const StridedBlock& block, const Scale& scale) {
    if (unit.scales.empty()) unit.scales.push_back(scale);
    if (unit.scales.size() == 1 && unit.scales[0] == scale) return;
    const auto end = static_cast<size_t>(block.first + std::max<int64_t>(block.count, 1));
    if (unit.scales.size() < end) unit.scales.resize(end, Scale(unit.scales[0]));
    for (auto e = static_cast<size_t>(block.first); e < end; ++e) unit.scales[e] = scale;
  }

  void finish(Factor& factor, int64_t experts) const {
    for (StridedBlock& block : factor.blocks)
      if (block.count == kAllExperts) block.count = experts;
    std::sort(factor.blocks.begin(), factor.blocks.end(),
              [](const StridedBlock& a, const StridedBlock& b) { return a.first < b.first; });
    int64_t next = 0;
    for (const StridedBlock& block : factor.blocks) {
      const Stored& tensor = table_.tensors[block.tensor];
      if (block.first < next) refuse(tensor, "says what another tensor says already");
      next = block.first + block.count;
      if (next > experts) refuse(tensor, fmt::format("has more than {} experts", experts));
    }
  }

  void check_ranks(const ProjectionFactors& unit) const {
    for (const StridedBlock& a : unit.side(Side::A).blocks)
      for (int64_t e = a.first; e < a.first + a.count; ++e) {
        const StridedBlock* b = unit.side(Side::B).block_of(e);
        if (b != nullptr && b->rank != a.rank)
          refuse(table_.tensors[a.tensor],
                 fmt::format("has rank {}, its lora_B rank {}", a.rank, b->rank));
        if (b != nullptr && b->first + b->count >= a.first + a.count) break;  // the rest is alike
      }
  }

  Table& table_;
};

// ---- an adapter's names, shapes and config ----

struct ExpertTensor {
  size_t tensor;
  FactorName name;
  ExpertRest rest;
};

class Builder {
 public:
  Builder(const Json& config, const std::string& where, const TableOptions& options)
      : config_(config), where_(where), options_(options), scales_(config, where), table_(out_) {}

  Table build(const TensorMap& tensors) {
    out_.tensors.reserve(tensors.size());
    for (const auto& [name, tensor] : tensors) {
      out_.tensors.push_back(stored_tensor(name, tensor));
      sort_in(out_.tensors.size() - 1);
    }
    find_missing_gate();
    for (const ExpertTensor& t : experts_) add_expert(t);
    add_stacked();
    table_.finish(options_.spec != nullptr ? options_.spec->experts
                                           : std::max({numbered_, stacked_, int64_t{1}}),
                  where_);
    return std::move(out_);
  }

 private:
  void sort_in(size_t index) {
    const Stored& t = out_.tensors[index];
    const auto name = parse_factor_name(t.name);
    if (!name) {
      if (!out_.extras.emplace(without_prefix(t.name), index).second)
        refuse(t, "is there twice, with and without its prefix");
      return;
    }
    if (!name->expert) return add_dense(index, *name);
    const auto rest = parse_expert_rest(name->rest);
    if (!rest) refuse(t, "is a routed-expert tensor of no known layout");
    if (t.source == nullptr && rest->form != ExpertRest::Form::all) refuse(t, "holds no element");
    experts_.push_back({index, *name, *rest});
  }

  void whole_bytes(const Stored& t) const {
    if (dtype_bits(t.dtype) % 8 != 0) refuse(t, "has elements smaller than a byte");
  }

  // ---- dense modules ----

  std::string normalised(const std::string& module) const {
    if (options_.spec != nullptr) return options_.spec->normalised(module);
    if (module == "unembed_tokens" || module == "model.unembed_tokens" || module == "model.lm_head")
      return "lm_head";
    return module;
  }

  void add_dense(size_t index, const FactorName& name) {
    const int64_t width = matrix_width(out_.tensors[index], name.side);
    const std::string module(name.module), common = normalised(module);
    const std::string unit = name.embedding ? common + " (embedding)" : common;
    table_.add({-1, Projection::down, unit, name.side, width, matrix(index, name.side, 0),
                scales_.of({common, module, common + ".weight", module + ".weight"})});
  }

  int64_t matrix_width(const Stored& t, Side side) const {
    whole_bytes(t);
    if (t.shape.size() != 2 || t.source == nullptr) refuse(t, "is not a matrix");
    return t.shape[side == Side::A ? 1 : 0];
  }

  StridedBlock matrix(size_t index, Side side, int64_t expert) const {
    const Shape& s = out_.tensors[index].shape;
    if (side == Side::A) return {index, 0, 0, s[1], 1, expert, 1, s[0]};
    return {index, 0, 0, 1, s[1], expert, 1, s[1]};
  }

  // ---- routed experts ----

  // Trainers of models without a gate save up as w1 beside an empty w3.
  void find_missing_gate() {
    no_gate_ = options_.spec != nullptr && !options_.spec->gated;
    for (const ExpertTensor& t : experts_)
      no_gate_ =
          no_gate_ ||
          (options_.spec == nullptr && t.rest.w_word && t.rest.form == ExpertRest::Form::all &&
           t.rest.projection == Projection::up && out_.tensors[t.tensor].source == nullptr);
  }

  std::optional<GateUpOrder> family_order() const {
    return options_.spec == nullptr ? std::nullopt : options_.spec->gate_up_order;
  }

  void add_expert(const ExpertTensor& e) {
    using Form = ExpertRest::Form;
    const Stored& t = out_.tensors[e.tensor];
    if (t.source == nullptr) return;
    same_stem(e);
    const Side side = e.name.side;
    switch (e.rest.form) {
      case Form::parameter:
        return keep_stacked(e);
      case Form::numbered:
      case Form::plural:
        if (e.rest.expert >= kMostExperts) refuse(t, "names an expert that no model has");
        numbered_ = std::max(numbered_, e.rest.expert + 1);
        return add_projection(
            e, matrix_width(t, side), matrix(e.tensor, side, e.rest.expert),
            e.rest.form == Form::plural ? GateUpOrder::interleaved : GateUpOrder::halves);
      case Form::all:
        return add_projection(e, all_width(t, side), all_experts(e.tensor, side),
                              GateUpOrder::halves);
    }
  }

  void same_stem(const ExpertTensor& e) {
    const auto [at, fresh] = stems_.emplace(e.name.layer, e.name.stem);
    if (!fresh && at->second != e.name.stem)
      refuse(out_.tensors[e.tensor],
             fmt::format("lies under {}, other experts of its layer under {}", e.name.stem,
                         at->second));
  }

  int64_t all_width(const Stored& t, Side side) const {
    whole_bytes(t);
    if (t.shape.size() != 3) refuse(t, "is neither a matrix of one expert nor a 3-D tensor of all");
    return t.shape[side == Side::A ? 2 : 1];
  }

  // [E, r, in] or [E, out, r]; a leading 1 is one matrix for all experts.
  StridedBlock all_experts(size_t index, Side side) {
    const Shape& s = out_.tensors[index].shape;
    if (s[0] > kMostExperts) refuse(out_.tensors[index], "has more experts than any model");
    const bool shared = s[0] == 1;
    if (!shared) stacked_ = std::max(stacked_, s[0]);
    const int64_t e_step = shared ? 0 : s[1] * s[2], count = shared ? kAllExperts : s[0];
    if (side == Side::A) return {index, 0, e_step, s[2], 1, 0, count, s[1]};
    return {index, 0, e_step, 1, s[2], 0, count, s[2]};
  }

  void add_projection(const ExpertTensor& e, int64_t width, const StridedBlock& block,
                      GateUpOrder order) {
    const Projection p = projection_of(e);
    table_.add({e.name.layer, p, {}, e.name.side, width, block, scales_.of(paths(e)), order});
  }

  // Without a gate, w1 and gate_proj are other words for up, in names and in what patterns mean.
  Projection projection_of(const ExpertTensor& e) const {
    const Projection p = e.rest.projection;
    return p == Projection::gate && no_gate_ ? Projection::up : p;
  }

  std::vector<std::string> paths(const ExpertTensor& e) const {
    if (!scales_.has_patterns()) return {};
    std::vector<std::string> out = {std::string(e.name.module)};
    if (e.rest.form == ExpertRest::Form::all)
      out.push_back(fmt::format("{}.{}", e.name.stem, projection_name(projection_of(e))));
    return out;
  }

  // ---- PEFT's stacked pairs ----

  void keep_stacked(const ExpertTensor& e) {
    const Stored& t = out_.tensors[e.tensor];
    (void)matrix_width(t, e.name.side);
    auto& both = stacked_tensors_[{e.name.layer, -e.rest.nesting}];
    const ExpertTensor*& slot = both[static_cast<size_t>(e.name.side)];
    if (slot != nullptr) refuse(t, "is there twice");
    slot = &e;
  }

  std::vector<StackedPair> stacked_pairs() {
    std::vector<StackedPair> out;
    for (const auto& [at, both] : stacked_tensors_) {
      if (both[0] == nullptr || both[1] == nullptr)
        refuse(out_.tensors[both[both[0] == nullptr ? 1 : 0]->tensor], "lacks the other side");
      const Shape &a = out_.tensors[both[0]->tensor].shape,
                  &b = out_.tensors[both[1]->tensor].shape;
      if (a[0] != b[1])
        refuse(out_.tensors[both[0]->tensor],
               fmt::format("has {} rows, its lora_B {} columns", a[0], b[1]));
      out.push_back({at.first, -at.second, both[0]->tensor, both[1]->tensor, a[1], b[0], a[0],
                     both[0]->name.stem});
    }
    for (auto& [name, index] : take_biases(out, config_, options_.spec))
      out_.extras.emplace(std::move(name), index);
    const size_t most = has_rows() ? 3 : 2;
    for (size_t i = most; i < out.size(); ++i)
      if (out[i - most].layer == out[i].layer)
        refuse(out_.tensors[out[i].a],
               fmt::format("is a stacked parameter too many: its layer has {}", most));
    return out;
  }

  std::string_view parameter_name(Projection p) const {
    if (options_.spec == nullptr || options_.spec->memory.numbered) return projection_name(p);
    const ExpertStorage& s = options_.spec->memory;
    const std::string& name = p == Projection::gate_up ? s.gate_up
                              : p == Projection::gate  ? s.gate
                              : p == Projection::up    ? s.up
                                                       : s.down;
    return name.empty() ? projection_name(p) : std::string_view(name);
  }

  void add_stacked() {
    const std::vector<StackedPair> pairs = stacked_pairs();
    if (pairs.empty()) return;
    if (has_rows()) return add_rows(pairs);
    const StackedForm form =
        resolve_stacked(pairs, config_, options_.spec, options_.reading, where_);
    for (size_t i = 0; i < pairs.size(); ++i)
      add_stacked_pair(pairs[i], form.projections[i], form.swapped);
  }

  // ---- pairs on experts that are rows of one matrix: A [r, H], B [E*I, r] ----

  bool has_rows() const {
    return options_.spec != nullptr && options_.spec->memory.axes == ExpertAxes::rows;
  }

  void add_rows(const std::vector<StackedPair>& pairs) {
    for (size_t first = 0, last = 0; first < pairs.size(); first = last) {
      while (last < pairs.size() && pairs[last].layer == pairs[first].layer) ++last;
      const std::vector<Projection> meant = adapted_rows(pairs[first], last - first);
      for (size_t i = first; i < last; ++i) add_row_pair(pairs[i], meant[i - first]);
    }
  }

  // Innermost first. The shapes are all the same: where some are missing, the config says which.
  std::vector<Projection> adapted_rows(const StackedPair& pair, size_t count) const {
    const std::vector<Projection> all = {Projection::gate, Projection::up, Projection::down};
    if (count == all.size()) return all;
    std::vector<Projection> out;
    const Json* targets = config_.find("target_parameters");
    for (const Projection p : all) {
      const std::string path = fmt::format(".{}.{}", pair.stem, parameter_name(p));
      if (targets != nullptr &&
          std::any_of(targets->items().begin(), targets->items().end(), [&](const Json& t) {
            return t.is(Json::Kind::string) && path.ends_with("." + t.as_string());
          }))
        out.push_back(p);
    }
    if (out.size() != count)
      refuse(out_.tensors[pair.a], fmt::format("is one of {} parameters, and target_parameters "
                                               "names {} of them",
                                               count, out.size()));
    return out;
  }

  // An expert's rows of B are its lora_B of gate and up, and of down its lora_A.
  void add_row_pair(const StackedPair& pair, Projection p) {
    const int64_t experts = options_.spec->experts, width = options_.spec->intermediate;
    const int64_t rank = pair.rows, hidden = pair.a_dim;
    if (hidden != options_.spec->expert_in || pair.b_dim != experts * width)
      refuse(out_.tensors[pair.a], "is of no such matrix as this base model's experts");
    const StridedBlock own{pair.b, 0, width * rank, 1, rank, 0, experts, rank};
    const StridedBlock shared{pair.a, 0, 0, hidden, 1, 0, experts, rank};
    const Side outer = p == Projection::down ? Side::B : Side::A;
    const Side inner = p == Projection::down ? Side::A : Side::B;
    const Scale scale = scales_.of({fmt::format("{}.{}", pair.stem, parameter_name(p))});
    table_.add({pair.layer, p, {}, inner, width, own, scale});
    table_.add({pair.layer, p, {}, outer, hidden, shared, scale});
  }

  void add_stacked_pair(const StackedPair& pair, Projection p, bool swapped) {
    const Stored& t = out_.tensors[pair.a];
    const StackedParameter parameter{pair.layer, p,
                                     fmt::format("{}.{}", pair.stem, parameter_name(p))};
    const bool grouped = expert_major(parameter, config_, options_.reading, where_);
    const Scale scale = scales_.of({parameter.path});
    const int64_t experts =
        options_.spec != nullptr ? options_.spec->batched_experts(p) : pair.rows / scale.rank;
    if (experts < 1 || experts > kMostExperts || pair.rows % experts != 0)
      refuse(t, fmt::format("has {} rows, not a multiple of {} experts", pair.rows, experts));
    stacked_ = std::max(stacked_, experts);  // where no base says how many there are
    const int64_t rank = pair.rows / experts;
    const int64_t run = options_.spec != nullptr ? options_.spec->experts : experts;
    const StridedBlock over_rows{pair.a, 0, rank * pair.a_dim, pair.a_dim, 1, 0, run, rank};
    const StridedBlock over_columns{
        pair.b, 0, grouped ? rank : 1, grouped ? 1 : experts, pair.rows, 0, run, rank};
    const StridedBlock &a = swapped ? over_columns : over_rows,
                       &b = swapped ? over_rows : over_columns;
    const int64_t in = swapped ? pair.b_dim : pair.a_dim, out = swapped ? pair.a_dim : pair.b_dim;
    table_.add({pair.layer, p, {}, Side::A, in, a, scale, family_order()});
    table_.add({pair.layer, p, {}, Side::B, out, b, scale, family_order()});
  }

  const Json& config_;
  const std::string& where_;
  const TableOptions& options_;
  const Scales scales_;
  Table out_;
  TableBuilder table_;
  std::vector<ExpertTensor> experts_;
  std::map<int, std::string_view> stems_;
  std::map<std::pair<int, int>, std::array<const ExpertTensor*, 2>> stacked_tensors_;
  int64_t numbered_ = 0, stacked_ = 0;
  bool no_gate_ = false;
};

}  // namespace

Table make_table(const TensorMap& tensors, const Json& config, const std::string& where,
                 const TableOptions& options) {
  return Builder(config, where, options).build(tensors);
}

const StridedBlock* Factor::block_of(int64_t expert) const {
  auto after =
      std::upper_bound(blocks.begin(), blocks.end(), expert,
                       [](int64_t e, const StridedBlock& block) { return e < block.first; });
  if (after == blocks.begin()) return nullptr;
  --after;
  return expert < after->first + after->count ? &*after : nullptr;
}

const StridedBlock* block_of(const ProjectionFactors* unit, Side side, int64_t expert) {
  return unit != nullptr ? unit->side(side).block_of(expert) : nullptr;
}

}  // namespace moelora::packed
