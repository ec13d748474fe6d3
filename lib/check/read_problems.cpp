#include "lib/check/read_problems.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "lib/io/folder_listing.h"

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
  std::set<std::string> told;  // the adapter's own file is read a second time with the strays
  for (const ReadProblem& problem : subject.problems)
    if (told.insert(problem.error.what()).second && kind_of(subject, problem) == kind)
      out.push_back(&problem);
  return out;
}

bool is_stray(const Subject& subject, const ReadProblem& problem) {
  return !problem.file.empty() && !subject.main_file.empty();
}

void point_at(Finding& finding, const Error& error) {
  const std::string& where = error.where();
  const size_t column = where.rfind(':'), line = where.rfind(':', column - 1);
  const auto number = [&](size_t begin, size_t end) {
    int value = 0;
    const auto read = std::from_chars(where.data() + begin + 1, where.data() + end, value);
    return read.ec == std::errc() && read.ptr == where.data() + end ? value : 0;
  };
  const bool placed = column != std::string::npos && column > 0 && line != std::string::npos &&
                      number(line, column) > 0 && number(column, where.size()) > 0;
  finding.where = placed ? "" : where;
  if (!placed) return;
  finding.line = number(line, column);
  finding.column = number(column, where.size());
}

std::string place_in_file(const Error& error) {
  const std::string& where = error.where();
  const size_t at = where.find(".safetensors: ");
  return at == std::string::npos ? "" : where.substr(at + 14);
}

}  // namespace moelora
