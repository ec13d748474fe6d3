#include "lib/engine/vllm/server/server.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/engine/vllm/server/module.h"
#include "lib/engine/vllm/server/start.h"

namespace moelora::vllm {
namespace {

std::string_view leaf(std::string_view name) { return name.substr(name.rfind('.') + 1); }

// In the order of w1, w2, w3; of experts without a gate: up, down.
std::vector<std::string> expert_words(const ExpertNames& names) {
  if (names.gate.empty()) return {names.up, names.down};
  return {names.gate, names.down, names.up};
}

std::vector<std::string> expert_names(const Server& server) {
  if (server.spec.experts == 0) return {};
  if (server.settings.shared_outer) return {"experts.w1", "experts.w2", "experts.w3"};
  if (server.stacked()) return {};
  std::vector<std::string> out;
  const std::vector<std::string> words = expert_words(server.model.expert_names);
  for (int64_t e = 0; e < server.spec.experts; ++e)
    for (const std::string& word : words)
      out.push_back("experts." + std::to_string(e) + "." + word);
  return out;
}

// Where gate_up_proj of a dense layer is not packed, its own name is accepted (and no module is
// wrapped: no layer class fits).
bool has_unpacked_gate_up(const Server& server, const Json& base_config) {
  const auto& linears = server.spec.linears;
  return !packs_gate_up(server, base_config) &&
         std::any_of(linears.begin(), linears.end(),
                     [](const LinearSpec& linear) { return linear.role == Role::dense_mlp; });
}

void accept_names(Server& server) {
  for (const Module& module : server.modules) {
    if (!module.packed) server.accepted.emplace(leaf(module.name));
    for (const Child& child : module.children) server.accepted.emplace(leaf(child.name));
  }
  server.accepted.insert(server.model.unwrapped.begin(), server.model.unwrapped.end());
  if (server.spec.experts > 0) server.accepted.emplace("experts");
  server.accepted.insert(server.expert_names.begin(), server.expert_names.end());
}

}  // namespace

bool Server::stacked() const {
  return settings.force_stacked || (model.stacked && !settings.mixed);
}

int64_t Server::intermediate() const {
  const int64_t mine = spec.intermediate / settings.moe_tp();
  if (!settings.mxfp4) return mine;
  const int64_t step = settings.moe_backend == "marlin" ? 128 : 64;
  return (mine + step - 1) / step * step;
}

Server make_server(const ModelSpec& spec, const Json& base_config, Settings settings) {
  std::optional<ModelClass> model = find_model_class(spec);
  if (!model)
    throw Error(spec.architecture.empty() ? spec.model_type : spec.architecture,
                "is no model class of vLLM that this tool knows");
  Server out{spec, std::move(*model), std::move(settings), {}, {}, {}, {}};
  out.modules = make_modules(out, base_config);
  out.expert_names = expert_names(out);
  accept_names(out);
  if (has_unpacked_gate_up(out, base_config)) out.accepted.emplace("gate_up_proj");
  out.events = start_events(out);
  return out;
}

}  // namespace moelora::vllm
