#include "lib/engine/sglang/server.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/copy/load_to_buffer.h"
#include "lib/engine/sglang/load/load_weights.h"
#include "lib/engine/sglang/load/read_config.h"
#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

// What one tensor says; nullopt for nothing.
std::optional<bool> says_shared(const Staged& entry, const Features& features) {
  if (!entry.is_a() || !contains(entry.name, "gate_up_proj")) return std::nullopt;
  if (entry.rank() == 3) return entry.shape[0] == 1;
  if (features.detects_numbered && expert_of(entry.name)) return false;
  return std::nullopt;
}

void refuse_mixed(CpuAdapter& adapter, const Staged& entry) {
  adapter.raise(
      {&cause::mixed_shared_outer, stage::kDetect, "RuntimeError",
       fmt::format("Mixed shared-outer LoRA formats detected across loaded adapters (conflict in "
                   "adapter '{}'). All MoE adapters must either all use shared outer experts "
                   "(expert_dim=1) or all use per-expert weights.",
                   in_text(adapter.name)),
       "shared-outer and per-expert factors are given together"},
      entry.sources());
}

// LoRAManager._detect_shared_outer_loras(): whether the pool holds one outer factor for all
// experts, by gate_up's lora_A of every adapter given at start-up. Adapters that disagree are
// refused. No evidence means no.
bool detect_shared_outer(std::deque<CpuAdapter>& adapters, const Features& features) {
  std::optional<bool> shared;
  if (!features.detects_shared_outer) return false;
  for (CpuAdapter& adapter : adapters) {
    if (!adapter.alive) continue;
    const Staged* disagrees = nullptr;
    for (LayerWeights& weights : adapter.layers)
      weights.each([&](const Staged& entry) {
        const auto says = says_shared(entry, features);
        if (!says || disagrees != nullptr) return;
        if (!shared) shared = says;
        if (*says != *shared) disagrees = &entry;
      });
    if (disagrees == nullptr) continue;
    refuse_mixed(adapter, *disagrees);
    break;
  }
  return shared.value_or(false);
}

bool is_router(std::string_view leaf) {
  return leaf == "router" || leaf == "gate" || leaf == "shared_expert_gate" || leaf == "wg";
}

bool is_gdn(std::string_view leaf) {
  return leaf.starts_with("in_proj_") && leaf != "in_proj_qkvz";
}

CpuAdapter::Raise unsupported_module(const ClassModule& module) {
  const std::string type =
      module.python_type.empty() ? "sglang.srt.layers.linear.ReplicatedLinear" : module.python_type;
  return {is_router(module.leaf()) ? &cause::router_target : &cause::w_names_in_targets,
          stage::kWrap, "Exception",
          fmt::format("No corresponding LoRA layer supported for <class '{}'>.", type),
          fmt::format("target_modules names {}, which SGLang cannot adapt", module.leaf())};
}

CpuAdapter::Raise pool_error(const PoolError& error) {
  const Cause* const cause = is_router(error.module)          ? &cause::router_target
                             : is_gdn(error.module)           ? &cause::split_gdn
                             : error.type == "AttributeError" ? &cause::no_such_module
                                                              : &cause::w_names_in_targets;
  return {cause, stage::kPool, error.type, error.text,
          fmt::format("target_modules names {}, for which SGLang has no buffer",
                      in_text(error.module))};
}

// update_lora_info(), which hands a wrapped module its buffer: what is raised there.
std::optional<CpuAdapter::Raise> hand_over_error(const WrappedModule& wrapped,
                                                 const ModelClass& model, const Pool& pool) {
  const Buffer* buffer = pool.find(wrapped.buffer);
  if (buffer == nullptr) {
    for (const PoolError& error : pool.errors)
      if (error.module == wrapped.buffer) return std::nullopt;  // refused before
    const bool moe = wrapped.module->kind == LayerKind::fused_moe;
    return CpuAdapter::Raise{moe ? &cause::moe_buffer_missing : &cause::dense_buffer_missing,
                             stage::kHandOver, "KeyError", py_repr(wrapped.buffer),
                             moe ? "this version has buffers for experts only where the config "
                                   "spells num_experts and the model has shared experts"
                                 : "the model has dense layers, and no shared experts: SGLang "
                                   "allocates no buffer for them"};
  }
  if (wrapped.module->kind != LayerKind::merged) return std::nullopt;
  const auto shares = shares_of(*wrapped.module, model.config, pool.rank);
  int64_t rows = 0;
  for (const Span& share : shares) rows += share.count;
  const int64_t held = buffer->b[static_cast<size_t>(wrapped.module->layer)][0];
  if (rows == held) return std::nullopt;
  return CpuAdapter::Raise{
      &cause::qwen2_moe_shared_size, stage::kHandOver, "ValueError",
      fmt::format("LoRA B output dim {} does not match base partition prefix dim {} for {} slices.",
                  held, rows, shares.size()),
      fmt::format("SGLang takes the rows of {} for {}, the layer has {}", wrapped.module->name,
                  held, rows)};
}

