// PEFT target_parameters: two 2-D tensors per parameter, experts and rank on one axis. A row e*r +
// k; B column k*E + e (PEFT) or e*r + k (Unsloth before 2026-09-17). The outermost parameter of a
// module is "experts", the one wrapped before it "experts.base_layer". Of experts that are rows of
// one matrix (DBRX) expert_rows.h says what the pairs are.

#include <fmt/core.h>

#include <algorithm>

#include "lib/adapter/b_order.h"
#include "lib/adapter/expert_biases.h"
#include "lib/adapter/expert_collector.h"
#include "lib/adapter/expert_factors.h"
#include "lib/adapter/expert_rows.h"
#include "lib/adapter/stacked_pairs.h"
#include "lib/base/dotted_path.h"
#include "lib/base/error.h"

namespace moelora {
namespace {

Claim claim(const ExpertTensor& t) {
  return t.path.form == ExpertPath::Form::parameters && t.tensor.rank() == 2 ? Claim::sure
                                                                             : Claim::no;
}

struct Order {
  BOrder order;
  std::string_view from;
  std::string evidence;  // for people; "" where nothing need be said
};

Order input_order(const ReadContext& context, const std::string& path, bool swapped,
                  int64_t experts, int64_t rank) {
  if (context.options.b_order) return {*context.options.b_order, "given", ""};
  ToldOrder told = told_b_order(context.config, context.spec, path, swapped);
  if (told.from == "marked") return {*told.order, told.from, ""};
  if (experts == 1 || rank == 1) return {BOrder::rank_major, "no matter", ""};
  if (told.order) return {*told.order, told.from, std::move(told.evidence)};
  if (told.doubt.empty()) return {BOrder::rank_major, "assumed", ""};
  throw Error(context.config.where, told.doubt,
              {"say ", Option::b_order, " rank-major (PEFT, and Unsloth since 2026-09-17) or ",
               Option::b_order, " expert-major (Unsloth before that)"});
}

// What decided the order of each parameter of a file, and what is said of it once.
class Orders {
 public:
  void add(const ExpertKey& key, const Order& here) {
    by_parameter_.emplace(key, here.order);
    if (here.from == "no matter") return;
    if (!first_) first_ = here;
    differ_ = differ_ || here.order != first_->order;
    assumed_ = assumed_ || here.from == "assumed";
    if (evidence_.empty()) evidence_ = here.evidence;
  }

  StackedForm form(Roles roles) const {
    StackedForm out{roles, BOrder::rank_major, {}, "no matter"};
    if (first_) out.b_order = first_->order, out.b_order_from = first_->from;
    if (differ_) out.b_orders = by_parameter_;
    return out;
  }

  void tell(std::vector<std::string>& notes) const {
    if (assumed_)
      notes.push_back(
          "the order of the columns of lora_B is not marked: read as PEFT writes it, rank-major "
          "(--b-order expert-major reads Unsloth adapters from before 2026-09-17)");
    if (!evidence_.empty()) notes.push_back(evidence_ + " (--b-order decides)");
  }

