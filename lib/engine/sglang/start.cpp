#include "lib/engine/sglang/start.h"

#include <fmt/core.h>

#include "lib/base/error.h"
#include "lib/engine/server_class.h"
#include "lib/engine/sglang/runners.h"

namespace moelora::sglang {
namespace {

bool brings_class(const ModelSpec& spec) {
  return spec.engines.is(Json::Kind::object) && spec.engines.find("sglang") != nullptr;
}

// A class is the base's own, by name; a family's first stands in where the config names none.
void check_class(const ModelSpec& spec, const ModelClass& model) {
  const std::string& name = spec.architecture;
  const auto found = find_server_class("sglang", spec);
  if (!found)
    throw Error("SGLang",
                fmt::format("no class of it is known here for {}, and so not what it does with an "
                            "adapter",
                            name.empty() ? "the family " + spec.family : name));
  const bool other = !name.empty() && !brings_class(spec) && found->at("name").string() != name;
  if (other || model.facts.transformers_fallback)
    throw Error("SGLang",
                fmt::format("has no class {}: it falls back to a class of Transformers, whose "
                            "modules are others, and what becomes of an adapter there is not known",
                            name.empty() ? found->at("name").string() : name));
}

}  // namespace

Server start_server(const PlanRequest& request) {
  const ModelClass model = make_model_class(request.spec, request.base_config);
  check_class(request.spec, model);
  Server server(model, features_of(request.version), launch_of(request.options));
  const bool empty = starts_empty(request.options);
  server.start(empty ? std::span<const ServedAdapter>() : request.adapters);
  if (empty && server.has_pool())
    for (const ServedAdapter& adapter : request.adapters) server.load(adapter);
  server.add_events(check_arguments(request, server.features()), check_runner(request, server));
  return server;
}

}  // namespace moelora::sglang
