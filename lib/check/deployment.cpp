#include "lib/check/deployment.h"

#include <fmt/core.h>

#include <algorithm>
#include <exception>
#include <new>

#include "lib/base/utf8.h"

namespace moelora {
namespace {

// Why this run has no plan; it may have one where nothing is said.
void find_obstacle(const Deployment& deployment, EngineRun& run) {
  for (const Subject& subject : deployment.adapters)
    if (is_unreadable(subject)) {
      run.not_planned = subject.given + " could not be read";
      run.unreadable = true;
      return;
    }
  if (deployment.base_error)
    run.not_planned = deployment.base_error->what();
  else if (!deployment.base)
    run.not_planned =
        "no base model: give --base (a folder, its config.json, or a hub name we know)";
}

// A server's text may have lines of its own. A name with a newline in it would begin one, and look
// like the server's: then the text is one line.
void keep_names_on_their_lines(std::span<const ServedAdapter> adapters, ServerPlan& plan) {
  const auto has_newline = [](const ServedAdapter& adapter) {
    return std::any_of(adapter.files.begin(), adapter.files.end(), [](const WeightFile& file) {
      return std::any_of(file.tensors.begin(), file.tensors.end(), [](const TensorHeader& t) {
        return t.name.find('\n') != std::string::npos;
      });
    });
  };
  for (size_t i = 0; i < adapters.size() && i < plan.adapters.size(); ++i) {
    if (!has_newline(adapters[i])) continue;
    for (PlanEvent& event : plan.adapters[i].events)
      if (event.refusal) event.refusal->text = printable(event.refusal->text, kLongestLine);
  }
}

void plan_engine(const Deployment& deployment, std::span<const ServedAdapter> adapters,
                 EngineRun& run) {
  find_obstacle(deployment, run);
  if (!run.not_planned.empty() || run.choice.engine->plan == nullptr) return;
  try {
    run.plan = run.choice.engine->plan({adapters, deployment.base->spec, deployment.base->config,
                                        run.options, run.choice.version});
    keep_names_on_their_lines(adapters, *run.plan);
  } catch (const MachineError&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    run.not_planned = fmt::format("this tool could not follow the server: {}", error.what());
  }
}

}  // namespace

bool is_unreadable(const Subject& subject) {
  return std::any_of(subject.problems.begin(), subject.problems.end(), [](const ReadProblem& p) {
    return p.kind == ReadProblem::Kind::no_folder || p.kind == ReadProblem::Kind::bad_weights ||
           p.kind == ReadProblem::Kind::wrong_kind || p.kind == ReadProblem::Kind::bad_shards ||
           p.kind == ReadProblem::Kind::bad_config;
  });
}

Repair repair_of(const Deployment& deployment, const Subject& adapter) {
  Repair out;
  out.adapter = adapter.given;
  out.load = deployment.load;
  return out;
}

void plan_engines(Deployment& deployment) {
  std::vector<ServedAdapter> adapters;
  for (const Subject& subject : deployment.adapters) adapters.push_back(subject.served);
  for (EngineRun& run : deployment.engines) plan_engine(deployment, adapters, run);
}

}  // namespace moelora