 private:
  std::map<ExpertKey, BOrder> by_parameter_;
  std::optional<Order> first_;  // where the order matters
  std::string evidence_;
  bool differ_ = false, assumed_ = false;
};

// A as [E, r, a_dim], B as [E, b_dim, r].
Tensor split_a(const Tensor& a, int64_t experts) {
  return a.reshape({experts, a.dim(0) / experts, a.dim(1)});
}

Tensor split_b(const Tensor& b, int64_t experts, BOrder order) {
  const int64_t rank = b.dim(1) / experts;
  return order == BOrder::rank_major ? b.reshape({b.dim(0), rank, experts}).permute({2, 0, 1})
                                     : b.reshape({b.dim(0), experts, rank}).permute({1, 0, 2});
}

Tensor join_a(const Tensor& a) { return a.reshape({a.dim(0) * a.dim(1), a.dim(2)}); }

Tensor join_b(const Tensor& b, BOrder order) {
  const Tensor columns = order == BOrder::rank_major ? b.permute({1, 2, 0}) : b.permute({1, 0, 2});
  return columns.reshape({b.dim(1), b.dim(0) * b.dim(2)});
}

int64_t expert_count(const StackedPair& pair, Projection projection, const std::string& path,
                     const ReadContext& context) {
  const int64_t rows = pair.a->tensor.dim(0);
  const int64_t rank = context.config.scaling(path).rank;
  const int64_t experts =
      context.spec != nullptr ? context.spec->batched_experts(projection) : rows / rank;
  if (experts <= 0 || rows % experts != 0 || (context.spec == nullptr && rows % rank != 0))
    throw Error(pair.a->name,
                fmt::format("has {} rows, not a multiple of {}", rows,
                            context.spec != nullptr
                                ? fmt::format("the {} experts of the base model", experts)
                                : fmt::format("the rank {}", rank)),
                {"an expert-parallel rank's part saved as the whole? check r and ", Option::base});
  check_expert_count(*pair.a, experts);
  return experts;
}

// The slices of the experts that are run: a model may have room for more of gate and up.
std::vector<Tensor> of_experts(const Tensor& all, const ReadContext& context) {
  std::vector<Tensor> out = all.unstack();
  if (context.spec != nullptr) out.resize(static_cast<size_t>(context.spec->experts));
  return out;
}

bool is_rows(std::span<const ExpertTensor> tensors, const ModelSpec* spec) {
  return (spec != nullptr && spec->memory.axes == ExpertAxes::rows) ||
         std::any_of(tensors.begin(), tensors.end(), is_row_parameter);
}

void read(std::span<const ExpertTensor> tensors, const ReadContext& context, Adapter& adapter) {
  if (is_rows(tensors, context.spec)) return read_expert_rows(tensors, context, adapter);
  std::vector<StackedPair> pairs = pair_up(tensors);
  for (const auto& [name, tensor] : take_expert_biases(pairs, context))
    adapter.extras[name] = {ExtraKind::other, tensor->tensor};
  if (pairs.empty())
    throw Error(tensors.front().name, "adapts the experts' biases alone, and no weight of theirs");
  const StackedReading reading = read_stacked_pairs(pairs, context);
  const bool swapped = reading.roles == Roles::swapped;
  ExpertCollector collector(context);
  Orders orders;
  for (size_t i = 0; i < pairs.size(); ++i) {
    const StackedPair& pair = pairs[i];
    const std::string path = parameter_path(context.spec, with_layer(pair.a->path.stem, pair.layer),
                                            reading.projection[i]);
    const int64_t experts = expert_count(pair, reading.projection[i], path, context);
    const Order here =
        input_order(context, path, swapped, experts, pair.a->tensor.dim(0) / experts);
    orders.add({pair.layer, reading.projection[i]}, here);
    const Tensor a = split_a(pair.a->tensor, experts),
                 b = split_b(pair.b->tensor, experts, here.order);
    collector.add_all(*pair.a, reading.projection[i],
                      of_experts(swapped ? b.transpose(1, 2) : a, context), false, path);
    collector.add_all(*pair.b, reading.projection[i],
                      of_experts(swapped ? a.transpose(1, 2) : b, context), false, path);
  }
  collector.finish(adapter);
  if (context.spec != nullptr) adapter.gate_up_order = context.spec->gate_up_order;
  adapter.stacked = orders.form(reading.roles);
  orders.tell(context.notes);
  if (context.spec != nullptr && context.spec->idle_experts > 0)
    context.notes.push_back(fmt::format(
        "gate_up_proj has room for {} experts that are never run: what is of them is left out",
        context.spec->idle_experts));
  if (swapped)
    context.notes.push_back(
        "lora_A lies on the output side (swapped roles, as PEFT 0.18 and older save it)");
}

Tensor with_idle(const Tensor& all, int64_t idle) {
  Shape shape = all.shape();
  shape[0] = idle;
  if (idle == 0) return all;
  return Tensor::concat(0, std::vector{all, Tensor::zeros(all.dtype(), shape)});
}

// `idle`: of experts that are never run, behind the others, zeros.
std::pair<Tensor, Tensor> stack_pair(const ExpertPair& pair, int64_t experts, int64_t idle,
                                     const LayoutWriteOptions& options) {
  const int64_t rank = max_rank(pair);
  const Tensor a = with_idle(stack_experts(pair.a, Side::A, experts, rank), idle);  // [E, r, in]
  const Tensor b = with_idle(stack_experts(pair.b, Side::B, experts, rank), idle);  // [E, out, r]
  if (options.roles == Roles::natural) return {join_a(a), join_b(b, options.b_order)};
  return {join_a(b.transpose(1, 2)), join_b(a.transpose(1, 2), options.b_order)};
}

// PEFT wraps a module once for each parameter, the first of its class innermost: how often what is
// at `key`, or its bias, is wrapped again.
class Nesting {
 public:
  Nesting(const Adapter& adapter, const std::map<ExpertKey, ExpertBias>& biases)
      : adapter_(adapter), biases_(biases) {}

