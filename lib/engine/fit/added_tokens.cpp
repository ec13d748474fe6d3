// A tokenizer's added_tokens.json beside an adapter: SGLang takes ids beyond the base's vocabulary
// for tokens that the adapter adds, and refuses it. An adapter that really adds some has saved its
// embeddings, which no server holds either.

#include <fmt/format.h>

#include <filesystem>

#include "lib/base/error.h"
#include "lib/engine/fit/step.h"

namespace moelora::fit {
namespace {

constexpr const char* kFile = "added_tokens.json";

// Whether SGLang would refuse the file; one that is no JSON it passes by.
bool beyond_vocabulary(const std::string& path, int64_t vocab) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  try {
    const Json tokens = read_json_file(path);
    if (!tokens.is(Json::Kind::object)) return false;
    for (const auto& [token, id] : tokens.members())
      if (id.is(Json::Kind::integer) && id.as_int() >= vocab) return true;
  } catch (const Error&) {
  }
  return false;
}

void run(FitContext& context) {
  const std::string path = (std::filesystem::path(context.folder) / kFile).string();
  if (!beyond_vocabulary(path, context.spec.vocab)) return;
  context.fitting.left_files.insert(kFile);
  context.note(
      added_tokens.name,
      fmt::format("{} is left behind: it has ids beyond the base's vocabulary of {}, which "
                  "SGLang refuses",
                  kFile, context.spec.vocab));
}

}  // namespace

const FitStep added_tokens = {
    "added-tokens", "sglang",
    "a tokenizer's added_tokens.json with ids beyond the vocabulary: left "
    "behind",
    run};

}  // namespace moelora::fit
