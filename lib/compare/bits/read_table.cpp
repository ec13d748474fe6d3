#include "lib/compare/bits/read_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/base/error.h"
#include "lib/compare/bits/names.h"
#include "lib/compare/bits/scales.h"
#include "lib/compare/bits/stacked_pairs.h"
#include "lib/compare/bits/table.h"

namespace moelora::packed {
namespace {

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
    if (t.shape.size() != 2 || t.source == nullptr) refuse(t, "is no matrix");
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
    return options_.spec == nullptr ? std::nullopt : std::optional(options_.spec->gate_up_order);
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
        if (e.rest.expert >= kMostExperts) refuse(t, "names an expert no model has");
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
    if (t.shape.size() != 3) refuse(t, "is neither a matrix an expert nor a 3-D tensor of all");
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
    Projection p = e.rest.projection;
    if (p == Projection::gate && no_gate_) p = Projection::up;
    table_.add({e.name.layer, p, {}, e.name.side, width, block, scales_.of(paths(e)), order});
  }

  std::vector<std::string> paths(const ExpertTensor& e) const {
    if (!scales_.has_patterns()) return {};
    std::vector<std::string> out = {std::string(e.name.module)};
    if (e.rest.form == ExpertRest::Form::all)
      out.push_back(fmt::format("{}.{}", e.name.stem, projection_name(e.rest.projection)));
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

  std::vector<StackedPair> stacked_pairs() const {
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
      if (out.size() > 2 && out[out.size() - 3].layer == at.first)
        refuse(out_.tensors[both[0]->tensor], "is a third stacked parameter of its layer");
    }
    return out;
  }

  std::string_view parameter_name(Projection p) const {
    if (options_.spec == nullptr || options_.spec->memory.numbered) return projection_name(p);
    const ExpertStorage& s = options_.spec->memory;
    const std::string& name = p == Projection::gate_up ? s.gate_up
                              : p == Projection::up    ? s.up
                                                       : s.down;
    return name.empty() ? projection_name(p) : std::string_view(name);
  }

  void add_stacked() {
    if (stacked_tensors_.empty()) return;
    const std::vector<StackedPair> pairs = stacked_pairs();
    const StackedForm form =
        resolve_stacked(pairs, config_, options_.spec, options_.reading, where_);
    const bool grouped = expert_major(config_, options_.reading, where_);
    for (size_t i = 0; i < pairs.size(); ++i)
      add_stacked_pair(pairs[i], form.projections[i], form.swapped, grouped);
  }

  void add_stacked_pair(const StackedPair& pair, Projection p, bool swapped, bool grouped) {
    const Stored& t = out_.tensors[pair.a];
    const Scale scale = scales_.of({fmt::format("{}.{}", pair.stem, parameter_name(p))});
    const int64_t experts =
        options_.spec != nullptr ? options_.spec->experts : pair.rows / scale.rank;
    if (experts < 1 || experts > kMostExperts || pair.rows % experts != 0)
      refuse(t, fmt::format("has {} rows, no multiple of {} experts", pair.rows, experts));
    stacked_ = std::max(stacked_, experts);
    const int64_t rank = pair.rows / experts;
    const StridedBlock over_rows{pair.a, 0, rank * pair.a_dim, pair.a_dim, 1, 0, experts, rank};
    const StridedBlock over_columns{
        pair.b, 0, grouped ? rank : 1, grouped ? 1 : experts, pair.rows, 0, experts, rank};
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

}  // namespace moelora::packed
