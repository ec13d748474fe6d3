#pragma once

#include <string>
#include <vector>

#include "lib/engine/engine.h"
#include "lib/engine/vllm/server/server.h"
#include "lib/model/base_model.h"

namespace moelora::test {

// A base of tests/data/families, or of loader_bases.h, and a version of vLLM.
struct VllmStart {
  BaseModel base;
  EngineVersion version;

  explicit VllmStart(const std::string& family, const std::string& release = "0.33");

  // The base with another value of its config.
  VllmStart with(const std::string& key, const Json& value) const;

  vllm::Server server(const ServerOptions& options = {}) const;
  // Of an adapter of these modules, each a pair of zeros in the file.
  ServerPlan plan(const std::vector<std::string>& modules) const;
};

// nullptr when there is none of this cause.
const PlanEvent* event(const AdapterPlan& plan, const Cause& cause);

}  // namespace moelora::test
