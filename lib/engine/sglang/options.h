#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "lib/engine/engine.h"
#include "lib/engine/python_text.h"

namespace moelora::sglang {

inline constexpr std::array<ServerOption, 10> kOptions = {{
    {"lora-use-virtual-experts", "virtual-experts", ServerOption::Kind::on_off,
     "compute expert LoRA with one virtual expert for each expert and adapter"},
    {"experts-shared-outer-loras", "shared-outer", ServerOption::Kind::on_off,
     "hold one outer factor for all experts; else the adapters given at start-up decide"},
    {"enable-fused-moe-sum-all-reduce", "", ServerOption::Kind::on_off,
     "sum experts and ranks in one kernel"},
    {"disable-shared-experts-fusion", "", ServerOption::Kind::on_off,
     "keep shared experts apart from the routed ones"},
    {"lora-strict-loading", "", ServerOption::Kind::on_off,
     "refuse an adapter with a tensor that no target takes"},
    {"empty-start", "", ServerOption::Kind::on_off,
     "the server starts without adapters, and they are loaded by request"},
    {"lora-target-modules", "", ServerOption::Kind::text,
     "modules of all adapters to come, separated by commas; or all"},
    {"lora-backend", "", ServerOption::Kind::text, "kernels of dense LoRA: csgmv, triton"},
    {"moe-runner-backend", "", ServerOption::Kind::text, "kernels of the experts: triton, ..."},
    {"quantization", "", ServerOption::Kind::text, "of the base: mxfp4, fp8, modelopt_fp4 ..."},
}};

// The command line, as far as LoRA looks at it.
struct Launch {
  int64_t tp = 1, ep = 1;
  int64_t slots = 8;                      // --max-loras-per-batch; the base model takes one
  std::optional<int64_t> max_lora_rank;   // nullopt: the largest of the adapters'
  std::optional<NameSet> target_modules;  // {"all"}; nullopt: those of the adapters
  std::optional<bool> shared_outer;       // --[no-]experts-shared-outer-loras; nullopt: detect
  bool strict = false;                    // --lora-strict-loading
};

Launch launch_of(const ServerOptions& options);
bool starts_empty(const ServerOptions& options);

}  // namespace moelora::sglang
