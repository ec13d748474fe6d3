#pragma once

#include <array>

#include "lib/engine/engine.h"
#include "lib/engine/sglang/server.h"

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

Launch launch_of(const ServerOptions& options);
bool starts_empty(const ServerOptions& options);

// What options, quantisation and the class do to the experts of adapter `index`, after use():
// kernels that are not there, and those that compute something else.
void judge_options(Server& server, size_t index, const ServerOptions& options,
                   const Json& base_config);

}  // namespace moelora::sglang
