#pragma once

#include <initializer_list>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/engine/engines.h"
#include "lib/engine/plan.h"
#include "lib/engine/release.h"
#include "lib/engine/served_adapter.h"
#include "lib/model/model_spec.h"

namespace moelora {

// A flag of the server that changes what becomes of an adapter.
struct ServerOption {
  enum class Kind : uint8_t { on_off, number, text };
  std::string_view key;    // the flag's name without dashes: "lora-use-virtual-experts"
  std::string_view alias;  // a shorter spelling we take too: "virtual-experts"; "" for none
  Kind kind;
  std::string_view summary;  // one line for --help
  // The values that known releases take, separated by blanks; "" for any. A closed set
  // takes no others; of an open one (a release may add some) others are said to be unknown.
  std::string_view choices = {};
  bool closed = false;
};

// Options of one run, by the keys of ServerOption (aliases resolved).
struct ServerOptions {
  int64_t tp = 1, ep = 1;
  std::optional<int64_t> max_lora_rank, max_loras;
  std::optional<uint64_t> gpu_memory;  // bytes of one device
  std::optional<double> compute_capability;
  std::map<std::string, std::string, std::less<>> values;

  std::optional<bool> flag(std::string_view key) const;  // nullopt: the server's default
  bool on(std::string_view key) const { return flag(key).value_or(false); }
  std::optional<int64_t> number(std::string_view key) const;
  std::string text(std::string_view key) const;  // "" when not given
};

// A note for each given value that is none of its option's choices: nothing is judged by it.
std::vector<std::string> notes_of_unknown_values(const ServerOptions& options,
                                                 const struct Engine& engine);

// The options that were given and are not off, as flags of a command line, each behind a blank:
// " --moe-runner-backend triton"; without those that the engine prints itself.
std::string flags_text(const ServerOptions& options,
                       std::initializer_list<std::string_view> without);

struct PlanRequest {
  std::span<const ServedAdapter> adapters;
  const ModelSpec& spec;
  const Json& base_config;  // the base's config.json
  const ServerOptions& options;
  const EngineVersion& version;
};

struct BufferRequest;  // lib/engine/buffers.h
struct RankBuffers;
struct ServedBlock;
struct BufferForm;
struct EngineFit;  // lib/engine/fit/engine_fit.h

// A server that loads adapters, or PEFT. Each is one folder (lib/engine/engines.h); what it does
// with an adapter is said by plan() alone: rules explain a plan and never derive it again.
struct Engine {
  std::string_view id;                // what --engine says: sglang
  std::string_view title;             // "SGLang"
  std::span<const Release> releases;  // that matter, oldest first
  std::string_view newest;    // what a bare name means: the newest that an oracle was made of
  std::string_view known_to;  // date up to which rules are known
  std::span<const ServerOption> (*options)();
  ServerPlan (*plan)(const PlanRequest& request);  // null: no loader to simulate (peft)
  // The plan of one adapter filled with values, and what the kernels make of what a rank holds.
  // Null where the engine's buffers are not known.
  RankBuffers (*fill)(const BufferRequest& request) = nullptr;
  std::vector<ServedBlock> (*blocks)(const BufferRequest& request,
                                     const RankBuffers& held) = nullptr;
  const BufferForm* buffers = nullptr;  // what --to calls them, as files; null as above
  const EngineFit* fit = nullptr;       // how adapters are made fit for it; null: not known

  const Release& release(std::string_view version) const;  // REQUIRES one of `releases`
};

std::span<const Engine* const> all_engines();
const Engine* find_engine(std::string_view id);  // null when unknown

// "vllm@0.27", or a bare name: the engine and the version. Throws Error that lists what there is.
struct EngineChoice {
  const Engine* engine;
  EngineVersion version;
  std::string label() const;  // "sglang@0.5.18"
  bool has(std::string_view release) const { return version.has(engine->release(release)); }
};
EngineChoice parse_engine(std::string_view text);

// Puts KEY=VALUE into `options`. Throws Error for a key that none of `engines` has (the nearest is
// named) or a value of the wrong kind. tp-size, ep-size, max-lora-rank and max-loras (SGLang:
// max-loras-per-batch) are the fields of the same names.
void set_server_option(ServerOptions& options, std::string_view pair,
                       std::span<const EngineChoice> engines);

}  // namespace moelora