// The tensors of an adapter that belong to a (normalised) target.
std::vector<int32_t> sources_of_target(const CpuAdapter& adapter, std::string_view target,
                                       const Features& features) {
  std::vector<int32_t> out;
  for (size_t i = 0; i < adapter.sources.size(); ++i)
    if (normalised_target(module_of(adapter.sources[i].name), features) == target)
      out.push_back(static_cast<int32_t>(i));
  return out;
}

}  // namespace

Server::Server(const ModelClass& model, const Features& features, const Launch& launch)
    : model_(model), features_(features), launch_(launch) {}

bool Server::start(std::span<const ServedAdapter> adapters) {
  if (!has_arguments(adapters)) return false;
  if (const auto event = check_divisibility(model_, launch_.tp, launch_.ep)) {
    events_.push_back(*event);
    return false;
  }
  for (const ServedAdapter& served : adapters) read(served, nullptr);
  infer_targets();
  for (const CpuAdapter& adapter : adapters_) max_rank_ = std::max(max_rank_, adapter.r);
  if (launch_.max_lora_rank) max_rank_ = *launch_.max_lora_rank;
  check_indexers();
  if (is_over()) return false;
  check_replicated_q();
  shared_outer_ =
      launch_.shared_outer ? *launch_.shared_outer : detect_shared_outer(adapters_, features_);
  if (is_over()) return false;
  wrap();
  make_pools();
  hand_over();
  has_pool_ = !is_over();
  return has_pool_ &&
         std::none_of(adapters_.begin(), adapters_.end(), [](const CpuAdapter& adapter) {
           return adapter.outcome.events.first_refusal() != nullptr;
         });
}

bool Server::is_over() const {
  return !events_.empty() || std::any_of(adapters_.begin(), adapters_.end(), ends_the_start);
}

size_t Server::load(const ServedAdapter& adapter) {
  read(adapter, &pools_.front().request);
  return adapters_.size() - 1;
}

void Server::read(const ServedAdapter& served, const PoolRequest* pool) {
  CpuAdapter& adapter = adapters_.emplace_back(read_config(served, model_, features_, pool));
  copied_.emplace_back();
  if (adapter.alive) load_weights(adapter, served, model_, features_);
}

bool Server::has_arguments(std::span<const ServedAdapter> adapters) {
  if (!adapters.empty() || (launch_.max_lora_rank && launch_.target_modules)) return true;
  refuse_all({&cause::server_options, "constructor", "AssertionError",
              "When no initial --lora-paths is provided, you need to specify both --max-lora-rank "
              "and --lora-target-modules for LoRA initialization.",
              "the server is started without adapters"});
  return false;
}

// LoRAManager.init_lora_shapes(): the modules of the command line, else the union of the adapters'.
void Server::infer_targets() {
  const bool all = launch_.target_modules && *launch_.target_modules == NameSet{"all"};
  if (all) {
    targets_ = detect_targets(model_, features_);
    targets_.insert({"embed_tokens", "lm_head"});
  } else if (launch_.target_modules) {
    for (const std::string& name : *launch_.target_modules)
      targets_.insert(normalised_target(name, features_));
  }
  for (CpuAdapter& adapter : adapters_)
    if (adapter.alive && !targets_of(adapter)) adapter.alive = false;
}

// LoRAManager.init_lora_shapes(): on CUDA an indexer whose RoPE is interleaved (before 0.5.23 any)
// holds wk and weights_proj as one module.
void Server::check_indexers() {
  NameSet targets;
  for (const std::string& target : targets_)
    if (features_.indexer && is_indexer(target)) targets.insert(target);
  const bool any = std::any_of(model_.modules.begin(), model_.modules.end(),
                               [](const auto& one) { return contains(one.name, ".indexer."); });
  const bool fused = !features_.asks_indexers || (any && model_.indexer_interleaves);
  if (targets.empty() || !fused) return;
  const CpuAdapter::Raise raise{
      &cause::server_options, stage::kShapes, "ValueError",
      fmt::format("LoRA targets the DSA indexer ({}), which is incompatible with DSA indexer Q/K "
                  "fusion. Set SGLANG_DISABLE_DSA_INDEXER_FUSION=1 to disable fusion and use "
                  "indexer LoRA.",
                  py_list(targets)),
      "the server's indexer is fused on CUDA unless SGLANG_DISABLE_DSA_INDEXER_FUSION=1 is set"};
  for (const std::string& target : targets) refuse_start(target, raise);
}

