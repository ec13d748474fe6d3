#include "lib/check/subject/read_problems.h"

#include <algorithm>
#include <set>

#include "lib/io/file.h"
#include "lib/io/safetensors_header.h"
#include "lib/io/shard_index.h"

namespace moelora {
namespace {

using Kind = ReadProblem::Kind;

// The folder's weights are pickles: nothing else could have been refused.
bool only_pickles(const Subject& subject) {
  return ending_in(subject.listing, {kSafetensorsEnding, kIndexEnding}).empty() &&
         !ending_in(subject.listing, {".bin", ".pt", ".pth"}).empty();
}

bool shards_without_index(const Subject& subject) {
  const auto names = ending_in(subject.listing, {kSafetensorsEnding});
  return ending_in(subject.listing, {kIndexEnding}).empty() && !names.empty() &&
         std::all_of(names.begin(), names.end(), [](const std::string& name) {
           return name.find("-of-") != std::string::npos;
         });
}

bool is_pickle_name(const std::string& path) {
  return path.ends_with(".bin") || path.ends_with(".pt") || path.ends_with(".pth");
}

ProblemKind kind_of(const Subject& subject, const ReadProblem& problem) {
  switch (problem.kind) {
    case Kind::no_folder:
    case Kind::no_config:
    case Kind::bad_config:
    case Kind::wrong_kind:
      return ProblemKind::unreadable;
    case Kind::no_weights:
      return ProblemKind::no_weights;
    case Kind::bad_shards:
      return ProblemKind::shards;
    case Kind::bad_weights:
      break;
  }
  if (only_pickles(subject) || is_pickle_name(subject.given)) return ProblemKind::pickle;
  return problem.file.empty() && shards_without_index(subject) ? ProblemKind::shards
                                                               : ProblemKind::malformed;
}

}  // namespace

std::vector<const ReadProblem*> problems_of(const Subject& subject, ProblemKind kind) {
  std::vector<const ReadProblem*> out;
  std::set<std::string> seen;  // the adapter's own file is read a second time with the strays
  for (const ReadProblem& problem : subject.problems)
    if (seen.insert(problem.error.what()).second && kind_of(subject, problem) == kind)
      out.push_back(&problem);
  return out;
}

bool is_stray(const Subject& subject, const ReadProblem& problem) {
  return !problem.file.empty() && !subject.main_file.empty();
}

}  // namespace moelora
