// An adapter as adapter_text.h writes it down, judged by every rule. Words of their own instead of
// a tensor: "base 2" is that one of kBases, "engine vllm@0.22" judges for it too, "option
// tp-size=2" is a server option, "file stray.safetensors" puts the tensors that follow into another
// file.

#include <sstream>

#include "lib/check/run_rules.h"
#include "lib/model/base_model.h"
#include "tests/fuzz/adapter_text.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace moelora;

struct Input {
  Subject subject;
  std::optional<BaseModel> base;
  std::vector<EngineRun> engines;
  ServerOptions options;
};

void add_option(const std::string& pair, Input& input) {
  std::vector<EngineChoice> chosen;
  for (const EngineRun& run : input.engines) chosen.push_back(run.choice);
  set_server_option(input.options, pair, chosen);
}

void add_line(const std::string& line, Input& input) {
  std::istringstream words(line);
  std::string first, second;
  words >> first;
  if (first == "base") {
    size_t number = kBases.size();
    words >> number;
    input.base = base_model(number);
  } else if (first == "engine" && input.engines.size() < 4) {
    words >> second;
    input.engines.push_back({parse_engine(second), {}, {}, {}});
  } else if (first == "option") {
    words >> second;
    add_option(second, input);
  } else if (first == "file") {
    words >> second;
    input.subject.files.push_back({second, {}});
  } else if (!first.empty()) {
    add_tensor(first, words, input.subject.files.back().tensors);
  }
}

Input parse(std::string_view text) {
  const AdapterText parts = split_adapter(text);
  Input input;
  Subject& subject = input.subject;
  subject.given = subject.folder = "f";
  subject.has_config = true;
  subject.config = parse_json(parts.config, "f");
  subject.main_file = "adapter_model.safetensors";
  subject.own_files = {subject.main_file};
  subject.files.push_back({subject.main_file, {}});
  std::istringstream lines{std::string(parts.lines)};
  for (std::string line; std::getline(lines, line);) add_line(line, input);
  for (const FolderFile& file : subject.files) subject.listing.push_back(file.name);
  return input;
}

}  // namespace

// Whatever an adapter holds, every rule comes to a verdict: none throws, and neither does a plan.
void fuzz(std::string_view text) {
  Input input = parse(text);
  SubjectOptions options;
  options.threads = 1;
  interpret(input.subject, input.base, options);
  Deployment deployment;
  deployment.adapters.push_back(std::move(input.subject));
  deployment.base = std::move(input.base);
  deployment.options = input.options;
  for (EngineRun& run : input.engines) run.options = input.options;
  deployment.engines = std::move(input.engines);
  plan_engines(deployment);
  for (const EngineRun& run : deployment.engines)
    require(run.plan || run.choice.engine->plan == nullptr || !deployment.base);
  for (const Finding& finding : run_rules(deployment).findings) require(!finding.unchecked);
}
