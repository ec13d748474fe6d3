#include "lib/check/expert_share.h"

namespace moelora {

std::optional<int64_t> local_experts(const StackedFile& file, size_t index,
                                     const Subject& subject) {
  const ModelSpec* spec = subject.spec();
  if (spec == nullptr || !file.reading) return std::nullopt;
  const int64_t rank = subject.parsed_config->scaling(parameter_path(file, index, spec)).rank;
  const int64_t rows = file.pairs[index].a->tensor.dim(0);
  if (rank <= 0 || rows <= 0 || rows % rank != 0) return std::nullopt;
  const int64_t experts = rows / rank;
  if (experts >= spec->experts || spec->experts % experts != 0) return std::nullopt;
  return experts;
}

}  // namespace moelora
