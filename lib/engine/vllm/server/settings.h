#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lib/engine/engine.h"
#include "lib/engine/vllm/releases.h"

namespace moelora::vllm {

// What --max-lora-rank may be, and is when nothing is said.
inline constexpr std::array<int64_t, 9> kLegalRanks = {1, 8, 16, 32, 64, 128, 256, 320, 512};
inline constexpr int64_t kDefaultRank = 16;

// What --server-option takes; the rows stand in settings.cpp, beside what reads them.
std::span<const ServerOption> server_options();

// The server's command line with vLLM's defaults. A switch that the version does not have is off,
// and `notes` says so.
struct Settings {
  EngineVersion version;
  int64_t tp = 1;  // ranks; under expert parallel they share the experts
  bool expert_parallel = false;
  bool fully_sharded = false;
  bool mixed = false;         // --enable-mixed-moe-lora-format
  bool stacked_flag = false;  // is_3d_lora_weight of the adapters; only looked at when mixed
  bool shared_outer = false;  // --enable-moe-shared-loras
  // Wraps the experts of any class as stacked ones. No flag of the server, and none that
  // --server-option takes: it stands for classes whose tests we have no base model of.
  bool force_stacked = false;
  int64_t max_rank = kDefaultRank, slots = 1;
  bool sharded_sampling = false;  // --enable-batch-sharded-sampling
  std::string all2all, moe_backend;
  bool mxfp4 = false;  // the experts are served in MXFP4
  std::vector<std::string> notes;

  int64_t moe_tp() const { return expert_parallel ? 1 : tp; }
  int64_t ep() const { return expert_parallel ? tp : 1; }
  bool has(std::string_view change) const { return version.has(release(change)); }
};

Settings make_settings(const ServerOptions& options, const ModelSpec& spec,
                       const EngineVersion& version);

}  // namespace moelora::vllm