  std::string module(const std::string& stem, const ExpertKey& key, bool bias) const {
    size_t depth = bias ? 0 : biases_.count(key);
    for (const Projection later : {Projection::up, Projection::down})
      if (later > key.projection)
        depth += adapter_.experts.count({key.layer, later}) + biases_.count({key.layer, later});
    std::string out = stem;
    for (size_t i = 0; i < depth; ++i) out += ".base_layer";
    return out;
  }

 private:
  const Adapter& adapter_;
  const std::map<ExpertKey, ExpertBias>& biases_;
};

int64_t idle_experts(const WriteContext& context, Projection projection) {
  const ModelSpec* spec = context.spec;
  return spec == nullptr ? 0 : spec->batched_experts(projection) - spec->experts;
}

// Throws Error for a base whose parameters cannot be nested below one module.
void check_base_parameters(const ModelSpec* spec) {
  if (spec == nullptr) return;
  if (spec->memory.numbered)
    throw Error(spec->model_type,
                "how transformers holds the experts of this model type as parameters is not known",
                {"say \"memory\" in a file for ", Option::model_spec, ", or use ", Option::to,
                 " peft-linear"});
  if (spec->memory.stem != spec->factor_stem(Form::memory))
    throw Error(spec->model_type,
                fmt::format("holds the parameters of its experts in modules of their own ({}, {}), "
                            "and peft-params nests them below one",
                            parent_of(parameter_name(spec, Projection::gate_up)),
                            parent_of(parameter_name(spec, Projection::down))),
                {"use ", Option::to, " peft-linear or stacked"});
}

// A pair of a parameter, and below which module.
struct WrittenPair {
  std::string stem;
  Tensor a, b;
};

WrittenPair written_pair(const ExpertKey& key, const ExpertPair& pair,
                         const WriteContext& context) {
  const std::string stem = written_stem(context, Form::memory, key.layer);
  if (has_rows(layouts::peft_params, context.spec)) {
    auto [a, b] = expert_rows(key, pair, *context.spec);
    const std::string_view below = parent_of(parameter_name(context.spec, key.projection));
    return {below.empty() ? stem : fmt::format("{}.{}", stem, below), std::move(a), std::move(b)};
  }
  if (key.projection == Projection::up && (context.spec == nullptr || context.spec->gated))
    throw Error(fmt::format("layer {} up_proj", key.layer),
                "a gated model's up is part of gate_up_proj, and no base model says that this one "
                "has no gate",
                {"name it with ", Option::base});
  auto [a, b] = stack_pair(pair, context.adapter.expert_count,
                           idle_experts(context, key.projection), context.options);
  return {stem, std::move(a), std::move(b)};
}

WrittenExperts write(const WriteContext& context) {
  WrittenExperts out;
  const Adapter& adapter = context.adapter;
  check_base_parameters(context.spec);
  const auto biases = expert_biases(adapter, context.spec);
  const Nesting nesting(adapter, biases);
  for (const auto& [key, pair] : adapter.experts) {
    const WrittenPair written = written_pair(key, pair, context);
    const std::string module = nesting.module(written.stem, key, false);
    out.tensors[lora_name(module, Side::A)] = written.a;
    out.tensors[lora_name(module, Side::B)] = written.b;
    const std::string stem = written_stem(context, Form::memory, key.layer);
    out.targets.push_back({fmt::format("{}.{}", stem, parameter_name(context.spec, key.projection)),
                           true,
                           uniform_scaling(key, pair, adapter.expert_count, "one parameter")});
  }
  for (const auto& [key, bias] : biases) {
    const std::string stem = written_stem(context, Form::memory, key.layer);
    const std::string module = nesting.module(stem, key, true);
    out.tensors[lora_name(module, Side::A)] = adapter.extras.at(bias.a).tensor;
    out.tensors[lora_name(module, Side::B)] = adapter.extras.at(bias.b).tensor;
    out.targets.push_back({bias.path, true, adapter.config.scaling(bias.path)});
  }
  return out;
}

}  // namespace

const Layout layouts::peft_params = {
    .id = "peft-params",
    .summary = "PEFT target_parameters: experts and rank on one axis",
    .names = "base_layer (gate_up) and the bare stem (down); of DBRX below mlp, gate, up, down",
    .shapes = "A [E*r, in] row e*r+k, B [out, r*E] column k*E+e; of DBRX A [r, H], B [E*I, r]",
    .sources = "PEFT >= 0.17 ParamWrapper, vLLM 3-D, Unsloth, prime-rl",
    .fused = true,
    .one_parameter = true,
    .form = Form::memory,
    .gate_up_order = std::nullopt,
    .claim = claim,
    .read = read,
    .write = write,
};

}  // namespace moelora
