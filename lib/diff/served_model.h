#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/check/validation.h"
#include "lib/diff/file_scores.h"
#include "lib/engine/buffers.h"
#include "lib/forward/model_lora.h"

namespace moelora {

// An adapter read with its base, and what lib/engine says that servers do with it.
class PlannedAdapter {
 public:
  // `engines`: "sglang@0.5.23", "vllm". Throws Error as parse_engine() does, for an option that no
  // such server has, and for an adapter or a base that cannot be read.
  PlannedAdapter(const ScoreFilesOptions& options, const std::vector<std::string>& engines);
  PlannedAdapter(const PlannedAdapter&) = delete;
  PlannedAdapter& operator=(const PlannedAdapter&) = delete;

  const Subject& subject() const { return deployment().adapters.front(); }
  const BaseModel& base() const { return *deployment().base; }
  const std::vector<EngineRun>& servers() const { return deployment().engines; }
  const ModelLora& meant() const { return meant_; }

 private:
  const Deployment& deployment() const { return report_.deployments.front(); }

  ValidationReport report_;
  ModelLora meant_;
};

// What one server computes with.
struct ServedModel {
  std::string engine;      // "sglang@0.5.23"
  std::string not_served;  // the server's words where it refuses the adapter, or why nothing can be
                           // said; then there are no blocks
  std::vector<std::string> notes;  // what is not followed, for people
  std::vector<ServedBlock> blocks;
  ModelLora lora;
};

// `server` is one of adapter.servers(). Throws Error where values cannot be read.
ServedModel served_model(const PlannedAdapter& adapter, const EngineRun& server);

// Of what stands beside the deltas in `meant`: those that change something and that are not in
// `served`.
std::vector<std::string> extras_not_held(const ModelLora& meant, const ModelLora& served);

}  // namespace moelora