// LoRAManager._validate_replicated_q_targets().
void Server::check_replicated_q() {
  if (!features_.refuses_replicated_q || !launch_.replicated_q) return;
  NameSet queries;
  for (const char* name : {"kv_b_proj", "q_b_proj", "qkv_proj"})
    if (targets_.count(std::string_view(name)) != 0) queries.insert(name);
  if (queries.empty()) return;
  const Refusal refusal{
      std::string(stage::kShapes), "ValueError",
      fmt::format("Replicated-Q decode is incompatible with LoRA targets {}; pass "
                  "--no-dcp-replicate-q-proj to use the local-head Q path.",
                  py_list(queries)),
      false};
  events_.push_back({&cause::replicated_q,
                     Effect::refused,
                     {},
                     "every rank decodes with all heads of the queries",
                     refusal});
}

bool Server::targets_of(CpuAdapter& adapter) {
  if (adapter.all_targets && launch_.target_modules) return true;
  if (adapter.all_targets) {
    targets_.merge(detect_targets(model_, features_));
    return true;
  }
  if (!check_listed_targets(adapter)) return false;
  if (launch_.target_modules) return check_targets_within(adapter, targets_);
  targets_.insert(adapter.targets.begin(), adapter.targets.end());
  return true;
}

// Puts a refusal of the start-up on the adapters that name the target, else on the server.
void Server::refuse_start(std::string_view target, const CpuAdapter::Raise& raise) {
  bool named = false;
  for (CpuAdapter& adapter : adapters_) {
    if (!adapter.alive || (!adapter.all_targets && adapter.targets.count(target) == 0)) continue;
    adapter.raise(raise, sources_of_target(adapter, target, features_));
    named = true;
  }
  if (!named) refuse_all(raise);
}

void Server::refuse_all(const CpuAdapter::Raise& raise) {
  const Refusal refusal{std::string(raise.stage), std::string(raise.type), raise.text};
  events_.push_back({raise.cause, Effect::refused, {}, raise.detail, refusal});
}

void Server::wrap() {
  wrapping_ = wrap_modules(model_, features_, targets_);
  for (const ClassModule* module : wrapping_.unsupported)
    refuse_start(normalised_target(module->leaf(), features_), unsupported_module(*module));
}

void Server::make_pools() {
  const PoolRequest request{targets_, max_rank_, shared_outer_};
  constexpr int64_t kMostRanks = 64;  // that are looked at; the others are alike
  const int64_t ranks = std::clamp<int64_t>(launch_.tp, 1, kMostRanks);
  for (int64_t i = 0; i < ranks; ++i)
    pools_.push_back(make_pool(model_, features_, request, rank_of(launch_.tp, launch_.ep, i)));
  for (const PoolError& error : pools_.front().errors)
    refuse_start(error.module, pool_error(error));
}

void Server::hand_over() {
  NameSet refused;  // targets, each for its first module
  for (const auto& layer : wrapping_.layers)
    for (const WrappedModule& wrapped : layer) {
      const std::string target = wrapped.buffer.substr(0, wrapped.buffer.rfind("_moe"));
      if (refused.count(target) != 0) continue;
      const auto error = hand_over_error(wrapped, model_, pools_.front());
      if (!error) continue;
      refuse_start(target, *error);
      refused.insert(target);
    }
}

void Server::use(size_t index) {
  CpuAdapter& adapter = adapters_[index];
  if (!adapter.alive || !has_pool_ || adapter.layers.empty()) return;
  if (copied_[index]) return;
  CopiedValues& copied = copied_[index].emplace(adapter.sources);
  // What is whole without a split is whole on every rank of one, and cheaper to look at.
  if (pools_.size() > 1) {
    const CpuAdapter::Outcome before = adapter.outcome;
    const Pool single = make_pool(model_, features_, pools_.front().request, rank_of(1, 1, 0));
    load_to_buffer({adapter, model_, features_, wrapping_, copied}, {&single, 1}, launch_.strict);
    if (adapter.outcome.events.first_refusal() == nullptr && copied.all_whole()) return;
    adapter.outcome = before;
    copied_[index].emplace(adapter.sources);
  }
  load_to_buffer({adapter, model_, features_, wrapping_, *copied_[index]}, pools_, launch_.strict);
}

const Refusal* Server::first_refusal() const {
  for (const PlanEvent& event : events_)
    if (event.refusal) return &*event.refusal;
  for (const CpuAdapter& adapter : adapters_)
    if (const Refusal* refusal = adapter.outcome.events.first_refusal()) return refusal;
  return nullptr;
}

void Server::add_events(std::vector<PlanEvent> before, std::vector<PlanEvent> after) {
  events_.insert(events_.begin(), std::make_move_iterator(before.begin()),
                 std::make_move_iterator(before.end()));
  events_.insert(events_.end(), std::make_move_iterator(after.begin()),
                 std::make_move_iterator(after.end()));
}

Pool Server::pool_of(int64_t rank) const {
  return make_pool(model_, features_, pools_.front().request,
                   rank_of(launch_.tp, launch_.ep, rank));
}

}  // namespace moelora::sglang
