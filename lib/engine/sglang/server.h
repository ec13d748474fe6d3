#pragma once

#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "lib/engine/sglang/copy/copied_values.h"
#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/load/cpu_adapter.h"
#include "lib/engine/sglang/model/targets.h"
#include "lib/engine/sglang/options.h"
#include "lib/engine/sglang/pool/pool.h"

namespace moelora::sglang {

// SGLang's LoRA side of a server, without values: what its LoRAManager and LoRAMemoryPool do with
// adapters, step by step (lora/lora_manager.py, lora/mem_pool.py). Where the server would stop, the
// steps that still make sense go on, so that a plan can say more than the first fault.
//
//   Server server(model, features, launch);
//   server.start(adapters);        // --lora-paths; none for a server that starts empty
//   server.load(adapter);          // a request to load one more
//   server.use(0);                 // the first request with adapter 0: copies it to the pool
class Server {
 public:
  Server(const ModelClass& model, const Features& features, const Launch& launch);

  // LoRAManager.__init__. False where the server does not start.
  bool start(std::span<const ServedAdapter> adapters);
  // load_lora_adapter(); returns the adapter's index. REQUIRES has_pool().
  size_t load(const ServedAdapter& adapter);
  // prepare_lora_batch() with this adapter; does nothing for one that could not be loaded.
  void use(size_t index);

  // Whether there are buffers to hold adapters against. They are there, too, where the start fails
  // for an adapter that cannot be read: the others are looked at all the same.
  bool has_pool() const { return has_pool_; }
  const std::vector<PlanEvent>& events() const { return events_; }  // of no single adapter
  // What the start raises for the options alone, before it or at `wrap`; the rest goes on.
  void add_events(std::vector<PlanEvent> before, std::vector<PlanEvent> after);
  size_t count() const { return adapters_.size(); }
  const CpuAdapter& adapter(size_t index) const { return adapters_[index]; }
  // Null before use().
  const CopiedValues* copied(size_t index) const {
    return copied_[index] ? &*copied_[index] : nullptr;
  }
  CpuAdapter& mutable_adapter(size_t index) { return adapters_[index]; }

  const ModelClass& model() const { return model_; }
  const Features& features() const { return features_; }
  const Launch& launch() const { return launch_; }
  const NameSet& targets() const { return targets_; }
  int64_t max_lora_rank() const { return max_rank_; }
  bool shared_outer() const { return shared_outer_; }
  const Wrapping& wrapping() const { return wrapping_; }
  const std::vector<Pool>& pools() const { return pools_; }  // one a rank

  // The first that was raised, by the server or by an adapter; null for none.
  const Refusal* first_refusal() const;

  // What rank `rank` of the server allocates. REQUIRES has_pool().
  Pool pool_of(int64_t rank) const;

 private:
  void read(const ServedAdapter& served, const PoolRequest* pool);
  bool has_arguments(std::span<const ServedAdapter> adapters);
  void infer_targets();
  void check_indexers();
  void check_replicated_q();
  bool targets_of(CpuAdapter& adapter);
  void wrap();
  void make_pools();
  void hand_over();
  void refuse_start(std::string_view target, const CpuAdapter::Raise& raise);
  void refuse_all(const CpuAdapter::Raise& raise);
  bool is_over() const;

  ModelClass model_;
  Features features_;
  Launch launch_;
  bool has_pool_ = false;
  std::vector<PlanEvent> events_;
  std::deque<CpuAdapter> adapters_;
  std::deque<std::optional<CopiedValues>> copied_;
  NameSet targets_;
  int64_t max_rank_ = 0;
  bool shared_outer_ = false;
  Wrapping wrapping_;
  std::vector<Pool> pools_;
};

}  // namespace moelora::sglang
