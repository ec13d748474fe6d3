#include "lib/engine/sglang/server.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/copy/copy_layer.h"
#include "lib/engine/sglang/copy/load_to_buffer.h"
#include "lib/engine/sglang/load/normalise.h"
#include "lib/engine/sglang/load/read_adapter.h"
#include "lib/engine/sglang/model/targets.h"
#include "lib/engine/sglang/names.h"
#include "lib/engine/sglang/shared_outer.h"
#include "lib/engine/sglang/start_checks.h"

namespace moelora::sglang {

Server::Server(const ModelClass& model, const Features& features, const Launch& launch)
    : model_(model), features_(features), launch_(launch), slots_(launch.slots) {}

bool Server::start(std::span<const ServedAdapter> adapters) {
  if (!has_arguments(adapters) || !divides()) return false;
  for (const ServedAdapter& served : adapters) read(served, nullptr);
  infer_targets();
  infer_rank();
  if (is_over()) return false;
  shared_outer_ =
      launch_.shared_outer ? *launch_.shared_outer : detect_shared_outer(adapters_, features_);
  if (is_over()) return false;
  wrap();
  make_pools();
  hand_over();
  has_pool_ = !is_over();
  return has_pool_ && std::none_of(adapters_.begin(), adapters_.end(),
                                   [](const auto& adapter) { return adapter.journal.refused(); });
}

bool Server::is_over() const {
  return !events_.empty() || std::any_of(adapters_.begin(), adapters_.end(), ends_the_start);
}

size_t Server::load(const ServedAdapter& adapter) {
  const PoolLimits limits{max_rank_, targets_};
  read(adapter, &limits);
  return adapters_.size() - 1;
}

void Server::read(const ServedAdapter& served, const PoolLimits* limits) {
  CpuAdapter& adapter = adapters_.emplace_back(read_config(served, model_, features_, limits));
  coverage_.emplace_back();
  if (adapter.alive) read_weights(adapter, served, model_);
  if (adapter.alive) normalise(adapter, model_, features_);
}

bool Server::has_arguments(std::span<const ServedAdapter> adapters) {
  if (!adapters.empty() || (launch_.max_lora_rank && launch_.target_modules)) return true;
  events_.push_back({&cause::server_options,
                     Effect::refused,
                     {},
                     "the server is started without adapters",
                     Refusal{"constructor", "AssertionError",
                             "When no initial --lora-paths is provided, you need to specify both "
                             "--max-lora-rank and --lora-target-modules for LoRA initialization.",
                             false}});
  return false;
}

bool Server::divides() {
  events_ = check_divisibility(model_, launch_.tp, launch_.ep);
  return events_.empty();
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

bool Server::targets_of(CpuAdapter& adapter) {
  if (adapter.all_targets && launch_.target_modules) return true;
  if (adapter.all_targets) {
    targets_.merge(detect_targets(model_, features_));
    return true;
  }
  if (!check_target_list(adapter)) return false;
  if (launch_.target_modules) return check_within(adapter, targets_);
  targets_.insert(adapter.targets.begin(), adapter.targets.end());
  return true;
}

void Server::infer_rank() {
  for (const CpuAdapter& adapter : adapters_) max_rank_ = std::max(max_rank_, adapter.r);
  max_rank_ = launch_.max_lora_rank.value_or(max_rank_);
}

// Puts a refusal of the start-up on the adapters that name the target, else on the server.
void Server::refuse_start(std::string_view target, const CpuAdapter::Raise& raise) {
  bool told = false;
  for (CpuAdapter& adapter : adapters_) {
    if (!adapter.alive || (!adapter.all_targets && adapter.targets.count(target) == 0)) continue;
    adapter.raise(raise, sources_of_target(adapter, target, features_));
    told = true;
  }
  if (told) return;
  events_.push_back(
      {raise.cause,
       Effect::refused,
       {},
       raise.detail,
       Refusal{std::string(raise.stage), std::string(raise.type), raise.text, false}});
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
  for (const HandOverError& error : check_hand_over(model_, wrapping_, pools_.front()))
    refuse_start(error.target, error.raise);
}

void Server::use(size_t index) {
  CpuAdapter& adapter = adapters_[index];
  if (!adapter.alive || !has_pool_ || adapter.layers.empty()) return;
  slots_.use(static_cast<int64_t>(index));
  if (coverage_[index]) return;
  Coverage& coverage = coverage_[index].emplace(adapter.sources);
  // What is whole without a split is whole on every rank of one, and cheaper to look at.
  if (pools_.size() > 1) {
    const CpuAdapter::Told before = adapter.told();
    const Pool single = make_pool(model_, features_, pools_.front().request, rank_of(1, 1, 0));
    load_to_buffer({adapter, model_, features_, wrapping_, coverage}, {&single, 1}, launch_.strict);
    if (!adapter.journal.refused() && coverage.all_whole()) return;
    adapter.tell_again(before);
    coverage_[index].emplace(adapter.sources);
  }
  load_to_buffer({adapter, model_, features_, wrapping_, *coverage_[index]}, pools_,
                 launch_.strict);
}

const Coverage* Server::coverage(size_t index) const {
  return coverage_[index] ? &*coverage_[index] : nullptr;
}

const Refusal* Server::first_refusal() const {
  for (const PlanEvent& event : events_)
    if (event.refusal) return &*event.refusal;
  for (const CpuAdapter& adapter : adapters_)
    if (const Refusal* refusal = adapter.journal.first_refusal()) return refusal;
  return nullptr;
}

Pool Server::pool_of(int64_t rank) const {
  return make_pool(model_, features_, pools_.front().request,
                   rank_of(launch_.tp, launch_.ep, rank));
}

void Server::writes(size_t index, const Pool& pool, WriteSink& sink) const {
  CpuAdapter copy = adapters_[index];
  load_to_buffer({copy, model_, features_, wrapping_, sink}, {&pool, 1}, false);
}

}  // namespace moelora::sglang
