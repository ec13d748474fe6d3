#include "lib/check/subject/stacked_file.h"

#include <algorithm>

#include "lib/adapter/expert_biases.h"
#include "lib/adapter/expert_rows.h"

namespace moelora {
namespace {

struct Attempt {
  std::optional<StackedReading> reading;
  std::optional<Error> problem;
};

Attempt attempt(const StackedFile& file, const Subject& subject, std::optional<Roles> roles) {
  std::vector<std::string> notes;
  Attempt out;
  try {
    out.reading = read_stacked_pairs(
        file.pairs, {subject.spec(), *subject.parsed_config, {std::nullopt, roles}, notes});
  } catch (const Error& error) {
    out.problem = error;
  }
  return out;
}

}  // namespace

std::optional<StackedFile> stacked_file(const Subject& subject) {
  if (!subject.parsed_config || subject.layout == nullptr || !subject.layout->one_parameter)
    return std::nullopt;
  // One rank, one side and no order of columns: reading the adapter itself says what is wrong.
  if (std::any_of(subject.experts.begin(), subject.experts.end(), is_row_parameter))
    return std::nullopt;
  StackedFile out;
  try {
    out.pairs = pair_up(subject.experts);
    std::vector<std::string> notes;
    take_expert_biases(out.pairs, {subject.spec(), *subject.parsed_config, {}, notes});
  } catch (const Error& error) {
    out.problem = error;
    return out;
  }
  if (out.pairs.empty()) return std::nullopt;
  std::optional<Roles> known;  // --roles
  if (subject.loaded && subject.loaded->adapter.stacked)
    known = subject.loaded->adapter.stacked->roles;
  Attempt result = attempt(out, subject, known);
  out.reading = std::move(result.reading);
  out.problem = std::move(result.problem);
  if (!out.reading)
    out.ambiguous_roles = attempt(out, subject, Roles::natural).reading.has_value() &&
                          attempt(out, subject, Roles::swapped).reading.has_value();
  return out;
}

std::vector<std::string> names_of(const StackedFile& file) {
  std::vector<std::string> out;
  for (const StackedPair& pair : file.pairs) out.insert(out.end(), {pair.a->name, pair.b->name});
  return out;
}

std::string parameter_path(const StackedFile& file, size_t index, const ModelSpec* spec) {
  const StackedPair& pair = file.pairs[index];
  return parameter_path(spec, with_layer(pair.a->path.stem, pair.layer),
                        file.reading->projection[index]);
}

int64_t stacked_experts(const StackedFile& file, const Subject& subject) {
  if (const ModelSpec* spec = subject.spec())
    return file.reading && !file.pairs.empty()
               ? spec->batched_experts(file.reading->projection.front())
               : spec->experts;
  if (!file.reading || file.pairs.empty()) return 0;
  const int64_t rank = subject.parsed_config->scaling(parameter_path(file, 0, nullptr)).rank;
  const int64_t rows = file.pairs.front().a->tensor.dim(0);
  return rank > 0 && rows % rank == 0 ? rows / rank : 0;
}

std::optional<int64_t> local_experts(const StackedFile& file, size_t index,
                                     const Subject& subject) {
  const ModelSpec* spec = subject.spec();
  if (spec == nullptr || !file.reading) return std::nullopt;
  const int64_t rank = subject.parsed_config->scaling(parameter_path(file, index, spec)).rank;
  const int64_t rows = file.pairs[index].a->tensor.dim(0);
  if (rank <= 0 || rows <= 0 || rows % rank != 0) return std::nullopt;
  const int64_t experts = rows / rank;
  const int64_t all = spec->batched_experts(file.reading->projection[index]);
  if (experts >= all || all % experts != 0) return std::nullopt;
  return experts;
}

}  // namespace moelora
